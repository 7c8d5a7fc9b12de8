package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// gateway is a real versitygw over a directory.
type gateway struct {
	t    *testing.T
	args []string
	url  string
	cmd  *exec.Cmd
	log  lockedBuffer
}

// newGateway prepares a versitygw, which SLUICE_VERSITYGW or PATH has. webhook is
// where it sends its notifications, "" for nowhere.
func newGateway(t *testing.T, webhook string) *gateway {
	t.Helper()
	if !full() {
		t.Skip("set SLUICE_INTEGRATION=1 to run against a real versitygw")
	}
	binary := installed(t, "versitygw", "SLUICE_VERSITYGW", "github.com/versity/versitygw/cmd/versitygw@v1.8.0")
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	g := &gateway{t: t, url: "http://" + address, args: []string{
		binary, "--port", address, "--access", s3Access, "--secret", s3Secret, "--quiet",
	}}
	if webhook != "" {
		g.args = append(g.args, "--event-webhook-url", webhook)
	}
	g.args = append(g.args, "posix", dir)
	t.Cleanup(g.kill)
	return g
}

func (g *gateway) start() {
	g.t.Helper()
	g.cmd = exec.Command(g.args[0], g.args[1:]...)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	for {
		if res, err := http.Get(g.url); err == nil {
			_ = res.Body.Close()
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			g.t.Fatalf("versitygw does not answer:\n%s", g.log.String())
		}
	}
}

func (g *gateway) kill() {
	if g.cmd == nil || g.cmd.ProcessState != nil {
		return
	}
	_ = g.cmd.Process.Kill()
	_ = g.cmd.Wait()
}

// oddKeys are keys whose order is not that of paths, or that are hard to encode.
func oddKeys() []string {
	return []string{"a/b", "a-b", "a.b", "a0", "up load+ü.json", "100%.txt", "a%20b", "日本/😀", "q&<x>=\"1\""}
}

// uploads puts objects from several goroutines until it is told to stop.
type uploads struct {
	stop   atomic.Bool
	group  sync.WaitGroup
	mu     sync.Mutex
	keys   []string // that got their 200
	failed atomic.Int64
}

func (u *uploads) put(ctx context.Context, c *s3.Client, key string) {
	_, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("uploads"), Key: &key, Body: strings.NewReader("object " + key)})
	if err == nil {
		u.mu.Lock()
		u.keys = append(u.keys, key)
		u.mu.Unlock()
	}
}

func (u *uploads) run(ctx context.Context, c *s3.Client, workers int) {
	for w := range workers {
		u.group.Go(func() {
			for i := 0; !u.stop.Load(); i++ {
				u.put(ctx, c, fmt.Sprintf("w%d/%04d ü+.bin", w, i))
				<-time.After(5 * time.Millisecond)
			}
		})
	}
}

// tally looks for the event of each upload and says what it found.
func (p *s3Program) tally(kind string, keys []string) (lost, ids, deliveries int) {
	for _, key := range keys {
		got := p.ids(kind + " " + key)
		if len(got) == 0 {
			lost++
		}
		ids += len(got)
		for _, n := range got {
			deliveries += n
		}
	}
	return lost, ids, deliveries
}

func newToldProgram(t *testing.T, source string) *s3Program {
	t.Helper()
	p := &s3Program{told: map[string]map[string]int{}}
	f := newFunction(t, p.tell)
	p.program = newProgram(t, t.TempDir(), "", fmt.Sprintf("sources:\n  up: {s3: {%s}}\nsinks:\n%s"+everythingTo, source, sinkYAML("f", f.URL, ""), "f"))
	return p
}

// outbox takes notifications at once and sends each on until it is acknowledged, as
// an object store with a queue does. versitygw has none: it sends once.
type outbox struct {
	*httptest.Server
	waiting sync.WaitGroup
	sent    atomic.Int64
	again   atomic.Int64

	mu    sync.Mutex
	taken map[string]int // notifications by event and key
}

func newOutbox(t *testing.T, to string) *outbox {
	t.Helper()
	o := &outbox{taken: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil { // versitygw was killed in the middle
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		o.take(body)
		o.waiting.Go(func() { o.send(ctx, to, r.Header.Clone(), body) })
	}))
	t.Cleanup(func() { cancel(); o.waiting.Wait(); o.Close() })
	return o
}

