package sinktest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/sinks"
)

// Message is one message as a consumer gets it.
type Message struct {
	ID       string // of the delivery
	Receipt  string
	Receives int // this one included
	Event    bus.Event
}

// Queue is a bus with a queue under test in it.
type Queue struct {
	Publish func(*testing.T, ...bus.Event)
	// Receive waits for messages until ctx ends; it gives none then.
	Receive func(ctx context.Context, most int) ([]Message, error)
	Ack     func(ctx context.Context, receipt string) error
	// Restart ends the bus and starts it again over what it has stored.
	Restart func(*testing.T)
}

// PullFactory makes a fresh bus around a sink that nothing is sent to. It is called in
// a bubble of testing/synctest, which the bus has to end in.
type PullFactory func(*testing.T, sinks.Puller) *Queue

// pullVisibility is how long a message is one consumer's.
const pullVisibility = 30 * time.Second

// RunPuller runs the suite for a kind whose deliveries consumers fetch: open opens a
// sink with a visibility and without an end of receives.
func RunPuller(t *testing.T, open func(*testing.T, time.Duration) sinks.Sink, factory PullFactory) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, *Queue){
		"delivers byte for byte":      pullBytes,
		"comes again with its id":     pullAgain,
		"acknowledged once":           pullAcked,
		"returns when ctx ends":       pullCancel,
		"many consumers at once":      pullConcurrent,
		"one message is one consumer": pullAlone,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				puller, ok := open(t, pullVisibility).(sinks.Puller)
				if !ok {
					t.Fatal("the sink is no Puller")
				}
				if puller.Pull().Visibility != pullVisibility {
					t.Errorf("the visibility is %s", puller.Pull().Visibility)
				}
				if err := puller.Deliver(t.Context(), one(t)); err == nil {
					t.Error("Deliver took what only a consumer can take")
				}
				test(t, factory(t, puller))
			})
		})
	}
}

// receiveAll receives until nothing comes any more: one call may give less than there is.
func (q *Queue) receiveAll(t *testing.T) (all []Message) {
	t.Helper()
	for {
		got := q.receive(t, 10)
		if len(got) == 0 {
			return all
		}
		all = append(all, got...)
	}
}

// receive gets what there is now.
func (q *Queue) receive(t *testing.T, most int) []Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	got, err := q.Receive(ctx, most)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// publish publishes events that are the same but for their ids.
func (q *Queue) publish(t *testing.T, n int) {
	t.Helper()
	base, events := Events(t)["json"], make([]bus.Event, n)
	for i := range events {
		e, err := base.With(bus.Attr{Name: "id", Value: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		events[i] = e
	}
	q.Publish(t, events...)
}

func (q *Queue) ack(t *testing.T, m Message) {
	t.Helper()
	if err := q.Ack(t.Context(), m.Receipt); err != nil {
		t.Fatalf("ack of %s: %v", m.Event.ID(), err)
	}
}

// wait lets the bubble's clock go on, and everything that follows happen.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func pullBytes(t *testing.T, q *Queue) {
	all := Events(t)
	q.Publish(t, slices.Collect(maps.Values(all))...)
	got := q.receiveAll(t)
	for _, m := range got {
		if err := Same(all[m.Event.ID()], m.Event, true); err != nil {
			t.Errorf("%s: %v", m.Event.ID(), err)
		}
	}
	if len(got) != len(all) {
		t.Errorf("%d of %d events arrived", len(got), len(all))
	}
}

func pullAgain(t *testing.T, q *Queue) {
	q.publish(t, 1)
	first := q.receive(t, 1)
	if len(first) != 1 || first[0].ID == "" {
		t.Fatalf("received %+v", first)
	}
	for receives := 2; receives <= 4; receives++ {
		if receives == 4 {
			q.Restart(t)
		}
		wait(pullVisibility + time.Second)
		again := q.receive(t, 1)
		if len(again) != 1 || again[0].ID != first[0].ID || again[0].Receives != receives {
			t.Fatalf("receive %d: %+v, want the id %s", receives, again, first[0].ID)
		}
	}
}

func pullAcked(t *testing.T, q *Queue) {
	q.publish(t, 3)
	got := q.receiveAll(t)
	if len(got) != 3 {
		t.Fatalf("received %d of 3", len(got))
	}
	q.ack(t, got[0])
	wait(2 * pullVisibility)
	again := q.receiveAll(t)
	if len(again) != 2 || again[0].ID == got[0].ID || again[1].ID == got[0].ID {
		t.Errorf("after one of three was acknowledged: %d again", len(again))
	}
	for _, m := range again {
		q.ack(t, m)
	}
	q.Restart(t)
	wait(2 * pullVisibility)
	if again := q.receiveAll(t); len(again) != 0 {
		t.Errorf("all are acknowledged, and after a restart %d come again", len(again))
	}
}

func pullCancel(t *testing.T, q *Queue) {
	ctx, cancel := context.WithCancel(t.Context())
	type received struct {
		messages []Message
		err      error
	}
	done := make(chan received, 1)
	go func() {
		messages, err := q.Receive(ctx, 1)
		done <- received{messages, err}
	}()
	wait(time.Second)
	if len(done) > 0 {
		t.Fatalf("of an empty queue: %+v", <-done)
	}
	cancel()
	synctest.Wait()
	if len(done) == 0 {
		t.Fatal("Receive did not return when ctx ended")
	}
	if r := <-done; len(r.messages) > 0 || r.err != nil {
		t.Errorf("when ctx ended: %+v", r)
	}
	q.publish(t, 1)
	if got := q.receive(t, 1); len(got) != 1 {
		t.Error("a message went to a consumer that was gone")
	}
}

func pullConcurrent(t *testing.T, q *Queue) {
	const consumers, messages = 64, 256
	q.publish(t, messages)
	var mu sync.Mutex
	seen := map[string]int{}
	var working sync.WaitGroup
	for range consumers {
		working.Go(func() {
			for {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				got, err := q.Receive(ctx, 5)
				cancel()
				if err != nil {
					t.Error(err)
				}
				if len(got) == 0 {
					return
				}
				for _, m := range got {
					mu.Lock()
					seen[m.Event.ID()]++
					mu.Unlock()
					if err := q.Ack(t.Context(), m.Receipt); err != nil {
						t.Errorf("ack of %s: %v", m.Event.ID(), err)
					}
				}
			}
		})
	}
	working.Wait()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("message %s was received %d times", id, n)
		}
	}
	if len(seen) != messages {
		t.Errorf("%d different messages were received, want %d", len(seen), messages)
	}
}

func pullAlone(t *testing.T, q *Queue) {
	q.publish(t, 1)
	if got := q.receive(t, 1); len(got) != 1 {
		t.Fatalf("received %d of 1", len(got))
	}
	wait(pullVisibility / 2)
	if got := q.receive(t, 1); len(got) != 0 {
		t.Error("another consumer got it while its time was not over")
	}
}
