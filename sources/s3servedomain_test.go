package sources_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sluice/sources"
	"sluice/sources/sourcetest"
)

// named is the SDK's client for an endpoint that it knows by a name: it writes the bucket
// before that. rewrite may change what it sends.
func (e *endpoint) named(name string, rewrite func(*http.Request)) *s3.Client {
	addr := sources.S3Addr(e.src)
	_, port, _ := net.SplitHostPort(addr)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	transport := &http.Transport{DialContext: dial}
	e.t.Cleanup(transport.CloseIdleConnections)
	return clientOf("http://"+name+":"+port, serveAccess, serveSecret, func(o *s3.Options) {
		o.UsePathStyle = false
		o.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			rewrite(r)
			return transport.RoundTrip(r)
		})}
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An SDK that is not told to use path style writes the bucket into the host.
func TestS3ServeDomain(t *testing.T) {
	t.Parallel()
	s := serveSettings()
	s.Serve.Domain = "S3.example.com"
	e := serveOn(t, sourcetest.NewHost(t), s, &sourcetest.Publisher{})
	var hosts sync.Map
	c, ctx, bucket := e.named("s3.example.com", func(r *http.Request) {
		name, _, _ := strings.Cut(r.URL.Host, ":")
		hosts.Store(name, true)
	}), t.Context(), aws.String(serveBucket)
	keys := []string{"a b/ü+%", "/slash", "copy"}
	for _, key := range keys[:2] {
		if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &key, Body: strings.NewReader("0123456789")}); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		out, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &key})
		if err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		if body, err := io.ReadAll(out.Body); string(body) != "0123456789" || err != nil {
			t.Errorf("GET %q gives %q, %v", key, body, err)
		}
	}
	if _, err := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("uploads/%2Fslash")}); err != nil {
		t.Fatal(err)
	}
	list, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket})
	if err != nil || len(list.Contents) != len(keys) {
		t.Errorf("the list is %+v, %v", list, err)
	}
	manager := transfermanager.New(c, func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 5<<20 })
	if _, err := manager.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: bucket, Key: aws.String("big"), Body: bytes.NewReader(make([]byte, 6<<20))}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("copy")}); err != nil {
		t.Fatal(err)
	}
	if buckets, err := c.ListBuckets(ctx, nil); err != nil || len(buckets.Buckets) != 2 {
		t.Errorf("the buckets are %+v, %v", buckets, err)
	}
	e.wantTold("object.created.put a b/ü+% 10", "object.created.put /slash 10", "object.created.copy copy 10",
		"object.created.complete_multipart_upload big 6291456", "object.removed.delete copy")
	var called []string
	hosts.Range(func(name, _ any) bool {
		called = append(called, name.(string))
		return true
	})
	if slices.Sort(called); !slices.Equal(called, []string{"s3.example.com", "uploads.s3.example.com"}) {
		t.Errorf("the SDK called %v", called)
	}
	if err := e.put("path", "style"); err != nil {
		t.Errorf("path style: %v", err)
	}
}

// What was signed for one bucket cannot be sent to another, and a host that only looks
// like one below the domain is none.
func TestS3ServeDomainForged(t *testing.T) {
	t.Parallel()
	s := serveSettings()
	s.Serve.Domain = "s3.example.com"
	e := serveOn(t, sourcetest.NewHost(t), s, &sourcetest.Publisher{})
	for name, c := range map[string]struct {
		client *s3.Client
		want   string
	}{
		"another bucket": {e.named("s3.example.com", func(r *http.Request) { r.Host = "other.s3.example.com" }), "SignatureDoesNotMatch"},
		"no bucket":      {e.named("ms3.example.com", func(*http.Request) {}), "NoSuchBucket"},
	} {
		_, err := c.client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("key/x"), Body: strings.NewReader("x")})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if got := e.told(); !slices.Equal(got, nil) {
		t.Errorf("the events are %v", got)
	}
}
