package sources_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// forwardTo are the settings of an endpoint in front of another.
func forwardTo(t *testing.T, target string) *sources.S3 {
	t.Helper()
	s := serveSettings()
	u, err := value.ParseURL(target, "http")
	if err != nil {
		t.Fatal(err)
	}
	s.Serve.Buckets = []string{serveBucket}
	s.Serve.Forward = &sources.S3Remote{Endpoint: u, Bucket: "other", AccessKey: serveAccess, SecretKey: value.NewSecret(serveSecret)}
	return s
}

// The other S3 is an endpoint of the same kind, so that its events show what got
// there.
func TestS3ServeForward(t *testing.T) {
	t.Parallel()
	behind := servedS3(t)
	e := serveOn(t, sourcetest.NewHost(t), forwardTo(t, behind.url()), &sourcetest.Publisher{})
	c, ctx, bucket := e.client(), t.Context(), aws.String(serveBucket)
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("a b/ü"), Body: strings.NewReader("0123456789"),
		ContentType: aws.String("text/x"), Metadata: map[string]string{"author": "ann"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("a b/ü"), Range: aws.String("bytes=2-4")})
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(out.Body); string(body) != "234" || *out.ContentType != "text/x" || out.Metadata["author"] != "ann" || len(out.Metadata) != 1 {
		t.Errorf("GET gives %q, %s, %v", body, *out.ContentType, out.Metadata)
	}
	if _, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/a%20b/%C3%BC")}); err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 12<<16)
	manager := transfermanager.New(c, func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 5<<20 })
	made, err := manager.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: bucket, Key: aws.String("big"), Body: bytes.NewReader(big)})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.get("big"); !bytes.Equal(got, big) {
		t.Errorf("%d bytes of %d come back, %v", len(got), len(big), err)
	}
	list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket, Delimiter: aws.String("/")})
	if err != nil || len(list.Contents) != 2 || len(list.CommonPrefixes) != 1 || *list.Contents[0].ETag != *made.ETag {
		t.Errorf("the list is %+v, %v", list, err)
	}
	for range 2 {
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("copy")}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"object.created.put a b/ü 10", "object.created.copy copy 10",
		fmt.Sprintf("object.created.complete_multipart_upload big %d", len(big)), "object.removed.delete copy",
	}
	e.wantTold(want...)
	behind.wantTold(want...)
	if files := e.files(); len(files) > 0 {
		t.Errorf("files are left here: %v", files)
	}
	status, text := do(t, signedPut(t, e.url()+"/uploads/bad", serveSecret, "UNSIGNED-PAYLOAD", "x", http.Header{"X-Amz-Checksum-Crc32": {crc("y")}}))
	if status != http.StatusBadRequest || !slices.Equal(behind.told(), want) {
		t.Errorf("another checksum: %d %s, and behind are %v", status, text, behind.told())
	}
}

// The answer of the other S3 gets lost: the mark of the object tells that it has it.
func TestS3ServeForwardDoubt(t *testing.T) {
	t.Parallel()
	behind := servedS3(t)
	var lose, deaf atomic.Bool
	address := behindProxy(t, behind.url(), func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		change := r.Method == http.MethodPut || r.Method == http.MethodDelete
		if change && deaf.Load() {
			panic(http.ErrAbortHandler)
		}
		if change && lose.Load() {
			pass.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
	e := serveOn(t, sourcetest.NewHost(t), forwardTo(t, address), &sourcetest.Publisher{})
	for _, key := range []string{"kept", "gone"} {
		if err := e.put(key, "old"); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(key string) error {
		_, err := e.client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(serveBucket), Key: &key})
		return err
	}
	deaf.Store(true)
	if e.put("kept", "never") == nil || e.put("never", "x") == nil || remove("kept") == nil {
		t.Error("acknowledged although it was not done")
	}
	deaf.Store(false)
	lose.Store(true)
	if e.put("new", "hello") == nil || remove("gone") == nil {
		t.Error("acknowledged although nobody can tell")
	}
	lose.Store(false)
	until(t, "the events of what was done", func() bool { return len(e.told()) >= 4 })
	if err := e.put("last", "x"); err != nil {
		t.Fatal(err)
	}
	got := e.told()
	slices.Sort(got)
	want := []string{"object.created.put gone 3", "object.created.put kept 3", "object.created.put last 1", "object.created.put new 5", "object.removed.delete gone"}
	if !slices.Equal(got, want) {
		t.Errorf("the events are %v, want %v", got, want)
	}
}

func TestS3ServeForwardRefused(t *testing.T) {
	t.Parallel()
	behind := servedS3(t)
	for want, spoil := range map[string]func(*sources.S3){
		"check access_key and secret_key": func(s *sources.S3) { s.Serve.Forward.SecretKey = value.NewSecret("wrong") },
		"no such bucket":                  func(s *sources.S3) { s.Serve.Forward.Bucket = "missing" },
	} {
		s := forwardTo(t, behind.url())
		spoil(s)
		err := sourcetest.NewHost(t).Open(t, s).Run(t.Context(), &sourcetest.Publisher{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %s", err, want)
		}
	}
}

func TestS3ServeForwardContract(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
		behind := servedS3(t)
		src := sourcetest.NewHost(t).Open(t, forwardTo(t, behind.url()))
		return &sourcetest.Subject{Source: byKey{src}, Send: func(ctx context.Context, e bus.Event) error {
			_, err := clientOf("http://"+sources.S3Addr(src), serveAccess, serveSecret).PutObject(ctx,
				&s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String(e.ID()), Body: strings.NewReader("x")})
			return err
		}}
	})
}

