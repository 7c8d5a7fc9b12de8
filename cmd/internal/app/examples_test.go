package app_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/app"
	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

const (
	examples     = "../../../config/examples"
	examplesHost = "http://127.0.0.1:9000" // where the functions of the examples listen
	token        = "an-operator"
	never        = "at(2999-12-31T00:00:00)"
)

// functions are all the functions of an example: one server, a path each.
type functions struct {
	*httptest.Server
	answer   func(r *http.Request) int // nil: 204
	mu       sync.Mutex
	requests []string // "event sink status"
}

func newFunctions(t *testing.T, answer func(*http.Request) int) *functions {
	t.Helper()
	f := &functions{answer: answer}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *functions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what is cut off has no id below
	status := http.StatusNoContent
	if f.answer != nil {
		status = f.answer(r)
	}
	f.mu.Lock()
	for _, id := range eventIDs(r.Header, body) {
		f.requests = append(f.requests, fmt.Sprintf("%s %s %d", id, r.Header.Get("Sluice-Sink"), status))
	}
	f.mu.Unlock()
	w.WriteHeader(status)
}

// eventIDs are the ids of the events in a request; what cannot be read has one that
// no event has.
func eventIDs(h http.Header, body []byte) []string {
	var batch []struct{ ID string }
	switch h.Get("Content-Type") {
	case "application/cloudevents+json":
		body = append(append([]byte("["), body...), ']')
	case "application/cloudevents-batch+json":
	default:
		return []string{h.Get("Ce-Id")}
	}
	if err := json.Unmarshal(body, &batch); err != nil {
		return []string{err.Error()}
	}
	ids := make([]string, len(batch))
	for i, e := range batch {
		ids[i] = e.ID
	}
	return ids
}

// got is every request so far, sorted.
func (f *functions) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(slices.Values(f.requests))
}

// startExample runs a copy of an example in which its functions are at a URL, and
// words are replaced as told. What it listens on and its files are of its own, no
// broker is there, and nothing happens by itself.
func startExample(t *testing.T, name, functions string, replace ...string) *app.App {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	words := strings.NewReplacer(append(replace, examplesHost, functions, "path: ./", "path: "+dir+"/",
		"127.0.0.1:8485", freeAddress(t), "127.0.0.1:9092", freeAddress(t),
		"cron(0 2 * * ? *)", never, "rate(5 minutes)", never, "delay: 15m", "delay: 0s")...)
	err := filepath.WalkDir(filepath.Join(examples, name), func(file string, e fs.DirEntry, err error) error {
		to := filepath.Join(path, strings.TrimPrefix(file, filepath.Join(examples, name)))
		if err != nil || e.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return os.WriteFile(to, []byte(words.Replace(string(text))), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(app.Options{
		Path: path, Listen: "127.0.0.1:0", Dir: filepath.Join(dir, "data"),
		Kinds: config.Options{
			Sinks: sinks.Kinds(), Sources: sources.Kinds(),
			Env:      environment,
			ReadFile: func(string) ([]byte, error) { return []byte(token + "\n"), nil },
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, a) })
	return a
}

// freeAddress is one of the loopback interface where nobody listens just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// environment has a token under every name that asks for one.
func environment(name string) (string, bool) {
	if !strings.HasSuffix(name, "_TOKEN") {
		return "", false
	}
	return "env-" + name, true
}

// stop drains: what is under way has ended then.
func stop(t *testing.T, a *app.App) {
	t.Helper()
	if err := a.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

// publish sends the events of the example's own tests, numbered from 0, to path.
func publish(t *testing.T, a *app.App) (want []string) {
	t.Helper()
	path := "/"
	for _, s := range a.Config().Sources {
		if door, ok := s.Settings.(*sources.HTTP); ok && door.Auth.IsZero() {
			path = door.Path
		}
	}
	for i, test := range a.Config().Tests {
		event := map[string]any{"specversion": "1.0", "id": fmt.Sprint(i)}
		if err := json.Unmarshal(test.Event, &event); err != nil {
			t.Fatal(err)
		}
		doc, err := json.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		ask(t, a, "POST", path, "application/cloudevents+json", string(doc), http.StatusAccepted)
		for _, sink := range test.Expect {
			want = append(want, fmt.Sprintf("%d %s 204", i, sink))
		}
	}
	slices.Sort(want)
	return want
}

// ask makes a request that has to be answered with status.
func ask(t *testing.T, a *app.App, method, path, mediaType, body string, status int) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, a.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status {
		t.Fatalf("%s %s: %s %v, want %d\n%s", method, path, resp.Status, err, status, answer)
	}
	return answer
}

// until waits for a condition that other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatalf("not in time: %s", what)
		}
	}
}

