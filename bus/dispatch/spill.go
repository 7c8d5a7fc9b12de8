package dispatch

import (
	"time"

	"sluice/bus"
)

// The other way into a lane: what it cannot take now goes to the backlog, on disk,
// and feed.go brings it back. What runs or waits for too long gets a record there
// as well, so that it does not hold the floor.

// spillMore sends new deliveries to the backlog from now on.
func (l *lane) spillMore() {
	l.spillover = true
	closing := l.closing
	l.closing = nil
	for _, d := range closing {
		l.spill(d)
	}
}

// canClose tells whether all that keeps an ordered lane from the direct way is
// the last of the backlog, on its way to the disk and back: what comes now waits
// for that in memory, or the lane would never catch up with a steady stream.
func (l *lane) canClose() bool {
	return l.ordered() && l.spillover && !l.behind() && l.queue.apart == 0 && l.spilling > 0 && !l.blocked(time.Now())
}

// spill sends a delivery to the backlog. The caller holds the lock.
func (l *lane) spill(d *delivery) {
	l.spilling++
	l.spills++
	l.leaving.add(l.spills, d.accepted)
	err := l.d.backlogWriter.submit(write{key: l.name, record: d.record(), born: d.born(), skip: l.skips, follows: l.followsDirect, done: func(pos bus.Position, n int, err error) {
		l.spilled(d, pos, n, err)
	}})
	if err != nil {
		l.spilling-- // shutting down: the record that it came from covers it
	}
}

// spilled hears that a delivery is in the backlog.
func (l *lane) spilled(d *delivery, pos bus.Position, n int, err error) {
	l.mu.Lock()
	l.spilling--
	l.spillsEnd++
	l.leaving.drop(l.spillsEnd)
	switch {
	case err == nil:
		l.stored(d, pos, n)
	case refused(err):
		// The record that it came from covers it on.
		l.cramp()
		if l.ordered() {
			l.refused = append(l.refused, d)
		} else {
			l.queue.push(d)
			l.dispatch(time.Now())
		}
	}
	l.caughtUp()
	l.mu.Unlock()
	if err != nil {
		l.d.abandoned(d, err)
		return
	}
	d.origin.settle(d)
}

// skips tells the writer to refuse what it was given before it refused something
// else of an ordered lane: later events must not be in the backlog without the
// earlier ones.
func (l *lane) skips() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cramped && l.ordered()
}

// stored counts a delivery that is in the backlog. The caller holds the lock.
func (l *lane) stored(d *delivery, pos bus.Position, n int) {
	l.depth++
	l.unread.add(pos.Seq, d.accepted)
	l.known[pos.Seq]++
	l.inBacklog(pos, n)
	l.metrics.spilled.Inc()
}

// cramp notes that the store has no room for the backlog: until it may have some
// again, what there is waits in memory, covered by the log. The router's window
// bounds that.
func (l *lane) cramp() {
	if !l.cramped {
		l.log.Warn("the store is full: the backlog stays in memory, and a slow sink may hold up others")
	}
	l.cramped, l.crampedAt = true, time.Now()
}

// crampRetry is how long after a refusal the backlog is tried again.
const crampRetry = time.Second

// uncramp tries the backlog again after a while. An ordered lane waits until it
// has read all of the backlog, so that nothing in there overtakes.
func (l *lane) uncramp(now time.Time) {
	if !l.cramped || now.Sub(l.crampedAt) < crampRetry {
		return
	}
	if !l.ordered() || !l.behind() && l.spilling == 0 && l.queue.apart == 0 && l.pinned == 0 {
		l.cramped = false
	}
}

// inBacklog hears of a record of the backlog; the last of its pack shows the pack
// to the feed. The caller holds the lock.
func (l *lane) inBacklog(pos bus.Position, n int) {
	l.written = max(l.written, pos.Seq)
	if pos.Index == n-1 {
		l.visible = max(l.visible, pos.Seq)
		l.nudgeFeed()
	}
}

