package sources_test

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // an ETag is an MD5
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"

	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/tidwall/gjson"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

const (
	serveAccess = "uploader"
	serveSecret = "a-secret-that-is-long-enough"
	serveBucket = "uploads"
)

func serveSettings() *sources.S3 {
	s := sources.NewS3()
	s.Serve = &sources.S3Serve{
		Listen: "127.0.0.1:0", Buckets: []string{serveBucket, "other"},
		Credentials: []sources.S3Credential{{AccessKey: serveAccess, SecretKey: value.NewSecret(serveSecret)}},
	}
	return s
}

// endpoint is an S3 endpoint that runs.
type endpoint struct {
	t    *testing.T
	host *sourcetest.Host
	src  sources.Source
	pub  *sourcetest.Publisher
	stop func()
}

// serveOn runs an endpoint on a host until the test ends.
func serveOn(t *testing.T, host *sourcetest.Host, s *sources.S3, pub *sourcetest.Publisher) *endpoint {
	t.Helper()
	e := &endpoint{t: t, host: host, src: host.Open(t, s), pub: pub}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.src.Run(ctx, pub) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(e.stop)
	select {
	case <-e.src.(sources.Readier).Ready():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	return e
}

func servedS3(t *testing.T) *endpoint {
	t.Helper()
	return serveOn(t, sourcetest.NewHost(t), serveSettings(), &sourcetest.Publisher{})
}

func (e *endpoint) url() string { return "http://" + sources.S3Addr(e.src) }

// client is the SDK's, which tries once.
func (e *endpoint) client(options ...func(*s3.Options)) *s3.Client {
	return clientOf(e.url(), serveAccess, serveSecret, options...)
}

func clientOf(url, access, secret string, options ...func(*s3.Options)) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(url), Region: "eu-central-1", UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, nil
		}),
		Retryer: aws.NopRetryer{},
	}, options...)
}

func (e *endpoint) put(key, body string) error {
	_, err := e.client().PutObject(e.t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: &key, Body: strings.NewReader(body)})
	return err
}

func (e *endpoint) get(key string) ([]byte, error) {
	out, err := e.client().GetObject(e.t.Context(), &s3.GetObjectInput{Bucket: aws.String(serveBucket), Key: &key})
	if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	return io.ReadAll(out.Body)
}

