package sources

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
	"github.com/tidwall/gjson"

	"sluice/bus"
	"sluice/config/value"
)

// bucket is a bucket in an S3 server in the process, the dir of a source that polls
// it, and the events of the source.
type bucket struct {
	t       *testing.T
	backend *s3mem.Backend
	clock   gofakes3.TimeSourceAdvancer
	set     S3Poll
	dir     string
	env     *Env

	stored   []bus.Event
	rejected []Rejected
	publish  func(events []bus.Event) ([]bus.Result, error) // when it is not nil
	asked    []string                                       // the queries of listings
}

func newBucket(t *testing.T) *bucket {
	t.Helper()
	b := &bucket{t: t, clock: gofakes3.FixedTimeSource(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), dir: t.TempDir()}
	b.backend = s3mem.New(s3mem.WithTimeSource(b.clock))
	if err := b.backend.CreateBucket(t.Context(), "in"); err != nil {
		t.Fatal(err)
	}
	library := gofakes3.New(b.backend, gofakes3.WithTimeSkewLimit(0)).Server()
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		b.asked = append(b.asked, r.URL.RawQuery)
		mu.Unlock()
		library.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	b.set = S3Poll{S3Remote: remoteAt(t, srv.URL)}
	b.env = &Env{
		Log: slog.New(slog.DiscardHandler), Dir: b.dir,
		Reject: func(_ context.Context, r Rejected) error { b.rejected = append(b.rejected, r); return nil },
	}
	return b
}

func remoteAt(t *testing.T, address string) S3Remote {
	t.Helper()
	endpoint, err := value.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	return S3Remote{Endpoint: endpoint, Bucket: "in", AccessKey: "key", SecretKey: value.NewSecret("marker-secret")}
}

func (b *bucket) put(key, text string) {
	b.t.Helper()
	b.clock.Advance(time.Second)
	if _, err := b.backend.PutObject(b.t.Context(), "in", key, nil, strings.NewReader(text), int64(len(text))); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bucket) remove(key string) {
	b.t.Helper()
	b.clock.Advance(time.Second)
	if _, err := b.backend.DeleteObject(b.t.Context(), "in", key); err != nil {
		b.t.Fatal(err)
	}
}

// Publish is bus.Publisher.
func (b *bucket) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	if err := ctx.Err(); err != nil {
		return make([]bus.Result, len(events)), err
	}
	if b.publish != nil {
		return b.publish(events)
	}
	b.stored = append(b.stored, events...)
	return make([]bus.Result, len(events)), nil
}

func (b *bucket) round(ctx context.Context) error {
	b.t.Helper()
	client, err := b.set.client(ctx, s3PageLimit)
	if err != nil {
		return err
	}
	r := s3Round{poller: &s3Poller{set: b.set, env: b.env, linger: time.Millisecond}, client: client, dir: b.dir, feed: feed{b.env, b}}
	return r.run(ctx)
}

