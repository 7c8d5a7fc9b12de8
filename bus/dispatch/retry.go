package dispatch

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"sluice/bus"
)

// retries keeps the deliveries that wait for their next attempt. Each has a
// record in RETRIES; in memory there is its time and place, and the delivery
// itself while that takes little room.
type retries struct {
	d     *Dispatcher
	books *ledger

	mu     sync.Mutex
	heap   retryHeap
	bytes  int                // the weight of the deliveries kept in memory
	parked map[string]*parked // by sink: what is due and beyond its budget
	counts map[string]int
	leases leases
	ended  []bus.Position // records of ends that the ledgers, as they are saved, do not know
	known  uint64         // the packs below it are recovered
	wake   chan struct{}
}

// retry is one delivery that waits.
type retry struct {
	due    time.Time // by the clock of the process, which is never set
	pos    bus.Position
	sink   string
	d      *delivery // nil: read it when it is due
	pinned bool      // there is no record of the retry: d is all there is
	// reserved: the delivery holds its key of order_by meanwhile.
	reserved bool
	key      string
	leased   string // the delivery's id, when it waits for the end of a job until it is due
	try      int    // the number of the attempt that took the lease
	turn     bool   // it is no delivery, but the time of those that are parked

	place int // in the heap
}

const (
	retryMemory = 32 << 20 // the weight of the waiting deliveries that are kept in memory
	retryAhead  = 16 << 20 // bytes on their way into the backlog that make due retries wait
)

func newRetries(d *Dispatcher) *retries {
	r := &retries{d: d, books: d.newLedger(bus.Retries, false), counts: map[string]int{}, parked: map[string]*parked{}, leases: newLeases(), wake: make(chan struct{}, 1)}
	r.books.whole = func(seq uint64) { d.remover.remove(d.retryStream, r.books, seq) }
	return r
}

// wait is how long a delivery is to wait.
type wait struct {
	d     *delivery
	after time.Duration
	kept  bool // it waits: schedule says so
}

// schedule makes deliveries of a lane durable as retries, in one write, and waits
// for that; then what covered them before is settled, and they leave their lane.
// When the bus shuts down they may be left for the next start.
func (r *retries) schedule(l *lane, all ...wait) {
	var durable sync.WaitGroup
	writes := make([]write, len(all))
	for i := range all {
		writes[i] = r.waiting(l, &all[i], durable.Done)
	}
	durable.Add(len(all))
	if err := r.d.retryWriter.submit(writes...); err != nil { // shutting down
		for i := range all {
			l.leave(all[i].d, nowhere)
		}
		return
	}
	durable.Wait()
}

// waiting is the write that lets a delivery wait.
func (r *retries) waiting(l *lane, one *wait, done func()) write {
	d := one.d
	due := time.Now().Add(one.after)
	l.mu.Lock() // what covers it may be about to change: see detachedAs
	d.due = r.d.now().Add(one.after)
	record := d.record()
	l.mu.Unlock()
	follows := func() bool { return l.followsKey(d) }
	return write{key: d.sink, record: record, born: d.born(), follows: follows, done: func(pos bus.Position, n int, err error) {
		defer done()
		if err != nil {
			one.kept = r.keep(l, d, due, err)
			return
		}
		one.kept = true
		r.books.begin(pos.Seq, n, 0)
		l.mu.Lock()
		again := d.successor(origin{r.books, pos})
		again.reserved = l.ordered() // the delivery keeps its key
		r.add(&retry{due: due, pos: pos, sink: d.sink, d: again, reserved: again.reserved, key: again.key, leased: again.leaseID(), try: again.tried() + 1})
		l.settle(d)
		l.mu.Unlock()
		if pos.Index == n-1 {
			r.books.read(pos.Seq)
		}
	}}
}

// keep holds a delivery in memory that could not be given a record: that of the
// last step covers it on. So a full store stops no deliveries, and they make room
// in it. Only while the bus shuts down is it left for the next start.
func (r *retries) keep(l *lane, d *delivery, due time.Time, err error) bool {
	if !refused(err) {
		l.leave(d, nowhere)
		r.d.abandoned(d, err)
		return false
	}
	l.leave(d, func() {
		d.reserved = l.ordered()
		l.cramp()
		l.pinned++
		d.pinned = true
		r.add(&retry{due: due, pos: d.origin.pos, sink: d.sink, d: d, reserved: d.reserved, pinned: true, leased: d.leaseID(), try: d.tried() + 1})
	})
	return true
}

// add lets a delivery wait. The caller holds the lock of its lane.
func (r *retries) add(w *retry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[w.sink]++
	r.put(w)
}

// again lets a delivery wait on that next gave out.
func (r *retries) again(w *retry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(w)
}

func (r *retries) put(w *retry) {
	r.keepBytes(w)
	heap.Push(&r.heap, w)
	r.leases.put(w)
	if w.place == 0 {
		signal(r.wake)
	}
}

// keepBytes keeps the delivery of a retry in memory, or lets go of it.
func (r *retries) keepBytes(w *retry) {
	if w.d == nil {
		return
	}
	if size := w.d.weight(); w.pinned || r.bytes+size <= retryMemory {
		r.bytes += size
	} else {
		w.d = nil
	}
}

// dropBytes is the end of keepBytes.
func (r *retries) dropBytes(w *retry) {
	if w.d != nil {
		r.bytes -= w.d.weight()
	}
}

// remove takes a retry out. It counts as waiting until gone. The caller holds mu.
func (r *retries) remove(w *retry) {
	heap.Remove(&r.heap, w.place)
	r.dropBytes(w)
	r.leases.drop(w)
}

// count is how many deliveries of a sink wait.
func (r *retries) count(sink string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[sink]
}

