package dispatch_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

func orderBySubject(o *dispatch.Options) { o.OrderBy = "subject" }

// beside adds a sink to a table that gets all events too and never answers.
func beside(t *testing.T, s dispatch.SinkSpec) dispatch.Table {
	return one(t, s, spec("slow", newFar(hang), nil))
}

// A crash may bring back what was delivered last, but never behind what followed it
// in its key: not when that had failed by then, and not when it had spilled.
func TestCrashRepeatsInOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		second func(context.Context, sinks.Delivery) error // the answer to the second event
		paused bool
	}{
		"the next one had failed": {always(sinks.Answered(503, nil)), false},
		"the rest had spilled":    {hang, true},
	} {
		for _, table := range []func(*testing.T, dispatch.SinkSpec) dispatch.Table{
			func(t *testing.T, s dispatch.SinkSpec) dispatch.Table { return one(t, s) }, beside,
		} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					a := newFar(func(ctx context.Context, d sinks.Delivery) error {
						if d.Event.ID() == "e0" {
							return nil
						}
						return c.second(ctx, d)
					})
					store := memlog.New(memlog.Options{})
					d := start(t, store, table(t, spec("a", a, orderBySubject)))
					pass(time.Millisecond) // nothing spills because the retries are not read yet
					d.publishKeyed(t, "k", names("e", 3)...)
					pass(time.Millisecond)
					if c.paused {
						if err := d.Pause(t.Context(), "a", ""); err != nil {
							t.Fatal(err)
						}
						pass(20 * time.Millisecond)
					}
					store = store.Restart() // before the ledgers are saved by themselves
					d.stop()

					a.set(nil)
					before := len(a.order)
					d = start(t, store, table(t, spec("a", a, orderBySubject)))
					defer d.stop()
					if err := d.Resume(t.Context(), "a"); err != nil {
						t.Fatal(err)
					}
					pass(10 * time.Second)
					a.mu.Lock()
					defer a.mu.Unlock()
					if got := a.order[before:]; !slices.IsSorted(got) || !slices.Contains(got, "e2") {
						t.Errorf("after the crash: %v", got)
					}
				})
			})
		}
	}
}

// A purge that a crash cuts short lets nothing overtake in a group: what it has
// discarded does not come back behind what it has kept.
func TestCrashInPurgeKeepsOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var crash atomic.Bool
		store := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
			if op.Name == memlog.OpAppend && op.Stream == bus.Retries && op.When == memlog.After && crash.Swap(false) {
				return memlog.ErrCrash
			}
			return nil
		}})
		queue := func() dispatch.Table { return beside(t, queueSpec(t, "q", nil, orderBySubject)) }
		d := start(t, store, queue())
		pass(time.Millisecond)
		group := bus.Attr{Name: "subject", Value: "k"}
		results, err := d.pub.Publish(t.Context(), typed(t, "e0", "t", group),
			typed(t, "e1", "t", group, bus.Attr{Name: dispatch.DelayAttribute, Value: "60"}), typed(t, "e2", "t", group))
		if err != nil || results[2].Err != nil {
			t.Fatal(err, results)
		}
		pass(time.Millisecond)
		crash.Store(true)
		go func() { _, _ = d.Purge(t.Context(), "q") }() // e0 goes, and e1 waits for its time
		pass(time.Millisecond)
		store = store.Restart()
		d.stop()
		if crash.Load() {
			t.Fatal("the purge has not got to the event with a delay")
		}

		d = start(t, store, queue())
		defer d.stop()
		var got []string
		pass(2 * time.Minute)
		for m := d.receive(10); len(m) > 0; m = d.receive(10) {
			d.ack(m...)
			got = append(got, m[0].Event.ID())
		}
		if !slices.Equal(got, []string{"e1", "e2"}) && !slices.Equal(got, names("e", 3)) {
			t.Errorf("received %v", got)
		}
	})
}

// What a consumer has acknowledged, or a sink has taken, a while before a crash does
// not come again: not even while another sink of the same event has yet to answer.
func TestCrashBesideSlowSinkRepeatsNothing(t *testing.T) {
	t.Parallel()
	for name, order := range map[string]func(*dispatch.Options){"without order": nil, "in order": orderBySubject} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a := newFar(nil)
				table := func() dispatch.Table {
					return one(t, queueSpec(t, "q", nil, order), spec("a", a, order), spec("slow", newFar(hang), nil))
				}
				store := memlog.New(memlog.Options{})
				d := start(t, store, table())
				d.publish("e")
				d.ack(d.receive(1)...)
				for range 2 { // the second process has not seen the first one's work
					pass(300 * time.Millisecond)
					store = store.Restart()
					d.stop()
					d = start(t, store, table())
				}
				defer d.stop()
				if again := d.receive(1); len(again) > 0 || a.times("e") != 1 {
					t.Errorf("received again: %d; sent %d times", len(again), a.times("e"))
				}
				d.balanced()
			})
		})
	}
}
