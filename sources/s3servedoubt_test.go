package sources_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// behindProxy is the address of an S3 for which a test answers, or lets requests pass.
func behindProxy(t *testing.T, address string, answer func(w http.ResponseWriter, r *http.Request, pass http.Handler)) string {
	t.Helper()
	target, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
	}}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, pass) }))
	t.Cleanup(front.Close)
	return front.URL
}

// parts uploads the only part of a multipart upload, and gives what completes it.
func (e *endpoint) parts(key string) *s3.CompleteMultipartUploadInput {
	e.t.Helper()
	ctx, bucket := e.t.Context(), aws.String(serveBucket)
	begun, err := e.client().CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &key})
	if err != nil {
		e.t.Fatal(err)
	}
	part, err := e.client().UploadPart(ctx, &s3.UploadPartInput{
		Bucket: bucket, Key: &key, UploadId: begun.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader(make([]byte, 100)),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: &key, UploadId: begun.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: part.ETag, PartNumber: aws.Int32(1)}}},
	}
}

// The S3 behind is down, and so forward is taken out of the settings while nobody knows
// what became of the last changes. The endpoint goes on with its own disk: without the
// events of what nobody was told to be done, and with that of an upload that is known to
// be complete.
func TestS3ServeForwardTakenOut(t *testing.T) {
	t.Parallel()
	var deaf, refuses atomic.Bool
	address := behindProxy(t, servedS3(t).url(), func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		if deaf.Load() {
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
	host := sourcetest.NewHost(t)
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		if refuses.Load() {
			return errors.New("the bus takes nothing")
		}
		return nil
	}}
	e := serveOn(t, host, forwardTo(t, address), pub)
	bucket := aws.String(serveBucket)
	if err := e.put("kept", "old"); err != nil {
		t.Fatal(err)
	}
	complete := e.parts("big")
	refuses.Store(true)
	if _, err := e.client().CompleteMultipartUpload(t.Context(), complete); err == nil {
		t.Error("an upload is acknowledged whose event the bus does not have")
	}
	deaf.Store(true)
	_, removed := e.client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("kept")})
	if e.put("new", "hello") == nil || removed == nil {
		t.Error("acknowledged although it was not done")
	}
	e.stop()
	refuses.Store(false)
	alone := serveSettings()
	alone.Serve.Buckets = []string{serveBucket}
	e = serveOn(t, host, alone, pub)
	if err := e.put("new", "later"); err != nil {
		t.Errorf("an object whose last upload is in doubt takes no other: %v", err)
	}
	if _, err := e.client().CompleteMultipartUpload(t.Context(), complete); err != nil {
		t.Errorf("an upload that is complete is not acknowledged: %v", err)
	}
	got := e.told()
	slices.Sort(got)
	want := []string{"object.created.complete_multipart_upload big 100", "object.created.put kept 3", "object.created.put new 5"}
	if !slices.Equal(got, want) {
		t.Errorf("the events are %v, want %v", got, want)
	}
}

// A panic in the background ends the source, with an error, and not the bus.
func TestS3ServePanics(t *testing.T) {
	t.Parallel()
	calls := 0
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		if calls++; calls == 1 {
			return errors.New("the bus takes nothing")
		}
		panic("a fault of the bus")
	}}
	src := sourcetest.NewHost(t).Open(t, serveSettings())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(t.Context(), pub) }()
	<-src.(sources.Readier).Ready()
	_, err := clientOf("http://"+sources.S3Addr(src), serveAccess, serveSecret).PutObject(t.Context(),
		&s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("key"), Body: strings.NewReader("x")})
	if err == nil {
		t.Error("acknowledged although the bus has no event of it")
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "it panicked: a fault of the bus") {
		t.Errorf("Run: %v", err)
	}
}

// The other S3 does not tell what became of one upload: the event of another, which only
// needs the bus, does not wait for that.
func TestS3ServeForwardHangs(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}, 100), make(chan struct{})
	address := behindProxy(t, servedS3(t).url(), func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		switch lost := strings.HasSuffix(r.URL.Path, "/lost"); {
		case lost && r.Method == http.MethodPut:
			panic(http.ErrAbortHandler)
		case lost:
			asked <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
			panic(http.ErrAbortHandler)
		}
		pass.ServeHTTP(w, r)
	})
	var refuses atomic.Bool
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		if refuses.Load() {
			return errors.New("the bus takes nothing")
		}
		return nil
	}}
	host := sourcetest.NewHost(t)
	e := serveOn(t, host, forwardTo(t, address), pub)
	defer close(release)
	refuses.Store(true)
	if e.put("lost", "x") == nil || e.put("other", "x") == nil {
		t.Error("acknowledged although the bus has no event of it")
	}
	<-asked
	refuses.Store(false)
	until(t, "the event that needs the bus alone", func() bool { return slices.Equal(e.told(), []string{"object.created.put other 1"}) })
}

// Multipart uploads that are too old are removed, though the other S3 will not let go of
// some. Of those that are complete it is not asked.
func TestS3ServeForwardReaps(t *testing.T) {
	t.Parallel()
	var stuck sync.Map // by id
	var complete atomic.Pointer[string]
	var asked atomic.Bool
	address := behindProxy(t, servedS3(t).url(), func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		id := r.URL.Query().Get("uploadId")
		if r.Method == http.MethodDelete && complete.Load() != nil && id == *complete.Load() {
			asked.Store(true)
		}
		if _, ok := stuck.Load(id); ok && r.Method == http.MethodDelete {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		pass.ServeHTTP(w, r)
	})
	host, s := sourcetest.NewHost(t), forwardTo(t, address)
	e := serveOn(t, host, s, &sourcetest.Publisher{})
	bucket := aws.String(serveBucket)
	begin := func(key string) *string {
		begun, err := e.client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		return begun.UploadId
	}
	for range 3 {
		stuck.Store(*begin("stuck"), true)
	}
	for range 8 {
		begin("old")
	}
	whole := e.parts("complete")
	complete.Store(whole.UploadId)
	if _, err := e.client().CompleteMultipartUpload(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	e.stop()
	s.Serve.Retain.Unfinished = value.Duration(time.Millisecond)
	e = serveOn(t, host, s, &sourcetest.Publisher{})
	until(t, "the old uploads are gone", func() bool {
		list, err := e.client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: bucket})
		return err == nil && len(list.Uploads) == 3 && *list.Uploads[0].Key == "stuck"
	})
	if asked.Load() {
		t.Error("the other S3 is asked to abort an upload that is complete")
	}
}

// An upload is complete behind and the bus has no event of it, when the endpoint ends and
// somebody else removes the object. Who asks again is told that it is complete: so it has
// its event.
func TestS3ServeForwardCompleteOnce(t *testing.T) {
	t.Parallel()
	behind, host := servedS3(t), sourcetest.NewHost(t)
	s := forwardTo(t, behind.url())
	e := serveOn(t, host, s, &sourcetest.Publisher{Before: func(context.Context) error { return errors.New("the bus takes nothing") }})
	complete := e.parts("big")
	if _, err := e.client().CompleteMultipartUpload(t.Context(), complete); err == nil {
		t.Error("an upload is acknowledged whose event the bus does not have")
	}
	e.stop()
	if _, err := behind.client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String("other"), Key: complete.Key}); err != nil {
		t.Fatal(err)
	}
	e = serveOn(t, host, s, &sourcetest.Publisher{})
	if _, err := e.client().CompleteMultipartUpload(t.Context(), complete); err != nil {
		t.Fatal(err)
	}
	e.wantTold("object.created.complete_multipart_upload big 100")
}
