package sources

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"

	"sluice/bus"
)

const (
	// s3BodyTimeout is for a request to the other S3 that moves bytes, of any size.
	s3BodyTimeout = time.Hour
	// s3ChangeTimeout is for a change, and a second more for each s3ChangePace of bytes:
	// as long as it lasts nobody else may change the object.
	s3ChangeTimeout = time.Minute
	s3ChangePace    = 64 << 10
	// s3AskTimeout is for a request that moves no bytes.
	s3AskTimeout = 20 * time.Second
	// doubtRemoved is the doubt of a removal; that of an upload is its mark.
	doubtRemoved = "removed"
)

// forwardBackend passes objects on to another S3. It takes bodies in to the last byte
// before it sends them on: what is not what the client signed never gets there. The
// event of a change is written down before the change is asked for, with a doubt: when
// the answer is lost, a mark in the metadata of the object tells what became of it.
type forwardBackend struct {
	diskBackend // for the files of bodies under way, and the multipart uploads
	to          *s3.Client
	remote      *S3Remote
}

var (
	_ gofakes3.Backend          = (*forwardBackend)(nil)
	_ gofakes3.MultipartBackend = (*forwardBackend)(nil)
)

func newForwardBackend(ctx context.Context, remote *S3Remote, disk diskBackend) (*forwardBackend, error) {
	client, err := remote.client(ctx, 0)
	if err != nil {
		return nil, err
	}
	b := &forwardBackend{diskBackend: disk, to: client, remote: remote}
	b.out.happened = b.happened
	ctx, cancel := asking(ctx)
	defer cancel()
	if _, err := b.to.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.remote.Bucket}); err != nil {
		return nil, fmt.Errorf("cannot forward objects: %w", remote.explain(err))
	}
	return b, nil
}

// asking bounds a request that moves no bytes.
func asking(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s3AskTimeout)
}

// sending bounds a change of so many bytes that was begun, whether or not the client
// still waits.
func sending(ctx context.Context, size int64) (context.Context, context.CancelFunc) {
	most := s3ChangeTimeout + time.Duration(size/s3ChangePace)*time.Second
	return context.WithTimeout(context.WithoutCancel(ctx), min(most, s3BodyTimeout))
}

func apiCode(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// upstream is the answer to an error of the other S3: one that the client has to know
// of is passed on, any other is worth another attempt.
func (b *forwardBackend) upstream(key string, err error) error {
	switch code := apiCode(err); code {
	case "":
		if err == nil {
			return nil
		}
	case "NoSuchKey", "NotFound":
		return gofakes3.KeyNotFound(key)
	case "NoSuchUpload", "InvalidPart", "InvalidPartOrder", "InvalidRange", "PreconditionFailed", "EntityTooLarge", "InvalidRequest":
		return gofakes3.ErrorMessage(gofakes3.ErrorCode(code), "The S3 behind this endpoint says so.")
	case "EntityTooSmall":
		return gofakes3.ErrorMessage(gofakes3.ErrInvalidRequest, "A part but the last is smaller than the S3 behind this endpoint takes.")
	}
	b.out.env.Log.Warn("the S3 that objects are forwarded to does not do what it is asked", "key", key, "err", b.remote.explain(err))
	return gofakes3.ErrorMessage(gofakes3.ErrSlowDown, "The S3 behind this endpoint does not take this now: try again.")
}

// happened tells whether the upload with that mark, or the removal, was done.
func (b *forwardBackend) happened(ctx context.Context, name objectName, doubt string) (bool, error) {
	// Who asks once more about an upload that is noted as complete is told so, whatever
	// became of the object since.
	if done, err := b.out.completed(doubt); done || err != nil {
		return done, err
	}
	head, err := b.head(ctx, name.key)
	if err != nil || head == nil {
		return head == nil && doubt == doubtRemoved, err
	}
	return head.Metadata[markHeader] == doubt, nil
}

// head asks for what the other S3 knows of an object: nil when there is none.
func (b *forwardBackend) head(ctx context.Context, key string) (*s3.HeadObjectOutput, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	head, err := b.to.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.remote.Bucket, Key: &key})
	if code := apiCode(err); code == "NotFound" || code == "NoSuchKey" {
		return nil, nil
	}
	return head, err
}