// elsewhere is what got to sinks that are no functions, written as functions do: the
// lines of files, and the messages of queues, which it acknowledges.
func elsewhere(t *testing.T, a *app.App) (got []string) {
	t.Helper()
	for _, s := range a.Config().Sinks {
		switch settings := s.Settings.(type) {
		case *sinks.File:
			for _, e := range fileEvents(t, settings.Path) {
				got = append(got, fmt.Sprintf("%s %s 204", e.ID, s.Name))
			}
		case *sinks.Queue:
			for _, m := range receive(t, a, s.Name) {
				ask(t, a, "POST", "/api/v1/queues/"+s.Name+"/ack", "application/json", `{"receipts": ["`+m.Receipt+`"]}`, http.StatusOK)
				got = append(got, fmt.Sprintf("%s %s 204", m.Event.ID, s.Name))
			}
		}
	}
	return got
}

// event is an event in JSON, as far as these tests look at it.
type event struct {
	ID, Type, Source, Subject string
	Data                      json.RawMessage
}

// fileEvents are the lines of a file sink so far.
func fileEvents(t *testing.T, path string) (all []event) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v: %s", path, err, line)
		}
		all = append(all, e)
	}
	return all
}

// message is a message of a queue.
type message struct {
	Receipt  string
	Receives int
	Event    event
}

// receive takes what is in a queue just now.
func receive(t *testing.T, a *app.App, queue string) []message {
	t.Helper()
	var got struct{ Messages []message }
	answer := ask(t, a, "POST", "/api/v1/queues/"+queue+"/receive", "application/json", `{"max": 10}`, http.StatusOK)
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	return got.Messages
}

// TestExamplesDeliver runs every example, publishes the events of its tests, and
// finds each at the functions, in the files and in the queues that the test names,
// and nowhere else.
func TestExamplesDeliver(t *testing.T) {
	t.Parallel()
	names, err := os.ReadDir(examples)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range names {
		if e.Name() == "README.md" {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			f := newFunctions(t, nil)
			a := startExample(t, e.Name(), f.URL)
			want := publish(t, a)
			var others, got []string
			until(t, "every delivery", func() bool {
				others = append(others, elsewhere(t, a)...)
				// A file holds what it held before.
				others = slices.Compact(slices.Sorted(slices.Values(others)))
				got = slices.Sorted(slices.Values(append(f.got(), others...)))
				return len(got) >= len(want) && a.Bus().Balance().Open() == 0
			})
			stop(t, a)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("event, sink and answer: -want +got\n%s", diff)
			}
			if b := a.Bus().Balance(); b.Delivered != int64(len(want)) || b.Open() != 0 || b.Lost() != 0 {
				t.Errorf("it does not add up: %+v", b)
			}
		})
	}
}

