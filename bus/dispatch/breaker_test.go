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
