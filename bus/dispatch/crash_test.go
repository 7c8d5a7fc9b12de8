package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// seeds is how many random histories the crash test goes through; SLUICE_SEEDS
// asks for more. One alone: -run 'TestNothingIsLost.*/^1234$', of which GOMAXPROCS=1 and
// -count=20 make the most: see chance.
func seeds() int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SEEDS")); err == nil {
		return n
	}
	if testing.Short() { // under the race detector, which sees what it sees in few
		return 60
	}
	return 300
}

// world is one random history: what was acknowledged, and what arrived.
type world struct {
	chance
	mu    sync.Mutex
	acked map[string]bool
	// long histories fill lanes and cross many commits; the short ones, which are
	// most, have as many crashes for a fraction of the time.
	long bool
	// cramped histories have a store that is full now and then. What a crash
	// finds without a record then comes late, so order is not checked in them.
	cramped bool
	blocks  bool            // a poison event of a blocks its key, and nothing is given up
	unsound bool            // the store loses what it holds
	poison  map[string]bool // rejected once: what comes of it later has no order
	seen    *crashPoints
	process *mortal        // that runs now
	order   map[string]int // the rank of each event within its key
	births  []int          // how much sink a had got when each process began
	a, b    *far
}

func newWorld(seed uint64) *world {
	w := &world{
		chance: newChance(seed), acked: map[string]bool{}, poison: map[string]bool{}, order: map[string]int{},
		cramped: seed%2 == 1, long: seed%16 < 2, blocks: seed%8 >= 4,
	}
	w.a = newFar(w.flaky)
	w.b = newFar(nil)
	return w
}

// n is a number below n that follows from the seed, and from who asks and how often it has.
func (w *world) n(who string, n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draw(who, n)
}

// flaky is a far side that fails, hangs and rejects at random.
func (w *world) flaky(ctx context.Context, d sinks.Delivery) error {
	who := d.Event.ID()
	switch w.n(who, 12) {
	case 0:
		return sinks.Answered(503, nil)
	case 1:
		return errors.New("connection reset")
	case 2:
		select {
		case <-time.After(3 * time.Second): // long enough to be made durable meanwhile
		case <-ctx.Done():
			return ctx.Err()
		}
	case 3:
		if w.n(who, 4) == 0 {
			w.mu.Lock()
			w.poison[d.Event.ID()] = !w.blocks // which keeps its place
			w.mu.Unlock()
			return sinks.Answered(400, nil)
		}
	}
	return nil
}

// hook fails some operations and crashes the log at a random one.
func (w *world) hook(_ context.Context, op memlog.Op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm() {
		return nil
	}
	if w.crashes(op) {
		w.seen.add(op, "")
		if w.process != nil {
			go w.process.die()
		}
		return memlog.ErrCrash
	}
	if op.Name == memlog.OpAppend && w.draw("fault "+kindOf(op), 50) == 0 {
		return errors.New("injected fault")
	}
	if w.cramped && op.Name == memlog.OpAppend && op.When == memlog.Before && op.Stream != bus.Events && w.draw("full "+op.Stream, 20) == 0 {
		return bus.ErrFull
	}
	return nil
}

func (w *world) table(t *testing.T) dispatch.Table {
	return one(t, spec("a", w.a, func(o *dispatch.Options) {
		o.Concurrency = 4
		o.OrderBy = "subject"
		if w.blocks {
			o.OnPoison = dispatch.PoisonBlocks
		}
		if w.seed%4 > 0 { // the others have jitter, and do not replay as well
			o.Retry.Jitter = "none"
		}
	}), spec("b", w.b, nil))
}

// each is how many times each publisher of a life publishes.
func (w *world) each() int {
	if w.long {
		return 20
	}
	return 4
}

// arm lets the next crash come within that many operations of the log, and none at all
// for 0.
func (w *world) arm(patience int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chance.arm(patience)
}

// patience is how many operations a life's log gets to do at most.
func (w *world) patience() int {
	if w.long {
		return 400
	}
	return 120
}

// mortal is a process that a crash ends.
type mortal struct {
	d     *dispatch.Dispatcher
	dying atomic.Bool
	up    chan struct{} // closed when its start is over
	dead  chan struct{}
}

func newMortal(d *dispatch.Dispatcher) *mortal {
	return &mortal{d: d, up: make(chan struct{}), dead: make(chan struct{})}
}

// start starts the process. A crash may end it from before that on: one that finds
// nobody to end would leave a process that waits for its log for ever.
func (m *mortal) start(ctx context.Context, table dispatch.Table) error {
	defer close(m.up)
	return m.d.Start(ctx, table)
}

// die ends the process as a crash does: nobody is waited for, and what runs is cut
// off. It returns once that is over.
func (m *mortal) die() {
	if !m.dying.CompareAndSwap(false, true) {
		<-m.dead
		return
	}
	<-m.up
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.d.Stop(ctx)
	close(m.dead)
}

func (w *world) runs(m *mortal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.process = m
}