// told makes a round and gives what it told, such as "created a 3".
func (b *bucket) told() (told []string) {
	b.t.Helper()
	before := len(b.stored)
	if err := b.round(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	for _, e := range b.stored[before:] {
		told = append(told, strings.TrimSpace(strings.TrimPrefix(e.Type(), "object.")+" "+e.Subject()+" "+gjson.GetBytes(e.Data(), "size").Raw))
	}
	return told
}

func (b *bucket) wantTold(want ...string) {
	b.t.Helper()
	if got := b.told(); !slices.Equal(got, want) {
		b.t.Errorf("told %q, want %q", got, want)
	}
}

func (b *bucket) wantOwnIDs() {
	b.t.Helper()
	seen := map[string]bool{}
	for _, e := range b.stored {
		if seen[e.ID()] {
			b.t.Errorf("the id of %s is there already", e.AppendJSON(nil))
		}
		seen[e.ID()] = true
	}
}

func TestPollChanges(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.set.Removed = true
	b.wantTold()
	b.put("b/1", "one")
	b.put("a/1", "three")
	b.wantTold("created a/1 5", "created b/1 3")
	b.wantTold()
	b.put("b/1", "ONE")
	b.put("a/0", "")
	b.wantTold("created a/0 0", "created b/1 3")
	b.remove("a/1")
	b.remove("b/1")
	b.put("c", "c")
	b.wantTold("removed a/1", "removed b/1", "created c 1")
	b.put("b/1", "one") // the same content again, and gone again
	b.wantTold("created b/1 3")
	b.remove("b/1")
	b.wantTold("removed b/1")
	b.remove("a/0")
	b.remove("c")
	b.wantTold("removed a/0", "removed c")
	b.wantTold()
	b.wantOwnIDs()
	e := b.stored[0]
	if e.Source() != "s3/in" || e.Get("time") != "2026-01-02T03:04:07Z" || gjson.GetBytes(e.Data(), "etag").Str != "35d6d33467aae9a2e3dccb4b6b027878" {
		t.Errorf("the first event is %s", e.AppendJSON(nil))
	}
}

func TestPollRemovedIsAChoice(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.put("a", "a")
	b.wantTold("created a 1")
	b.remove("a")
	b.wantTold()
	b.put("a", "a")
	b.wantTold("created a 1")
}

func TestPollExisting(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.set.Existing = existingSkip
	b.put("old", "old")
	b.wantTold()
	b.put("new", "new")
	b.put("old", "OLD")
	b.wantTold("created new 3", "created old 3")

	b = newBucket(t) // what comes after an empty first time is new
	b.set.Existing = existingSkip
	b.wantTold()
	b.put("a", "a")
	b.wantTold("created a 1")
}

func TestPollPrefix(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.set.Prefix = "in/"
	b.put("in/a", "a")
	b.put("out/b", "b")
	b.wantTold("created in/a 1")
	b.set.Prefix = "out/" // another listing
	b.wantTold("created out/b 1")
	b.wantTold()
}

// Keys that XML cannot hold, and the order of keys that is not that of paths.
func TestPollOddKeys(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	keys := []string{"a-b", "a/b", "a0", "a b+c%20d&<e>", "ü/日本/😀", "tab\tline\nbell\a", "100%", "A", "~"}
	for _, key := range keys {
		b.put(key, key)
	}
	if err := b.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	var got []string
	for _, e := range b.stored {
		got = append(got, gjson.GetBytes(e.Data(), "key").Str)
	}
	if !slices.Equal(got, keys) {
		t.Errorf("listed %q, want %q", got, keys)
	}
	b.wantTold()
}

// Many objects: pages, batches that are bounded, and a file that is small.
func TestPollPages(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	const n = 2500
	for i := range n {
		b.put(fmt.Sprintf("photos/2026/%05d.jpg", i), "x")
	}
	b.publish = func(events []bus.Event) ([]bus.Result, error) {
		if len(events) > s3Batch {
			t.Errorf("%d events in flight", len(events))
		}
		b.stored = append(b.stored, events...)
		return make([]bus.Result, len(events)), nil
	}
	if got := len(b.told()); got != n {
		t.Errorf("%d events, want %d", got, n)
	}
	if len(b.asked) != 3 {
		t.Errorf("listed in %d pages", len(b.asked))
	}
	b.wantOwnIDs()
	b.wantTold()
	info, err := os.Stat(filepath.Join(b.dir, "seen"))
	if err != nil || info.Size() > n*60 {
		t.Errorf("the file of seen objects: %v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "seen.next")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a round without changes leaves its file: %v", err)
	}
}

// A round that ends in the middle, at each of its batches: the next one goes on there.
// What is repeated are the events whose objects were not noted yet, with the same ids.
func TestPollBreaksOff(t *testing.T) {
	t.Parallel()
	const n = 1300
	const batches = 6 // a page of 1000 ends one, too
	for at := range batches {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			b := newBucket(t)
			for i := range n {
				b.put(fmt.Sprintf("%05d", i), "x")
			}
			ctx, die := context.WithCancel(t.Context())
			calls := 0
			b.publish = func(events []bus.Event) ([]bus.Result, error) {
				if calls++; calls <= at+1 {
					b.stored = append(b.stored, events...)
				}
				if calls <= at {
					return make([]bus.Result, len(events)), nil
				}
				die() // the events are stored, but nobody gets to know
				results := make([]bus.Result, len(events))
				for i := range results {
					results[i].Err = bus.ErrUnavailable
				}
				return results, bus.ErrUnavailable
			}
			if err := b.round(ctx); err == nil {
				t.Fatal("the round went through")
			}
			b.publish = nil
			before := len(b.asked)
			if err := b.round(t.Context()); err != nil {
				t.Fatal(err)
			}
			if at > 0 && !strings.Contains(b.asked[before], "start-after=") {
				t.Errorf("the round began again from the start: %s", b.asked[before])
			}
			ids := map[string]bool{}
			for _, e := range b.stored {
				ids[e.ID()] = true
			}
			if len(ids) != n {
				t.Errorf("%d objects told, want %d", len(ids), n)
			}
			if twice := len(b.stored) - n; twice > s3Batch || twice < 1 {
				t.Errorf("%d events are repeated, want at most the batch that was in flight", twice)
			}
			b.wantTold()
		})
	}
}

// A kill between the end of a round and the renaming of its file.
func TestPollKilledBeforeRename(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.put("a", "a")
	b.wantTold("created a 1")
	if err := os.Rename(filepath.Join(b.dir, "seen"), filepath.Join(b.dir, "seen.next")); err != nil {
		t.Fatal(err)
	}
	b.put("b", "b")
	b.wantTold() // puts the file in its place
	b.wantTold("created b 1")
}

func TestPollDamagedFile(t *testing.T) {
	t.Parallel()
	b := newBucket(t)
	b.put("a", "a")
	b.wantTold("created a 1")
	path := filepath.Join(b.dir, "seen")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, doc[:len(doc)-2], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.round(t.Context()); err == nil || !strings.Contains(err.Error(), "is damaged after 1 objects: remove it") {
		t.Errorf("a damaged file: %v", err)
	}
}

