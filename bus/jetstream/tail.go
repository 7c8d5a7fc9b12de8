package jetstream

import (
	"slices"
	"sync"

	"github.com/nats-io/nats-server/v2/server/avl"

	"sluice/bus"
)

// tail is what we know of a stream without asking the server: how far it goes,
// which numbers were removed, and the packs that were appended last. Readers that
// keep up are served from it, so on the healthy path nothing is read back.
type tail struct {
	limit int // bytes of packs to keep

	mu      sync.Mutex
	last    uint64 // the highest number in use
	packs   map[uint64]bus.Pack
	low     uint64 // no number below is in packs
	bytes   int
	first   uint64          // every number below was removed
	gone    avl.SequenceSet // of those from first on, the removed ones
	waiting map[string]*more
}

// more is what readers at the end wait for: done is closed when there is more, and
// seq is then the number of the first pack of their key since, if that is known.
type more struct {
	done chan struct{}
	seq  uint64
}

func newTail(limit int) *tail {
	return &tail{limit: limit, first: 1, packs: map[uint64]bus.Pack{}, waiting: map[string]*more{}}
}

// add takes a pack that is durable now. Packs come in the order of their numbers.
func (t *tail) add(p bus.Pack, size int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = max(t.last, p.Seq)
	if p.Seq >= t.first && !t.gone.Exists(p.Seq) {
		if len(t.packs) == 0 {
			t.low = p.Seq
		}
		t.packs[p.Seq] = p
		t.bytes += size
		for ; t.bytes > t.limit && t.low <= p.Seq; t.low++ {
			t.drop(t.low)
		}
	}
	t.wake("", p.Seq)
	t.wake(p.Key, p.Seq)
}

// wake lets the waiting readers of a key look again.
func (t *tail) wake(key string, seq uint64) {
	if m, ok := t.waiting[key]; ok {
		m.seq = seq
		close(m.done)
		delete(t.waiting, key)
	}
}

func (t *tail) drop(seq uint64) {
	if p, ok := t.packs[seq]; ok {
		t.bytes -= memory(p)
		delete(t.packs, seq)
	}
}

// memory is the size of a pack as it was encoded.
func memory(p bus.Pack) int { return packSize(p.Records) }

// sync takes what the server says of the stream: after a start there may be packs
// whose acknowledgement never came, and removals that we do not know of.
func (t *tail) sync(first, last uint64, deleted []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range deleted {
		t.gone.Insert(seq)
	}
	t.forget(first)
	t.reach(last)
}

// seen notes that the stream goes up to a number at least: a pack can be read before
// its acknowledgement has come.
func (t *tail) seen(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reach(seq)
}

func (t *tail) reach(last uint64) {
	if last <= t.last {
		return
	}
	t.last = last
	for key := range t.waiting {
		t.wake(key, 0)
	}
}

// removed notes numbers that were removed.
func (t *tail) removed(seqs []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range seqs {
		if seq >= t.first {
			t.gone.Insert(seq)
			t.drop(seq)
		}
	}
	for t.gone.Delete(t.first) {
		t.first++
	}
}

// oldest divides numbers to remove: once those that are not in rest are gone,
// everything below is.
func (t *tail) oldest(seqs []uint64) (below uint64, rest []uint64) {
	seqs = slices.Sorted(slices.Values(seqs))
	t.mu.Lock()
	defer t.mu.Unlock()
	below = t.first
	for i, seq := range seqs {
		for below < seq && t.gone.Exists(below) {
			below++
		}
		if seq > below || seq > t.last {
			return below, seqs[i:]
		}
		below = max(below, seq+1)
	}
	return below, nil
}

// trimmed notes that every number below was removed, of one key or of all.
func (t *tail) trimmed(key string, below uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for seq := max(t.low, t.first); seq < below && len(t.packs) > 0 && seq <= t.last; seq++ {
		if p, ok := t.packs[seq]; ok && (key == "" || p.Key == key) {
			t.drop(seq)
		}
	}
	if key == "" {
		t.forget(below)
	}
}

// forget moves first up to at least the given number.
func (t *tail) forget(first uint64) {
	if first <= t.first {
		return
	}
	t.first = first
	if t.gone.IsEmpty() {
		return
	}
	var rest avl.SequenceSet
	t.gone.Range(func(seq uint64) bool {
		if seq >= first {
			rest.Insert(seq)
		}
		return true
	})
	t.gone = rest
}

// isGone tells whether a number is known to be removed.
func (t *tail) isGone(seq uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return seq < t.first || t.gone.Exists(seq)
}

// pickGone picks the numbers that no pack has.
func (t *tail) pickGone(seqs []uint64) (gone []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, seq := range seqs {
		if seq < t.first || seq > t.last || t.gone.Exists(seq) {
			gone = append(gone, seq)
		}
	}
	return gone
}

// missing lists the numbers from a up to b, exclusive, that were not removed as far
// as we know: of a trim by key we learn from sync alone.
func (t *tail) missing(a, b uint64) (seqs []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for seq := max(a, t.first); seq < b; seq++ {
		if !t.gone.Exists(seq) {
			seqs = append(seqs, seq)
		}
	}
	return seqs
}

// end is the highest number in use.
func (t *tail) end() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

// start is the number below which all were removed, at least 1.
func (t *tail) start() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.first
}

// look finds the first pack of the key from a number on. If that is not at hand, at
// is the number to fetch from; at the end of the stream, the number behind it.
func (t *tail) look(key string, from uint64) (p bus.Pack, found bool, at uint64, end *more) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at = max(from, t.first); at <= t.last; at++ {
		p, ok := t.packs[at]
		if ok && (key == "" || p.Key == key) {
			return p, true, at, nil
		}
		if !ok && !t.gone.Exists(at) {
			return bus.Pack{}, false, at, nil
		}
	}
	end, ok := t.waiting[key]
	if !ok {
		end = &more{done: make(chan struct{})}
		t.waiting[key] = end
	}
	return bus.Pack{}, false, at, end
}
