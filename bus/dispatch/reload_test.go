package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/sinks"
)

func orderedBy(key string) func(*dispatch.Options) {
	return func(o *dispatch.Options) {
		o.OrderBy = key
		o.Retry.Jitter = "none"
		o.Breaker.Failures = 0
	}
}

func (b *bench) publishKeyed(t *testing.T, key string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := b.pub.Publish(t.Context(), keyed(t, id, key)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestChangeOfOrderKeepsWhatIsParked changes order_by while deliveries of a key
// that is held up are parked in the backlog.
func TestChangeOfOrderKeepsWhatIsParked(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"", "type", "source"} {
		t.Run("to "+by, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(always(sinks.Answered(503, nil)))
				d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, orderedBy("subject"))))
				defer d.stop()
				if err := d.Pause(t.Context(), "f", ""); err != nil {
					t.Fatal(err)
				}
				d.publishKeyed(t, "k", names("e", 60)...)
				pass(time.Second)
				if err := d.Resume(t.Context(), "f"); err != nil {
					t.Fatal(err)
				}
				pass(10 * time.Second)
				f.set(nil)
				if err := d.Reload(t.Context(), one(t, spec("f", f, orderedBy(by)))); err != nil {
					t.Fatal(err)
				}
				pass(time.Hour)
				if f.count() != 60 {
					t.Fatalf("%d of 60 events arrived after the change", f.count())
				}
				d.settled()
			})
		})
	}
}

// TestKeysThatAreHeldUpStopNobodyElse fills the backlog with keys that fail.
func TestKeysThatAreHeldUpStopNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(func(_ context.Context, d sinks.Delivery) error {
			if strings.HasPrefix(d.Event.Subject(), "bad") {
				return sinks.Answered(500, nil)
			}
			return nil
		})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, orderedBy("subject"))))
		defer d.stop()
		if err := d.Pause(t.Context(), "f", ""); err != nil {
			t.Fatal(err)
		}
		for i := range 300 {
			d.publishKeyed(t, fmt.Sprint("bad", i), fmt.Sprint("b", i), fmt.Sprint("c", i))
		}
		d.publishKeyed(t, "good", names("g", 10)...)
		if err := d.Resume(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
		pass(30 * time.Second)
		if f.count() != 10 {
			t.Fatalf("%d of 10 events of a good key arrived behind 300 bad ones", f.count())
		}
		d.balanced()
		f.set(nil)
		pass(24 * time.Hour)
		if f.count() != 610 {
			t.Fatalf("%d of 610 events arrived in the end", f.count())
		}
		d.settled()
	})
}

// TestAnswerToOldSettings lets a sink answer 410 after a reload has replaced it.
func TestAnswerToOldSettings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		old := newFar(func(ctx context.Context, _ sinks.Delivery) error {
			<-time.After(5 * time.Second)
			return sinks.Answered(410, nil)
		})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", old, nil)))
		defer d.stop()
		d.publish("e")
		pass(time.Second)
		f := newFar(nil)
		if err := d.Reload(t.Context(), one(t, spec("f", f, nil))); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		if s := d.Sinks()[0]; s.State != dispatch.StateActive {
			t.Fatalf("the sink is %s because of what it was before", s.State)
		}
		d.publish("later")
		pass(time.Second)
		if f.times("later") != 1 || old.closed != 1 {
			t.Fatal("the new sink gets nothing, or the old one was not closed")
		}
		d.settled()
	})
}

// TestBatchesTurnedOff reloads while a batch waits for company.
func TestBatchesTurnedOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &farBatch{far: newFar(nil)}
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, batches(10, 20*time.Second))))
		defer d.stop()
		d.publish("a", "b")
		pass(time.Second)
		if err := d.Reload(t.Context(), one(t, spec("f", f, nil))); err != nil {
			t.Fatal(err)
		}
		d.publish("c", "d", "e")
		pass(time.Minute)
		if f.count() != 5 {
			t.Fatalf("%d of 5 events arrived", f.count())
		}
		d.settled()
	})
}

// TestRateOfOldSettings replaces a sink whose deliveries wait for its rate.
func TestRateOfOldSettings(t *testing.T) {
	bubble(t, func(t *testing.T) {
		old, f := newFar(nil), newFar(nil)
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", old, func(o *dispatch.Options) {
			o.Rate.Count, o.Rate.Per = 1, time.Hour
		})))
		defer d.stop()
		d.publish(names("e", 20)...)
		pass(time.Minute)
		if err := d.Reload(t.Context(), one(t, spec("f", f, nil))); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if old.count() != 1 || f.count() != 19 {
			t.Fatalf("the old sink got %d and the new one %d of 20 events", old.count(), f.count())
		}
		d.settled()
	})
}

// What waits for the rate of its sink holds up no stop, and is delivered by the next
// start without another attempt at what was delivered.
func TestStopDoesNotWaitForTheRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, other := newFar(nil), newFar(nil)
		slow := func(o *dispatch.Options) { o.Rate.Count, o.Rate.Per = 1, time.Hour }
		store := memlog.New(memlog.Options{})
		d := start(t, store, one(t, spec("f", f, slow), spec("other", other, nil)))
		d.publish(names("e", 20)...)
		pass(time.Minute)
		began := time.Now()
		if err := d.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the stop took %s while deliveries waited for the rate of their sink", took)
		}
		d = start(t, store.Restart(), one(t, spec("f", f, nil), spec("other", other, nil)))
		defer d.stop()
		pass(time.Minute)
		if f.count() != 20 || f.attempts() != 20 || other.attempts() != 20 {
			t.Errorf("%d of 20 events arrived after %d attempts, %d at the other sink", f.count(), f.attempts(), other.attempts())
		}
		d.settled()
	})
}

// What waits for the rate of a sink whose breaker opens meanwhile is not sent to it.
func TestRateBehindTheBreaker(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(errors.New("out of order")))
		const failures = 3
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
			o.Rate.Count, o.Rate.Per = 1, time.Second
			o.Breaker = dispatch.Breaker{Failures: failures, ProbeAfter: value.Duration(time.Hour), ProbeMax: value.Duration(time.Hour)}
		})))
		defer d.stop()
		d.publish(names("e", 20)...)
		pass(10 * time.Minute)
		if f.attempts() != failures {
			t.Errorf("%d attempts at a sink whose breaker opens after %d", f.attempts(), failures)
		}
		d.balanced()
	})
}
