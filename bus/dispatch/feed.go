package dispatch

import (
	"context"
	"errors"
	"time"

	"sluice/bus"
)

// The feed brings the backlog of a lane back into its queue, oldest first and no
// more than the lane can soon use. It runs only while there is something to bring:
// an idle sink costs no reader.

const (
	// feedIdle is how long a feed that has caught up keeps its reader.
	feedIdle = 5 * time.Second
	// feedPatience is how long a feed waits for a pack that should be there before
	// it looks whether it is.
	feedPatience = 5 * time.Second
)

// nudgeFeed lets the feed look again, and starts it when there is work for it.
// The caller holds the lock.
func (l *lane) nudgeFeed() {
	signal(l.room)
	if !l.feeding && l.hungry() {
		l.feeding = true
		l.d.work.Go(l.feed)
	}
}

// hungry tells whether the lane wants more of its backlog now.
func (l *lane) hungry() bool {
	return (l.oldPacks > 0 || l.readTo <= l.visible) && !l.blocked(time.Now()) && l.hasRoom()
}

func (l *lane) hasRoom() bool {
	if l.breaker.open && l.queue.len()+len(l.running) > 0 {
		return false
	}
	return l.queue.runnable() < feedDeliveries && l.queue.bytes < queueBytes
}

// feed runs until the backlog has been empty for a while, or the bus stops.
func (l *lane) feed() {
	ctx := l.d.intake
	var reader bus.Reader
	defer func() {
		if reader != nil {
			_ = reader.Close()
		}
	}()
	for l.awaitHunger(ctx) {
		var err error
		if reader == nil {
			reader, err = l.d.backlogStream.Read(ctx, l.name, l.readTo)
		}
		if err == nil {
			err = l.feedPack(ctx, reader)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, bus.ErrClosed) {
			l.log.Warn("cannot read the backlog; trying again", "err", err)
			if reader != nil {
				_ = reader.Close()
				reader = nil
			}
			pause(ctx, time.Second)
		}
	}
}

// awaitHunger waits until the lane wants a pack. False ends the feed, which is
// noted under the same lock that nudgeFeed looks at.
func (l *lane) awaitHunger(ctx context.Context) bool {
	idle := time.NewTimer(feedIdle)
	defer idle.Stop()
	for {
		l.mu.Lock()
		if ctx.Err() != nil || l.stopped {
			l.feeding = false
			l.mu.Unlock()
			return false
		}
		if l.hungry() {
			l.mu.Unlock()
			return true
		}
		if l.conf == nil || l.conf.removed { // the lane may be about to go
			l.feeding = false
			l.mu.Unlock()
			return false
		}
		l.mu.Unlock()
		select {
		case <-l.room:
		case <-ctx.Done():
		case <-idle.C:
			l.mu.Lock()
			if !l.hungry() {
				l.feeding = false
				l.mu.Unlock()
				return false
			}
			l.mu.Unlock()
		}
	}
}

// feedPack reads one pack into the queue.
func (l *lane) feedPack(ctx context.Context, reader bus.Reader) error {
	limited, cancel := context.WithTimeout(ctx, feedPatience)
	defer cancel()
	pack, err := reader.Next(limited)
	if err != nil {
		if ctx.Err() == nil && limited.Err() != nil {
			return l.lookAgain(ctx)
		}
		return err
	}
	l.books.begin(pack.Seq, len(pack.Records), 0)
	l.books.forget(pack.Seq)
	ready := l.decode(pack)
	l.mu.Lock()
	now := time.Now()
	// Of an earlier process, or of a write that this one takes for failed.
	foreign := l.known[pack.Seq] == 0 && !l.ownPack(pack.Seq)
	fed := 0
	for _, d := range ready {
		if _, running := l.detached[d.origin.pos]; running || l.books.settled(d.origin.pos) {
			continue
		}
		if foreign {
			l.metrics.entered(d.rule, fromStore)
		}
		d.offered = now
		l.queue.pushBacklog(d)
		fed++
	}
	l.readTo = pack.Seq + 1
	if pack.Seq <= l.d.backlogHead {
		l.oldPacks--
		l.old = max(0, l.old-len(pack.Records))
		if len(ready) > 0 {
			l.oldFrom = ready[len(ready)-1].accepted
		}
	}
	l.depth -= l.known[pack.Seq]
	l.metrics.live.damaged.Add(int64(max(0, l.known[pack.Seq]-fed)))
	delete(l.known, pack.Seq)
	l.unread.drop(pack.Seq)
	l.caughtUp()
	l.dispatch(now)
	l.mu.Unlock()
	l.books.read(pack.Seq)
	return nil
}

