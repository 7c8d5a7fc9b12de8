package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bus"
)

// writer is the group commit: whatever was submitted while the last pack was
// being written becomes the next one. There is one pack in flight at a time: two
// are slower, because they wait for the same lock in the store.
type writer struct {
	stream bus.Stream
	log    *slog.Logger
	limits writerLimits
	// persist keeps trying a write while the store does not answer, for records that
	// nobody waits for and that are covered elsewhere until they are written.
	persist bool
	// linger waits a little for company before a write that nobody waits for.
	linger time.Duration
	wrote  func(records, bytes int, took time.Duration, err error)
	stored func(seq uint64, pack []write) // told of each pack that is durable, before its records are
	// strays, when it is there, is told the numbers that a write has skipped: those of
	// writes that were stored and whose answer got lost.
	strays func(first, last uint64)
	// saveFirst saves the ledgers.
	saveFirst func(context.Context) error

	head     atomic.Uint64 // the last pack of the stream
	answered atomic.Uint64 // the last one of which everybody has heard

	mu      sync.Mutex
	waiting []write
	bytes   int
	closed  bool // nothing new is taken
	hurried bool // a failed write is not repeated
	wake    chan struct{}
	stopped chan struct{}
}

type writerLimits struct {
	records int // in one pack
	bytes   int // in one pack
	waiting int // bytes in memory; more is refused
}

// write is one record on its way into a stream.
type write struct {
	key    string
	record []byte
	born   time.Time // when the event was stored of the delivery that it is; zero when it is none
	// done is told where the record is once it is durable, or why it is not. n is
	// the number of records in its pack. It must not block.
	done func(pos bus.Position, n int, err error)
	// skip, when it is there, tells that the record must not be written any more:
	// it is answered as refused by a full store.
	skip func() bool
	// follows, when it is there, tells that the ledgers know of ends that have to be
	// saved before this.
	follows func() bool
}

func newWriter(stream bus.Stream, log *slog.Logger, limits writerLimits) *writer {
	return &writer{
		stream: stream, log: log, limits: limits,
		wrote: func(int, int, time.Duration, error) {}, stored: func(uint64, []write) {},
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
}

// submit takes writes, all of them or none: bus.ErrOverloaded when too much is
// waiting, bus.ErrClosed after stop. It does not block.
func (w *writer) submit(writes ...write) error {
	size := 0
	for i := range writes {
		size += len(writes[i].record)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.closed:
		return bus.ErrClosed
	case w.bytes > 0 && w.bytes+size > w.limits.waiting:
		return bus.ErrOverloaded
	}
	w.waiting = append(w.waiting, writes...)
	w.bytes += size
	signal(w.wake)
	return nil
}

// backlog is how many bytes wait to be written.
func (w *writer) backlog() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// run writes until stop was called and everything submitted is answered, or ctx
// ends.
func (w *writer) run(ctx context.Context) {
	defer close(w.stopped)
	for {
		w.mu.Lock()
		group, closed := w.waiting, w.closed
		w.waiting = nil
		w.mu.Unlock()
		if len(group) == 0 {
			if closed {
				return
			}
			<-w.wake
			if w.linger > 0 {
				w.wait(ctx, w.linger)
			}
			continue
		}
		w.writeGroup(ctx, group)
	}
}

// wait sleeps for d, or until the writer is being stopped.
func (w *writer) wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		if w.ending() {
			return
		}
		select {
		case <-t.C:
			return
		case <-ctx.Done():
			return
		case <-w.wake: // a new record, or stop
		}
	}
}

// stop refuses new writes, and waits until those submitted are answered.
func (w *writer) stop() {
	w.end(&w.closed)
	<-w.stopped
}

// hurry makes writes that fail be answered at once.
func (w *writer) hurry() { w.end(&w.hurried) }

func (w *writer) end(what *bool) {
	w.mu.Lock()
	*what = true
	w.mu.Unlock()
	signal(w.wake)
}

