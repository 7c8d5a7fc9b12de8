package dispatch

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Nothing vanishes: that is a promise, and this checks it while the bus runs. Two
// sums must come out even, of what this process took in:
//
//	accepted = routed + unmatched + damaged + waiting for the router
//	entered = delivered + dead + discarded + damaged + open     (for each sink)
//
// The second holds at every instant for whoever holds the lock of the lane, since a
// delivery changes its place and its count under it. The first is compared at one
// pack of the log, when the router is through with it: see passage.

const (
	// conserveEvery is how often the sums are compared, and conserveTimes how often
	// a sink's must differ in a row, so that a difference shows within 15 s.
	conserveEvery = 5 * time.Second
	conserveTimes = 3
)

// Conservation is what the last comparison of the sums came to. All zero is well.
type Conservation struct {
	Deliveries int64     // that are not accounted for, of all sinks; added up without their signs
	Events     int64     // that were accepted and never routed; negative for more than were accepted
	Checked    time.Time // zero before the first time
	Since      time.Time // when the first difference was found; zero while there is none
	Sinks      []SinkDifference
}

// OK tells whether everything is accounted for.
func (c Conservation) OK() bool { return c.Deliveries == 0 && c.Events == 0 }

// SinkDifference is a sink whose deliveries do not add up.
type SinkDifference struct {
	Sink string
	Balance
}

// Conservation tells whether everything is accounted for.
func (d *Dispatcher) Conservation() Conservation {
	if c := d.conserved.Load(); c != nil {
		return *c
	}
	return Conservation{}
}

// conserve compares the sums until ctx ends.
func (d *Dispatcher) conserve(ctx context.Context) {
	streaks := map[string]streak{}
	for {
		pause(ctx, conserveEvery)
		if ctx.Err() != nil {
			return
		}
		d.compare(streaks, time.Now())
	}
}

// streak is the difference of one sink over the last comparisons.
type streak struct {
	times int
	least int64 // the one nearest to zero
}

// add takes one more difference. Differences of two signs are none that stays.
func (s streak) add(difference int64) streak {
	switch {
	case difference == 0:
		return streak{}
	case s.times == 0 || (difference > 0) != (s.least > 0):
		return streak{1, difference}
	case difference > 0:
		return streak{s.times + 1, min(s.least, difference)}
	}
	return streak{s.times + 1, max(s.least, difference)}
}

// compare looks once, and says so when something changes.
func (d *Dispatcher) compare(streaks map[string]streak, now time.Time) {
	before := d.Conservation()
	next := Conservation{Checked: now, Events: d.passage.compare()}
	for _, l := range d.allLanes() {
		b := l.balance()
		s := streaks[l.name].add(b.Lost())
		if s.times == 0 {
			delete(streaks, l.name)
			continue
		}
		if streaks[l.name] = s; s.times >= conserveTimes {
			next.Sinks = append(next.Sinks, SinkDifference{l.name, b})
			next.Deliveries += max(s.least, -s.least)
		}
	}
	maps.DeleteFunc(streaks, func(sink string, _ streak) bool { return d.laneNamed(sink) == nil })
	if !next.OK() {
		next.Since = now
		if !before.OK() {
			next.Since = before.Since
		}
	}
	d.conserved.Store(&next)
	if before.Deliveries != next.Deliveries || before.Events != next.Events {
		d.sayConservation(next)
	}
}

func (d *Dispatcher) sayConservation(c Conservation) {
	if c.OK() {
		d.log.Info("conservation: the counters add up again")
		return
	}
	d.log.Error("conservation: the counters do not add up: something was lost, or counted twice, which is a fault of the bus; "+
		"`sluice doctor` explains it", "deliveries", c.Deliveries, "events", c.Events)
	for _, s := range c.Sinks {
		d.log.Error("conservation: the deliveries of a sink do not add up", "sink", s.Sink, "difference", s.Lost(), "entered", s.Entered,
			"delivered", s.Delivered, "dead", s.Dead, "discarded", s.Discarded, "damaged", s.Damaged, "open", s.Open())
	}
}

// passage compares what was written to EVENTS with what the router did with it. The
// writer names a pack and what was written up to there; the router notes what it has
// handled when it is through with that pack. So the two are of the same packs,
// however far the router is behind, and the difference is exact.
//
// Only where a write was not answered (bus.ErrUnavailable), and its pack turned up
// all the same, there are packs that nobody counted; between two comparisons with
// such a pack only a shortage counts.
type passage struct {
	mu     sync.Mutex
	head   uint64 // the last pack of an earlier process
	writer side   // what was written
	router side   // what the router has counted as routed, unmatched or damaged
	at     uint64 // the pack that is compared next; 0 for none
	last   uint64 // the one that was compared last

	missing int64
}

// side is one of the two sums.
type side struct {
	now, noted, compared mark
	known                bool // noted is the sum at the pack that is compared next
}

// mark is how much there was up to a pack.
type mark struct {
	seq    uint64
	packs  uint64
	events int64
}

// add counts a pack, and notes the sum on the way past the pack at.
func (s *side) add(seq uint64, events int, at uint64) {
	if seq > at {
		s.note(at)
	}
	s.now = mark{seq, s.now.packs + 1, s.now.events + int64(events)}
	if seq == at {
		s.note(at)
	}
}

func (s *side) note(at uint64) {
	if at != 0 && !s.known {
		s.noted, s.known = s.now, true
	}
}

// begin starts behind the last pack of an earlier process.
func (p *passage) begin(head uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.head, p.last = head, head
	p.writer.now.seq, p.router.now.seq = head, head
}

// wrote notes a pack that is durable.
func (p *passage) wrote(seq uint64, events int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.writer.add(seq, events, p.at)
}

// passed notes a pack that the router is through with.
func (p *passage) passed(seq uint64, events int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seq > p.head {
		p.router.add(seq, events, p.at)
	}
}

// behind is how many events wait for the router.
func (p *passage) behind() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(max(0, p.writer.now.events-p.router.now.events))
}

// compare ends the comparison that both sides have got to, begins the next, and
// tells how many events are missing so far.
func (p *passage) compare() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == 0 {
		p.aim()
	}
	if p.at == 0 || !p.writer.known || !p.router.known {
		return p.missing
	}
	w, r := &p.writer, &p.router
	difference := (w.noted.events - w.compared.events) - (r.noted.events - r.compared.events)
	if turnedUp := p.at-p.last > w.noted.packs-w.compared.packs; turnedUp {
		difference = max(0, difference)
	}
	p.missing += difference
	w.compared, r.compared = w.noted, r.noted
	p.last, p.at, w.known, r.known = p.at, 0, false, false
	p.aim()
	return p.missing
}

// aim chooses the pack that is compared next: how far the one is that is ahead.
func (p *passage) aim() {
	w, r := &p.writer, &p.router
	at := max(w.now.seq, r.now.seq)
	if at <= p.last {
		return
	}
	p.at = at
	if w.now.seq == at {
		w.note(at)
	}
	if r.now.seq == at {
		r.note(at)
	}
}
