// Package sourcetest is what every kind of source has to do, as tests. A kind's
// own tests are for what is special about it.
package sourcetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/sources"
)

// patience is how long a test waits for something that should come at once.
const patience = 10 * time.Second

// Subject is a source under test with the upstream that feeds it.
type Subject struct {
	Source sources.Source
	// Send offers the source something that becomes the event and waits for the
	// acknowledgement. It returns an error when the source refuses, or does not
	// acknowledge before ctx ends. It may be called while the source does not run.
	Send func(ctx context.Context, e bus.Event) error
	// Poison offers what can never become an event, and returns once the source is
	// through with it. It is nil where upstream cannot send such a thing.
	Poison func(ctx context.Context)
}

// Factory makes a fresh subject. It cleans up with t.Cleanup.
type Factory func(t *testing.T) *Subject

// Run runs the suite.
func Run(t *testing.T, factory Factory) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *Subject){
		"acknowledges what is durable":          testDurable,
		"does not acknowledge what is not":      testFailing,
		"goes on after poison":                  testPoison,
		"finishes what is in flight":            testStop,
		"takes nothing when it does not run":    testStopped,
		"runs again":                            testAgain,
		"many senders at once, nothing is lost": testConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, factory(t))
		})
	}
}

// Publisher is a bus that does what a test says.
type Publisher struct {
	mu     sync.Mutex
	stored []bus.Event
	// Before is called for each Publish and may wait. An error is the answer to all
	// of the events.
	Before func(ctx context.Context) error
}

// Publish is bus.Publisher.
func (p *Publisher) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	results := make([]bus.Result, len(events))
	if p.Before != nil {
		if err := p.Before(ctx); err != nil {
			for i := range results {
				results[i].Err = err
			}
			return results, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, e := range events {
		p.stored = append(p.stored, e)
		results[i].Position = bus.Position{Seq: uint64(len(p.stored))}
	}
	return results, nil
}

// Stored are the events that are durable, in order.
func (p *Publisher) Stored() []bus.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]bus.Event(nil), p.stored...)
}

func (p *Publisher) has(id string) bool {
	for _, e := range p.Stored() {
		if e.ID() == id {
			return true
		}
	}
	return false
}

// Event is an event with that id.
func Event(t testing.TB, id string) bus.Event {
	t.Helper()
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: "/suite"}, {Name: "type", Value: "t"},
		{Name: "datacontenttype", Value: "application/json"}, {Name: "time", Value: "2026-01-02T03:04:05Z"},
	}, []byte(`{"n": 1}`))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// start runs the source until stop is called; stop gives what Run returned.
func start(t *testing.T, s *Subject, pub bus.Publisher) (cancel context.CancelFunc, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Source.Run(ctx, pub) }()
	t.Cleanup(cancel)
	return cancel, done
}

func wait[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

func stop(t *testing.T, cancel context.CancelFunc, ended <-chan error) {
	t.Helper()
	cancel()
	if err := wait(t, ended, "Run returns"); err != nil {
		t.Errorf("Run returned %v after its ctx ended, want nil", err)
	}
}

// send sends until the source takes the event: right after start it may not yet.
func send(t *testing.T, s *Subject, e bus.Event) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := s.Send(ctx, e)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s is not taken: %v", e.ID(), err)
		}
	}
}

func testDurable(t *testing.T, s *Subject) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	pub := &Publisher{Before: func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	cancel, ended := start(t, s, pub)
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		send(t, s, Event(t, "1"))
		if !pub.has("1") {
			t.Error("acknowledged before it was durable")
		}
	}()
	wait(t, entered, "the event is published")
	select {
	case <-acked:
		t.Fatal("acknowledged while it was being stored")
	default:
	}
	close(release)
	wait(t, acked, "the acknowledgement")
	stop(t, cancel, ended)
}