// mayNotLook tells whether an error is that of credentials that may only write: then
// what the other S3 answers to a write has to do.
func mayNotLook(err error) bool {
	code := apiCode(err)
	return code == "Forbidden" || code == "AccessDenied"
}

// change asks the other S3 for a change of so many bytes, with its event in doubt until
// it answers. The object is locked.
func (b *forwardBackend) change(ctx context.Context, name objectName, size int64, e bus.Event, doubt string, ask func(context.Context) error) error {
	if err := errors.Join(b.out.room(), b.out.flush(name)); err != nil {
		return slowDown(err)
	}
	var due dueEvent
	err := b.out.update(func(tx *bbolt.Tx) (err error) {
		due, err = b.out.add(tx, name, e, doubt)
		return err
	})
	if err != nil {
		return storeFault(err)
	}
	ctx, cancel := sending(ctx, size)
	defer cancel()
	if err := ask(ctx); err != nil {
		b.out.wait(due) // it is told apart later whether it was done
		return b.upstream(name.key, err)
	}
	due.doubt = ""
	return slowDown(b.out.publish([]dueEvent{due}))
}

// created makes the event of an upload. A call that the client sends again, since the
// answer got lost, makes the same event; "" is one that cannot be known again.
func (b *forwardBackend) created(ctx context.Context, name objectName, rec *objectRecord, what, call string) (bus.Event, error) {
	if gofakes3.HasWriteConditions(ctx) || call != "" && sentBefore(ctx) {
		head, err := b.head(ctx, name.key)
		if err != nil && (gofakes3.HasWriteConditions(ctx) || !mayNotLook(err)) {
			return bus.Event{}, b.upstream(name.key, err)
		}
		etag := ""
		if head != nil {
			etag = hex.EncodeToString(libraryHash(plainETag(aws.ToString(head.ETag))))
			rec.Sequencer = cmp.Or(rec.Sequencer, sequencerOf(head.Metadata[markHeader], call))
		}
		if err := gofakes3.CheckWriteConditions(ctx, head != nil, etag); err != nil {
			return bus.Event{}, err
		}
	}
	if rec.Sequencer == "" {
		rec.Sequencer = b.out.sequencer(time.Now())
	}
	rec.Modified = sequencerTime(rec.Sequencer)
	e, err := rec.upload(name, what).event()
	if err != nil {
		return e, gofakes3.ErrorInvalidArgument("key", name.key, "This cannot become an event: "+err.Error())
	}
	return e, nil
}

// PutObject is gofakes3.Backend.PutObject.
func (b *forwardBackend) PutObject(ctx context.Context, bucket, key string, meta map[string]string, from io.Reader, size int64) (gofakes3.PutObjectResult, error) {
	file, sum, err := b.stage(ctx, from, size)
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	defer b.discard([]string{file.Name})
	body, err := os.Open(b.path(file.Name))
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	defer body.Close() //nolint:errcheck // it was only read
	name := objectName{bucket, key}
	defer b.out.lock(name)()
	rec := &objectRecord{Size: file.Size, ETag: hex.EncodeToString(sum), Meta: meta}
	call := callOf(ctx, rec.ETag)
	e, err := b.created(ctx, name, rec, createdPut, call)
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	m := newForwardMeta(meta, markOf(rec.Sequencer, call))
	err = b.change(ctx, name, file.Size, e, m.mark, func(ctx context.Context) error {
		_, err := b.to.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &b.remote.Bucket, Key: &key, Body: body, ContentLength: &file.Size, Metadata: m.user,
			ContentType: m.get("Content-Type"), CacheControl: m.get("Cache-Control"), ContentDisposition: m.get("Content-Disposition"),
			ContentEncoding: m.get("Content-Encoding"), ContentLanguage: m.get("Content-Language"),
		})
		return err
	})
	return gofakes3.PutObjectResult{ETag: rec.quoted()}, err
}

