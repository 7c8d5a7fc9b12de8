package dispatch

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// crew are the goroutines that make attempts, for all lanes. Some of those that have
// nothing to do wait for more: a new one grows its stack on the way into its first
// request, which takes as long as the rest of the dispatching.
type crew struct {
	work *sync.WaitGroup // what is under way
	end  <-chan struct{} // nobody waits for more after that
	next chan shift      // to one of those that wait
	idle atomic.Int32
	all  sync.WaitGroup
}

// shift is a delivery, and all that can be had from its lane after it.
type shift struct {
	lane *lane
	d    *delivery
}

// crewIdle is how many wait at most: their stacks are 8 to 16 KiB each.
const crewIdle = 64

func newCrew(work *sync.WaitGroup, end <-chan struct{}) *crew {
	return &crew{work: work, end: end, next: make(chan shift)}
}

// begin makes an attempt at d, and at what the lane gives after it.
func (c *crew) begin(l *lane, d *delivery) {
	c.work.Add(1)
	s := shift{l, d}
	select {
	case c.next <- s:
	default:
		c.all.Go(func() { c.serve(s) })
	}
}

func (c *crew) serve(s shift) {
	for {
		s.lane.work(s.d)
		c.work.Done()
		if c.idle.Add(1) > crewIdle {
			c.idle.Add(-1)
			return
		}
		select {
		case s = <-c.next:
			c.idle.Add(-1)
		case <-c.end:
			return
		}
	}
}

// deadlines hands out the contexts of attempts, which end with their time. Attempts
// that begin within a part of that time have one together: for each its own, with its
// timer and its place among the children of another, cost 6 % of a delivery.
type deadlines struct {
	parent context.Context
	time   time.Duration

	ctx    context.Context
	cancel context.CancelFunc // not called: attempts are under way until their time is over
	until  time.Time          // when the next one is due
}

// deadlineShare is the part of its time by which an attempt may take longer.
const deadlineShare = 32

// begin is the context of an attempt that begins now: it ends after the time, or up to
// a 32nd of that later. The caller holds the lock of the lane.
func (s *deadlines) begin(now time.Time) context.Context {
	if s.ctx == nil || !now.Before(s.until) {
		grain := s.time / deadlineShare
		s.until = now.Add(grain)
		s.ctx, s.cancel = context.WithDeadline(s.parent, s.until.Add(s.time))
	}
	return s.ctx
}