func testFailing(t *testing.T, s *Subject) {
	for i, cause := range []error{bus.ErrFull, bus.ErrOverloaded, bus.ErrUnavailable, bus.ErrClosed, errors.New("odd")} {
		id := string(rune('1' + i)) // one of its own: a source may know what it took
		failing := true
		var mu sync.Mutex
		tried := make(chan struct{}, 1)
		pub := &Publisher{Before: func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if !failing {
				return nil
			}
			select {
			case tried <- struct{}{}:
			default:
			}
			return cause
		}}
		cancel, ended := start(t, s, pub)
		acked := make(chan struct{})
		go func() {
			defer close(acked)
			send(t, s, Event(t, id))
			if !pub.has(id) {
				t.Errorf("acknowledged although the bus said: %v", cause)
			}
		}()
		wait(t, tried, "the event is published")
		mu.Lock()
		failing = false
		mu.Unlock()
		wait(t, acked, "the event is sent again and taken")
		stop(t, cancel, ended)
	}
}

func testPoison(t *testing.T, s *Subject) {
	if s.Poison == nil {
		t.Skip("upstream cannot send anything that is no event")
	}
	pub := &Publisher{}
	cancel, ended := start(t, s, pub)
	send(t, s, Event(t, "1"))
	ctx, done := context.WithTimeout(t.Context(), patience)
	defer done()
	s.Poison(ctx)
	if ctx.Err() != nil {
		t.Fatal("the source hangs on poison")
	}
	send(t, s, Event(t, "2"))
	for _, e := range pub.Stored() {
		if id := e.ID(); id != "1" && id != "2" {
			t.Errorf("poison was published as %q", id)
		}
	}
	stop(t, cancel, ended)
}

func testStop(t *testing.T, s *Subject) {
	entered, release := make(chan struct{}, 2), make(chan struct{})
	pub := &Publisher{Before: func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	cancel, ended := start(t, s, pub)
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		send(t, s, Event(t, "1"))
	}()
	wait(t, entered, "the event is published")
	cancel()
	// Long enough for a Run that does not wait to be gone.
	ctx, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	if err := s.Send(ctx, Event(t, "2")); err == nil {
		t.Error("acknowledged while nothing could be stored")
	}
	select {
	case err := <-ended:
		t.Errorf("Run returned %v with an event in flight", err)
		ended = nil
	default:
	}
	close(release)
	if ended == nil {
		return
	}
	if err := wait(t, ended, "Run returns"); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if !pub.has("1") {
		t.Error("the event in flight is lost")
	}
	wait(t, acked, "the acknowledgement of what was in flight")
}

func testStopped(t *testing.T, s *Subject) {
	pub := &Publisher{}
	cancel, ended := start(t, s, pub)
	send(t, s, Event(t, "1"))
	stop(t, cancel, ended)
	ctx, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	if err := s.Send(ctx, Event(t, "2")); err == nil {
		t.Error("acknowledged by a source that does not run")
	}
	if pub.has("2") {
		t.Error("published by a source that does not run")
	}
}

func testAgain(t *testing.T, s *Subject) {
	for _, id := range []string{"1", "2", "3"} {
		pub := &Publisher{}
		cancel, ended := start(t, s, pub)
		send(t, s, Event(t, id))
		stop(t, cancel, ended)
		if !pub.has(id) {
			t.Errorf("run %s: the event is lost", id)
		}
	}
}

func testConcurrent(t *testing.T, s *Subject) {
	pub := &Publisher{}
	cancel, ended := start(t, s, pub)
	const senders, each = 16, 8
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			for i := range each {
				send(t, s, Event(t, string(rune('a'+n))+string(rune('a'+i))))
			}
		})
	}
	wg.Wait()
	stop(t, cancel, ended)
	ids := make(map[string]bool)
	for _, e := range pub.Stored() {
		ids[e.ID()] = true
	}
	if len(ids) != senders*each {
		t.Errorf("%d different events are stored, want %d", len(ids), senders*each)
	}
}
