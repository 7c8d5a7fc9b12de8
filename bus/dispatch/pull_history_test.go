package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// queueSeeds is how many histories TestQueueHistories goes through; SLUICE_SEEDS
// asks for more. One alone: -run 'TestQueueHistories/^1234$'.
func queueSeeds() int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SEEDS")); err == nil {
		return n
	}
	if testing.Short() {
		return 100
	}
	return 600
}

// queueWorld is one random history of a queue as its users saw it.
type queueWorld struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	groups bool // order_by: FIFO groups, on odd seeds
	limit  int  // max_receives; 0 for none
	purges bool
	seen   *crashPoints

	mu      sync.Mutex
	ops     int            // operations of the log until the next crash; negative for none
	faults  map[string]int // failed appends in a row, by stream
	process *mortal
	all     map[string]*queueMessage
	next    int
	counts  queueCounts
	notes   []string
}

// queueCounts tell that the histories do something.
type queueCounts struct{ published, received, acked, nacked, extended, expired, purged, kept int }

// queueMessage is what the users know of one message.
type queueMessage struct {
	rank     int // in its group
	group    string
	accepted bool // the publisher was told so
	acked    bool // somebody was told so
	unsure   bool // an ack got no answer, or a purge may have met it
	seen     bool // received at least once
	ending   int  // acks of which the answer is not noted
	over     bool // the last receive has been acknowledged, or given back, or may have been
	receipt  string
	until    time.Time // the lease of the last receive holds at least that long
}

func newQueueWorld(t *testing.T, seed uint64, seen *crashPoints) *queueWorld {
	w := &queueWorld{
		t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 7)), groups: seed%2 == 1, purges: seed%4 >= 2, seen: seen, ops: -1,
		all: map[string]*queueMessage{}, faults: map[string]int{},
	}
	if seed%5 == 0 {
		w.limit = 3
	}
	return w
}

func (w *queueWorld) n(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

// notef keeps a line of what happened, for the log of a history that fails. The
// caller holds the lock.
func (w *queueWorld) notef(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(time.Now().UTC().Format("15:04:05.000 ")+format, args...))
}

// failf fails the test. The caller holds the lock.
func (w *queueWorld) failf(format string, args ...any) {
	w.t.Errorf("seed %d, at %s: "+format, append([]any{w.seed, time.Now().UTC().Format("15:04:05.000")}, args...)...)
}

// hook fails few operations of the log, and crashes it at a random one.
func (w *queueWorld) hook(_ context.Context, op memlog.Op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ops < 0 {
		return nil
	}
	if w.ops--; w.ops <= 0 {
		w.ops = -1
		w.seen.add(op, "")
		w.notef("CRASH %s %s %s", op.When, op.Name, op.Stream)
		if w.process != nil {
			go w.process.die()
		}
		return memlog.ErrCrash
	}
	if op.Name == memlog.OpAppend {
		if w.random.IntN(50) == 0 && w.faults[op.Stream] < writeFaults {
			w.faults[op.Stream]++
			return errors.New("injected fault")
		}
		if op.When == memlog.After {
			w.faults[op.Stream] = 0
		}
	}
	return nil
}

const (
	historyVisibility = 4 * time.Second
	// A lease counts from the moment that its record is made. Writes that fail so often
	// in a row delay the answer by no more than this.
	writeFaults = 3
	writeDelay  = 500 * time.Millisecond
)

func (w *queueWorld) table() dispatch.Table {
	return one(w.t, queueSpec(w.t, "q", func(q *sinks.Queue) {
		q.Visibility, q.MaxReceives = lasting(historyVisibility), w.limit
	}, func(o *dispatch.Options) {
		if w.groups {
			o.OrderBy = "subject"
		}
	}))
}

// publish sends a few messages, some with a delay.
func (w *queueWorld) publish(d *dispatch.Dispatcher) {
	var events []bus.Event
	var sent []*queueMessage
	w.mu.Lock()
	for range 1 + w.random.IntN(5) {
		m := &queueMessage{rank: w.next, group: strconv.Itoa(w.random.IntN(3))}
		w.next++
		attrs := []bus.Attr{{Name: "subject", Value: m.group}}
		if w.random.IntN(8) == 0 {
			attrs = append(attrs, bus.Attr{Name: dispatch.DelayAttribute, Value: strconv.Itoa(1 + w.random.IntN(6))})
		}
		id := fmt.Sprintf("m%04d", m.rank)
		w.all[id] = m
		events, sent = append(events, typed(w.t, id, "t", attrs...)), append(sent, m)
	}
	w.mu.Unlock()
	results, _ := d.Publisher("test").Publish(w.t.Context(), events...)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, r := range results {
		sent[i].accepted = sent[i].accepted || r.Err == nil
		w.counts.published++
	}
}

