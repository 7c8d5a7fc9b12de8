package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
)

// What a source could not make an event of is a dead letter of that source: it
// survives a restart, is no delivery, and is not redriven.
func TestReject(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		f := newFar(nil)
		d := start(t, store, one(t, spec("f", f, nil)))
		for i := range 3 {
			if err := d.Reject(t.Context(), "clicks", event(t, fmt.Sprint(i)), "no JSON"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		d.settled()
		if n := len(d.Sinks()); n != 1 {
			t.Errorf("there are %d sinks", n)
		}
		d.stop()

		d = start(t, store.Restart(), one(t, spec("f", f, nil)))
		defer d.stop()
		synctest.Wait()
		if n := d.Rejections("clicks"); n != 3 {
			t.Errorf("%d dead letters after the restart", n)
		}
		if n := len(d.Sinks()); n != 1 {
			t.Errorf("there are %d sinks", n)
		}
		list, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{Source: "clicks"}, bus.Position{}, 10)
		if err != nil || len(list) != 3 {
			t.Fatalf("%d dead letters, %v", len(list), err)
		}
		got := list[0]
		if got.Source != "clicks" || got.Sink != "" || got.Reason != "malformed" || got.Event.ID() != "0" ||
			len(got.Attempts) != 1 || got.Attempts[0].Error != "no JSON" {
			t.Errorf("got %+v", got)
		}
		job, err := d.Redrive(t.Context(), dispatch.Redrive{To: "f"})
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if job, err = d.Job(job.ID); err != nil || job.State != dispatch.JobDone || job.Chosen != 0 || f.count() != 0 {
			t.Errorf("redriven: %+v, %v", job, err)
		}
		if n, err := d.PurgeDeadLetters(t.Context(), dispatch.DeadLetterFilter{Source: "other"}); n != 0 || err != nil {
			t.Errorf("purged %d of another source, %v", n, err)
		}
		if n, err := d.PurgeDeadLetters(t.Context(), dispatch.DeadLetterFilter{Source: "clicks"}); n != 3 || err != nil || d.Rejections("clicks") != 0 {
			t.Errorf("purged %d, %v; %d left", n, err, d.Rejections("clicks"))
		}
	})
}

// Reject says whether the dead letter is durable.
func TestRejectWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var broken atomic.Bool
		broken.Store(true)
		store := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
			if broken.Load() && op.Name == memlog.OpAppend && op.Stream == bus.DeadLetters {
				return bus.ErrUnavailable
			}
			return nil
		}})
		d := start(t, store, one(t))
		defer d.stop()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := d.Reject(ctx, "clicks", event(t, "1"), "no JSON"); !errors.Is(err, bus.ErrUnavailable) {
			t.Errorf("while the store fails: %v", err)
		}
		broken.Store(false)
		pass(time.Minute)
		if n := d.Rejections("clicks"); n != 1 {
			t.Errorf("%d dead letters, want the one that was still under way", n)
		}
	})
}

// Once an event of a call could not be stored, none after it is: whoever repeats
// the call from there on keeps the order.
func TestPublishBreaksOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		appends := 0
		store := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
			if op.Name == memlog.OpAppend && op.Stream == bus.Events && op.When == memlog.Before {
				if appends++; appends == 2 {
					return bus.ErrUnavailable
				}
			}
			return nil
		}})
		f := newFar(nil)
		d := start(t, store, one(t, spec("f", f, nil)))
		defer d.stop()
		var events []bus.Event
		for i := range 10_000 { // five packs
			events = append(events, event(t, strconv.Itoa(i)))
		}
		results, err := d.pub.Publish(t.Context(), events...)
		if err != nil {
			t.Fatal(err)
		}
		stored := 0
		for stored < len(results) && results[stored].Err == nil {
			stored++
		}
		if stored == 0 || stored == len(results) {
			t.Fatalf("%d of %d were stored", stored, len(results))
		}
		for i, r := range results[stored:] {
			if !errors.Is(r.Err, bus.ErrUnavailable) {
				t.Fatalf("event %d after the first that failed: %v", i, r.Err)
			}
		}
		d.publish("after")
		pass(time.Minute)
		if f.count() != stored+1 {
			t.Errorf("%d delivered, want %d", f.count(), stored+1)
		}
	})
}

// A caller that waits no longer leaves its events to the writer, untouched by the next
// caller.
func TestAbandonedPublishIsStored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := make(chan struct{})
		store := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
			if op.Name == memlog.OpAppend && op.Stream == bus.Events && op.When == memlog.Before {
				<-slow
			}
			return nil
		}})
		f := newFar(nil)
		d := start(t, store, one(t, spec("f", f, nil)))
		defer d.stop()
		for _, id := range []string{"a", "b", "c"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := d.pub.Publish(ctx, event(t, id)); !errors.Is(err, bus.ErrUnavailable) {
				t.Errorf("%s was stored: %v", id, err)
			}
			cancel()
		}
		close(slow)
		pass(time.Minute)
		for _, id := range []string{"a", "b", "c"} {
			if n := f.times(id); n != 1 {
				t.Errorf("%s was delivered %d times", id, n)
			}
		}
	})
}