// ending tells whether waiting is over.
func (w *writer) ending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed || w.hurried
}

// writeGroup writes a group as few packs as its keys and the limits allow.
func (w *writer) writeGroup(ctx context.Context, group []write) {
	for _, one := range byKey(group) {
		for len(one) > 0 {
			if skip := one[0].skip; skip != nil && skip() {
				w.answer(one[:1], len(one[0].record), 0, bus.ErrFull)
				one = one[1:]
				continue
			}
			n, size := 1, len(one[0].record)
			for n < len(one) && n < w.limits.records && size+len(one[n].record) <= w.limits.bytes {
				size += len(one[n].record)
				n++
			}
			w.writePack(ctx, one[:n], size)
			one = one[n:]
		}
	}
}

// byKey splits a group by key, in the order of their first records.
func byKey(group []write) [][]write {
	same := true
	for i := range group {
		same = same && group[i].key == group[0].key
	}
	if same {
		return [][]write{group}
	}
	place := map[string]int{}
	var out [][]write
	for _, one := range group {
		i, ok := place[one.key]
		if !ok {
			i = len(out)
			place[one.key] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], one)
	}
	return out
}

func (w *writer) writePack(ctx context.Context, pack []write, size int) {
	records := make([][]byte, len(pack))
	for i := range pack {
		records[i] = pack[i].record
	}
	start := time.Now()
	seq, err := w.append(ctx, pack, records)
	w.wrote(len(pack), size, time.Since(start), err)
	if err != nil && w.persist {
		seq, err = w.keepTrying(ctx, pack, records, err)
	}
	if err == nil {
		if before := w.head.Swap(seq); w.strays != nil && seq > before+1 {
			w.strays(before+1, seq-1)
		}
		w.stored(seq, pack)
	}
	w.answer(pack, size, seq, err)
	if err == nil {
		w.answered.Store(seq)
	}
}

// append writes a pack, after what has to be saved before it.
func (w *writer) append(ctx context.Context, pack []write, records [][]byte) (uint64, error) {
	if slices.ContainsFunc(pack, func(one write) bool { return one.follows != nil && one.follows() }) {
		if err := w.saveFirst(ctx); err != nil {
			return 0, fmt.Errorf("save what is settled: %w", err)
		}
	}
	return w.stream.Append(ctx, pack[0].key, records)
}

// answer tells where the records of a pack are.
func (w *writer) answer(pack []write, size int, seq uint64, err error) {
	w.mu.Lock()
	w.bytes -= size
	w.mu.Unlock()
	for i := range pack {
		pack[i].done(bus.Position{Seq: seq, Index: i}, len(pack), err)
	}
}

// keepTrying repeats a failed write until it succeeds, ctx ends or the writer is
// stopped. A write whose outcome is unknown may end up stored twice: a duplicate,
// never a loss.
func (w *writer) keepTrying(ctx context.Context, pack []write, records [][]byte, err error) (uint64, error) {
	pause := 50 * time.Millisecond
	for ctx.Err() == nil && !hopeless(err) && !w.ending() {
		w.log.Warn("cannot write to the store; trying again", "sink", pack[0].key, "records", len(records), "after", pause, "err", err)
		w.wait(ctx, pause)
		pause = min(2*pause, 2*time.Second)
		var seq uint64
		if seq, err = w.append(ctx, pack, records); err == nil {
			return seq, nil
		}
	}
	return 0, err
}

// refused tells errors that leave a delivery where it is: the store is full, or
// will never take the record.
func refused(err error) bool {
	return errors.Is(err, bus.ErrFull) || errors.Is(err, bus.ErrTooLarge)
}

// hopeless tells errors that a repetition does not mend. A full store is one:
// only deliveries make room in it, so nobody may wait for it.
func hopeless(err error) bool {
	return refused(err) || errors.Is(err, bus.ErrClosed)
}
