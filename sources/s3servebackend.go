package sources

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"
)

// What happens to objects, in the words of S3.
const (
	createdPut      = "ObjectCreated:Put"
	createdCopy     = "ObjectCreated:Copy"
	createdComplete = "ObjectCreated:CompleteMultipartUpload"
	removedDelete   = "ObjectRemoved:Delete"
	removedExpired  = "LifecycleExpiration:Delete"
)

// diskBackend is what the library asks for, over an objectStore: it returns from a
// change only when that is on disk and its event on the bus.
type diskBackend struct {
	*objectStore
	buckets []string
}

var (
	_ gofakes3.Backend          = (*diskBackend)(nil)
	_ gofakes3.MultipartBackend = (*diskBackend)(nil)
)

// ListBuckets is gofakes3.Backend.ListBuckets.
func (b *diskBackend) ListBuckets(context.Context) ([]gofakes3.BucketInfo, error) {
	var list []gofakes3.BucketInfo
	for _, name := range b.buckets {
		list = append(list, gofakes3.BucketInfo{Name: name, CreationDate: gofakes3.NewContentTime(b.since)})
	}
	return list, nil
}

// BucketExists is gofakes3.Backend.BucketExists.
func (b *diskBackend) BucketExists(_ context.Context, name string) (bool, error) {
	return slices.Contains(b.buckets, name), nil
}

// CreateBucket is gofakes3.Backend.CreateBucket.
func (b *diskBackend) CreateBucket(_ context.Context, name string) error {
	return refuseBucket(b.buckets, name)
}

// refuseBucket is the answer to a client that wants to make a bucket.
func refuseBucket(buckets []string, name string) error {
	if slices.Contains(buckets, name) {
		return gofakes3.ResourceError(gofakes3.ErrBucketAlreadyExists, name)
	}
	return gofakes3.ErrorMessage(gofakes3.ErrTooManyBuckets, "The buckets of this endpoint stand in its configuration, under buckets.")
}

// DeleteBucket is gofakes3.Backend.DeleteBucket.
func (b *diskBackend) DeleteBucket(context.Context, string) error {
	return gofakes3.ErrorMessage(gofakes3.ErrMethodNotAllowed, "The buckets of this endpoint stand in its configuration, under buckets.")
}

// PutObject is gofakes3.Backend.PutObject.
func (b *diskBackend) PutObject(ctx context.Context, bucket, key string, meta map[string]string, from io.Reader, size int64) (gofakes3.PutObjectResult, error) {
	file, sum, err := b.stage(ctx, from, size)
	if err != nil {
		return gofakes3.PutObjectResult{}, err
	}
	rec := &objectRecord{
		Files: []objectFile{file}, Size: file.Size, ETag: hex.EncodeToString(sum),
		Meta: checkedMeta(ctx, meta), Invocation: invocationOf(ctx),
	}
	stored, err := b.create(ctx, objectName{bucket, key}, rec, createdPut, nil)
	if !stored {
		b.discard([]string{file.Name})
	}
	return gofakes3.PutObjectResult{ETag: rec.quoted()}, err
}

// checkedMeta is the metadata with the checksums that came behind the body, and
// without what the record has itself.
func checkedMeta(ctx context.Context, meta map[string]string) map[string]string {
	meta = maps.Clone(meta)
	delete(meta, "Last-Modified")
	if body := bodyOf(ctx); body != nil && meta != nil {
		maps.Copy(meta, body.checksums())
	}
	return meta
}

// create puts the record in its place. stored tells whether it is there: then an
// error means that only its event has to wait.
func (b *diskBackend) create(ctx context.Context, name objectName, rec *objectRecord, what string, also func(*bbolt.Tx) ([]objectFile, error)) (stored bool, err error) {
	defer b.out.lock(name)()
	return b.createLocked(ctx, name, rec, what, also)
}