// CopyObject is gofakes3.Backend.CopyObject.
func (b *forwardBackend) CopyObject(ctx context.Context, fromBucket, fromKey, bucket, key string, meta map[string]string) (gofakes3.CopyObjectResult, error) {
	name := objectName{bucket, key}
	defer b.out.lock(name)()
	if !slices.Contains(b.buckets, fromBucket) {
		return gofakes3.CopyObjectResult{}, gofakes3.BucketNotFound(fromBucket)
	}
	source, err := b.HeadObject(ctx, fromBucket, fromKey)
	if err != nil {
		return gofakes3.CopyObjectResult{}, err
	}
	rec := &objectRecord{Size: source.Size, Meta: meta}
	call := callOf(ctx, hex.EncodeToString(source.Hash))
	e, err := b.created(ctx, name, rec, createdCopy, call)
	if err != nil {
		return gofakes3.CopyObjectResult{}, err
	}
	m := newForwardMeta(meta, markOf(rec.Sequencer, call))
	var out *s3.CopyObjectOutput
	err = b.change(ctx, name, rec.Size, e, m.mark, func(ctx context.Context) (err error) {
		out, err = b.to.CopyObject(ctx, &s3.CopyObjectInput{
			Bucket: &b.remote.Bucket, Key: &key, CopySource: aws.String(copySource(b.remote.Bucket, fromKey)),
			MetadataDirective: types.MetadataDirectiveReplace, Metadata: m.user,
			ContentType: m.get("Content-Type"), CacheControl: m.get("Cache-Control"), ContentDisposition: m.get("Content-Disposition"),
			ContentEncoding: m.get("Content-Encoding"), ContentLanguage: m.get("Content-Language"),
		})
		return err
	})
	if out == nil || out.CopyObjectResult == nil {
		return gofakes3.CopyObjectResult{}, err
	}
	return gofakes3.CopyObjectResult{ETag: aws.ToString(out.CopyObjectResult.ETag), LastModified: gofakes3.NewContentTime(rec.Modified)}, err
}

// copySource is a bucket and a key as the header has them: percent-encoded.
func copySource(bucket, key string) string {
	return bucket + "/" + gofakes3.URLEncode(key)
}

// DeleteObject is gofakes3.Backend.DeleteObject.
func (b *forwardBackend) DeleteObject(ctx context.Context, bucket, key string) (gofakes3.ObjectDeleteResult, error) {
	name := objectName{bucket, key}
	defer b.out.lock(name)()
	if _, err := b.HeadObject(ctx, bucket, key); gofakes3.HasErrorCode(err, gofakes3.ErrNoSuchKey) {
		return gofakes3.ObjectDeleteResult{}, slowDown(b.out.flush(name))
	} else if err != nil {
		return gofakes3.ObjectDeleteResult{}, err
	}
	now := time.Now().UTC()
	u := upload{name: removedDelete, bucket: bucket, key: key, size: noSize, sequencer: b.out.sequencer(now), at: now}
	e, err := u.event()
	if err != nil {
		return gofakes3.ObjectDeleteResult{}, err
	}
	return gofakes3.ObjectDeleteResult{}, b.change(ctx, name, 0, e, doubtRemoved, func(ctx context.Context) error {
		_, err := b.to.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.remote.Bucket, Key: &key})
		return err
	})
}

// DeleteMulti is gofakes3.Backend.DeleteMulti.
func (b *forwardBackend) DeleteMulti(ctx context.Context, bucket string, keys ...string) (result gofakes3.MultiDeleteResult, _ error) {
	for _, key := range keys {
		if _, err := b.DeleteObject(ctx, bucket, key); err != nil {
			fault := gofakes3.ErrorResultFromError(err)
			fault.Key = key
			result.Error = append(result.Error, fault)
			continue
		}
		result.Deleted = append(result.Deleted, gofakes3.ObjectID{Key: key})
	}
	return result, nil
}

// HeadObject is gofakes3.Backend.HeadObject.
func (b *forwardBackend) HeadObject(ctx context.Context, bucket, key string) (*gofakes3.Object, error) {
	ctx, cancel := asking(ctx)
	defer cancel()
	out, err := b.to.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.remote.Bucket, Key: &key})
	if err != nil {
		return nil, b.upstream(key, err)
	}
	obj := &gofakes3.Object{Name: key, Size: aws.ToInt64(out.ContentLength), Contents: http.NoBody}
	describe(obj, out.Metadata, out.ETag, out.LastModified, map[string]*string{
		"Content-Type": out.ContentType, "Cache-Control": out.CacheControl, "Content-Disposition": out.ContentDisposition,
		"Content-Encoding": out.ContentEncoding, "Content-Language": out.ContentLanguage,
	})
	return obj, nil
}

