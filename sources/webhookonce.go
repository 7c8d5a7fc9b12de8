package sources

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxRemembered is how many keys each of the two halves of a memory holds: about
// 8 MiB when both are full.
const maxRemembered = 1 << 16

// once remembers which requests were taken, for at least age and at most twice as
// long; less when more than limit keys come in that time. It forgets with the
// process: the ids of events stay the same, and the bus knows those.
type once struct {
	age   time.Duration
	limit int

	mu         sync.Mutex
	young, old map[onceKey]*claim
	turned     time.Time // when young was begun
}

type onceKey [16]byte

// claim is a request that is being taken, or was.
type claim struct {
	done  chan struct{} // closed when it is settled
	taken bool          // once it is settled
}

func newOnce(age time.Duration, limit int) *once {
	return &once{age: age, limit: limit, young: map[onceKey]*claim{}, old: map[onceKey]*claim{}}
}

func keyOf(parts ...string) (key onceKey) {
	sum := sha256.New()
	for _, part := range parts {
		_, _ = sum.Write(append([]byte(part), 0)) // a hash always takes it
	}
	copy(key[:], sum.Sum(nil))
	return key
}

// claim gives the claim on any of the keys. It is the caller's own when nobody had
// one: then settle has to follow.
func (o *once) claim(now time.Time, keys []onceKey) (c *claim, own bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if age := now.Sub(o.turned); age >= o.age || len(o.young)+len(keys) > o.limit {
		o.old, o.young, o.turned = o.young, map[onceKey]*claim{}, now
		if age >= 2*o.age {
			clear(o.old)
		}
	}
	for _, key := range keys {
		if c = o.young[key]; c == nil {
			c = o.old[key]
		}
		if c != nil {
			return c, false
		}
	}
	c = &claim{done: make(chan struct{})}
	for _, key := range keys {
		o.young[key] = c
	}
	return c, true
}

// settle says whether the request was taken. One that was not may come again.
func (o *once) settle(c *claim, keys []onceKey, taken bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range keys {
		for _, half := range []map[onceKey]*claim{o.young, o.old} {
			if !taken && half[key] == c {
				delete(half, key)
			}
		}
	}
	c.taken = taken
	close(c.done)
}