// receive takes messages, and checks that each may be taken now.
func (w *queueWorld) receive(d *dispatch.Dispatcher, most int, wait time.Duration) []dispatch.Message {
	ctx, cancel := context.WithTimeout(w.t.Context(), max(wait, 1))
	defer cancel()
	got, err := d.Receive(ctx, "q", most, 0)
	if err != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range got {
		w.received(g)
	}
	return got
}

func (w *queueWorld) received(g dispatch.Message) {
	id, now := g.Event.ID(), time.Now()
	m := w.all[id]
	w.counts.received++
	switch {
	case m == nil:
		w.failf("%s was never published", id)
		return
	case m.acked:
		w.failf("%s is received after its ack was answered", id)
	case now.Before(m.until):
		w.failf("%s is in two hands: the first has it until %s", id, m.until.UTC().Format("15:04:05.000"))
	}
	if w.groups {
		for other, o := range w.all {
			switch {
			case o == m || o.group != m.group || o.ending > 0:
			case now.Before(o.until):
				w.failf("%s is received while %s of its group is in hand", id, other)
			case !m.seen && o.seen && o.rank > m.rank && o.accepted:
				w.failf("%s is received for the first time after %s of its group", id, other)
			}
		}
	}
	w.notef("received %s, time %d", id, g.Receives)
	m.seen, m.over, m.receipt, m.until = true, false, g.Receipt, now.Add(historyVisibility-writeDelay)
}

// ack acknowledges messages that somebody has, and checks that it may.
func (w *queueWorld) ack(d *dispatch.Dispatcher, ids ...string) {
	receipts := w.receiptsOf(ids)
	w.mu.Lock()
	for _, id := range ids {
		w.all[id].ending++
	}
	w.mu.Unlock()
	errs := d.Ack(w.t.Context(), receipts...)
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, err := range errs {
		m := w.all[ids[i]]
		m.ending--
		w.notef("ack %s: %v", ids[i], err)
		if m.receipt != receipts[i] {
			continue // it was received again meanwhile
		}
		switch {
		case err == nil:
			m.acked, m.over, m.until = true, true, time.Time{}
			w.counts.acked++
		case errors.Is(err, bus.ErrNotFound), errors.Is(err, dispatch.ErrLease):
			if time.Now().Before(m.until) && !m.unsure && !m.acked && m.ending == 0 {
				w.failf("the ack of %s is refused while its lease holds: %v", ids[i], err)
			}
		default: // it may be done or not
			m.unsure, m.over, m.until = true, true, time.Time{}
		}
	}
}

func (w *queueWorld) receiptsOf(ids []string) (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		all = append(all, w.all[id].receipt)
	}
	return all
}

func (w *queueWorld) nack(d *dispatch.Dispatcher, id string, after time.Duration) {
	receipts := w.receiptsOf([]string{id})
	w.mu.Lock()
	w.all[id].over, w.all[id].until = true, time.Time{}
	w.counts.nacked++
	w.notef("nack %s after %v", id, after)
	w.mu.Unlock()
	d.Nack(w.t.Context(), after, receipts...)
}

func (w *queueWorld) extend(d *dispatch.Dispatcher, id string, more time.Duration) {
	receipts := w.receiptsOf([]string{id})
	w.mu.Lock()
	m, until := w.all[id], time.Now().Add(more-writeDelay)
	held := m.until
	w.notef("extend %s by %v", id, more)
	if until.Before(held) {
		m.until = until
	}
	w.mu.Unlock()
	err := d.Extend(w.t.Context(), more, receipts...)[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m.receipt != receipts[0]:
	case err == nil:
		w.counts.extended++
		if !m.over { // an ack that waited for this may be answered already
			m.until = until
		}
	case errors.Is(err, bus.ErrNotFound) && time.Now().Before(held) && !m.unsure && !m.acked && m.ending == 0:
		w.failf("%s cannot be extended while its lease holds: %v", id, err)
	}
}

// inHand are the messages of which a consumer of this life or an earlier one
// believes that it has them.
func (w *queueWorld) inHand() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.next {
		id := fmt.Sprintf("m%04d", i)
		if m := w.all[id]; m != nil && !m.acked && time.Now().Before(m.until) {
			ids = append(ids, id)
		}
	}
	return ids
}

// consume receives, and does with each message what consumers do.
func (w *queueWorld) consume(d *dispatch.Dispatcher) {
	for range 6 {
		got := w.receive(d, 1+w.n(5), time.Duration(w.n(2000))*time.Millisecond)
		<-time.After(time.Duration(w.n(1500)) * time.Millisecond)
		var done []string
		for _, g := range got {
			id := g.Event.ID()
			switch w.n(10) {
			case 0: // it dies
				w.mu.Lock()
				w.counts.expired++
				w.mu.Unlock()
			case 1:
				w.nack(d, id, time.Duration(w.n(3))*time.Second)
			case 2:
				w.extend(d, id, time.Duration(1+w.n(10))*time.Second)
			case 3:
				w.extend(d, id, time.Duration(1+w.n(10))*time.Second)
				done = append(done, id)
			default:
				done = append(done, id)
			}
		}
		if len(done) > 0 {
			w.ack(d, done...)
		}
	}
}

