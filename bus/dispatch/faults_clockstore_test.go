package dispatch_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/bus/dispatch"
	"sluice/bus/jetstream"
	"sluice/config/value"
)

// TestClockJumpsOverTheStore sets the clock by an hour over the store of files, while
// it runs and while it does not: every event arrives once, and the newest state of a sink
// stays the newest. (The clock of the NATS server in it cannot be set.)
func TestClockJumpsOverTheStore(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/restart=%v", by, restart), func(t *testing.T) {
				t.Parallel()
				c, dir := &wallClock{}, t.TempDir()
				f, g := newFar(nil), newFar(nil)
				table := func() dispatch.Table {
					often := func(o *dispatch.Options) {
						o.Retry = dispatch.Retry{Schedule: make([]value.Duration, 100), Jitter: "none"}
						for i := range o.Retry.Schedule {
							o.Retry.Schedule[i] = value.Duration(50 * time.Millisecond)
						}
					}
					return one(t, spec("f", f, often), spec("g", g, nil))
				}
				var store *jetstream.Log
				open := func() *bench {
					var err error
					if store, err = jetstream.Open(t.Context(), jetstream.Options{Dir: dir, Log: quiet(), Clock: c.now, MaxBytes: 256 << 20}); err != nil {
						t.Fatal(err)
					}
					return c.start(t, store, withWindow(2*time.Hour), table())
				}
				d := open()
				again := func() {
					d.stop()
					if err := store.Close(); err != nil {
						t.Fatal(err)
					}
					d = open()
				}
				f.set(always(errors.New("connection reset")))
				d.publish(names("before", 20)...)
				if err := d.Pause(t.Context(), "g", "a reason"); err != nil {
					t.Fatal(err)
				}
				d.await(func() bool { return d.Balance().Retries > 0 })
				c.jump(by)
				if restart {
					again()
				}
				d.publish(names("after", 20)...)
				if s := d.state("g"); s != dispatch.StatePaused {
					t.Errorf("g is %s, want paused", s)
				}
				f.set(nil)
				for _, sink := range []string{"f", "g"} { // the breaker of f is open perhaps
					if err := d.Resume(t.Context(), sink); err != nil {
						t.Fatal(err)
					}
				}
				d.await(func() bool { return f.count() == 40 && g.count() == 40 })
				again()
				if s := d.state("g"); s == dispatch.StatePaused {
					t.Error("g is paused as it was an hour ago by the clock")
				}
				if !d.repeated("after3") {
					t.Error("an event that was published a moment ago is not known any more")
				}
				d.publish("late")
				d.await(func() bool { return f.count() == 41 && g.count() == 41 })
				for id, n := range f.got {
					if n != 1 {
						t.Errorf("%s was delivered %d times", id, n)
					}
				}
				d.await(func() bool { return d.Balance().Open() == 0 })
				d.settled()
				d.stop()
				if err := store.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}