// gone ends the wait of a delivery. The caller holds the lock of its lane and has
// given it its next place.
func (r *retries) gone(sink string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[sink]--; r.counts[sink] == 0 {
		delete(r.counts, sink)
	}
}

// next takes the first retry that is due, or tells how long until there is one. It
// counts as waiting until gone.
func (r *retries) next(now time.Time) (w *retry, in time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.heap) == 0 {
		return nil, time.Hour
	}
	w = r.heap[0]
	if w.due.After(now) {
		return nil, w.due.Sub(now)
	}
	r.remove(w)
	return w, 0
}

// run brings due retries back to their lanes until ctx ends.
func (r *retries) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		w, in := r.next(time.Now())
		if w != nil {
			r.bring(ctx, w)
			continue
		}
		// The machine may sleep meanwhile: look at the clock now and then.
		timer.Reset(min(in, time.Minute))
		select {
		case <-timer.C:
		case <-r.wake:
		case <-ctx.Done():
		}
	}
}

// bring offers a due retry to its lane, when it is within the budget of that.
func (r *retries) bring(ctx context.Context, w *retry) {
	l := r.d.lane(w.sink)
	over := w.leased != "" // and nothing can end it any more but its time
	w.leased = ""
	switch {
	case w.turn:
		r.takeTurn(ctx, l)
	case w.pinned || over:
		r.offer(ctx, l, w)
	case r.parkBehind(w):
	default:
		if ok, in := l.mayRetry(); !ok {
			r.park(w, time.Now().Add(in))
			return
		}
		r.offer(ctx, l, w)
	}
}

// offer offers a retry to its lane.
func (r *retries) offer(ctx context.Context, l *lane, w *retry) {
	for r.d.backlogWriter.backlog() > retryAhead && ctx.Err() == nil {
		pause(ctx, 10*time.Millisecond)
	}
	if w.d == nil {
		d, err := r.load(ctx, w)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, bus.ErrNotFound), errors.Is(err, errDeliveryRecord):
			r.d.spoiled(bus.Retries, w.pos, err)
			r.books.settle(w.pos)
			l.lost(w)
			return
		case err != nil:
			r.d.log.Warn("cannot read a retry; trying again", "sink", w.sink, "err", err)
			w.due = time.Now().Add(time.Second)
			r.again(w)
			return
		}
		d.key, d.reserved = w.key, w.reserved
		w.d = d
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.gone(w.sink)
	l.accept(w.d)
}

// lost gives up a retry that cannot be read any more, and its key.
func (l *lane) lost(w *retry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics.live.damaged.Add(1)
	l.d.retries.gone(w.sink)
	if w.reserved && l.ordered() {
		l.releaseKey(w.key)
	}
}

func (r *retries) load(ctx context.Context, w *retry) (*delivery, error) {
	pack, err := r.d.retryStream.Get(ctx, w.pos.Seq)
	if err != nil {
		return nil, err
	}
	if w.pos.Index >= len(pack.Records) {
		return nil, bus.ErrNotFound
	}
	d, err := decodeDelivery(pack.Records[w.pos.Index], w.sink)
	if err != nil {
		return nil, err
	}
	d.origin = origin{r.books, w.pos}
	return d, nil
}

// recover reads what an earlier process left: the packs up to head.
func (r *retries) recover(ctx context.Context, head uint64) error {
	err := eachPack(ctx, r.d.retryStream, max(r.known, 1), func(pack bus.Pack) bool {
		if pack.Seq <= head {
			r.recoverPack(pack)
			r.known = pack.Seq + 1
		}
		return pack.Seq < head
	})
	if err == nil {
		r.books.forget(head + 1)
	}
	return err
}

func (r *retries) recoverPack(pack bus.Pack) {
	r.books.begin(pack.Seq, len(pack.Records), 0)
	for i, rec := range pack.Records {
		pos := bus.Position{Seq: pack.Seq, Index: i}
		if r.books.settled(pos) {
			continue
		}
		d, err := decodeDelivery(rec, pack.Key)
		if errors.Is(err, errEnded) {
			r.keepEnded([]bus.Position{pos})
			continue
		}
		if err != nil {
			r.d.spoiled(bus.Retries, pos, err)
			r.books.settle(pos)
			continue
		}
		d.origin = origin{r.books, pos}
		// The sink may be gone from the config: it keeps a lane all the same.
		l := r.d.lane(pack.Key).current()
		l.metrics.entered(d.rule, fromStore)
		l.queue.reserve(d)
		due := time.Now().Add(left(d.due, pack.Time, r.d.now()))
		r.add(&retry{due: due, pos: pos, sink: pack.Key, d: d, reserved: d.reserved, key: d.key, leased: d.leaseID(), try: d.tried() + 1})
		l.mu.Unlock()
	}
	r.books.read(pack.Seq)
}

// takeEnded gives the records of ends that the ledgers have taken in by now.
func (r *retries) takeEnded() []bus.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	ended := r.ended
	r.ended = nil
	return ended
}

// keepEnded keeps records of ends until the ledgers that know them are saved.
func (r *retries) keepEnded(ended []bus.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, ended...)
}

// left is how long a retry has still to wait that was stored at a time. The clock
// may have been set back since: it never waits longer than it was meant to.
func left(due, stored, now time.Time) time.Duration {
	return max(0, min(due.Sub(now), due.Sub(stored)))
}

// retryHeap orders by time.
type retryHeap []*retry

func (h retryHeap) Len() int           { return len(h) }
func (h retryHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h retryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *retryHeap) Push(x any) {
	w := x.(*retry)
	w.place = len(*h)
	*h = append(*h, w)
}

func (h *retryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