// TestExampleSecrets checks that callers need a token, and that functions get theirs.
func TestExampleSecrets(t *testing.T) {
	t.Parallel()
	f := newFunctions(t, func(r *http.Request) int {
		if r.Header.Get("Authorization") != "Bearer "+token {
			return http.StatusUnauthorized
		}
		return http.StatusNoContent
	})
	a := startExample(t, "secrets.yaml", f.URL)
	resp, err := http.Post(a.URL()+"/", "application/cloudevents+json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %s", resp.Status)
	}
	want := publish(t, a)
	until(t, "the delivery", func() bool { return len(f.got()) == len(want) })
	if diff := cmp.Diff(want, f.got()); diff != "" {
		t.Error(diff)
	}
}

// TestExampleRetries lets the functions of retries.yaml fail: one recovers, one says
// no, one stays down. The last two end as dead letters, and arrive after a redrive.
func TestExampleRetries(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	f := newFunctions(t, func(r *http.Request) int {
		switch {
		case mended.Load() || r.URL.Path == "/charge" && r.Header.Get("Sluice-Attempt") == "3":
			return http.StatusNoContent
		case r.URL.Path == "/mail":
			return http.StatusBadRequest
		}
		return http.StatusServiceUnavailable
	})
	a := startExample(t, "retries.yaml", f.URL, "preset: eventbridge", "schedule: [1ms, 1ms]", "probe_after: 10s", "probe_after: 1ms")
	publish(t, a)
	b := a.Bus()
	until(t, "one delivery and two dead letters", func() bool { return b.Balance().Delivered == 1 && b.Balance().Dead == 2 })
	want := []string{"0 charge 204", "0 charge 503", "0 charge 503", "0 mail 400", "1 report 503", "1 report 503", "1 report 503"}
	if diff := cmp.Diff(want, f.got()); diff != "" {
		t.Errorf("event, sink and answer: -want +got\n%s", diff)
	}
	var list struct {
		DeadLetters []struct {
			Sink, Reason string
			Attempts     []struct{ Status int }
		} `json:"dead_letters"`
	}
	if err := json.Unmarshal(ask(t, a, "GET", "/api/v1/dead-letters", "", "", http.StatusOK), &list); err != nil {
		t.Fatal(err)
	}
	var letters []string
	for _, l := range list.DeadLetters {
		letters = append(letters, fmt.Sprintf("%s %s %v", l.Sink, l.Reason, l.Attempts))
	}
	slices.Sort(letters)
	if diff := cmp.Diff([]string{"mail rejected [{400}]", "report attempts_exhausted [{503} {503} {503}]"}, letters); diff != "" {
		t.Errorf("dead letters: -want +got\n%s", diff)
	}
	mended.Store(true)
	for _, sink := range []string{"mail", "report"} {
		ask(t, a, "POST", "/api/v1/dead-letters/redrive", "application/json", fmt.Sprintf(`{"sink": %q}`, sink), http.StatusAccepted)
	}
	until(t, "the redeliveries", func() bool { return b.Balance().Delivered == 3 })
	until(t, "no dead letters", func() bool {
		return !slices.ContainsFunc(b.Sinks(), func(s dispatch.SinkStatus) bool { return s.DeadLetters > 0 })
	})
}

// TestExampleOrder lets the first booking fail twice and publishes everything twice:
// the second booking waits, and each comes once.
func TestExampleOrder(t *testing.T) {
	t.Parallel()
	f := newFunctions(t, func(r *http.Request) int {
		if attempt := r.Header.Get("Sluice-Attempt"); r.Header.Get("Ce-Id") == "0" && attempt != "3" {
			return http.StatusServiceUnavailable
		}
		return http.StatusNoContent
	})
	a := startExample(t, "ordered.yaml", f.URL, "initial: 1s", "initial: 1ms")
	publish(t, a)
	publish(t, a)
	until(t, "both bookings", func() bool { return a.Bus().Balance().Delivered == 2 })
	stop(t, a)
	want := []string{"0 ledger 503", "0 ledger 503", "0 ledger 204", "1 ledger 204"}
	if diff := cmp.Diff(want, f.requests); diff != "" {
		t.Errorf("event, sink and answer, in order: -want +got\n%s", diff)
	}
}