// caughtUp goes back to the direct way once the backlog has been read. What is
// still on its way into the backlog is read later: without order_by it need not
// come first. The caller holds the lock.
func (l *lane) caughtUp() {
	if l.behind() || !l.spillover {
		return
	}
	if l.ordered() && (l.spilling > 0 || l.queue.apart > 0) {
		return
	}
	l.spillover = false
	l.old = 0
	for _, d := range l.refused {
		l.queue.push(d)
	}
	for _, d := range l.closing {
		l.queue.push(d)
	}
	l.refused, l.closing = nil, nil
	l.dispatch(time.Now())
}

// unpark reads the next deliveries of a key that was held up.
func (l *lane) unpark(key string, k *orderKey) {
	for {
		l.mu.Lock()
		places, generation := l.queue.unpark(k), l.queue.generation
		l.mu.Unlock()
		read, err := l.readPlaces(places)
		if err != nil {
			return // the bus is stopping: their records cover them
		}
		l.mu.Lock()
		if l.queue.generation != generation { // the order goes by something else now
			for _, d := range read {
				l.queue.pushBacklog(d)
			}
			l.queue.apart -= len(places)
			l.metrics.live.damaged.Add(int64(len(places) - len(read)))
			l.caughtUp()
			l.dispatch(time.Now())
			l.mu.Unlock()
			return
		}
		l.metrics.live.damaged.Add(int64(len(places) - len(read)))
		more := l.queue.unparked(key, k, len(places), read)
		if more == nil {
			l.caughtUp()
			l.dispatch(time.Now())
			l.mu.Unlock()
			return
		}
		k.loading = true
		l.mu.Unlock()
	}
}

// readPlaces reads deliveries from the backlog by their places.
func (l *lane) readPlaces(places []bus.Position) (read []*delivery, err error) {
	var pack bus.Pack
	for _, pos := range places {
		for pack.Seq != pos.Seq {
			if pack, err = l.d.backlogStream.Get(l.d.intake, pos.Seq); err == nil {
				break
			}
			if errors.Is(err, bus.ErrNotFound) {
				pack = bus.Pack{Seq: pos.Seq}
				break
			}
			if pause(l.d.intake, time.Second); l.d.intake.Err() != nil {
				return nil, err
			}
		}
		if pos.Index >= len(pack.Records) {
			l.d.spoiled(bus.Backlog, pos, bus.ErrNotFound)
			l.books.settle(pos)
			continue
		}
		d, err := decodeDelivery(pack.Records[pos.Index], l.name)
		if err != nil {
			l.d.spoiled(bus.Backlog, pos, err)
			l.books.settle(pos)
			continue
		}
		d.origin = origin{l.books, pos}
		read = append(read, d)
	}
	return read, nil
}

// ownPack tells whether a delivery that is under way has its record in a pack.
func (l *lane) ownPack(seq uint64) bool {
	for pos := range l.detached {
		if pos.Seq == seq {
			return true
		}
	}
	return false
}

// decode makes deliveries of the records of a pack that are not settled.
func (l *lane) decode(pack bus.Pack) []*delivery {
	ready := make([]*delivery, 0, len(pack.Records))
	var spoiled []bus.Position
	for i, rec := range pack.Records {
		pos := bus.Position{Seq: pack.Seq, Index: i}
		if l.books.settled(pos) {
			continue
		}
		d, err := decodeDelivery(rec, l.name)
		if err != nil {
			l.d.damaged(bus.Backlog, pos, err)
			spoiled = append(spoiled, pos)
			continue
		}
		d.origin = origin{l.books, pos}
		ready = append(ready, d)
	}
	if len(spoiled) > 0 { // the others are delivered, or will be
		var others []deliveryKey
		eachDelivery(pack, func(_ bus.Position, k deliveryKey, _ time.Time) { others = append(others, k) })
		l.d.contents[bus.Backlog].spoil(bus.Backlog, pack.Seq, len(spoiled), others)
	}
	for _, pos := range spoiled {
		l.books.settle(pos)
	}
	return ready
}

// lookAgain looks whether the store has anything that is not read: a pack that was
// lost to a damaged disk does not hold up the rest.
func (l *lane) lookAgain(ctx context.Context) error {
	l.mu.Lock()
	from, written := l.readTo, l.written
	l.mu.Unlock()
	// A new reader sees every pack that was there before it.
	reader, err := l.d.backlogStream.Read(ctx, l.name, from)
	if err != nil {
		return err
	}
	_, there, err := reader.TryNext(ctx)
	_ = reader.Close()
	if err != nil || there {
		return err
	}
	if err := l.d.findLost(ctx, bus.Backlog); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.written == written && l.readTo == from && l.behind() {
		l.log.Error("packs of the backlog are missing in the store", "old", l.oldPacks, "deliveries", l.depth)
		l.oldPacks, l.written, l.visible = 0, l.readTo-1, l.readTo-1
		l.metrics.live.damaged.Add(int64(l.depth))
		l.depth, l.unread = 0, nil
		clear(l.known)
		l.caughtUp()
	}
	return nil
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
