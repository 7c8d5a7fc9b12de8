// Package apptest runs whole buses in a test: an app over real HTTP, and
// functions for it to deliver to.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/cmd/internal/app"
	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

// Node is a bus that runs for the length of a test.
type Node struct {
	*app.App
	T      testing.TB
	Path   string // of its config file
	Client *http.Client
	Token  string  // sent with every request, if any
	Logs   *Buffer // what it logged, in JSON
}

// New makes a bus of a config, in memory and on a port of its own unless changed,
// without starting it.
func New(t testing.TB, yaml string, change ...func(*app.Options)) (*Node, error) {
	t.Helper()
	n := &Node{T: t, Path: filepath.Join(t.TempDir(), "sluice.yaml"), Logs: &Buffer{}}
	n.WriteConfig(yaml)
	opts := app.Options{
		Path: n.Path, Listen: "127.0.0.1:0", Memory: true, Version: "test",
		Kinds: config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds()},
		Log:   slog.New(slog.NewJSONHandler(n.Logs, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, f := range change {
		f(&opts)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	n.Client = &http.Client{Transport: transport}
	var err error
	n.App, err = app.New(opts)
	return n, err
}

// Start runs a bus until the test ends.
func Start(t testing.TB, yaml string, change ...func(*app.Options)) *Node {
	t.Helper()
	n, err := New(t, yaml, change...)
	if err == nil {
		err = n.Start(context.Background())
	}
	if err != nil {
		t.Fatalf("start: %v\n%s", err, n.Logs)
	}
	t.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("log:\n%s", n.Logs)
		}
	})
	return n
}

// OnDisk keeps the events of a bus in a directory.
func OnDisk(dir string) func(*app.Options) {
	return func(o *app.Options) { o.Memory, o.Dir = false, dir }
}

// WriteConfig replaces the config file, as an editor does: in one step.
func (n *Node) WriteConfig(yaml string) {
	n.T.Helper()
	temp := n.Path + ".tmp"
	if err := os.WriteFile(temp, []byte(yaml), 0o600); err != nil {
		n.T.Fatal(err)
	}
	if err := os.Rename(temp, n.Path); err != nil {
		n.T.Fatal(err)
	}
}

// Answer is a response that was read whole.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request; headers are name and value in turn.
func (n *Node) Do(method, path, body string, headers ...string) Answer {
	n.T.Helper()
	a, err := n.Try(method, path, body, headers...)
	if err != nil {
		n.T.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// Try is Do for a bus that may not answer.
func (n *Node) Try(method, path, body string, headers ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(n.T.Context(), method, n.URL()+path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if n.Token != "" {
		req.Header.Set("Authorization", "Bearer "+n.Token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := n.Client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return Answer{resp.StatusCode, resp.Header, text}, err
}

// Get reads a document of the API into dst.
func (n *Node) Get(path string, dst any) {
	n.T.Helper()
	n.read(n.Do(http.MethodGet, path, ""), path, dst)
}

// Post sends a JSON document to the API, and reads the answer into dst.
func (n *Node) Post(path, body string, dst any) {
	n.T.Helper()
	n.read(n.Do(http.MethodPost, path, body, "Content-Type", "application/json"), path, dst)
}

func (n *Node) read(a Answer, path string, dst any) {
	n.T.Helper()
	if a.Status/100 != 2 {
		n.T.Fatalf("%s: %d %s", path, a.Status, a.Body)
	}
	if err := json.Unmarshal(a.Body, dst); err != nil {
		n.T.Fatalf("%s: %v: %s", path, err, a.Body)
	}
}

// Publish sends an event in binary mode.
func (n *Node) Publish(id, eventType, data string) Answer {
	n.T.Helper()
	return n.PublishTo("/", id, eventType, data)
}

// PublishTo sends an event to a path.
func (n *Node) PublishTo(path, id, eventType, data string) Answer {
	n.T.Helper()
	return n.Do(http.MethodPost, path, data, "Content-Type", "application/json",
		"Ce-Specversion", "1.0", "Ce-Id", id, "Ce-Source", "/test", "Ce-Type", eventType)
}

// MustPublish is Publish for an event that has to be taken.
func (n *Node) MustPublish(id, eventType, data string) {
	n.T.Helper()
	if a := n.Publish(id, eventType, data); a.Status != http.StatusAccepted {
		n.T.Fatalf("event %s: %d %s", id, a.Status, a.Body)
	}
}

// Eventually waits until a condition holds.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("in vain: %s", what)
		}
	}
}

// Request is one attempt at a delivery, as a function sees it.
type Request struct {
	ID      string // of the event
	Path    string
	Header  http.Header
	Body    []byte
	Status  int // what it was answered
	Arrived time.Time
}

// Function is the far side of an http sink.
type Function struct {
	*httptest.Server
	mu       sync.Mutex
	answer   http.HandlerFunc
	requests []Request
}

// NewFunction answers with answer; nil is 204 to everything.
func NewFunction(t testing.TB, answer http.HandlerFunc) *Function {
	f := &Function{answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

// Status is an answer of nothing but a status, with headers as in Node.Do.
func Status(status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
	}
}

// Set changes what is answered from now on.
func (f *Function) Set(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *Function) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // a request that is cut off shows by its body
	r.Body = io.NopCloser(bytes.NewReader(body))
	got := Request{ID: r.Header.Get("Ce-Id"), Path: r.URL.Path, Header: r.Header, Body: body, Status: http.StatusNoContent, Arrived: time.Now()}
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	seen := httptest.NewRecorder()
	if answer != nil {
		answer(seen, r)
		got.Status = seen.Code
	}
	f.mu.Lock()
	f.requests = append(f.requests, got)
	f.mu.Unlock()
	for name, values := range seen.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(got.Status)
	_, _ = w.Write(seen.Body.Bytes()) // the bus may have hung up
}

// Requests is everything that has arrived and was answered.
func (f *Function) Requests() []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Request(nil), f.requests...)
}

// Delivered counts the events that were answered with a 2xx, by id.
func (f *Function) Delivered() map[string]int {
	got := map[string]int{}
	for _, r := range f.Requests() {
		if r.Status/100 == 2 {
			got[r.ID]++
		}
	}
	return got
}

// Buffer is a bytes.Buffer for many goroutines.
type Buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