// take notes what a notification is about; versitygw's test message is about nothing.
func (o *outbox) take(body []byte) {
	var n struct {
		Records []struct {
			EventName string
			S3        struct{ Object struct{ Key string } }
		}
	}
	if json.Unmarshal(body, &n) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range n.Records {
		o.taken[r.EventName+" "+r.S3.Object.Key]++
	}
}

// told is how many notifications of an event came, by key.
func (o *outbox) told(event string) map[string]int {
	o.mu.Lock()
	defer o.mu.Unlock()
	keys := map[string]int{}
	for what, n := range o.taken {
		if key, is := strings.CutPrefix(what, event+" "); is {
			keys[key] = n
		}
	}
	return keys
}

func (o *outbox) send(ctx context.Context, to string, header http.Header, body []byte) {
	o.sent.Add(1)
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header = header
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode/100 == 2 {
				return
			}
		}
		o.again.Add(1)
		<-time.After(50 * time.Millisecond)
	}
}

// TestProcessS3Notify lets a real versitygw notify the program, and kills both: every
// notification becomes an event with an id of its own, however often it had to be sent.
// versitygw sends each once, after it has made the object: what it was about to send
// when it was killed is gone.
func TestProcessS3Notify(t *testing.T) {
	t.Parallel()
	p := newToldProgram(t, "path: /in/uploads, auth: {bearer: notify-token-marker}")
	o := newOutbox(t, p.base+"/in/uploads")
	webhook, err := url.Parse(o.URL)
	if err != nil {
		t.Fatal(err)
	}
	webhook.User = url.UserPassword("sluice", "notify-token-marker") // all that versitygw can send
	g := newGateway(t, webhook.String())
	p.start()
	g.start()
	p.endpoint = g.url
	c, ctx := p.client(s3Secret), t.Context()
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("uploads")}); err != nil {
		t.Fatal(err)
	}
	var u uploads
	for _, key := range oddKeys() {
		u.put(ctx, c, key)
	}
	const workers, rounds, gatewayKills = 4, 4, 4
	u.run(ctx, c, workers)
	for range rounds {
		<-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond)
		p.kill()
		p.start()
	}
	for range gatewayKills {
		<-time.After(time.Duration(100+rand.IntN(200)) * time.Millisecond)
		g.kill()
		g.start()
	}
	u.stop.Store(true)
	u.group.Wait()
	removed := u.keys[:20]
	for _, key := range removed {
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("uploads"), Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	p.until(60*time.Second, "every delete is told", func() bool { return len(o.told("s3:ObjectRemoved:Delete")) == len(removed) })
	o.waiting.Wait()
	p.settled(30 * time.Second)
	told := o.told("s3:ObjectCreated:Put")
	lost, ids, deliveries := p.tally("object.created.put", slices.Collect(maps.Keys(told)))
	_, goneIDs, _ := p.tally("object.removed.delete", removed)
	untold, twice := 0, 0
	for _, key := range u.keys {
		if told[key] == 0 {
			untold++
		}
	}
	for key, n := range told {
		if n > 1 {
			twice++
		}
		if got := len(p.ids("object.created.put " + key)); got != n {
			t.Errorf("%d notifications of %s have %d ids", n, key, got)
		}
	}
	t.Logf("%d rounds of kill -9, %d of versitygw: %d uploads and %d deletes, %d notifications (%d sent again), %d lost, %d ids, %d deliveries; versitygw lost %d before it sent them, and made %d objects twice",
		rounds, gatewayKills, len(u.keys), len(removed), o.sent.Load(), o.again.Load(), lost, ids, deliveries, untold, twice)
	if lost > 0 || goneIDs != len(removed) {
		t.Errorf("%d notifications have no event; %d deletes have %d ids", lost, len(removed), goneIDs)
	}
	// What was under way: an upload that has its 200, or one that the SDK sends again.
	if most := workers * gatewayKills; untold > most || twice > most {
		t.Errorf("versitygw lost %d notifications and made %d objects twice, at most %d each were expected", untold, twice, most)
	}
	if again := deliveries - ids; again > ids/2+100*rounds {
		t.Errorf("%d duplicates", again)
	}
	if len(u.keys) < 100 || o.again.Load() == 0 {
		t.Errorf("%d uploads, %d sent again: that is no load", len(u.keys), o.again.Load())
	}
	if strings.Contains(p.log.String(), "notify-token-marker") {
		t.Error("the log holds the token")
	}
}