// files are the files that hold objects.
func (e *endpoint) files() (names []string) {
	e.t.Helper()
	err := filepath.WalkDir(e.host.Env().Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "objects.db" {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return names
}

// told are the events in short: type, key, size.
func (e *endpoint) told() (list []string) {
	for _, ev := range e.pub.Stored() {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", ev.Type(), gjson.GetBytes(ev.Data(), "key"), gjson.GetBytes(ev.Data(), "size"))))
	}
	return list
}

func (e *endpoint) wantTold(want ...string) {
	e.t.Helper()
	if got := e.told(); !slices.Equal(got, want) {
		e.t.Errorf("the events are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// byKey gives events the id of the suite, which is the key of the object.
type byKey struct {
	sources.Source
}

func (b byKey) Run(ctx context.Context, pub bus.Publisher) error {
	return b.Source.Run(ctx, keyPublisher{pub})
}

type keyPublisher struct{ bus.Publisher }

func (p keyPublisher) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	for i, e := range events {
		named, err := e.With(bus.Attr{Name: "id", Value: e.Subject()})
		if err != nil {
			return nil, err
		}
		events[i] = named
	}
	return p.Publisher.Publish(ctx, events...)
}

func TestS3ServeContract(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
		src := sourcetest.NewHost(t).Open(t, serveSettings())
		put := func(ctx context.Context, key string) error {
			_, err := clientOf("http://"+sources.S3Addr(src), serveAccess, serveSecret).PutObject(ctx,
				&s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: &key, Body: strings.NewReader("x")})
			return err
		}
		return &sourcetest.Subject{
			Source: byKey{src},
			Send:   func(ctx context.Context, e bus.Event) error { return put(ctx, e.ID()) },
			Poison: func(ctx context.Context) {
				if put(ctx, "\xff\xfe") == nil {
					t.Error("a key that is not UTF-8 is taken")
				}
			},
		}
	})
}

func TestS3ServeObject(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	c, ctx := e.client(), t.Context()
	bucket, key := aws.String(serveBucket), aws.String("photos/ü +%2f.jpg")
	put, err := c.PutObject(ctx, &s3.PutObjectInput{
		Bucket: bucket, Key: key, Body: strings.NewReader("0123456789"), ContentType: aws.String("image/jpeg"),
		Metadata: map[string]string{"author": "ann"}, CacheControl: aws.String("no-store"),
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum([]byte("0123456789")) //nolint:gosec // an ETag is an MD5
	if want := `"` + hex.EncodeToString(sum[:]) + `"`; *put.ETag != want {
		t.Errorf("the ETag is %s, want %s", *put.ETag, want)
	}
	head, err := c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if *head.ContentLength != 10 || *head.ContentType != "image/jpeg" || head.Metadata["author"] != "ann" || *head.CacheControl != "no-store" || *head.ETag != *put.ETag {
		t.Errorf("HEAD gives %+v", head)
	}
	for want, rnge := range map[string]string{"0123456789": "", "234": "bytes=2-4", "789": "bytes=-3", "56789": "bytes=5-"} {
		in := &s3.GetObjectInput{Bucket: bucket, Key: key}
		if rnge != "" {
			in.Range = &rnge
		}
		out, err := c.GetObject(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(out.Body); err != nil || string(body) != want {
			t.Errorf("range %q gives %q, %v", rnge, body, err)
		}
	}
	copied, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String("other"), Key: aws.String("copy"), CopySource: aws.String(serveBucket + "/photos/%C3%BC%20%2B%252f.jpg")})
	if err != nil || *copied.CopyObjectResult.ETag != *put.ETag {
		t.Fatalf("copy: %v %v", copied, err)
	}
	for range 2 { // the second finds nothing, and is no event
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	var gone *types.NoSuchKey
	if _, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: key}); !errors.As(err, &gone) {
		t.Errorf("what was deleted gives %v", err)
	}
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("other"), Key: aws.String("copy")})
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(out.Body); string(body) != "0123456789" || out.Metadata["author"] != "ann" {
		t.Errorf("the copy holds %q, %v after the original is gone", body, out.Metadata)
	}
	e.wantTold("object.created.put photos/ü +%2f.jpg 10", "object.created.copy copy 10", "object.removed.delete photos/ü +%2f.jpg")
	first := e.pub.Stored()[0]
	if first.Source() != "s3/uploads" || first.Subject() != "photos/ü +%2f.jpg" || gjson.GetBytes(first.Data(), "content_type").Str != "image/jpeg" ||
		gjson.GetBytes(first.Data(), "etag").Str != hex.EncodeToString(sum[:]) || gjson.GetBytes(first.Data(), "sequencer").Str == "" {
		t.Errorf("the event is %s", first.AppendJSON(nil))
	}
	if n := len(e.files()); n != 1 {
		t.Errorf("%d files are left, want the one of the copy", n)
	}
}

