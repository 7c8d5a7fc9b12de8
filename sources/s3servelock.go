package sources

import (
	"cmp"
	"slices"
	"sync"
)

// objectName is the place of an object.
type objectName struct{ bucket, key string }

// objectLocks keep others away from objects. Each has a lock of its own while somebody
// wants it: what hangs on one, such as a request to another S3, holds up no other.
type objectLocks struct {
	mu    sync.Mutex
	locks map[objectName]*objectLock
}

type objectLock struct {
	sync.Mutex
	users int // who have it or wait for it
}

// lock keeps others away from the objects until unlock.
func (l *objectLocks) lock(names ...objectName) (unlock func()) {
	// All in the same order, so that no two wait for each other.
	names = slices.Clone(names)
	slices.SortFunc(names, func(a, b objectName) int {
		return cmp.Or(cmp.Compare(a.bucket, b.bucket), cmp.Compare(a.key, b.key))
	})
	names = slices.Compact(names)
	for _, name := range names {
		l.take(name).Lock()
	}
	return func() {
		for _, name := range names {
			l.release(name)
		}
	}
}

// lockFree is lock for one object that nobody has or waits for.
func (l *objectLocks) lockFree(name objectName) (unlock func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.locks[name] != nil {
		return nil, false
	}
	own := &objectLock{users: 1}
	own.Lock()
	l.locks[name] = own
	return func() { l.release(name) }, true
}

func (l *objectLocks) take(name objectName) *objectLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.locks[name]
	if own == nil {
		own = &objectLock{}
		l.locks[name] = own
	}
	own.users++
	return own
}

func (l *objectLocks) release(name objectName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.locks[name]
	own.Unlock()
	if own.users--; own.users == 0 {
		delete(l.locks, name)
	}
}