// life runs one process until its log crashes, or to the end when it does not.
func (w *world) life(t *testing.T, store *memlog.Log, life int) {
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	m := newMortal(d)
	defer m.die()
	w.runs(m)
	defer w.runs(nil)
	w.born()
	if err := m.start(t.Context(), w.table(t)); err != nil {
		return // crashed while starting
	}
	w.soundStore(t, d)
	pub := d.Publisher("test")
	var wg sync.WaitGroup
	for p := range 3 {
		wg.Go(func() {
			who := fmt.Sprintf("l%d.p%d", life, p)
			for i := range w.each() {
				ids := names(fmt.Sprintf("%s.%d.", who, i), 1+w.n(who, 4))
				var events []bus.Event
				for _, id := range ids {
					events = append(events, keyed(t, id, strconv.Itoa(p)))
					w.mu.Lock()
					w.order[id] = len(w.order)
					w.mu.Unlock()
				}
				results, _ := pub.Publish(t.Context(), events...)
				w.mu.Lock()
				for i, r := range results {
					if r.Err == nil {
						w.acked[ids[i]] = true
					}
				}
				w.mu.Unlock()
				<-time.After(time.Duration(w.n(who, 200)) * time.Millisecond)
				if p == 0 && w.n(who, 7) == 0 {
					w.operate(t, d)
				}
			}
		})
	}
	wg.Wait()
	pass(time.Duration(w.n("rest", 20)) * time.Second)
}

// soundStore checks that nothing is taken for lost in a store that loses nothing.
func (w *world) soundStore(t *testing.T, d *dispatch.Dispatcher) {
	t.Helper()
	if w.unsound {
		return
	}
	if faults, jobs := d.Faults(), d.LostJobs(); len(faults)+len(jobs) > 0 {
		t.Errorf("taken for lost: %v, offered again: %v", faults, jobs)
	}
}

// operate does what an operator may do at any time.
func (w *world) operate(t *testing.T, d *dispatch.Dispatcher) {
	switch w.n("operator", 5) {
	case 0:
		_ = d.Pause(t.Context(), "b", "")
	case 1:
		_ = d.Resume(t.Context(), "b")
	case 2:
		_ = d.Reload(t.Context(), w.table(t))
	case 3:
		_, _ = d.Redrive(t.Context(), dispatch.Redrive{})
	case 4:
		_, _ = d.Replay(t.Context(), dispatch.Replay{Sinks: []string{"b"}})
	}
}

// TestNothingIsLostWhereverItCrashes runs random histories with crashes between
// any two operations of the log, failed writes, a flaky sink and an operator. At
// the end every acknowledged event has arrived or is a dead letter.
func TestNothingIsLostWhereverItCrashes(t *testing.T) {
	t.Parallel()
	coverage(t, histories(t, seeds(), history), seeds())
}

func history(t *testing.T, seed uint64, seen *crashPoints) {
	w := newWorld(seed)
	w.seen = seen
	w.history(t, seed, func(*memlog.Log) {})
}

// history goes through three lives; after the crash of each, damage is done.
func (w *world) history(t *testing.T, seed uint64, damage func(*memlog.Log)) {
	store := memlog.New(memlog.Options{Hook: w.hook})
	for life := range 3 {
		w.arm(w.patience())
		w.life(t, store, life)
		store = store.Restart()
		w.arm(0)
		damage(store)
	}
	w.a.set(nil)
	w.born()
	d := start(t, store, w.table(t))
	defer d.stop()
	if err := d.Resume(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	d.rest(time.Hour)
	w.soundStore(t, d.Dispatcher)
	dead := map[string]bool{}
	letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 1e6)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range letters {
		dead[l.Sink+"/"+l.Event.ID()] = true
		if w.blocks && l.Sink == "a" {
			t.Errorf("seed %d: event %s was given up: %s", seed, l.Event.ID(), l.Reason)
		}
	}
	if !w.cramped {
		w.checkOrder(t, seed)
	}
	for id := range w.acked {
		for name, f := range map[string]*far{"a": w.a, "b": w.b} {
			if f.times(id) == 0 && !dead[name+"/"+id] {
				t.Errorf("seed %d: event %s was acknowledged and never reached sink %s", seed, id, name)
			}
		}
	}
}

// rest lets everything come to its end, within a limit, and checks that it did.
func (b *bench) rest(limit time.Duration) {
	b.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		pass(10 * time.Second)
		if b.Balance().Open() == 0 && b.Unsettled() == 0 {
			break
		}
	}
	b.settled()
}

func keyed(t *testing.T, id, key string) bus.Event {
	t.Helper()
	e, err := event(t, id).With(bus.Attr{Name: "subject", Value: key})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// born notes that a process begins.
func (w *world) born() {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	w.births = append(w.births, len(w.a.order))
}

// checkOrder looks at what came to the ordered sink: within a key it came in the
// order of its acceptance, through failures, spills and crashes. A process may go
// back to what an earlier one delivered, and goes on from there in order.
func (w *world) checkOrder(t *testing.T, seed uint64) {
	t.Helper()
	last := map[string]string{}
	seen := map[string]bool{}
	for i, id := range w.a.order {
		if slices.Contains(w.births, i) {
			last = map[string]string{}
		}
		if w.poison[id] {
			continue
		}
		key := w.a.keys[id]
		if before, ok := last[key]; ok && w.order[before] > w.order[id] {
			t.Errorf("seed %d: key %s: event %s (seen %v) came after %s", seed, key, id, seen[id], before)
		}
		seen[id] = true
		last[key] = id
	}
}
