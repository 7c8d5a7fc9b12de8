package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

const (
	s3Access = "uploader"
	s3Secret = "the-secret-of-the-test"
)

// s3Program is a sluice with an S3 endpoint and a function that gets every event.
type s3Program struct {
	*program
	endpoint string

	mu   sync.Mutex
	told map[string]map[string]int // how often, by type and key, and by event id
}

func newS3Program(t *testing.T) *s3Program {
	t.Helper()
	p := &s3Program{endpoint: fmt.Sprintf("127.0.0.1:%d", freePort(t)), told: map[string]map[string]int{}}
	f := newFunction(t, p.tell)
	p.program = newProgram(t, t.TempDir(), "", fmt.Sprintf(
		"sources:\n  up: {s3: {serve: {listen: %q, buckets: [uploads], credentials: [{access_key: %s, secret_key: %q}]}}}\nsinks:\n%s"+everythingTo,
		p.endpoint, s3Access, s3Secret, sinkYAML("f", f.URL, ""), "f"))
	p.endpoint = "http://" + p.endpoint
	return p
}

// tell is the function.
func (p *s3Program) tell(w http.ResponseWriter, r *http.Request) {
	subject, err := url.PathUnescape(r.Header.Get("Ce-Subject"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	what := r.Header.Get("Ce-Type") + " " + subject
	p.mu.Lock()
	if p.told[what] == nil {
		p.told[what] = map[string]int{}
	}
	p.told[what][r.Header.Get("Ce-Id")]++
	p.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// ids are how often the function got each event of a kind about a key.
func (p *s3Program) ids(what string) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told[what]
}

// client retries as SDKs do, but sooner and for longer.
func (p *s3Program) client(secret string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &p.endpoint, Region: "us-east-1", UsePathStyle: true,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: s3Access, SecretAccessKey: secret}, nil
		}),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff, o.RateLimiter = 300, 200*time.Millisecond, ratelimit.None
		}),
	})
}

// TestProcessS3Kill kills the program under uploads, of which some have several
// parts. Every upload that got its 200 has its event at the function, under one id
// however often the SDK had to send it.
func TestProcessS3Kill(t *testing.T) {
	t.Parallel()
	p := newS3Program(t)
	c := p.client(s3Secret)
	parts := transfermanager.New(c, func(o *transfermanager.Options) {
		o.PartSizeBytes, o.MultipartUploadThreshold, o.Concurrency = 5<<20, 5<<20, 2
	})
	large := bytes.Repeat([]byte("0123456789abcdef"), 6<<16)
	var (
		stop       atomic.Bool
		mu         sync.Mutex
		acked      []string
		cut        int
		load       sync.WaitGroup
		ctx, leave = context.WithTimeout(t.Context(), 5*time.Minute)
	)
	defer leave()
	p.start()
	note := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			acked = append(acked, what)
		} else {
			cut++
		}
	}
	for w := range 8 {
		load.Go(func() {
			for i := 0; !stop.Load(); i++ {
				key := fmt.Sprintf("w%d/%d.bin", w, i)
				_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("uploads"), Key: &key, Body: bytes.NewReader(large[:1+rand.IntN(64<<10)])})
				note("object.created.put "+key, err)
			}
		})
	}
	load.Go(func() {
		for i := 0; !stop.Load(); i++ {
			key := fmt.Sprintf("large/%d.bin", i)
			_, err := parts.UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: aws.String("uploads"), Key: &key, Body: bytes.NewReader(large)})
			note("object.created.complete_multipart_upload "+key, err)
		}
	})
	rounds := scale(3, 20)
	for range rounds {
		<-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond)
		p.kill()
		p.start()
	}
	stop.Store(true)
	load.Wait()
	p.settled(60 * time.Second)
	lost, ids, deliveries, most, big := 0, 0, 0, 0, 0
	for _, what := range acked {
		got := p.ids(what)
		if len(got) == 0 {
			lost++
		}
		if strings.Contains(what, "multipart") {
			big++
		}
		ids += len(got)
		for _, n := range got {
			deliveries += n
			most = max(most, n)
		}
	}
	t.Logf("%d rounds of kill -9: %d uploads got their 200, %d of them multipart, %d events lost, %d ids, %d deliveries (%d of one id at most); %d uploads failed",
		rounds, len(acked), big, lost, ids, deliveries, most, cut)
	if lost > 0 {
		t.Errorf("%d uploads that got their 200 have no event at the function", lost)
	}
	if ids != len(acked) {
		t.Errorf("%d uploads have %d events", len(acked), ids)
	}
	if len(acked) < 20*rounds || big == 0 {
		t.Errorf("only %d uploads, %d of them multipart: that is no load", len(acked), big)
	}
	if twice := deliveries - ids; twice > len(acked)/2+100*rounds {
		t.Errorf("%d duplicates", twice)
	}
}

