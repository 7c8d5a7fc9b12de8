// Package sinktest is what every kind of sink has to do, as tests. A kind's own
// tests are for what is special about it.
package sinktest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/sinks"
)

// patience is how long a test waits for something that should come at once.
const patience = 10 * time.Second

// Got is one delivery as the far side saw it.
type Got struct {
	Event   bus.Event
	ID      string // the rest is "" or 0 where the kind does not carry it
	Rule    string
	Attempt int
}

// Answer is what the far side says to a delivery.
type Answer struct {
	Status     int
	RetryAfter string
	Body       string
}

// Subject is a sink under test with its far side.
type Subject struct {
	Sink sinks.Sink
	// Received gives what arrived at the far side, one value for each delivery. The
	// far side must not wait for it to be read.
	Received <-chan Got
	// Hang makes the far side take deliveries without ever saying so, until the
	// test ends.
	Hang func()
	// Answer makes the far side say that to every later delivery. It is nil for a
	// kind whose far side does not answer with a status: that has Faulty.
	Answer func(Answer)
	// Faulty opens another sink of the kind, whose far side has a fault.
	Faulty func(*testing.T, Fault) sinks.Sink
	// Elsewhere opens another sink with the same settings, but for its far side: that
	// is at addr, and speaks TLS with tls unless it is nil. A kind that has to hear
	// something before TLS begins may serve tls at an address of its own.
	Elsewhere func(t *testing.T, addr string, tls *tls.Config) sinks.Sink
	// Local tells that the far side is this process or this machine's disk: there is no
	// Answer, no Faulty and no Elsewhere.
	Local bool
	// Carries tells that the far side sees the id, the rule and the attempt.
	Carries bool
	// KeepsKinds tells that the far side sees integers and booleans as such.
	KeepsKinds bool
	// OneLine tells that the far side sees the line breaks of JSON data as spaces.
	OneLine bool
	// Renews tells that an answer 401 makes the sink send once more, with credentials
	// that it got anew.
	Renews bool
	// Secrets are texts in the settings that no error and no line of the log may show.
	Secrets []string
}

// Factory makes a fresh subject, whose sinks are opened with env: its log is looked
// through for secrets. It cleans up with t.Cleanup.
type Factory func(t *testing.T, env sinks.Env) *Subject

// Run runs the suite.
func Run(t *testing.T, factory Factory) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *Subject){
		"delivers byte for byte":      testBytes,
		"same id on each attempt":     testAttempts,
		"returns when ctx ends":       testCancel,
		"refuses after ctx ended":     testEnded,
		"verdicts":                    testVerdicts,
		"faults":                      testFaults,
		"Retry-After":                 testRetryAfter,
		"no secret in errors":         testSecrets,
		"no secret without a way":     testElsewhere,
		"many deliveries at once":     testConcurrent,
		"the event is left untouched": testUntouched,
		"Close twice":                 testClose,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := &journal{}
			s := factory(t, sinks.Env{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			test(t, s)
			if shown := s.shows(log.String()); shown != "" {
				t.Errorf("a secret shows in the log: %s", shown)
			}
		})
	}
}

