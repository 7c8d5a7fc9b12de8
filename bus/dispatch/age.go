package dispatch

import "time"

// ages is how old the oldest is of what came in the order of its numbers, and goes in
// that order: each entry is older than those behind it. Nothing else can become the
// oldest, so nothing else is kept.
type ages []age

type age struct {
	number uint64
	at     int64 // in Unix nanoseconds
}

// add adds one behind the others. A number may come several times.
func (a *ages) add(number uint64, accepted time.Time) {
	at, n := accepted.UnixNano(), len(*a)
	for n > 0 && (*a)[n-1].at >= at {
		n--
	}
	*a = (*a)[:n]
	if n == 0 || (*a)[n-1].number != number {
		*a = append(*a, age{number, at})
	}
}

// drop takes out everything up to a number.
func (a *ages) drop(upTo uint64) {
	for len(*a) > 0 && (*a)[0].number <= upTo {
		*a = (*a)[1:]
	}
	if len(*a) == 0 {
		*a = nil
	}
}

// oldest is zero when there is nothing.
func (a ages) oldest() time.Time {
	if len(a) == 0 {
		return time.Time{}
	}
	return time.Unix(0, a[0].at)
}

// oldestWaiting is when the oldest delivery was accepted that waits for its turn, in
// memory or on disk; zero when none does. What runs, waits for its next attempt or is
// leased does not count. The caller holds the lock.
func (l *lane) oldestWaiting() (oldest time.Time) {
	older := func(at time.Time) {
		if !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	l.queue.times(older)
	for _, d := range l.refused {
		older(d.accepted)
	}
	for _, d := range l.closing {
		older(d.accepted)
	}
	older(l.leaving.oldest())
	older(l.unread.oldest())
	if l.oldPacks > 0 {
		older(l.oldFrom)
	}
	return oldest
}

// times visits times of which one is when the oldest delivery was accepted: of what is
// ready each, because retries come in behind newer ones, and of each key the first.
func (q *queue) times(visit func(time.Time)) {
	q.ready.each(func(d *delivery) bool {
		visit(d.accepted)
		return true
	})
	for _, k := range q.keys {
		if len(k.waiting) > 0 {
			visit(k.waiting[0].accepted)
		}
		visit(k.since)
	}
}

// since is by sink the time that none of its listed packs has an older event than.
// Where a span has packs of several sinks, it is that of them all.
func (c *contents) since() map[string]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := map[string]time.Time{}
	for _, s := range c.spans {
		at := time.Unix(0, s.since)
		for _, sink := range s.sinks {
			if before, ok := oldest[sink]; !ok || at.Before(before) {
				oldest[sink] = at
			}
		}
	}
	return oldest
}