// behind tells whether the backlog has packs that the feed has not read. It goes
// by their numbers: a write that was repeated, because its answer got lost, may
// be there twice.
func (l *lane) behind() bool { return l.oldPacks > 0 || l.readTo <= l.written }

// sweep gives what has waited or run for too long on the direct way a record of
// its own, so that it does not hold the floor.
func (l *lane) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf == nil || l.stopped {
		return
	}
	late := now.Add(-time.Duration(l.conf.options.SpillAfter))
	l.uncramp(now)
	old := func(d *delivery) bool { return l.direct(d) && d.offered.Before(late) }
	waiting := len(l.closing) > 0 && old(l.closing[0])
	l.queue.oldest(l.direct, func(d *delivery) { waiting = waiting || old(d) })
	if waiting {
		l.flush()
	}
	for d := range l.running {
		if d.state == running && old(d) {
			l.detach(d)
		}
	}
	l.dispatch(now)
}

// flush spills what waits on the direct way. What has a record of its own stays.
func (l *lane) flush() {
	if l.cramped {
		return
	}
	if !l.coverRunning() {
		return // the next sweep tries again
	}
	waiting := l.queue.take(l.direct, l.startUnpark)
	if len(waiting)+len(l.closing) > 0 {
		for _, d := range waiting {
			l.spill(d)
		}
		l.spillMore()
	}
}

// direct tells whether a delivery has no record but its event.
func (l *lane) direct(d *delivery) bool { return d.origin.ledger == l.d.events }

// coverRunning gives what runs in an ordered lane records of their own, before
// what comes behind it gets one: after a crash they come in the order of their
// records. False means that one has just ended and is about to get another record.
func (l *lane) coverRunning() bool {
	if !l.ordered() {
		return true
	}
	for d := range l.running {
		if d.state == done && l.direct(d) {
			return false
		}
	}
	for d := range l.running {
		if d.state == running && l.direct(d) {
			l.detach(d)
		}
	}
	return true
}

// detach makes a delivery durable while its attempt goes on.
func (l *lane) detach(d *delivery) {
	if l.cramped {
		return
	}
	d.state = detaching
	l.writing++
	err := l.d.backlogWriter.submit(write{key: l.name, record: d.record(), born: d.born(), skip: l.skips, follows: l.followsDirect, done: func(pos bus.Position, n int, err error) {
		l.detachedAs(d, pos, n, err)
	}})
	if err != nil {
		l.writing--
		d.state = running
	}
}

func (l *lane) detachedAs(d *delivery, pos bus.Position, n int, err error) {
	l.mu.Lock()
	l.writing--
	own := origin{l.books, pos}
	switch {
	case err != nil:
		if d.state == detaching {
			d.state = running
		}
		if refused(err) {
			l.cramp()
		}
		l.mu.Unlock()
		return
	case d.state == detaching:
		d.state = detached
		l.detached[pos] = d
		d.origin, own = own, d.origin
	}
	l.books.begin(pos.Seq, n, 0)
	l.inBacklog(pos, n)
	l.mu.Unlock()
	// Either the event's record is not needed any more or, when the attempt ended
	// meanwhile, the new one is not.
	own.settle(d)
}

// inject puts a delivery into the backlog that comes from somewhere else than the
// router. done hears once it is durable.
func (l *lane) inject(d *delivery, from string, done func(error)) {
	l = l.current()
	l.writing++
	l.mu.Unlock()
	written := func(pos bus.Position, n int, err error) {
		l.mu.Lock()
		l.writing--
		if err == nil {
			l.metrics.entered(d.rule, from)
			l.stored(d, pos, n)
		}
		l.mu.Unlock()
		done(err)
	}
	if err := l.d.backlogWriter.submit(write{key: l.name, record: d.record(), born: d.born(), done: written}); err != nil {
		written(bus.Position{}, 0, err)
	}
}
