package dispatch

import (
	"maps"
	"sync"

	"sluice/bus"
)

// ledger keeps the books of one stream, or of one key of it: which records of
// which packs are not settled yet.
//
// Every snapshot of it also says what is settled beside what is not, and a
// restart begins from the last snapshot: so a crash repeats what was under way,
// and not everything behind one slow delivery.
type ledger struct {
	stream string // its name
	// ordered ledgers have a floor: a settled pack stays in the books until those
	// before it are settled too. The packs of the others are removed from the store
	// one by one, and stay in the books until drop says that they are gone.
	ordered bool
	// whole is told each pack that is read and settled, without the lock; freed,
	// that something was settled; dirty, the first change since a snapshot. Each
	// may be nil.
	whole func(seq uint64)
	freed func()
	dirty func()

	mu      sync.Mutex
	pages   map[uint64]*page
	order   []uint64         // ordered only: the pages by number
	next    uint64           // the number after the last page
	open    int              // records that are not settled
	bytes   int              // of the packs that are not settled
	marks   marks            // from the snapshot, of packs that were not read again yet
	partly  map[branch]marks // of records that are not settled: those of their deliveries that are
	changed bool             // since the last snapshot
}

// marks are, by the numbers of packs, a bit for each record.
type marks map[uint64][]byte

func (m marks) set(pos bus.Position) {
	bits := m[pos.Seq]
	for len(bits) <= pos.Index/8 {
		bits = append(bits, 0)
	}
	bits[pos.Index/8] |= 1 << (pos.Index % 8)
	m[pos.Seq] = bits
}

func (m marks) has(pos bus.Position) bool { return marked(m[pos.Seq], pos.Index) }

func marked(bits []byte, i int) bool { return i/8 < len(bits) && bits[i/8]&(1<<(i%8)) != 0 }

// branch is where one delivery of a record goes that has several.
type branch struct{ rule, sink string }

// page is one pack in the ledger.
type page struct {
	left  []int32 // by record: the deliveries that are not settled
	open  int     // records that are not settled
	bytes int
	marks []byte // a bit for each settled record
	read  bool   // all of its records are known; until then the page stays
}

func newLedger(stream string, ordered bool) *ledger {
	return &ledger{stream: stream, ordered: ordered, pages: map[uint64]*page{}, marks: marks{}, partly: map[branch]marks{}, next: 1}
}

// begin opens the page of a pack of n records: each counts as one delivery that
// is not settled, but for those that the snapshot knows as settled. A page that
// is open already stays as it is. Call read once every record was looked at.
func (l *ledger) begin(seq uint64, n, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.pages[seq]; ok {
		return
	}
	p := &page{left: make([]int32, n), open: n, bytes: bytes, marks: make([]byte, (n+7)/8)}
	before := l.marks[seq]
	delete(l.marks, seq)
	for i := range n {
		p.left[i] = 1
		if marked(before, i) {
			p.settle(i)
		}
	}
	l.pages[seq] = p
	if l.ordered {
		l.order = append(l.order, seq)
	}
	l.next = max(l.next, seq+1)
	l.open += p.open
	l.bytes += bytes
	l.change()
}

func (p *page) settle(i int) {
	p.left[i] = 0
	p.open--
	p.marks[i/8] |= 1 << (i % 8)
}

