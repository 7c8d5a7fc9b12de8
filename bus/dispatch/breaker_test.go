package dispatch_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// A reload of a sink that is down leaves its breaker open: one probe at once, and not all
// of its attempts again. Where the reload mends it, that probe says so.
func TestReloadKeepsTheBreakerOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(errors.New("connection refused")))
		table := func() dispatch.Table {
			return one(t, spec("f", f, func(o *dispatch.Options) {
				o.Breaker.ProbeAfter, o.Breaker.ProbeMax = lasting(time.Hour), lasting(time.Hour)
			}))
		}
		d := start(t, memlog.New(memlog.Options{}), table())
		defer d.stop()
		d.publish(names("e", 200)...)
		pass(time.Minute)
		for i := range 20 {
			before := f.attempts()
			if err := d.Reload(t.Context(), table()); err != nil {
				t.Fatal(err)
			}
			pass(time.Minute)
			if n := f.attempts() - before; n != 1 || d.Sinks()[0].State != dispatch.StateBroken {
				t.Fatalf("reload %d: %d attempts, the sink is %s", i, n, d.Sinks()[0].State)
			}
		}
		f.set(nil)
		if err := d.Reload(t.Context(), table()); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		if f.count() != 200 {
			t.Errorf("%d of 200 arrived after the last reload", f.count())
		}
		d.settled()
	})
}

// Many attempts that fail together open the breaker once: the first probe comes
// after probe_after, and not after the longest wait there is.
func TestBreakerOfManyFailures(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(func(context.Context, sinks.Delivery) error {
			<-time.After(time.Second)
			return errors.New("connection reset")
		})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
			o.Concurrency = 32
			o.Breaker = dispatch.Breaker{Failures: 10, ProbeAfter: lasting(2 * time.Second), ProbeMax: lasting(time.Hour)}
		})))
		defer d.stop()
		d.publish(names("e", 100)...)
		pass(2500 * time.Millisecond) // 32 attempts have failed, and the few that took the places of the first of them
		tried := f.attempts()
		if s := d.Sinks()[0]; tried < 32 || tried > 42 || s.State != dispatch.StateBroken {
			t.Fatalf("%d attempts, the sink is %s", tried, s.State)
		}
		pass(time.Second)
		if n := f.attempts() - tried; n != 1 {
			t.Errorf("%d probes after probe_after, want 1", n)
		}
		f.set(nil)
		pass(10 * time.Minute)
		if f.count() != 100 {
			t.Errorf("%d of 100 arrived after the outage", f.count())
		}
		d.settled()
	})
}