func TestS3ServeMultipart(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	c, ctx := e.client(), t.Context()
	body := make([]byte, 12<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(body)
	manager := transfermanager.New(c, func(o *transfermanager.Options) {
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = 5<<20, 5<<20, 3
	})
	out, err := manager.UploadObject(ctx, &transfermanager.UploadObjectInput{
		Bucket: aws.String(serveBucket), Key: aws.String("big.bin"), Body: bytes.NewReader(body), ContentType: aws.String("application/x-big"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(*out.ETag, `-3"`) {
		t.Errorf("the ETag is %s", *out.ETag)
	}
	got, err := e.get("big.bin")
	if err != nil || sha256.Sum256(got) != sha256.Sum256(body) {
		t.Fatalf("%d bytes come back of %d, %v", len(got), len(body), err)
	}
	in := &s3.GetObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("big.bin"), Range: aws.String("bytes=5242870-10485770"), IfMatch: out.ETag}
	part, err := c.GetObject(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(part.Body); !bytes.Equal(got, body[5242870:10485771]) || *part.ETag != *out.ETag || *part.ContentType != "application/x-big" {
		t.Errorf("a range over three parts: %d bytes, ETag %s, %s", len(got), *part.ETag, *part.ContentType)
	}
	in.IfMatch = aws.String(`"00000000000000000000000000000000-3"`)
	if _, err := c.GetObject(ctx, in); err == nil || !strings.Contains(err.Error(), "PreconditionFailed") {
		t.Errorf("another ETag: %v", err)
	}
	list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String(serveBucket)})
	if err != nil || len(list.Contents) != 1 || *list.Contents[0].ETag != *out.ETag {
		t.Errorf("the list is %+v, %v", list, err)
	}
	e.wantTold(fmt.Sprintf("object.created.complete_multipart_upload big.bin %d", len(body)))
	if tag := gjson.GetBytes(e.pub.Stored()[0].Data(), "etag").Str; `"`+tag+`"` != *out.ETag {
		t.Errorf("the event has the ETag %s", tag)
	}
}

// A multipart upload that a restart comes into goes on, and completing it once more
// answers as the first time did.
func TestS3ServeMultipartAfterRestart(t *testing.T) {
	t.Parallel()
	host, ctx := sourcetest.NewHost(t), t.Context()
	bucket, key := aws.String(serveBucket), aws.String("a/b")
	e := serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	begun, err := e.client().CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ContentType: aws.String("x/y")})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	send := func(e *endpoint, n int32, text string) {
		out, err := e.client().UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: begun.UploadId, PartNumber: &n, Body: strings.NewReader(text)})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{PartNumber: &n, ETag: out.ETag})
	}
	send(e, 1, "hello ")
	e.stop()
	e = serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	send(e, 2, "world")
	known, err := e.client().ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: begun.UploadId})
	if err != nil || len(known.Parts) != 2 || *known.Parts[0].Size != 6 {
		t.Errorf("the parts are %+v, %v", known, err)
	}
	complete := func(e *endpoint) string {
		out, err := e.client().CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: bucket, Key: key, UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		if err != nil {
			t.Fatal(err)
		}
		return *out.ETag
	}
	first := complete(e)
	e.wantTold("object.created.complete_multipart_upload a/b 11")
	e.stop()
	e = serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	if again := complete(e); again != first {
		t.Errorf("completed again: %s, at first %s", again, first)
	}
	if got, err := e.get("a/b"); string(got) != "hello world" || err != nil {
		t.Errorf("it holds %q, %v", got, err)
	}
	e.wantTold()
}

func TestS3ServeAbort(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	c, ctx := e.client(), t.Context()
	bucket, key := aws.String(serveBucket), aws.String("k")
	begun, err := c.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second takes the place of the first
		if _, err := c.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: begun.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(e.files()); n != 1 {
		t.Errorf("%d files for one part", n)
	}
	if _, err := c.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: begun.UploadId}); err != nil {
		t.Fatal(err)
	}
	if n := len(e.files()); n != 0 {
		t.Errorf("%d files are left", n)
	}
	e.wantTold()
}

func TestS3ServeList(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	c, ctx := e.client(), t.Context()
	for _, key := range []string{"a", "a/1", "a/2", "a-b", "b/1/x", "b/1/y", "c", "ü"} {
		if err := e.put(key, key); err != nil {
			t.Fatal(err)
		}
	}
	pages := func(prefix, delimiter string, most int32) (list []string) {
		in := &s3.ListObjectsV2Input{Bucket: aws.String(serveBucket), Prefix: &prefix, Delimiter: &delimiter, MaxKeys: &most}
		for {
			out, err := c.ListObjectsV2(ctx, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range out.Contents {
				list = append(list, *o.Key)
			}
			for _, p := range out.CommonPrefixes {
				list = append(list, *p.Prefix+"*")
			}
			if !*out.IsTruncated {
				return list
			}
			in.ContinuationToken = out.NextContinuationToken
		}
	}
	for _, tt := range []struct {
		prefix, delimiter, want string
	}{
		{"", "", "a a-b a/1 a/2 b/1/x b/1/y c ü"},
		{"a", "", "a a-b a/1 a/2"},
		{"", "/", "a a-b a/* b/* c ü"},
		{"b/", "/", "b/1/*"},
		{"b/1/", "/", "b/1/x b/1/y"},
		{"nothing", "", ""},
	} {
		want := strings.Fields(tt.want)
		slices.Sort(want)
		for _, most := range []int32{1, 2, 1000} {
			got := pages(tt.prefix, tt.delimiter, most)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("prefix %q, delimiter %q, %d at a time: %v, want %v", tt.prefix, tt.delimiter, most, got, want)
			}
		}
	}
	v1, err := c.ListObjects(ctx, &s3.ListObjectsInput{Bucket: aws.String(serveBucket), Marker: aws.String("a/1"), MaxKeys: aws.Int32(2)})
	if err != nil || len(v1.Contents) != 2 || *v1.Contents[0].Key != "a/2" || !*v1.IsTruncated {
		t.Errorf("version 1 of the list: %+v, %v", v1, err)
	}
	deleted, err := c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: aws.String(serveBucket), Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("a")}, {Key: aws.String("never was")}, {Key: aws.String("c")}, {Key: aws.String("a")},
	}}})
	if err != nil || len(deleted.Errors) > 0 {
		t.Errorf("delete many: %+v, %v", deleted, err)
	}
	told := e.told()
	if got := told[8:]; !slices.Equal(got, []string{"object.removed.delete a", "object.removed.delete c"}) {
		t.Errorf("deleting many tells %v", got)
	}
}