func (b *diskBackend) createLocked(ctx context.Context, name objectName, rec *objectRecord, what string, also func(*bbolt.Tx) ([]objectFile, error)) (stored bool, err error) {
	if err := errors.Join(b.out.room(), b.out.flush(name)); err != nil {
		return false, slowDown(err)
	}
	old, err := b.record(name)
	if err != nil {
		return false, err
	}
	etag := ""
	if old != nil {
		etag = hex.EncodeToString(libraryHash(old.ETag))
	}
	if err := gofakes3.CheckWriteConditions(ctx, old != nil, etag); err != nil {
		return false, err
	}
	rec.Modified = time.Now().UTC()
	if old.sameUpload(rec) {
		rec.Modified, rec.Sequencer = old.Modified, old.Sequencer
	} else {
		rec.Sequencer = b.out.sequencer(rec.Modified)
	}
	event, err := rec.upload(name, what).event()
	if err != nil {
		return false, gofakes3.ErrorInvalidArgument("key", name.key, "This cannot become an event: "+err.Error())
	}
	due, err := b.commit(change{name: name, record: rec, event: event, also: also})
	if err != nil {
		return false, err
	}
	return true, slowDown(b.out.publish(due))
}

// CopyObject is gofakes3.Backend.CopyObject. Both objects share the files.
func (b *diskBackend) CopyObject(ctx context.Context, fromBucket, fromKey, bucket, key string, meta map[string]string) (gofakes3.CopyObjectResult, error) {
	from, to := objectName{fromBucket, fromKey}, objectName{bucket, key}
	defer b.out.lock(from, to)()
	if !slices.Contains(b.buckets, fromBucket) {
		return gofakes3.CopyObjectResult{}, gofakes3.BucketNotFound(fromBucket)
	}
	old, err := b.record(from)
	if err != nil {
		return gofakes3.CopyObjectResult{}, err
	}
	if old == nil {
		return gofakes3.CopyObjectResult{}, gofakes3.KeyNotFound(fromKey)
	}
	rec := &objectRecord{Files: old.Files, Size: old.Size, ETag: old.ETag, Meta: checkedMeta(ctx, meta), Invocation: invocationOf(ctx)}
	_, err = b.createLocked(ctx, to, rec, createdCopy, nil)
	return gofakes3.CopyObjectResult{ETag: rec.quoted(), LastModified: gofakes3.NewContentTime(rec.Modified)}, err
}

// DeleteObject is gofakes3.Backend.DeleteObject.
func (b *diskBackend) DeleteObject(_ context.Context, bucket, key string) (gofakes3.ObjectDeleteResult, error) {
	return gofakes3.ObjectDeleteResult{}, b.delete(removedDelete, time.Time{}, objectName{bucket, key})
}

// DeleteMulti is gofakes3.Backend.DeleteMulti.
func (b *diskBackend) DeleteMulti(_ context.Context, bucket string, keys ...string) (gofakes3.MultiDeleteResult, error) {
	var (
		result gofakes3.MultiDeleteResult
		names  []objectName
	)
	for _, key := range keys {
		names = append(names, objectName{bucket, key})
		result.Deleted = append(result.Deleted, gofakes3.ObjectID{Key: key})
	}
	if err := b.delete(removedDelete, time.Time{}, names...); err != nil {
		return gofakes3.MultiDeleteResult{}, err
	}
	return result, nil
}

// delete removes objects, or those of them that were made before a time. Those that are
// not there make no event.
func (b *diskBackend) delete(what string, before time.Time, names ...objectName) error {
	slices.SortFunc(names, func(x, y objectName) int { return strings.Compare(x.key, y.key) })
	names = slices.Compact(names)
	defer b.out.lock(names...)()
	if err := errors.Join(b.out.room(), b.out.flush(names...)); err != nil {
		return slowDown(err)
	}
	var changes []change
	for _, name := range names {
		old, err := b.record(name)
		if err != nil {
			return err
		}
		if old == nil || !before.IsZero() && !old.Modified.Before(before) {
			continue
		}
		now := time.Now().UTC()
		u := upload{name: what, bucket: name.bucket, key: name.key, size: noSize, sequencer: b.out.sequencer(now), at: now}
		event, err := u.event()
		if err != nil {
			return err
		}
		changes = append(changes, change{name: name, event: event})
	}
	if len(changes) == 0 {
		return nil
	}
	due, err := b.commit(changes...)
	if err != nil {
		return err
	}
	return slowDown(b.out.publish(due))
}

// HeadObject is gofakes3.Backend.HeadObject.
func (b *diskBackend) HeadObject(_ context.Context, bucket, key string) (*gofakes3.Object, error) {
	rec, err := b.record(objectName{bucket, key})
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, gofakes3.KeyNotFound(key)
	}
	obj := rec.object(key)
	obj.Contents = io.NopCloser(bytes.NewReader(nil))
	return obj, nil
}