// start says into how many deliveries an open record was routed; 0 settles it.
func (l *ledger) start(pos bus.Position, deliveries int) {
	if deliveries == 0 {
		l.settle(pos)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pages[pos.Seq]; p != nil && p.left[pos.Index] > 0 {
		p.left[pos.Index] = int32(deliveries)
	}
}

// read says that every record of a pack was looked at.
func (l *ledger) read(seq uint64) {
	l.mu.Lock()
	p := l.pages[seq]
	if p == nil || p.read {
		l.mu.Unlock()
		return
	}
	p.read = true
	l.finish(seq, p)
}

// settle ends the one delivery of a record.
func (l *ledger) settle(pos bus.Position) { l.settleBranch(pos, branch{}) }

// settleBranch ends one of the deliveries of a record.
func (l *ledger) settleBranch(pos bus.Position, b branch) {
	l.mu.Lock()
	p := l.pages[pos.Seq]
	if p == nil || pos.Index >= len(p.left) || p.left[pos.Index] == 0 {
		l.mu.Unlock()
		return
	}
	if p.left[pos.Index]--; p.left[pos.Index] > 0 {
		l.branchEnded(pos, b)
		l.mu.Unlock()
		return
	}
	p.settle(pos.Index)
	l.open--
	l.change()
	l.finish(pos.Seq, p)
	if l.freed != nil {
		l.freed()
	}
}

func (l *ledger) branchEnded(pos bus.Position, b branch) {
	m := l.partly[b]
	if m == nil {
		m = marks{}
		l.partly[b] = m
	}
	m.set(pos)
	l.change()
}

// markBranch notes that a delivery of a record has ended that is still to be routed.
func (l *ledger) markBranch(pos bus.Position, b branch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.branchEnded(pos, b)
}

// branchSettled tells whether a delivery of a record that is not settled has ended.
func (l *ledger) branchSettled(pos bus.Position, b branch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.partly[b].has(pos)
}

// finish closes a page that is read and settled. It is called with the lock and
// gives it up.
func (l *ledger) finish(seq uint64, p *page) {
	if !p.read || p.open > 0 {
		l.mu.Unlock()
		return
	}
	l.bytes -= p.bytes
	if l.ordered {
		l.dropFront()
	}
	l.mu.Unlock()
	if l.whole != nil {
		l.whole(seq)
	}
}

func (l *ledger) dropFront() {
	for len(l.order) > 0 {
		p := l.pages[l.order[0]]
		if !p.read || p.open > 0 {
			return
		}
		delete(l.pages, l.order[0])
		l.order = l.order[1:]
	}
	l.order = nil
}

// drop forgets a pack that the store has removed.
func (l *ledger) drop(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pages, seq)
	l.change()
}

// settled tells whether a record of an open page is settled.
func (l *ledger) settled(pos bus.Position) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.pages[pos.Seq]
	return p == nil || pos.Index >= len(p.left) || p.left[pos.Index] == 0
}

// empty tells whether no pack is in the books: what was settled is gone from the store
// too.
func (l *ledger) empty() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.pages) == 0
}

// load is how much is open: records and bytes.
func (l *ledger) load() (records, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.bytes
}

// floor is the number of the first pack of an ordered ledger that is not settled;
// the number after the last one when all are.
func (l *ledger) floor() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lowest()
}

func (l *ledger) lowest() uint64 {
	if len(l.order) > 0 {
		return l.order[0]
	}
	return l.next
}

// forget drops what the snapshot said about packs below seq: they are gone.
func (l *ledger) forget(below uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.marks) > 0 {
		maps.DeleteFunc(l.marks, func(seq uint64, _ []byte) bool { return seq < below })
	}
}

// change notes that the last snapshot is not true any more.
func (l *ledger) change() {
	if !l.changed && l.dirty != nil {
		l.dirty()
	}
	l.changed = true
}

// cut forgets what a snapshot said about packs behind the last one that there is:
// their numbers will be used again.
func (l *ledger) cut(last uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = min(l.next, last+1)
	behind := func(seq uint64, _ []byte) bool { return seq > last }
	maps.DeleteFunc(l.marks, behind)
	for _, m := range l.partly {
		maps.DeleteFunc(m, behind)
	}
}

// marked tells whether a record is settled as far as the ledger knows: unlike
// settled, it says no for a pack that was never opened.
func (l *ledger) marked(pos bus.Position) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.pages[pos.Seq]; p != nil {
		return marked(p.marks, pos.Index)
	}
	return l.marks.has(pos)
}

// mark notes that a record is settled whose pack is still to be opened.
func (l *ledger) mark(pos bus.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks.set(pos)
	l.change()
}

// skip begins at a pack: those before it are not for this ledger.
func (l *ledger) skip(to uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = max(l.next, to)
}

// touch makes the ledger dirty.
func (l *ledger) touch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.change()
}
