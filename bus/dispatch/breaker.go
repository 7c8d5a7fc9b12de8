package dispatch

import "time"

// breaker leaves a sink alone that keeps failing. It counts failures in a row;
// when it is open, one attempt at a time may pass, as a probe, each after a
// longer wait than the one before. It is guarded by its lane's mutex.
type breaker struct {
	failures int           // in a row
	open     bool          // only probes pass
	since    time.Time     // when it opened
	until    time.Time     // when the next probe may pass
	wait     time.Duration // before the next probe
}

// health is what an attempt says about a sink, whatever becomes of the delivery.
type health int

const (
	healthy health = iota // it answered, if only to reject this one event
	sick                  // it failed, timed out or did not answer
	busy                  // it asked for fewer attempts: neither good nor bad
)

// observe takes in one attempt, and tells whether that opened or closed the breaker.
// One that began before the breaker opened is no probe: when many fail together, those
// behind the first say nothing new.
func (b *breaker) observe(h health, o Breaker, began, now time.Time) (changed bool) {
	switch {
	case h == sick && b.open && !began.After(b.since):
	case h == healthy:
		changed = b.open
		*b = breaker{}
	case h == busy && b.open:
		b.until = now.Add(b.wait)
	case h == sick:
		b.failures++
		if o.Failures == 0 || b.failures < o.Failures {
			return false
		}
		changed = !b.open
		if changed {
			b.since, b.wait = now, time.Duration(o.ProbeAfter)
		} else {
			b.wait = min(2*b.wait, time.Duration(o.ProbeMax))
		}
		b.open = true
		b.until = now.Add(b.wait)
	}
	return changed
}

// reload is for a sink whose settings have changed. An open breaker stays open, or each
// reload would let a sink that is down have all of its attempts again; but it has a probe
// at once, since the change may be what mends the sink.
func (b *breaker) reload(o Breaker, now time.Time) {
	if !b.open || o.Failures == 0 {
		*b = breaker{}
		return
	}
	b.until, b.wait = now, time.Duration(o.ProbeAfter)
}

// shut tells whether nothing may pass now.
func (b *breaker) shut(now time.Time) bool { return b.open && now.Before(b.until) }
