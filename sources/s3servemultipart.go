package sources

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rclone/gofakes3"
	"go.etcd.io/bbolt"
)

// maxUploads bounds the multipart uploads that are known, and so what the library keeps
// in memory: those that are open, and as many complete ones as there is room for.
const maxUploads = 1000

// partsUpload is a multipart upload in the database.
type partsUpload struct {
	Bucket  string            `json:"bucket"`
	Key     string            `json:"key"`
	Meta    map[string]string `json:"meta,omitempty"`
	Begun   time.Time         `json:"begun"`
	Size    int64             `json:"size"`              // of all parts
	Created string            `json:"created,omitempty"` // the ETag, once it is complete
	Mark    string            `json:"mark,omitempty"`    // see forwardBackend
	// Sequencer is that of the object which it becomes, once somebody asked a forwardBackend to complete it.
	Sequencer string `json:"sequencer,omitempty"`
}

// uploadPart is a part in the database.
type uploadPart struct {
	File objectFile `json:"file"`
	ETag string     `json:"etag"` // the MD5 in hex
}

func (p *uploadPart) quoted() string { return `"` + p.ETag + `"` }

// restored is where the context of a request of restore has the id of the upload.
type restored struct{}

// CreateMultipartUpload is gofakes3.MultipartBackend.CreateMultipartUpload.
func (b *diskBackend) CreateMultipartUpload(ctx context.Context, bucket, key string, meta map[string]string) (gofakes3.UploadID, error) {
	if id, ok := ctx.Value(restored{}).(gofakes3.UploadID); ok {
		return id, nil
	}
	id := gofakes3.UploadID(rand.Text())
	return id, b.begin(id, partsUpload{Bucket: bucket, Key: key, Meta: checkedMeta(ctx, meta), Begun: time.Now().UTC()})
}

// begin notes a multipart upload.
func (s *objectStore) begin(id gofakes3.UploadID, u partsUpload) error {
	return storeFault(s.db.Batch(func(tx *bbolt.Tx) error {
		table := tx.Bucket([]byte(tableUploads))
		if table.Stats().KeyN >= maxUploads {
			if err := forgetComplete(tx); err != nil {
				return err
			}
		}
		if _, err := tx.Bucket([]byte(tableParts)).CreateBucket([]byte(id)); err != nil {
			return err
		}
		return putJSON(table, string(id), u)
	}))
}

// forgetComplete makes room for uploads: it removes the older half of those that are
// complete and only remembered.
func forgetComplete(tx *bbolt.Tx) error {
	type complete struct {
		id    gofakes3.UploadID
		begun time.Time
	}
	var all []complete
	err := tx.Bucket([]byte(tableUploads)).ForEach(func(id, doc []byte) error {
		var u partsUpload
		err := json.Unmarshal(doc, &u)
		if u.Created != "" {
			all = append(all, complete{gofakes3.UploadID(id), u.Begun})
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return gofakes3.ErrorMessage(gofakes3.ErrSlowDown, "There are too many multipart uploads: complete or abort some.")
	}
	slices.SortFunc(all, func(x, y complete) int { return x.begun.Compare(y.begun) })
	for _, u := range all[:(len(all)+1)/2] {
		if _, err := closeUpload(tx, u.id, ""); err != nil {
			return err
		}
	}
	return nil
}

func putJSON(table *bbolt.Bucket, key string, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return table.Put([]byte(key), doc)
}

// uploadIn gives an upload and the table of its parts.
func uploadIn(tx *bbolt.Tx, id gofakes3.UploadID) (u partsUpload, parts *bbolt.Bucket, err error) {
	doc := tx.Bucket([]byte(tableUploads)).Get([]byte(id))
	parts = tx.Bucket([]byte(tableParts)).Bucket([]byte(id))
	if doc == nil || parts == nil {
		return u, nil, gofakes3.ErrNoSuchUpload
	}
	return u, parts, json.Unmarshal(doc, &u)
}

// upload gives an upload.
func (s *objectStore) upload(id gofakes3.UploadID) (u partsUpload, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		u, _, err = uploadIn(tx, id)
		return err
	})
	return u, err
}

func partIn(parts *bbolt.Bucket, number int) (*uploadPart, error) {
	doc := parts.Get(partKey(number))
	if doc == nil {
		return nil, nil
	}
	p := &uploadPart{}
	return p, json.Unmarshal(doc, p)
}

func partKey(number int) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(number)) //nolint:gosec // it is 1 to 10000
}