// object is a record as the library has it, without its contents.
func (r *objectRecord) object(key string) *gofakes3.Object {
	obj := &gofakes3.Object{Name: key, Metadata: maps.Clone(r.Meta), Size: r.Size, Hash: libraryHash(r.ETag)}
	if obj.Metadata == nil {
		obj.Metadata = make(map[string]string)
	}
	obj.Metadata["Last-Modified"] = r.Modified.UTC().Format(http.TimeFormat)
	if strings.Contains(r.ETag, "-") {
		for _, f := range r.Files {
			obj.PartSizes = append(obj.PartSizes, f.Size)
		}
	}
	return obj
}

// GetObject is gofakes3.Backend.GetObject.
func (b *diskBackend) GetObject(_ context.Context, bucket, key string, want *gofakes3.ObjectRangeRequest) (*gofakes3.Object, error) {
	rec, release, err := b.hold(objectName{bucket, key})
	if err != nil {
		return nil, err
	}
	if rec == nil {
		return nil, gofakes3.KeyNotFound(key)
	}
	obj := rec.object(key)
	obj.Range, err = want.Range(rec.Size)
	if err != nil {
		release()
		return nil, err
	}
	r := &objectReader{path: b.path, files: rec.Files, left: rec.Size, release: release}
	if obj.Range != nil {
		r.skip, r.left = obj.Range.Start, obj.Range.Length
	}
	obj.Contents = r
	return obj, nil
}

// ListBucket is gofakes3.Backend.ListBucket.
func (b *diskBackend) ListBucket(_ context.Context, bucket string, prefix *gofakes3.Prefix, page gofakes3.ListBucketPage) (*gofakes3.ObjectList, error) {
	if !slices.Contains(b.buckets, bucket) {
		return nil, gofakes3.BucketNotFound(bucket)
	}
	l := listing{list: gofakes3.NewObjectList(), marker: page.Marker, most: page.MaxKeys}
	if prefix != nil {
		l.prefix, l.delimiter = prefix.Prefix, prefix.Delimiter
	}
	if l.most <= 0 {
		l.most = gofakes3.MaxBucketKeys
	}
	err := b.db.View(func(tx *bbolt.Tx) error {
		if table := tx.Bucket([]byte(tableObjects)).Bucket([]byte(bucket)); table != nil {
			return l.fill(table.Cursor())
		}
		return nil
	})
	return l.list, err
}

// listing is one page of a list.
type listing struct {
	list      *gofakes3.ObjectList
	prefix    string
	delimiter string
	marker    string
	most      int64
	last      string // what was listed last
}

// fill goes through the keys in their order, and over each common prefix at once.
func (l *listing) fill(c *bbolt.Cursor) error {
	k, doc := c.Seek([]byte(max(l.prefix, l.marker)))
	for k != nil && strings.HasPrefix(string(k), l.prefix) {
		key := string(k)
		common := l.common(key)
		switch {
		case common == "" && key == l.marker, common != "" && common == l.marker:
		case int64(len(l.list.Contents)+len(l.list.CommonPrefixes)) == l.most:
			l.list.IsTruncated, l.list.NextMarker = true, l.last
			return nil
		case common != "":
			l.list.AddPrefix(common)
			l.last = common
		default:
			rec := &objectRecord{}
			if err := json.Unmarshal(doc, rec); err != nil {
				return err
			}
			l.list.Add(&gofakes3.Content{
				Key: key, Size: rec.Size, ETag: rec.quoted(), StorageClass: gofakes3.StorageStandard,
				LastModified: gofakes3.NewContentTime(rec.Modified),
			})
			l.last = key
		}
		if common == "" {
			k, doc = c.Next()
		} else {
			k, doc = c.Seek(after(common))
		}
	}
	return nil
}

// common is the part of the key up to the delimiter behind the prefix.
func (l *listing) common(key string) string {
	if l.delimiter == "" {
		return ""
	}
	rest := key[len(l.prefix):]
	at := strings.Index(rest, l.delimiter)
	if at < 0 {
		return ""
	}
	return key[:len(l.prefix)+at+len(l.delimiter)]
}

// after is the first key that does not begin with the prefix. No key holds a byte of
// 0xff: it is no part of UTF-8.
func after(prefix string) []byte { return append([]byte(prefix), 0xff) }