func TestS3ServeBuckets(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	c, ctx := e.client(), t.Context()
	list, err := c.ListBuckets(ctx, nil)
	if err != nil || len(list.Buckets) != 2 {
		t.Errorf("the buckets are %+v, %v", list, err)
	}
	_, made := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("more")})
	_, twice := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(serveBucket)})
	_, gone := c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: aws.String(serveBucket)})
	_, elsewhere := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("more"), Key: aws.String("k"), Body: strings.NewReader("x")})
	_, from := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), CopySource: aws.String("more/k")})
	for want, err := range map[string]error{"TooManyBuckets": made, "BucketAlreadyExists": twice, "MethodNotAllowed": gone, "NoSuchBucket": elsewhere, "NoSuch": from} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

// Any key there can be: none leaves the directory, and each comes back.
func TestS3ServeKeys(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	keys := []string{
		"../../../../etc/passwd", "a/../../b", "..", ".", "/absolute", "//", "a//b", "dir/", "a\\b", "con", "%2e%2e%2f",
		strings.Repeat("k", 1024), strings.Repeat("d/", 500), "日本語/ü", "a b+c&d=e?f#g", "objects.db", "null\x00byte",
	}
	for _, key := range keys {
		if err := e.put(key, key); err != nil {
			t.Errorf("%q: %v", key, err)
			continue
		}
		if got, err := e.get(key); string(got) != key || err != nil {
			t.Errorf("%q gives %q, %v", key, got, err)
		}
	}
	if err := e.put(strings.Repeat("k", 1025), "x"); err == nil || !strings.Contains(err.Error(), "KeyTooLong") {
		t.Errorf("a key of 1025 bytes: %v", err)
	}
	for _, path := range e.files() {
		if name := filepath.Base(path); len(name) != 32 || strings.Trim(name, "0123456789abcdef") != "" {
			t.Errorf("a file is called %s", path)
		}
	}
	outside, err := os.ReadDir(filepath.Dir(e.host.Env().Dir))
	if err != nil || len(outside) != 1 {
		t.Errorf("beside the directory are %v, %v", outside, err)
	}
}

// While somebody reads an object, others may replace and remove it: also the files
// that the reader has not come to.
func TestS3ServeReadsWhatItBegan(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 20<<16)
	manager := transfermanager.New(e.client(), func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 5<<20 })
	if _, err := manager.UploadObject(t.Context(), &transfermanager.UploadObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), Body: bytes.NewReader(body)}); err != nil {
		t.Fatal(err)
	}
	out, err := e.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.put("k", "new"); err != nil {
		t.Fatal(err)
	}
	if n := len(e.files()); n != 5 {
		t.Errorf("%d files, want the new one and the four that are being read", n)
	}
	got, err := io.ReadAll(out.Body)
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(body), err)
	}
	until(t, "the old files are removed", func() bool { return len(e.files()) == 1 })
}

func TestS3ServeNeedsADirectory(t *testing.T) {
	t.Parallel()
	env := sourcetest.NewHost(t).Env()
	env.Dir = ""
	if _, err := serveSettings().Open(t.Context(), env); err == nil || !strings.Contains(err.Error(), "disk") {
		t.Errorf("without a directory: %v", err)
	}
}

func s3URL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