// UploadPart is gofakes3.MultipartBackend.UploadPart.
func (b *diskBackend) UploadPart(ctx context.Context, _, _ string, id gofakes3.UploadID, number int, size int64, from io.Reader) (string, error) {
	if _, ok := ctx.Value(restored{}).(gofakes3.UploadID); ok {
		return b.knownPart(id, number)
	}
	file, sum, err := b.stage(ctx, from, size)
	if err != nil {
		return "", err
	}
	part := &uploadPart{File: file, ETag: hex.EncodeToString(sum)}
	if err := b.keepPart(id, number, part); err != nil {
		b.discard([]string{file.Name})
		return "", err
	}
	return part.quoted(), nil
}

// keepPart notes a part, in the place of one with the same number.
func (s *objectStore) keepPart(id gofakes3.UploadID, number int, part *uploadPart) error {
	var unused []string
	err := s.db.Batch(func(tx *bbolt.Tx) (err error) {
		unused, err = s.putPart(tx, id, number, part)
		return err
	})
	if err == nil {
		s.discard(unused)
	}
	return storeFault(err)
}

// putPart gives the file of the part that it replaces.
func (s *objectStore) putPart(tx *bbolt.Tx, id gofakes3.UploadID, number int, part *uploadPart) (unused []string, err error) {
	u, parts, err := uploadIn(tx, id)
	if err != nil {
		return nil, err
	}
	if u.Created != "" {
		return nil, gofakes3.ErrNoSuchUpload
	}
	old, err := partIn(parts, number)
	if err != nil {
		return nil, err
	}
	u.Size += part.File.Size
	if old != nil {
		u.Size -= old.File.Size
		if unused, err = count(tx, []objectFile{old.File}, -1); err != nil {
			return nil, err
		}
	}
	if u.Size > s.limit {
		return nil, gofakes3.ErrEntityTooLarge
	}
	if _, err := count(tx, []objectFile{part.File}, 1); err != nil {
		return nil, err
	}
	if err := putJSON(parts, string(partKey(number)), part); err != nil {
		return nil, err
	}
	return unused, putJSON(tx.Bucket([]byte(tableUploads)), string(id), u)
}

func (s *objectStore) knownPart(id gofakes3.UploadID, number int) (etag string, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		_, parts, err := uploadIn(tx, id)
		if err != nil {
			return err
		}
		part, err := partIn(parts, number)
		if err != nil || part == nil {
			return gofakes3.ErrInvalidPart
		}
		etag = part.quoted()
		return nil
	})
	return etag, err
}

// CompleteMultipartUpload is gofakes3.MultipartBackend.CompleteMultipartUpload. The
// object takes over the files of the parts: nothing is copied. A second call answers
// as the first did.
func (b *diskBackend) CompleteMultipartUpload(ctx context.Context, bucket, key string, id gofakes3.UploadID, in *gofakes3.CompleteMultipartUploadRequest) (gofakes3.VersionID, string, error) {
	name := objectName{bucket, key}
	defer b.out.lock(name)()
	var (
		rec  *objectRecord
		done string
	)
	err := b.db.View(func(tx *bbolt.Tx) error {
		u, parts, err := uploadIn(tx, id)
		if err != nil {
			return err
		}
		if done = u.Created; done != "" {
			return nil
		}
		rec, err = assemble(parts, in.Parts)
		if rec != nil {
			rec.Meta, rec.Invocation = u.Meta, invocationOf(ctx)
		}
		return err
	})
	if err != nil {
		return "", "", err
	}
	if done != "" {
		return "", `"` + done + `"`, slowDown(b.out.flush(name))
	}
	_, err = b.createLocked(ctx, name, rec, createdComplete, func(tx *bbolt.Tx) ([]objectFile, error) {
		return closeUpload(tx, id, rec.ETag)
	})
	return "", rec.quoted(), err
}

// assemble makes the record of the parts that the client lists.
func assemble(parts *bbolt.Bucket, list []gofakes3.CompletedPart) (*objectRecord, error) {
	if len(list) == 0 {
		return nil, gofakes3.ErrorMessage(gofakes3.ErrMalformedXML, "The list of parts is empty.")
	}
	rec := &objectRecord{}
	tags := make([]string, 0, len(list))
	for i, want := range list {
		if i > 0 && want.PartNumber <= list[i-1].PartNumber {
			return nil, gofakes3.ErrInvalidPartOrder
		}
		part, err := partIn(parts, want.PartNumber)
		if err != nil {
			return nil, err
		}
		if part == nil || !strings.EqualFold(plainETag(want.ETag), part.ETag) {
			return nil, gofakes3.ErrorMessagef(gofakes3.ErrInvalidPart, "Part %d was not uploaded, or has another ETag.", want.PartNumber)
		}
		rec.Files = append(rec.Files, part.File)
		rec.Size += part.File.Size
		tags = append(tags, part.ETag)
	}
	rec.ETag = partETag(tags)
	return rec, nil
}