// Events are events that are easy to get wrong, by name.
func Events(t testing.TB) map[string]bus.Event {
	t.Helper()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	attr := func(name, value string) bus.Attr { return bus.Attr{Name: name, Value: value} }
	made := make(map[string]bus.Event)
	for name, from := range map[string]struct {
		data  string
		attrs []bus.Attr
	}{
		"json":        {"{ \"b\" : 1.0e0,\n\t\"a\":\"é\\u00e9\" , \"a\":12345678901234567890}", []bus.Attr{attr("datacontenttype", "application/json")}},
		"text":        {"line 1\nline 2\r\n\"quoted\" \\ é \x00\x1f", []bus.Attr{attr("datacontenttype", "text/plain; charset=utf-8")}},
		"latin1":      {"caf\xe9", []bus.Attr{attr("datacontenttype", "text/plain; charset=iso-8859-1")}},
		"binary":      {string(all), []bus.Attr{attr("datacontenttype", "application/octet-stream")}},
		"empty":       {"", nil},
		"number":      {"42", []bus.Attr{attr("datacontenttype", "application/json")}},
		"null":        {"null", []bus.Attr{attr("datacontenttype", "application/json")}},
		"large":       {`"` + strings.Repeat("x", 1<<20-2) + `"`, []bus.Attr{attr("datacontenttype", "application/json")}},
		"odd":         {"{}", []bus.Attr{attr("datacontenttype", "application/json"), attr("subject", "50% \"of\" é 日本 🎉 a%20b"), attr("odd", " both ends ")}},
		"traceparent": {"{}", []bus.Attr{attr("datacontenttype", "application/json"), attr("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}},
		"kinds":       {"", []bus.Attr{{Name: "count", Value: "-7", Kind: bus.Integer}, {Name: "flag", Value: "true", Kind: bus.Boolean}}},
	} {
		attrs := append(from.attrs, attr("id", name), attr("source", "/suite"), attr("type", "t"), attr("time", "2026-01-02T03:04:05.000+02:00"))
		e, err := bus.NewEvent(attrs, []byte(from.data))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		made[name] = e
	}
	return made
}

func one(t *testing.T) sinks.Delivery {
	t.Helper()
	return delivery(Events(t)["json"])
}

func delivery(e bus.Event) sinks.Delivery {
	return sinks.Delivery{Event: e, ID: "d-1", Rule: "a rule", Sink: "suite", Attempt: 1}
}

func (s *Subject) next(t *testing.T) Got {
	t.Helper()
	select {
	case got := <-s.Received:
		return got
	case <-time.After(patience):
		t.Fatal("nothing arrived at the far side")
		return Got{}
	}
}

// expect is e as the far side should see it.
func (s *Subject) expect(t *testing.T, e bus.Event) bus.Event {
	t.Helper()
	if !s.OneLine || !e.DataIsJSON() {
		return e
	}
	line, err := bus.NewEvent(slices.Clone(e.Attrs()), bytes.ReplaceAll(e.Data(), []byte("\n"), []byte(" ")))
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// Same tells whether two events are the same, and how they differ. Without kinds
// the kinds of attributes are left out of account.
func Same(want, got bus.Event, kinds bool) error {
	a, b := slices.Clone(want.Attrs()), slices.Clone(got.Attrs())
	if !kinds {
		for i := range a {
			a[i].Kind = bus.String
		}
		for i := range b {
			b[i].Kind = bus.String
		}
	}
	if !slices.Equal(a, b) {
		return fmt.Errorf("attributes differ:\nwant %v\ngot  %v", a, b)
	}
	if !bytes.Equal(want.Data(), got.Data()) {
		return fmt.Errorf("data differs: want %.80q, got %.80q", want.Data(), got.Data())
	}
	return nil
}

func testBytes(t *testing.T, s *Subject) {
	for name, e := range Events(t) {
		if err := s.Sink.Deliver(t.Context(), delivery(e)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := Same(s.expect(t, e), s.next(t).Event, s.KeepsKinds); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testAttempts(t *testing.T, s *Subject) {
	for attempt := 1; attempt <= 3; attempt++ {
		d := one(t)
		d.Attempt = attempt
		if err := s.Sink.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		got := s.next(t)
		if !s.Carries {
			continue
		}
		if got.ID != d.ID || got.Rule != d.Rule || got.Attempt != attempt {
			t.Errorf("the far side saw %q, rule %q, attempt %d; sent was %+v", got.ID, got.Rule, got.Attempt, d)
		}
	}
}

func testCancel(t *testing.T, s *Subject) {
	s.Hang()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Sink.Deliver(ctx, one(t)) }()
	s.next(t)
	select {
	case err := <-done:
		t.Fatalf("Deliver returned %v before the far side had the event", err)
	default:
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Deliver returned %v, want one that is context.Canceled", err)
		}
		var e *sinks.Error
		if errors.As(err, &e) && e.Permanent {
			t.Errorf("%v is permanent: a timeout must be tried again", err)
		}
	case <-time.After(patience):
		t.Fatal("Deliver did not return after ctx ended")
	}
}

func testEnded(t *testing.T, s *Subject) {
	ctx, cancel := context.WithTimeout(t.Context(), -1)
	defer cancel()
	if err := s.Sink.Deliver(ctx, one(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Deliver returned %v, want one that is context.DeadlineExceeded", err)
	}
}

func testVerdicts(t *testing.T, s *Subject) {
	if s.Answer == nil {
		t.Skip("the far side does not answer with a status: its faults are another test")
	}
	for _, status := range []int{200, 202, 204, 301, 302, 307, 400, 401, 404, 408, 410, 429, 500, 503} {
		body := ""
		if status != 204 {
			body = fmt.Sprintf("answer %d", status)
		}
		s.Answer(Answer{Status: status, Body: body})
		err := s.Sink.Deliver(t.Context(), one(t))
		s.next(t)
		if status == 401 && s.Renews {
			s.next(t)
		}
		if status < 300 {
			if err != nil {
				t.Errorf("%d: %v", status, err)
			}
			continue
		}
		var e *sinks.Error
		if !errors.As(err, &e) {
			t.Errorf("%d: %v is no *sinks.Error", status, err)
			continue
		}
		if e.Status != status || string(e.Answer) != body || e.RetryAfter != 0 || e.Permanent {
			t.Errorf("%d: %+v", status, e)
		}
	}
	if len(s.Received) > 0 {
		t.Errorf("the far side got %d deliveries too many: something was followed or repeated", len(s.Received))
	}
}

func testRetryAfter(t *testing.T, s *Subject) {
	if s.Answer == nil {
		t.Skip("the far side does not answer with a status")
	}
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }
	for _, c := range []struct {
		text     string
		min, max time.Duration
	}{
		{"120", 120 * time.Second, 120 * time.Second},
		{date(time.Hour), 59 * time.Minute, time.Hour},
		{date(-time.Hour), 0, 0},
		{"-5", 0, 0},
		{"soon", 0, 0},
		{"", 0, 0},
	} {
		s.Answer(Answer{Status: 429, RetryAfter: c.text})
		err := s.Sink.Deliver(t.Context(), one(t))
		var e *sinks.Error
		if !errors.As(err, &e) || e.Status != 429 || e.RetryAfter < c.min || e.RetryAfter > c.max {
			t.Errorf("Retry-After %q: %+v", c.text, err)
		}
	}
}

func testSecrets(t *testing.T, s *Subject) {
	var errs []error
	for _, e := range Events(t) {
		ctx, cancel := context.WithTimeout(t.Context(), -1)
		errs = append(errs, s.Sink.Deliver(ctx, delivery(e)))
		cancel()
		if s.Answer != nil {
			s.Answer(Answer{Status: 500, Body: "you sent " + strings.Join(s.Secrets, " and ")})
			errs = append(errs, s.Sink.Deliver(t.Context(), delivery(e)))
		}
	}
	for _, err := range errs {
		s.checkError(t, err)
	}
}

func testConcurrent(t *testing.T, s *Subject) {
	const workers, each = 64, 8
	base := s.expect(t, Events(t)["json"])
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := range each {
				e, err := base.With(bus.Attr{Name: "id", Value: fmt.Sprint(w, "-", n)})
				if err == nil {
					err = s.Sink.Deliver(t.Context(), delivery(e))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := make(map[string]int)
	for range workers * each {
		got := s.next(t).Event
		seen[got.ID()]++
		if !bytes.Equal(got.Data(), base.Data()) {
			t.Errorf("%s arrived damaged: %q", got.ID(), got.Data())
		}
	}
	wg.Wait()
	if len(seen) != workers*each {
		t.Errorf("%d different events arrived, want %d", len(seen), workers*each)
	}
}

func testUntouched(t *testing.T, s *Subject) {
	e := Events(t)["text"]
	before := e.AppendRecord(nil)
	if err := s.Sink.Deliver(t.Context(), delivery(e)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, e.AppendRecord(nil)) {
		t.Error("the sink changed the event, which other sinks share")
	}
}

func testClose(t *testing.T, s *Subject) {
	closer, ok := s.Sink.(io.Closer)
	if !ok {
		t.Skip("the sink holds nothing")
	}
	if err := s.Sink.Deliver(t.Context(), one(t)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := closer.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
}