// operate does what an operator may do at any time, and a consumer that has
// outlived the last process.
func (w *queueWorld) operate(d *dispatch.Dispatcher) {
	for range 4 {
		<-time.After(time.Duration(w.n(2500)) * time.Millisecond)
		switch w.n(7) {
		case 0:
			_ = d.Pause(w.t.Context(), "q", "")
		case 1, 2:
			_ = d.Resume(w.t.Context(), "q")
		case 3:
			_ = d.Reload(w.t.Context(), w.table())
		case 4:
			if w.purges {
				w.purge(d)
			}
		default:
			if held := w.inHand(); len(held) > 0 {
				w.mu.Lock()
				w.counts.kept++
				w.mu.Unlock()
				w.ack(d, held[w.n(len(held))])
			}
		}
	}
}

// purge discards what is there; what nobody has acknowledged by then may be gone.
func (w *queueWorld) purge(d *dispatch.Dispatcher) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	n, _ := d.Purge(ctx, "q")
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts.purged += n
	w.notef("purged %d", n)
	for _, m := range w.all {
		m.unsure = true
	}
}

// life runs one process until its log crashes, or to the end when it does not.
func (w *queueWorld) life(store *memlog.Log) {
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
	if err != nil {
		w.t.Fatal(err)
	}
	p := newMortal(d)
	defer p.die()
	runs := func(p *mortal) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.process = p
	}
	runs(p)
	defer runs(nil)
	if err := p.start(w.t.Context(), w.table()); err != nil {
		return // crashed while starting
	}
	var all sync.WaitGroup
	// A single publisher: what two send at the same time has no order.
	all.Go(func() {
		for range 6 {
			w.publish(d)
			<-time.After(time.Duration(w.n(800)) * time.Millisecond)
		}
	})
	for range 3 {
		all.Go(func() { w.consume(d) })
	}
	all.Go(func() { w.operate(d) })
	all.Wait()
	if b := d.Balance(); !p.dying.Load() && b.Lost() != 0 {
		w.t.Errorf("seed %d: the deliveries do not add up: %+v", w.seed, b)
	}
}

// TestQueueHistories runs random histories of a queue: publishers, consumers that
// acknowledge, give back, extend and die, an operator, failed writes and crashes
// between any two operations of the log.
func TestQueueHistories(t *testing.T) {
	t.Parallel()
	seen := newCrashPoints()
	var mu sync.Mutex
	var sum queueCounts
	t.Cleanup(func() {
		t.Logf("%d histories, %d crashes at %d kinds of points: %+v", queueSeeds(), seen.total, len(seen.at), sum)
	})
	for seed := range queueSeeds() {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := queueHistory(t, uint64(seed), seen)
				mu.Lock()
				defer mu.Unlock()
				sum.published += c.published
				sum.received += c.received
				sum.acked += c.acked
				sum.nacked += c.nacked
				sum.extended += c.extended
				sum.expired += c.expired
				sum.purged += c.purged
				sum.kept += c.kept
			})
		})
	}
}

func queueHistory(t *testing.T, seed uint64, seen *crashPoints) queueCounts {
	w := newQueueWorld(t, seed, seen)
	defer func() {
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(w.notes, "\n"))
		}
	}()
	store := memlog.New(memlog.Options{Hook: w.hook})
	for range 3 {
		w.mu.Lock()
		w.ops = 1 + w.random.IntN(150)
		w.mu.Unlock()
		w.life(store)
		store = store.Restart()
	}
	w.mu.Lock()
	w.ops = -1
	w.mu.Unlock()
	d := start(t, store, w.table())
	defer d.stop()
	if err := d.Resume(t.Context(), "q"); err != nil {
		t.Fatal(err)
	}
	for quiet := 0; quiet < 3; { // the longest lease is 10 s
		got := w.receive(d.Dispatcher, 10, 6*time.Second)
		var ids []string
		for _, g := range got {
			ids = append(ids, g.Event.ID())
		}
		if quiet++; len(got) > 0 {
			quiet = 0
			w.ack(d.Dispatcher, ids...)
		}
	}
	d.rest(time.Hour)
	pass(dispatch.ConserveBound)
	if c := d.Conservation(); !c.OK() {
		t.Errorf("seed %d: %+v", seed, c)
	}
	w.complete(d)
	return w.counts
}

// complete checks that every message that was accepted has ended.
func (w *queueWorld) complete(d *bench) {
	letters, _, err := d.DeadLetters(w.t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 1e6)
	if err != nil {
		w.t.Fatal(err)
	}
	dead := map[string]bool{}
	for _, l := range letters {
		dead[l.Event.ID()] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, m := range w.all {
		if m.accepted && !m.acked && !m.unsure && !dead[id] {
			w.failf("%s was accepted and is lost", id)
		}
		if m.acked && dead[id] {
			w.failf("%s was acknowledged, and is a dead letter too", id)
		}
	}
}