// TestProcessS3Clients lets the clients that people use upload: each puts, uploads
// 12 MiB in parts, copies and deletes, and tries a wrong secret.
func TestProcessS3Clients(t *testing.T) {
	t.Parallel()
	p := newS3Program(t)
	p.start()
	for name, run := range map[string]func(t *testing.T, p *s3Program, file string){"go": uploadWithGo, "js": uploadWithJS, "cli": uploadWithCLI} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "large.bin")
			if err := os.WriteFile(file, bytes.Repeat([]byte("0123456789abcdef"), 12<<16), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, p, file)
			want := []string{
				"object.created.put " + name + "/small.txt", "object.created.complete_multipart_upload " + name + "/large.bin",
				"object.created.copy " + name + "/copy.txt", "object.removed.delete " + name + "/small.txt",
			}
			p.until(20*time.Second, "the events of "+name, func() bool {
				return !slices.ContainsFunc(want, func(what string) bool { return len(p.ids(what)) != 1 })
			})
			if len(p.ids("object.created.put "+name+"/refused.txt")) != 0 {
				t.Error("what a wrong secret signed became an event")
			}
			t.Logf("%s: 4 of 4 events are at the function, and what a wrong secret signed is refused", name)
		})
	}
	p.settled(20 * time.Second)
	p.stop()
}

func uploadWithGo(t *testing.T, p *s3Program, file string) {
	c, ctx, bucket := p.client(s3Secret), t.Context(), aws.String("uploads")
	body, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	small := &s3.PutObjectInput{Bucket: bucket, Key: aws.String("go/small.txt"), Body: strings.NewReader("hello")}
	_, put := c.PutObject(ctx, small)
	_, large := transfermanager.New(c, func(o *transfermanager.Options) { o.PartSizeBytes, o.MultipartUploadThreshold = 5<<20, 5<<20 }).
		UploadObject(ctx, &transfermanager.UploadObjectInput{Bucket: bucket, Key: aws.String("go/large.bin"), Body: body})
	_, copied := c.CopyObject(ctx, &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("go/copy.txt"), CopySource: aws.String("uploads/go/small.txt")})
	_, deleted := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: small.Key})
	if err := errors.Join(put, large, copied, deleted); err != nil {
		t.Fatal(err)
	}
	small.Key, small.Body = aws.String("go/refused.txt"), strings.NewReader("hello")
	if _, err := p.client("wrong").PutObject(ctx, small); err == nil || !strings.Contains(err.Error(), "SignatureDoesNotMatch") {
		t.Errorf("a wrong secret: %v", err)
	}
}

// needed skips a test for what is not installed, except where everything has to be.
func needed(t *testing.T, missing error, how string) {
	t.Helper()
	switch {
	case !full():
		t.Skip("SLUICE_INTEGRATION=1 runs it")
	case missing != nil && os.Getenv("CI") == "true":
		t.Fatalf("%v: %s", missing, how)
	case missing != nil:
		t.Skipf("%v: %s", missing, how)
	}
}