func pollYAML(g *gateway, secret, more string) string {
	return fmt.Sprintf("poll: {endpoint: %q, bucket: uploads, access_key: %s, secret_key: %q, every: 100ms%s}", g.url, s3Access, secret, more)
}

// TestProcessS3Poll polls a real versitygw while both are killed: every object has
// its event, under one id for each version that was written.
func TestProcessS3Poll(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	g.start()
	p := newToldProgram(t, pollYAML(g, s3Secret, ", removed: true"))
	p.endpoint = g.url
	c, ctx := p.client(s3Secret), t.Context()
	p.start() // before there is a bucket
	p.until(20*time.Second, "the missing bucket is shown", func() bool { return strings.Contains(p.sources(), "there is no such bucket") })
	if _, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("uploads")}); err != nil {
		t.Fatal(err)
	}
	var u uploads
	for _, key := range oddKeys() {
		u.put(ctx, c, key)
	}
	const workers, rounds, gatewayKills = 4, 5, 2
	u.run(ctx, c, workers)
	for i := range rounds {
		<-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond)
		p.kill()
		if i < gatewayKills {
			g.kill()
			g.start()
		}
		p.start()
		if i < gatewayKills { // and once while the program runs
			g.kill()
			g.start()
		}
	}
	u.stop.Store(true)
	u.group.Wait()
	p.until(60*time.Second, "every object is told", func() bool {
		lost, _, _ := p.tally("object.created", u.keys)
		return lost == 0
	})
	removed := u.keys[:20]
	for _, key := range removed {
		if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: aws.String("uploads"), Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	p.until(30*time.Second, "every deletion is told", func() bool {
		lost, _, _ := p.tally("object.removed", removed)
		return lost == 0
	})
	p.settled(30 * time.Second)
	lost, ids, deliveries := p.tally("object.created", u.keys)
	_, gone, _ := p.tally("object.removed", removed)
	t.Logf("%d rounds of kill -9, %d of versitygw: %d objects, %d lost, %d ids, %d deliveries; %d deletes, %d ids",
		rounds, 2*gatewayKills, len(u.keys), lost, ids, deliveries, len(removed), gone)
	// An upload that was cut off is sent again by the SDK, and is another version then.
	if most := len(u.keys) + 2*gatewayKills*workers; ids > most || gone != len(removed) {
		t.Errorf("%d ids for %d objects, %d for %d deletes", ids, len(u.keys), gone, len(removed))
	}
	if twice := deliveries - ids; twice > ids/2+100*rounds {
		t.Errorf("%d duplicates", twice)
	}
	if len(u.keys) < 100 {
		t.Errorf("only %d objects: that is no load", len(u.keys))
	}
}

// sources is what the program says of its sources.
func (p *s3Program) sources() string {
	p.t.Helper()
	out, err := p.cli("sources", "ls", "-o", "json")
	if err != nil {
		p.t.Fatalf("sluice sources ls: %v\n%s", err, out)
	}
	return out
}

// TestProcessS3PollRefused shows wrong credentials and a server that is away for what
// they are.
func TestProcessS3PollRefused(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "")
	g.start()
	p := newToldProgram(t, pollYAML(g, "a-wrong-secret-marker", ""))
	p.start()
	p.until(20*time.Second, "the wrong secret is shown", func() bool { return strings.Contains(p.sources(), "check secret_key") })
	g.kill()
	p.until(20*time.Second, "the server that is away is shown", func() bool { return strings.Contains(p.sources(), "does not answer, check endpoint") })
	if strings.Contains(p.log.String()+p.sources(), "a-wrong-secret-marker") {
		t.Error("the secret is shown")
	}
}
