package dispatch

import (
	"context"
	"maps"
	"sync/atomic"
)

// That a delivery was made, or discarded, is written in the ledgers alone, and they
// are saved a little later. A crash in between brings it back, which is the "at least
// once" of the bus. With order_by it must come back before what followed it in its
// key, or the sink is left with what is older. After a restart what waits in RETRIES
// comes first, then the BACKLOG, then EVENTS: so when something that followed is to get
// a record in one of the first two, the ledgers are saved first. That is seldom: what
// follows has to fail, or to spill, within the 50 to 250 ms that the ledgers are behind.

// unsaved are the ends of an ordered lane that the saved ledgers do not know, each by
// the number of the commit that will save it.
type unsaved struct {
	last   atomic.Uint64     // of all of them
	direct atomic.Uint64     // the last of those that had no record but their event
	keys   map[string]uint64 // the last of each key; guarded by the lane's mutex
}

// ended notes an end that is in the ledgers. The caller holds the lock.
func (l *lane) ended(d *delivery) {
	if d.sealed {
		return
	}
	commit := l.d.commits.Load() + 1
	l.unsaved.last.Store(commit)
	if l.direct(d) {
		l.unsaved.direct.Store(commit)
	}
	l.unsaved.keys[d.key] = commit
}

// saved forgets what a commit has saved.
func (l *lane) saved(commit uint64) {
	if l.unsaved.last.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.unsaved.keys, func(_ string, last uint64) bool { return last <= commit })
}

// followsKey tells whether the ledgers have to be saved before a delivery may get a
// record in RETRIES.
func (l *lane) followsKey(d *delivery) bool {
	saved := l.d.savedCommit.Load()
	if l.unsaved.last.Load() <= saved {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved.keys[d.key] > saved
}

// followsDirect tells whether the ledgers have to be saved before something may get
// a record in BACKLOG.
func (l *lane) followsDirect() bool { return l.unsaved.direct.Load() > l.d.savedCommit.Load() }

// saveFirst saves the ledgers before a pack is written of which a record has to come
// after that. A store that has no room for them gets the pack all the same.
func (d *Dispatcher) saveFirst(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, savePatience)
	defer cancel()
	if err := d.commit(ctx); !refused(err) {
		return err
	}
	return nil
}
