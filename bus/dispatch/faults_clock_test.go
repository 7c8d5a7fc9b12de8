package dispatch_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/sinks"
)

// wallClock is a clock on the wall that somebody sets: time.Now, which stands for
// the clock of the process, goes on as it did.
type wallClock struct{ offset atomic.Int64 }

func (c *wallClock) now() time.Time             { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *wallClock) jump(d time.Duration)       { c.offset.Add(int64(d)) }
func (c *wallClock) log() *memlog.Log           { return memlog.New(memlog.Options{Clock: c.now}) }
func withWindow(d time.Duration) dispatch.Dedup { return dispatch.Dedup{Window: value.Duration(d)} }

func (c *wallClock) start(t *testing.T, store bus.Log, dedup dispatch.Dedup, table dispatch.Table) *bench {
	t.Helper()
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet(), Clock: c.now, Dedup: dedup})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	return &bench{Dispatcher: d, t: t, pub: d.Publisher("test")}
}

// jumps runs a test with the clock set forward and back by an hour, while the
// process runs and while it does not.
func jumps(t *testing.T, test func(t *testing.T, c *wallClock, by time.Duration, restart bool)) {
	t.Helper()
	t.Parallel()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/restart=%v", by, restart), func(t *testing.T) {
				bubble(t, func(t *testing.T) { test(t, &wallClock{}, by, restart) })
			})
		}
	}
}

// jumpIn sets the clock, with a new process when restart says so.
func (c *wallClock) jumpIn(t *testing.T, d *bench, store *memlog.Log, dedup dispatch.Dedup, table func() dispatch.Table, by time.Duration, restart bool) *bench {
	t.Helper()
	if !restart {
		c.jump(by)
		return d
	}
	d.stop()
	c.jump(by)
	return c.start(t, store.Restart(), dedup, table())
}

// TestClockJumpsUnderRetry sets the clock while a delivery waits ten minutes for
// its next attempt: it waits no longer, and is not given up.
func TestClockJumpsUnderRetry(t *testing.T) {
	jumps(t, func(t *testing.T, c *wallClock, by time.Duration, restart bool) {
		f := newFar(always(sinks.Answered(503, nil)))
		table := func() dispatch.Table {
			return one(t, spec("f", f, func(o *dispatch.Options) {
				o.Retry = dispatch.Retry{Schedule: []value.Duration{value.Duration(10 * time.Minute), value.Duration(10 * time.Minute)}, Jitter: "none"}
			}))
		}
		store := c.log()
		d := c.start(t, store, dispatch.Dedup{}, table())
		d.publish("e")
		pass(time.Minute)
		d = c.jumpIn(t, d, store, dispatch.Dedup{}, table, by, restart)
		defer func() { d.stop() }()
		f.set(nil)
		pass(time.Second)
		if restart && by > 0 && f.times("e") != 1 {
			t.Error("a retry that is due by the clock was not made at the start")
		}
		if !(restart && by > 0) && f.attempts() != 1 {
			t.Errorf("%d attempts long before the delay was over", f.attempts())
		}
		pass(10 * time.Minute)
		if f.times("e") != 1 {
			t.Errorf("delivered %d times after %d attempts, 11 minutes after a delay of 10 began", f.times("e"), f.attempts())
		}
		d.settled()
	})
}

// TestClockJumpsUnderRetryAfter does the same to what the far side asked for.
func TestClockJumpsUnderRetryAfter(t *testing.T) {
	jumps(t, func(t *testing.T, c *wallClock, by time.Duration, restart bool) {
		f := newFar(always(sinks.RetryAfter(sinks.Answered(429, nil), 30*24*time.Hour)))
		table := func() dispatch.Table { return one(t, spec("f", f, nil)) }
		store := c.log()
		d := c.start(t, store, dispatch.Dedup{}, table())
		d.publish("e")
		pass(time.Minute)
		d = c.jumpIn(t, d, store, dispatch.Dedup{}, table, by, restart)
		defer func() { d.stop() }()
		f.set(nil)
		pass(time.Hour + time.Second) // the cap
		if f.times("e") != 1 {
			t.Errorf("not delivered within the hour that Retry-After is capped at; %d attempts", f.attempts())
		}
		d.settled()
	})
}

