package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	putEvent      = "object.created.put "
	completeEvent = "object.created.complete_multipart_upload "
)

// newForwardProgram is a sluice whose S3 endpoint keeps its objects in a gateway.
func newForwardProgram(t *testing.T, g *gateway) *s3Program {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := newToldProgram(t, fmt.Sprintf(
		"serve: {listen: %q, buckets: [uploads], credentials: [{access_key: %s, secret_key: %q}], forward: {endpoint: %q, bucket: behind, access_key: %s, secret_key: %q}}",
		listen, s3Access, s3Secret, g.url, s3Access, s3Secret))
	p.endpoint = "http://" + listen
	return p
}

// load uploads to the endpoint until it is told to stop, from several goroutines, of
// which one sends objects in parts.
func (u *uploads) load(ctx context.Context, c *s3.Client, workers int) {
	const restart = 60 // attempts are enough for one, and not for ever
	large := bytes.Repeat([]byte("0123456789abcdef"), 6<<16)
	patient := s3.New(c.Options(), func(o *s3.Options) { o.RetryMaxAttempts = restart })
	parts := transfermanager.New(patient, func(o *transfermanager.Options) {
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = 5<<20, 5<<20, 2
	})
	for w := range workers {
		u.group.Go(func() {
			for i := 0; !u.stop.Load(); i++ {
				key := fmt.Sprintf("w%d/%d ü+.bin", w, i)
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("uploads"), Key: &key, Body: bytes.NewReader(large[:1+rand.IntN(16<<10)])})
				u.note(putEvent+key, err)
			}
		})
	}
	u.group.Go(func() {
		for i := 0; !u.stop.Load(); i++ {
			key := fmt.Sprintf("large/%d.bin", i)
			_, err := parts.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: aws.String("uploads"), Key: &key, Body: bytes.NewReader(large)})
			u.note(completeEvent+key, err)
		}
	})
}

// note keeps what got its 200.
func (u *uploads) note(what string, err error) {
	if err != nil {
		u.failed.Add(1)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keys = append(u.keys, what)
}

// TestProcessS3Forward uploads to an endpoint that keeps its objects in a real
// versitygw, and kills both. Every upload that got its 200 is in the gateway and has
// one event at the function; there is no event without an object. A versitygw that is
// killed while it puts parts together never makes the object: such an upload fails.
func TestProcessS3Forward(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	g.start()
	ctx, leave := context.WithTimeout(t.Context(), 5*time.Minute)
	defer leave()
	direct := (&s3Program{endpoint: g.url}).client(s3Secret)
	if _, err := direct.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("behind")}); err != nil {
		t.Fatal(err)
	}
	p := newForwardProgram(t, g)
	p.start()
	c := p.client(s3Secret)
	var u uploads
	u.load(ctx, c, 6)
	const rounds, gatewayKills = 12, 4
	for i := range rounds {
		<-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond)
		switch {
		case i%3 != 2:
			p.kill()
			p.start()
		default:
			g.kill()
			<-time.After(100 * time.Millisecond) // uploads that come now are refused
			g.start()
		}
	}
	u.stop.Store(true)
	u.group.Wait()
	p.settled(60 * time.Second)
	kept := p.listed(ctx, direct)
	var lost, gone, ids, twice, big int
	for _, what := range u.keys {
		got := p.ids(what)
		kind, key, _ := strings.Cut(what, " ")
		if len(got) == 0 {
			lost++
		}
		if !kept[key] {
			gone++
		}
		if kind+" " == completeEvent {
			big++
		}
		ids += len(got)
		for _, n := range got {
			twice += n - 1
		}
	}
	without := p.withoutObject(kept)
	t.Logf("%d rounds of kill -9 of sluice, %d of versitygw: %d uploads got their 200, %d of them multipart, %d failed; %d without an event, %d without an object, %d ids, %d delivered twice; %d events without an object",
		rounds-gatewayKills, gatewayKills, len(u.keys), big, u.failed.Load(), lost, gone, ids, twice, len(without))
	if lost > 0 || gone > 0 || len(without) > 0 {
		t.Errorf("%d uploads have no event and %d no object; without an object are %v", lost, gone, without)
	}
	if ids != len(u.keys) {
		t.Errorf("%d uploads have %d ids", len(u.keys), ids)
	}
	if len(u.keys) < 10*rounds || big == 0 {
		t.Errorf("only %d uploads, %d of them multipart: that is no load", len(u.keys), big)
	}
	if twice > len(u.keys)/2+100*rounds {
		t.Errorf("%d duplicates", twice)
	}
	p.stop()
}

// listed are the keys that the gateway has.
func (p *s3Program) listed(ctx context.Context, direct *s3.Client) map[string]bool {
	p.t.Helper()
	keys := map[string]bool{}
	for pages := s3.NewListObjectsV2Paginator(direct, &s3.ListObjectsV2Input{Bucket: aws.String("behind")}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, o := range page.Contents {
			keys[*o.Key] = true
		}
	}
	return keys
}

// withoutObject are the events of objects that are not there.
func (p *s3Program) withoutObject(kept map[string]bool) (events []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for what := range p.told {
		if _, key, _ := strings.Cut(what, " "); !kept[key] {
			events = append(events, what)
		}
	}
	return events
}
