package sources

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"
)

// CreateMultipartUpload is gofakes3.MultipartBackend.CreateMultipartUpload. The id is
// that of the other S3.
func (b *forwardBackend) CreateMultipartUpload(ctx context.Context, bucket, key string, meta map[string]string) (gofakes3.UploadID, error) {
	if id, ok := ctx.Value(restored{}).(gofakes3.UploadID); ok {
		return id, nil
	}
	m := newForwardMeta(meta, rand.Text())
	ctx, cancel := asking(ctx)
	defer cancel()
	out, err := b.to.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{
		Bucket: &b.remote.Bucket, Key: &key, Metadata: m.user,
		ContentType: m.get("Content-Type"), CacheControl: m.get("Cache-Control"), ContentDisposition: m.get("Content-Disposition"),
		ContentEncoding: m.get("Content-Encoding"), ContentLanguage: m.get("Content-Language"),
	})
	if err != nil {
		return "", b.upstream(key, err)
	}
	id := gofakes3.UploadID(aws.ToString(out.UploadId))
	return id, b.begin(id, partsUpload{Bucket: bucket, Key: key, Meta: meta, Begun: time.Now().UTC(), Mark: m.mark})
}

// UploadPart is gofakes3.MultipartBackend.UploadPart.
func (b *forwardBackend) UploadPart(ctx context.Context, bucket, key string, id gofakes3.UploadID, number int, size int64, from io.Reader) (string, error) {
	if _, ok := ctx.Value(restored{}).(gofakes3.UploadID); ok {
		return b.knownPart(id, number)
	}
	file, _, err := b.stage(ctx, from, size)
	if err != nil {
		return "", err
	}
	defer b.discard([]string{file.Name})
	body, err := os.Open(b.path(file.Name))
	if err != nil {
		return "", err
	}
	defer body.Close() //nolint:errcheck // it was only read
	ctx, cancel := sending(ctx, file.Size)
	defer cancel()
	out, err := b.to.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &b.remote.Bucket, Key: &key, UploadId: aws.String(string(id)), Body: body, ContentLength: &file.Size,
		PartNumber: aws.Int32(int32(number)), //nolint:gosec // it is 1 to 10000
	})
	if err != nil {
		return "", b.upstream(key, err)
	}
	part := &uploadPart{File: objectFile{Size: file.Size}, ETag: plainETag(aws.ToString(out.ETag))}
	return part.quoted(), b.keepPart(id, number, part)
}

// CompleteMultipartUpload is gofakes3.MultipartBackend.CompleteMultipartUpload.
func (b *forwardBackend) CompleteMultipartUpload(ctx context.Context, bucket, key string, id gofakes3.UploadID, in *gofakes3.CompleteMultipartUploadRequest) (gofakes3.VersionID, string, error) {
	name := objectName{bucket, key}
	defer b.out.lock(name)()
	u, rec, err := b.assembled(id, in.Parts)
	if err != nil {
		return "", "", err
	}
	if u.Created != "" {
		return "", `"` + u.Created + `"`, slowDown(b.out.flush(name))
	}
	e, err := b.created(ctx, name, rec, createdComplete, "")
	if err == nil && u.Sequencer == "" {
		err = b.sequence(id, rec.Sequencer)
	}
	if err != nil {
		return "", "", err
	}
	var parts []types.CompletedPart
	for _, p := range in.Parts {
		parts = append(parts, types.CompletedPart{ETag: aws.String(p.ETag), PartNumber: aws.Int32(int32(p.PartNumber))}) //nolint:gosec // it is 1 to 10000
	}
	etag := rec.ETag
	err = b.change(ctx, name, rec.Size, e, u.Mark, func(ctx context.Context) error {
		_, err := b.to.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &b.remote.Bucket, Key: &key, UploadId: aws.String(string(id)), MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		made, err := b.completed(ctx, key, u.Mark, err)
		if err != nil {
			return err
		}
		etag = cmp.Or(made, etag)
		return b.db.Batch(func(tx *bbolt.Tx) error {
			_, err := closeUpload(tx, id, etag)
			return err
		})
	})
	return "", `"` + etag + `"`, err
}

// completed gives the ETag of the object that an upload has become, "" when it may not
// look. The answer to the
// call is no proof: a server does not know any more what an earlier call has completed
// whose answer got lost, and one that was cut off in the middle may say of the next
// call that all is well.
func (b *forwardBackend) completed(ctx context.Context, key, mark string, answer error) (etag string, err error) {
	if answer != nil && apiCode(answer) != "NoSuchUpload" {
		return "", answer
	}
	head, err := b.head(ctx, key)
	switch {
	case mayNotLook(err):
		return "", answer
	case err != nil:
		return "", err
	case head != nil && head.Metadata[markHeader] == mark:
		return plainETag(aws.ToString(head.ETag)), nil
	case answer != nil:
		return "", answer
	}
	return "", errors.New("it says that it has completed an upload, and does not have the object")
}

// sequence notes the sequencer of the object that an upload becomes: whoever completes
// it again, since the answer got lost, tells of the same object.
func (b *forwardBackend) sequence(id gofakes3.UploadID, sequencer string) error {
	return storeFault(b.db.Batch(func(tx *bbolt.Tx) error {
		u, _, err := uploadIn(tx, id)
		if err != nil {
			return err
		}
		u.Sequencer = sequencer
		return putJSON(tx.Bucket([]byte(tableUploads)), string(id), u)
	}))
}

// assembled gives a multipart upload and, unless it is complete, its record.
func (b *forwardBackend) assembled(id gofakes3.UploadID, list []gofakes3.CompletedPart) (u partsUpload, rec *objectRecord, err error) {
	err = b.db.View(func(tx *bbolt.Tx) (err error) {
		var parts *bbolt.Bucket
		if u, parts, err = uploadIn(tx, id); err != nil || u.Created != "" {
			return err
		}
		if rec, err = assemble(parts, list); rec != nil {
			rec.Meta, rec.Sequencer = u.Meta, u.Sequencer
		}
		return err
	})
	return u, rec, err
}

// AbortMultipartUpload is gofakes3.MultipartBackend.AbortMultipartUpload.
func (b *forwardBackend) AbortMultipartUpload(ctx context.Context, bucket, key string, id gofakes3.UploadID) error {
	defer b.out.lock(objectName{bucket, key})()
	u, err := b.upload(id)
	if err != nil {
		return err
	}
	if u.Created != "" {
		return b.end(id) // of this the other S3 knows nothing any more, which it may say in any words
	}
	ctx, cancel := asking(ctx)
	defer cancel()
	_, err = b.to.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.remote.Bucket, Key: &key, UploadId: aws.String(string(id))})
	if err != nil && apiCode(err) != "NoSuchUpload" {
		return b.upstream(key, err)
	}
	return b.end(id)
}