// What servers answer, and what the error says about it.
func TestPollErrors(t *testing.T) {
	t.Parallel()
	const page = `<?xml version="1.0"?><ListBucketResult><Name>in</Name>%s</ListBucketResult>`
	object := func(key string) string {
		return "<Contents><Key>" + key + "</Key><Size>1</Size><LastModified>2026-01-02T03:04:05.000Z</LastModified></Contents>"
	}
	fault := func(code string) string {
		return "<Error><Code>" + code + "</Code><Message>secret detail</Message></Error>"
	}
	for name, test := range map[string]struct {
		status     int
		body, want string
	}{
		"no bucket":        {404, fault("NoSuchBucket"), "there is no such bucket"},
		"wrong key":        {403, fault("InvalidAccessKeyId"), "the credentials are wrong: check access_key"},
		"wrong secret":     {403, fault("SignatureDoesNotMatch"), "the credentials are wrong: check secret_key"},
		"not allowed":      {403, fault("AccessDenied"), "s3:ListBucket"},
		"expired":          {400, fault("ExpiredToken"), "renew session_token"},
		"another region":   {301, fault("PermanentRedirect"), "check region and endpoint"},
		"signed elsewhere": {400, fault("AuthorizationHeaderMalformed"), "check region and endpoint"},
		"the clock":        {403, fault("RequestTimeTooSkewed"), "set the clock"},
		"something else":   {400, fault("Strange"), "the S3 answers Strange"},
		"no S3":            {404, "<html>not here</html>", "the bucket \"in\" at http://127.0.0.1"},
		"no XML":           {200, "hello", "is no S3, check endpoint"},
		"HTML":             {200, "<html><body>welcome</body></html>", "is no S3, check endpoint"},
		"out of order":     {200, fmt.Sprintf(page, object("b")+object("a")), `lists "a" after "b", not in the order of the keys`},
		"twice":            {200, fmt.Sprintf(page, object("a")+object("a")), "not in the order of the keys"},
		"no key":           {200, fmt.Sprintf(page, object("")), "an object without a key"},
		"a bad key":        {200, fmt.Sprintf(page, "<EncodingType>url</EncodingType>"+object("%zz")), "not encoded as it says"},
		"no token":         {200, fmt.Sprintf(page, "<IsTruncated>true</IsTruncated>"+object("a")), "without saying how to go on"},
		"the same token":   {200, fmt.Sprintf(page, "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"), "without saying how to go on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, test.body)
			}))
			t.Cleanup(srv.Close)
			b := newBucket(t)
			b.set.S3Remote = remoteAt(t, srv.URL)
			err := b.round(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "marker-secret") {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	b := newBucket(t)
	b.set.S3Remote = remoteAt(t, "http://127.0.0.1:1")
	if err := b.round(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer, check endpoint: dial tcp 127.0.0.1:1") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestPollHugeAnswer(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<ListBucketResult>")
		junk := bytes.Repeat([]byte("<x/>"), 16<<10)
		for {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	b := newBucket(t)
	b.set.S3Remote = remoteAt(t, srv.URL)
	if err := b.round(t.Context()); err == nil {
		t.Error("an answer without an end is read")
	}
}

func TestPollFaults(t *testing.T) {
	t.Parallel()
	no := func(text string) value.URL {
		u, err := value.ParseURL(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for want, change := range map[string]func(*S3Poll){
		"poll.bucket is missing":                    func(s *S3Poll) { s.Bucket = "" },
		"poll.bucket is not the name":               func(s *S3Poll) { s.Bucket = "s3://in" },
		"poll.secret_key is missing":                func(s *S3Poll) { s.SecretKey = value.Secret{} },
		"poll.access_key is missing":                func(s *S3Poll) { s.AccessKey = "" },
		"poll.anonymous contradicts access_key":     func(s *S3Poll) { s.Anonymous = true },
		"poll.existing \"maybe\" is neither emit":   func(s *S3Poll) { s.Existing = "maybe" },
		"poll.endpoint holds a user":                func(s *S3Poll) { s.Endpoint = no("http://u:p@h/") },
		"poll.endpoint has a query or a fragment":   func(s *S3Poll) { s.Endpoint = no("http://h/?x=1") },
		"poll.access_key is missing: a session_tok": func(s *S3Poll) { s.AccessKey, s.SecretKey, s.SessionToken = "", value.Secret{}, value.NewSecret("t") },
	} {
		poll := S3Poll{S3Remote: remoteAt(t, "http://h/")}
		change(&poll)
		var all []string
		for _, f := range (&S3{Flavor: flavorAuto, Poll: &poll}).Validate() {
			all = append(all, f.Key+" "+f.Msg)
		}
		if !strings.Contains(strings.Join(all, "\n"), want) {
			t.Errorf("%q, want %q", all, want)
		}
	}
	if faults := (&S3{Flavor: flavorAuto, Poll: &S3Poll{S3Remote: remoteAt(t, "http://h/")}}).Validate(); len(faults) > 0 {
		t.Errorf("good settings: %v", faults)
	}
}