// TestClockJumpsUnderMaxAge sets the clock beyond max_age. What then fails again is
// a dead letter, by name; it does not vanish.
func TestClockJumpsUnderMaxAge(t *testing.T) {
	jumps(t, func(t *testing.T, c *wallClock, by time.Duration, restart bool) {
		f := newFar(always(sinks.Answered(503, nil)))
		table := func() dispatch.Table {
			return one(t, spec("f", f, func(o *dispatch.Options) {
				o.Retry = dispatch.Retry{Preset: "default", MaxAge: value.Duration(30 * time.Minute), Initial: value.Duration(time.Minute), Max: value.Duration(time.Minute), Jitter: "none"}
			}))
		}
		store := c.log()
		d := c.start(t, store, dispatch.Dedup{}, table())
		d.publish("e")
		pass(30 * time.Second)
		d = c.jumpIn(t, d, store, dispatch.Dedup{}, table, by, restart)
		defer func() { d.stop() }()
		pass(2 * time.Minute)
		if by < 0 {
			f.set(nil)
			pass(10 * time.Minute)
			if f.times("e") != 1 {
				t.Errorf("not delivered, after %d attempts", f.attempts())
			}
		} else {
			letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
			if err != nil || len(letters) != 1 || letters[0].Reason != "expired" {
				t.Errorf("dead letters %+v, error %v", letters, err)
			}
		}
		d.settled()
	})
}

// TestClockJumpsUnderDedup sets the clock: what was published a minute ago is
// still known, unless a stopped bus finds that an hour has passed; and nothing is
// known for longer than the window and a quarter.
func TestClockJumpsUnderDedup(t *testing.T) {
	jumps(t, func(t *testing.T, c *wallClock, by time.Duration, restart bool) {
		f := newFar(nil)
		table := func() dispatch.Table { return one(t, spec("f", f, nil)) }
		window := withWindow(20 * time.Minute)
		store := c.log()
		d := c.start(t, store, window, table())
		d.publish("e")
		pass(time.Minute)
		d = c.jumpIn(t, d, store, window, table, by, restart)
		defer func() { d.stop() }()
		passed := restart && by > 0 // it cannot know better
		if got := d.repeated("e"); got == passed {
			t.Errorf("published again: repeated is %v", got)
		}
		d.publish("late")
		pass(19 * time.Minute)
		if !d.repeated("late") {
			t.Error("an event is forgotten before the window is over")
		}
		pass(7 * time.Minute)
		for _, id := range []string{"e", "late"} {
			if d.repeated(id) {
				t.Errorf("%s is remembered for far longer than the window", id)
			}
		}
		synctest.Wait()
		d.settled()
	})
}

// TestClockJumpsUnderRetention sets the clock while events wait that are older
// than what is kept: none of them goes.
func TestClockJumpsUnderRetention(t *testing.T) {
	jumps(t, func(t *testing.T, c *wallClock, by time.Duration, restart bool) {
		f := newFar(hang)
		table := func() dispatch.Table {
			table := one(t, spec("f", f, func(o *dispatch.Options) {
				o.SpillAfter = value.Duration(24 * time.Hour) // EVENTS alone covers them
				o.Timeout = value.Duration(15 * time.Minute)
			}))
			table.Retain = dispatch.Retention{Age: 30 * time.Minute, DeadLetters: 30 * time.Minute}
			return table
		}
		store := c.log()
		d := c.start(t, store, dispatch.Dedup{}, table())
		d.publish(names("e", 100)...)
		pass(time.Minute)
		d = c.jumpIn(t, d, store, dispatch.Dedup{}, table, by, restart)
		defer func() { d.stop() }()
		pass(5 * time.Minute)
		f.set(nil)
		pass(2 * time.Hour)
		if f.count() != 100 {
			t.Errorf("%d of 100 events arrived", f.count())
		}
		d.settled()
		d.publish("new")
		pass(5 * time.Hour)
		if info, err := store.Stream(bus.Events).Info(t.Context()); !restart && (err != nil || info.Packs != 0) {
			t.Errorf("%d packs are left hours after their time, error %v", info.Packs, err)
		}
	})
}