// closeUpload notes that an upload is complete, or, without an ETag, removes it. It
// gives the files of its parts.
func closeUpload(tx *bbolt.Tx, id gofakes3.UploadID, etag string) (files []objectFile, err error) {
	u, parts, err := uploadIn(tx, id)
	if err != nil {
		return nil, err
	}
	err = parts.ForEach(func(_, doc []byte) error {
		var p uploadPart
		err := json.Unmarshal(doc, &p)
		files = append(files, p.File)
		return err
	})
	if err != nil {
		return nil, err
	}
	all := tx.Bucket([]byte(tableParts))
	if err := all.DeleteBucket([]byte(id)); err != nil {
		return nil, err
	}
	if etag == "" {
		return files, tx.Bucket([]byte(tableUploads)).Delete([]byte(id))
	}
	if _, err := all.CreateBucket([]byte(id)); err != nil {
		return nil, err
	}
	u.Created = etag
	return files, putJSON(tx.Bucket([]byte(tableUploads)), string(id), u)
}

// AbortMultipartUpload is gofakes3.MultipartBackend.AbortMultipartUpload.
func (b *diskBackend) AbortMultipartUpload(_ context.Context, bucket, key string, id gofakes3.UploadID) error {
	defer b.out.lock(objectName{bucket, key})()
	return b.end(id)
}

// end removes a multipart upload and its parts.
func (s *objectStore) end(id gofakes3.UploadID) error {
	var unused []string
	err := s.db.Batch(func(tx *bbolt.Tx) error {
		files, err := closeUpload(tx, id, "")
		if err == nil {
			unused, err = count(tx, files, -1)
		}
		return err
	})
	if err != nil {
		return storeFault(err)
	}
	s.discard(unused)
	return nil
}

// uploads gives the multipart uploads of an earlier process, or those that began
// before a time.
func (s *objectStore) uploads(before time.Time) (found map[gofakes3.UploadID]partsUpload, err error) {
	found = make(map[gofakes3.UploadID]partsUpload)
	err = s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(tableUploads)).ForEach(func(id, doc []byte) error {
			var u partsUpload
			if err := json.Unmarshal(doc, &u); err != nil {
				return err
			}
			if u.Begun.Before(before) {
				found[gofakes3.UploadID(id)] = u
			}
			return nil
		})
	})
	return found, err
}

// restore tells the library of the uploads of an earlier process. It keeps them in
// memory and learns of one only by a request.
func (s *objectStore) restore(ctx context.Context, library http.Handler) error {
	found, err := s.uploads(s.since)
	if err != nil {
		return err
	}
	for id, u := range found {
		ctx := context.WithValue(ctx, restored{}, id)
		ask := func(method string, query url.Values, size int64) {
			r := &http.Request{
				Method: method, URL: &url.URL{Path: "/" + u.Bucket + "/" + u.Key, RawQuery: query.Encode()},
				Header: http.Header{"Content-Length": {strconv.FormatInt(size, 10)}}, Body: http.NoBody,
			}
			library.ServeHTTP(discardAnswer{}, r.WithContext(ctx))
		}
		ask(http.MethodPost, url.Values{"uploads": {""}}, 0)
		sizes, err := s.partSizes(id)
		if err != nil {
			return err
		}
		for number, size := range sizes {
			ask(http.MethodPut, url.Values{"uploadId": {string(id)}, "partNumber": {strconv.Itoa(number)}}, size)
		}
	}
	return nil
}

func (s *objectStore) partSizes(id gofakes3.UploadID) (sizes map[int]int64, err error) {
	sizes = make(map[int]int64)
	err = s.db.View(func(tx *bbolt.Tx) error {
		_, parts, err := uploadIn(tx, id)
		if err != nil {
			return err
		}
		return parts.ForEach(func(number, doc []byte) error {
			var p uploadPart
			err := json.Unmarshal(doc, &p)
			sizes[int(binary.BigEndian.Uint32(number))] = p.File.Size
			return err
		})
	})
	return sizes, err
}

// discardAnswer is a ResponseWriter for a request whose answer nobody needs.
type discardAnswer struct{}

func (discardAnswer) Header() http.Header         { return http.Header{} }
func (discardAnswer) Write(p []byte) (int, error) { return len(p), nil }
func (discardAnswer) WriteHeader(int)             {}