// describe fills in what the library has of an object besides its bytes.
func describe(obj *gofakes3.Object, user map[string]string, etag *string, modified *time.Time, head map[string]*string) {
	obj.Hash, obj.Metadata = libraryHash(plainETag(aws.ToString(etag))), make(map[string]string)
	for name, v := range user {
		if name != markHeader {
			obj.Metadata["X-Amz-Meta-"+name] = v
		}
	}
	for name, v := range head {
		if v != nil {
			obj.Metadata[name] = *v
		}
	}
	obj.Metadata["Last-Modified"] = aws.ToTime(modified).UTC().Format(http.TimeFormat)
}

// GetObject is gofakes3.Backend.GetObject.
func (b *forwardBackend) GetObject(ctx context.Context, bucket, key string, want *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	in := &s3.GetObjectInput{Bucket: &b.remote.Bucket, Key: &key}
	if want != nil {
		in.Range = aws.String(rangeHeader(want))
	}
	ctx, cancel := context.WithTimeout(ctx, s3BodyTimeout)
	out, err := b.to.GetObject(ctx, in)
	if err != nil {
		cancel()
		return nil, b.upstream(key, err)
	}
	body := &remoteBody{out.Body, cancel}
	obj := &gofakes3.Object{Name: key, Size: aws.ToInt64(out.ContentLength), Contents: body}
	describe(obj, out.Metadata, out.ETag, out.LastModified, map[string]*string{
		"Content-Type": out.ContentType, "Cache-Control": out.CacheControl, "Content-Disposition": out.ContentDisposition,
		"Content-Encoding": out.ContentEncoding, "Content-Language": out.ContentLanguage,
	})
	if text := aws.ToString(out.ContentRange); want != nil && text != "" {
		var first, last, size int64
		if _, err := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &size); err != nil {
			return nil, errors.Join(b.upstream(key, fmt.Errorf("a Content-Range of %q: %w", text, err)), body.Close())
		}
		obj.Size, obj.Range = size, &gofakes3.ObjectRange{Start: first, Length: last - first + 1}
	}
	return obj, nil
}

// remoteBody is a body whose request ends with it.
type remoteBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close is io.Closer.
func (r *remoteBody) Close() error {
	defer r.cancel()
	return r.ReadCloser.Close()
}

func rangeHeader(want *gofakes3.ObjectRangeRequest) string {
	switch {
	case want.FromEnd:
		return "bytes=-" + strconv.FormatInt(want.End, 10)
	case want.End == gofakes3.RangeNoEnd:
		return fmt.Sprintf("bytes=%d-", want.Start)
	}
	return fmt.Sprintf("bytes=%d-%d", want.Start, want.End)
}

// ListBucket is gofakes3.Backend.ListBucket.
func (b *forwardBackend) ListBucket(ctx context.Context, bucket string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	in := &s3.ListObjectsInput{Bucket: &b.remote.Bucket, MaxKeys: aws.Int32(gofakes3.MaxBucketKeys)}
	if prefix != nil {
		in.Prefix, in.Delimiter = &prefix.Prefix, &prefix.Delimiter
	}
	if page.Marker != "" {
		in.Marker = &page.Marker
	}
	if page.MaxKeys > 0 {
		in.MaxKeys = aws.Int32(int32(min(page.MaxKeys, gofakes3.MaxBucketKeys))) //nolint:gosec // it is 1000 at most
	}
	ctx, cancel := asking(ctx)
	defer cancel()
	out, err := b.to.ListObjects(ctx, in)
	if err != nil {
		return nil, b.upstream("", err)
	}
	list := gofakes3.NewObjectList()
	list.IsTruncated, list.NextMarker = aws.ToBool(out.IsTruncated), aws.ToString(out.NextMarker)
	for _, o := range out.Contents {
		list.Add(&gofakes3.Content{
			Key: aws.ToString(o.Key), Size: aws.ToInt64(o.Size), ETag: aws.ToString(o.ETag), StorageClass: gofakes3.StorageStandard,
			LastModified: gofakes3.NewContentTime(aws.ToTime(o.LastModified)),
		})
	}
	for _, p := range out.CommonPrefixes {
		list.AddPrefix(aws.ToString(p.Prefix))
	}
	if n := len(list.Contents); list.IsTruncated && list.NextMarker == "" && n > 0 {
		list.NextMarker = list.Contents[n-1].Key
	}
	return list, nil
}
