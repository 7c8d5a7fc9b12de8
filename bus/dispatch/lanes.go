package dispatch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"sluice/bus"
)

// Lanes come with their sinks, and go some time after them: once nothing is left in
// one. Sinks come and go without end where callers subscribe, so nothing may stay of a
// lane: not in memory, and no series of the metrics. What the counters of those that
// are gone came to is one sum, so the balance of the bus stays even.
//
// Somebody may still hold a lane that has gone: the router, by the rules of before a
// reload, or who sends it something. They ask for the current one, which is made when
// there is none. It delivers as the table in force says, also of a sink that is not in
// there.

// RemovedSinks is the label of what is counted of sinks that are gone. No sink can be
// called so.
const RemovedSinks = "(removed)"

// lane is the lane of a sink, made when there is none yet.
func (d *Dispatcher) lane(name string) *lane {
	if l := d.laneNamed(name); l != nil {
		return l
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.lanes[name]; l != nil {
		return l
	}
	l := d.newLane(name)
	// A reload puts its table into force before it looks for the lanes to change.
	l.configure(d.removedConf(d.routing.Load().removal(name)))
	d.lanes[name] = l
	return l
}

// current locks the lane, or the one that has taken its place, and returns it.
func (l *lane) current() *lane {
	for {
		l.mu.Lock()
		if !l.gone {
			return l
		}
		l.mu.Unlock()
		l = l.d.lane(l.name)
	}
}

func (d *Dispatcher) laneNamed(name string) *lane {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.lanes[name]
}

// allLanes are the lanes by name.
func (d *Dispatcher) allLanes() []*lane {
	lanes, _ := d.lanesAndGone()
	slices.SortFunc(lanes, func(a, b *lane) int { return strings.Compare(a.name, b.name) })
	return lanes
}

// lanesAndGone are the lanes, and the sum of those that have gone before.
func (d *Dispatcher) lanesAndGone() ([]*lane, Balance) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]*lane, 0, len(d.lanes))
	for _, l := range d.lanes {
		all = append(all, l)
	}
	return all, d.gone
}

// countPurged counts a dead letter that was removed. Its sink may have no lane any
// more, and gets no series by that.
func (d *Dispatcher) countPurged(letter *DeadLetter, cause string) {
	d.mu.RLock() // no lane goes meanwhile
	defer d.mu.RUnlock()
	switch l := d.lanes[letter.Sink]; {
	case l != nil:
		l.metrics.by(d.metrics.purged, cause).Inc()
	case letter.Sink != "":
		d.metrics.purged.WithLabelValues(RemovedSinks, cause).Inc()
	default:
		d.metrics.purged.WithLabelValues("", cause).Inc()
	}
}

// clearEvery is how often the lanes are looked over for those that nothing is left of.
const clearEvery = time.Second

// keepLanes removes the lanes of which nothing is left, until ctx ends.
func (d *Dispatcher) keepLanes(ctx context.Context) {
	for {
		pause(ctx, clearEvery)
		if ctx.Err() != nil {
			return
		}
		d.clearLanes(ctx)
	}
}

func (d *Dispatcher) clearLanes(ctx context.Context) {
	if !d.retriesKnown.Load() {
		return // those that are not read yet have their lanes
	}
	for _, l := range d.emptyLanes() {
		if err := d.clearLane(ctx, l); err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrClosed) {
			l.log.Warn("cannot forget that a sink was paused that is removed; trying again", "err", err)
		}
	}
}

func (d *Dispatcher) emptyLanes() (empty []*lane) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, l := range d.lanes {
		l.mu.Lock()
		if l.empty() {
			empty = append(empty, l)
		}
		l.mu.Unlock()
	}
	return empty
}

// clearLane removes a lane, if it is still empty.
func (d *Dispatcher) clearLane(ctx context.Context, l *lane) error {
	d.reload.Lock() // or a reload might be about to give it a sink
	defer d.reload.Unlock()
	l.mu.Lock()
	held := l.empty() && l.hold != nil // and what waited for it was not kept
	l.mu.Unlock()
	if held {
		if err := d.Resume(ctx, l.name); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.empty() || l.hold != nil {
		return nil
	}
	d.gone.add(l.sum())
	l.gone = true
	l.retire()
	delete(d.lanes, l.name)
	l.metrics.forget()
	return nil
}

// empty tells whether nothing is left for the lane to do: its sink is not in the
// config, nothing waits for that, is under way or has a record, and nobody works in
// here. That it is paused counts only while what waits is kept; dead letters do not
// need it. Nor is it empty when its sum does not come out even: conserve.go says so as
// long as it is there. The caller holds the lock.
func (l *lane) empty() bool {
	switch {
	case l.gone, l.stopped, l.conf != nil && !l.conf.removed, l.conf == nil && l.hold != nil, len(l.holding) > 0:
		return false
	case l.workers > 0, l.feeding, l.writing > 0, len(l.detached) > 0, l.behind(), !l.books.empty():
		return false
	case l.unsaved.last.Load() > l.d.savedCommit.Load():
		return false
	}
	b := l.sum()
	return b.Open() == 0 && b.Lost() == 0
}