// s3Command runs a client with keys in its environment.
func (p *s3Program) s3Command(t *testing.T, secret, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+s3Access, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=us-east-1",
		"AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"ENDPOINT="+p.endpoint, "NODE_PATH="+filepath.Join(os.Getenv("SLUICE_S3_JS"), "node_modules"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func uploadWithJS(t *testing.T, p *s3Program, file string) {
	_, missing := os.Stat(filepath.Join(os.Getenv("SLUICE_S3_JS"), "node_modules", "@aws-sdk", "lib-storage"))
	needed(t, missing, "npm install @aws-sdk/client-s3 @aws-sdk/lib-storage in a directory, and set SLUICE_S3_JS to it")
	script := filepath.Join("testdata", "s3upload.cjs")
	if out, err := p.s3Command(t, s3Secret, "node", script, file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := p.s3Command(t, "wrong", "node", script, file, "refused"); err == nil || !strings.Contains(out, "SignatureDoesNotMatch") {
		t.Errorf("a wrong secret: %v\n%s", err, out)
	}
}

func uploadWithCLI(t *testing.T, p *s3Program, file string) {
	_, missing := exec.LookPath("aws")
	needed(t, missing, "pip install awscli")
	small := filepath.Join(filepath.Dir(file), "small.txt")
	if err := os.WriteFile(small, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(filepath.Dir(file), "back.bin")
	for _, args := range [][]string{
		{"cp", small, "s3://uploads/cli/small.txt"}, {"cp", file, "s3://uploads/cli/large.bin"}, {"cp", "s3://uploads/cli/large.bin", back},
		{"cp", "s3://uploads/cli/small.txt", "s3://uploads/cli/copy.txt"}, {"rm", "s3://uploads/cli/small.txt"}, {"ls", "s3://uploads/cli/"},
	} {
		if out, err := p.s3Command(t, s3Secret, "aws", append([]string{"--endpoint-url", p.endpoint, "s3"}, args...)...); err != nil {
			t.Fatalf("aws s3 %v: %v\n%s", args, err, out)
		}
	}
	sent, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(back); !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d come back, %v", len(got), len(sent), err)
	}
	out, err := p.s3Command(t, "wrong", "aws", "--endpoint-url", p.endpoint, "s3", "cp", small, "s3://uploads/cli/refused.txt")
	if err == nil || !strings.Contains(out, "SignatureDoesNotMatch") {
		t.Errorf("a wrong secret: %v\n%s", err, out)
	}
}

// TestProcessS3Memory sends one large object: what it costs in memory does not grow
// with it.
func TestProcessS3Memory(t *testing.T) {
	t.Parallel()
	p := newS3Program(t)
	p.start()
	size := int64(scale(64<<20, 2<<30))
	signed, err := s3.NewPresignClient(p.client(s3Secret)).PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("uploads"), Key: aws.String("large.bin")})
	if err != nil {
		t.Fatal(err)
	}
	before, began := p.peak(), time.Now()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, signed.URL, io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	took := time.Since(began)
	p.until(20*time.Second, "the event", func() bool { return len(p.ids("object.created.put large.bin")) == 1 })
	grown := p.peak() - before
	t.Logf("an object of %d MiB: %s, %.0f MiB/s, the peak of memory grew by %d KiB", size>>20, resp.Status, float64(size>>20)/took.Seconds(), grown)
	if resp.StatusCode != http.StatusOK || grown > 48<<10 {
		t.Errorf("%s, the peak of memory grew by %d KiB", resp.Status, grown)
	}
	p.stop()
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// peak is the most memory that the program has had, in KiB.
func (p *s3Program) peak() (kib int) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Skip("this system does not tell the memory of a process")
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err = fmt.Sscan(rest, &kib)
		}
	}
	if err != nil || kib == 0 {
		p.t.Fatalf("no VmHWM in %s: %v", text, err)
	}
	return kib
}

// TestProcessS3Fsync reads the system calls of a program that takes uploads: before
// each 200 the object, the directory it is in, the record of it and its event are
// fsynced.
func TestProcessS3Fsync(t *testing.T) {
	t.Parallel()
	strace, missing := exec.LookPath("strace")
	needed(t, missing, "install strace")
	p := newS3Program(t)
	p.start()
	trace := p.trace(strace, "-s", "32", "-e", "trace=fsync,fdatasync,write")
	const uploads = 20
	for i := range uploads {
		_, err := p.client(s3Secret).PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("uploads"), Key: aws.String(fmt.Sprint(i)), Body: strings.NewReader("hello")})
		if err != nil {
			t.Fatal(err)
		}
	}
	answers, err := checkS3Trace(trace())
	if err != nil {
		t.Fatal(err)
	}
	if answers != uploads {
		t.Fatalf("%d answers to %d uploads are in the trace", answers, uploads)
	}
	t.Logf("%d uploads: each 200 came after the object, its directory, its record and its event were fsynced", answers)
	p.stop()
}

// checkS3Trace counts the answers to uploads, each after all that it promises.
func checkS3Trace(trace string) (answers int, err error) {
	kinds := map[string]*regexp.Regexp{
		"the object": regexp.MustCompile(`/files/[0-9a-f]{2}/[0-9a-f]{32}>`), "its directory": regexp.MustCompile(`/files/[0-9a-f]{2}>`),
		"its record": regexp.MustCompile(`/objects\.db>`), "its event": regexp.MustCompile(`/EVENTS/msgs/\d+\.blk>`),
	}
	synced := map[string]bool{}
	for call := range systemCalls(trace) {
		if call.ends && strings.Contains(call.text, "sync(") && strings.Contains(call.text, "= 0") {
			for kind, of := range kinds {
				if of.MatchString(call.text) {
					synced[kind] = true
				}
			}
		}
		if call.begins && strings.Contains(call.text, `"HTTP/1.1 200 OK`) {
			answers++
			if len(synced) != len(kinds) {
				return answers, fmt.Errorf("answer %d came when only these were fsynced: %v", answers, slices.Collect(maps.Keys(synced)))
			}
			clear(synced)
		}
	}
	return answers, nil
}