// A call that the client sends again, since the answer got lost, is one event; the
// same bytes in another call are another.
func TestS3ServeForwardAgain(t *testing.T) {
	t.Parallel()
	behind := servedS3(t)
	pub := &sourcetest.Publisher{}
	e := serveOn(t, sourcetest.NewHost(t), forwardTo(t, behind.url()), pub)
	bucket := aws.String(serveBucket)
	for _, attempt := range []struct{ call, number string }{{"call-1", "attempt=1; max=3"}, {"call-1", "attempt=2; max=3"}, {"call-2", "attempt=2; max=3"}, {"call-2", ""}} {
		c := e.client(func(o *s3.Options) {
			o.APIOptions = append(o.APIOptions, invokedAs(attempt.call), attemptOf(attempt.number))
		})
		_, put := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: aws.String("k"), Body: strings.NewReader("same")})
		_, copied := c.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/k")})
		if err := errors.Join(put, copied); err != nil {
			t.Fatal(err)
		}
	}
	if ids := idsByType(pub); len(ids["object.created.put"]) != 2 || len(ids["object.created.copy"]) != 2 || len(ids) != 2 {
		t.Errorf("two puts and two copies, each sent twice, are %v", ids)
	}
}

// attemptOf sends what an SDK says of an attempt.
func attemptOf(text string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("attempt", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			in.Request.(*smithyhttp.Request).Header.Set("Amz-Sdk-Request", text)
			return next.HandleFinalize(ctx, in)
		}), "Signing", middleware.Before)
	}
}

// idsByType counts the events by their types and ids.
func idsByType(pub *sourcetest.Publisher) map[string]map[string]int {
	ids := map[string]map[string]int{}
	for _, ev := range pub.Stored() {
		if ids[ev.Type()] == nil {
			ids[ev.Type()] = map[string]int{}
		}
		ids[ev.Type()][ev.ID()]++
	}
	return ids
}

// The other S3 completes an upload, its answer gets lost, and it then knows nothing of
// the upload any more, as most do: the upload is complete all the same, as one event.
func TestS3ServeForwardCompletedBefore(t *testing.T) {
	t.Parallel()
	got, ids, err := completeThrough(t, true, http.StatusNotFound, "<Error><Code>NoSuchUpload</Code></Error>")
	if err != nil || !bytes.Equal(got, twoParts()) || len(ids) != 1 {
		t.Errorf("%v, %d bytes, and the events are %v", err, len(got), ids)
	}
}

// The other S3 was cut off while it put the parts together, and says from then on that
// all is well, as versitygw does: nobody is told of an object that is not there.
func TestS3ServeForwardNeverCompleted(t *testing.T) {
	t.Parallel()
	got, ids, err := completeThrough(t, false, http.StatusOK, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
	if err == nil || !strings.Contains(err.Error(), "SlowDown") || len(ids) != 0 {
		t.Errorf("%v, %d bytes, and the events are %v", err, len(got), ids)
	}
}

// Credentials that may write and not look are enough, also for what is sent again.
func TestS3ServeForwardBlind(t *testing.T) {
	t.Parallel()
	target, err := url.Parse(servedS3(t).url())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && strings.Count(r.URL.Path, "/") > 1 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	pub := &sourcetest.Publisher{}
	e := serveOn(t, sourcetest.NewHost(t), forwardTo(t, front.URL), pub)
	c := e.client(func(o *s3.Options) { o.APIOptions = append(o.APIOptions, attemptOf("attempt=2; max=3")) })
	_, put := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), Body: strings.NewReader("x")})
	manager := transfermanager.New(c, func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 5<<20 })
	made, large := manager.UploadObject(t.Context(), &transfermanager.UploadObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("big"), Body: bytes.NewReader(twoParts())})
	if err := errors.Join(put, large); err != nil {
		t.Fatal(err)
	}
	if ids := idsByType(pub); len(ids) != 2 || !strings.HasSuffix(aws.ToString(made.ETag), `-2"`) {
		t.Errorf("the ETag is %s, and the events are %v", aws.ToString(made.ETag), ids)
	}
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), Body: strings.NewReader("y"), IfNoneMatch: aws.String("*")})
	if err == nil || len(pub.Stored()) != 2 {
		t.Errorf("a condition that nobody can check: %v, and %d events", err, len(pub.Stored()))
	}
}

func twoParts() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 6<<16) }

// completeThrough uploads twoParts. The answer to the first call that completes them is
// lost, whether or not the other S3 got it, and every later call is answered as told.
func completeThrough(t *testing.T, first bool, status int, answer string) (got []byte, ids map[string]int, err error) {
	t.Helper()
	target, err := url.Parse(servedS3(t).url())
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	var calls atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := calls.Load(); {
		case r.Method != http.MethodPost || !r.URL.Query().Has("uploadId"):
			proxy.ServeHTTP(w, r)
		case n == 0:
			if calls.Add(1); first {
				proxy.ServeHTTP(httptest.NewRecorder(), r)
			}
			w.WriteHeader(http.StatusForbidden) // which the SDK does not try again by itself
		default:
			calls.Add(1)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer)
		}
	}))
	t.Cleanup(front.Close)
	pub := &sourcetest.Publisher{}
	e := serveOn(t, sourcetest.NewHost(t), forwardTo(t, front.URL), pub)
	manager := transfermanager.New(e.client(retries), func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 5<<20 })
	_, err = manager.UploadObject(t.Context(), &transfermanager.UploadObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("big"), Body: bytes.NewReader(twoParts())})
	if calls.Load() < 2 {
		t.Errorf("it was completed %d times only", calls.Load())
	}
	got, _ = e.get("big")
	return got, idsByType(pub)["object.created.complete_multipart_upload"], err
}

// retries lets the SDK try again at once.
func retries(o *s3.Options) {
	o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 5, time.Millisecond })
}
