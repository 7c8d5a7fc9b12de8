package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"sluice/bus"
	"sluice/sinks"
)

// lane is the way to one sink: what waits for it, what is under way, and the
// limits. A lane lives as long as its sink's name has anything to do with the
// bus (lanes.go); a reload changes what it delivers with.
//
// A delivery reaches it directly, in memory, or through the backlog, on disk. It
// takes the direct way unless the lane is full, paused, removed, or its breaker
// is open; then, and until what was spilled has been read back, deliveries spill
// to the backlog. So the router never waits for a sink.
type lane struct {
	name    string
	d       *Dispatcher
	log     *slog.Logger
	metrics laneMetrics
	books   *ledger // of the packs of its backlog

	mu        sync.Mutex
	conf      *laneConf // nil: the sink is not in the config
	queue     queue
	running   map[*delivery]struct{}
	workers   int
	hold      *Hold         // paused or disabled
	held      bool          // there was a hold when that was last looked at
	searched  bool          // for what is left of its records: until then they stay where they are
	holding   chan struct{} // holds one token: hold and what is saved of it change together
	breaker   breaker
	logins    logins
	pace      pace
	budget    budget
	stopped   bool
	gone      bool // another lane of this name may have taken its place: see current
	orderBy   string
	spillover bool        // new deliveries go to the backlog
	cramped   bool        // the store has no room for the backlog
	refused   []*delivery // order_by: what it refused, which comes before closing
	unsaved   unsaved     // order_by: ends that a crash would forget
	pinned    int         // deliveries that wait for an attempt without a record of that
	crampedAt time.Time
	spilling  int            // deliveries on their way to the backlog
	writing   int            // further records on their way there, of deliveries that are not in the lane or run
	oldPacks  int            // packs that an earlier process left in the backlog and that are not read
	written   uint64         // the last pack of the backlog that this process wrote
	visible   uint64         // the last of those of which every record is known, so that it may be read
	known     map[uint64]int // by pack that is written and not read: its deliveries
	depth     int            // their sum
	old       int            // about how many an earlier process left there
	oldFrom   time.Time      // none of those was accepted earlier; zero when that is not known
	unread    ages           // of what this process wrote to the backlog and has not read, by pack
	leaving   ages           // of what is on its way to the backlog, by spills
	spills    uint64         // so many have begun
	spillsEnd uint64         // so many have ended, in the same order
	detached  map[bus.Position]*delivery
	gathering bool // a worker collects a batch
	company   chan struct{}
	arrived   chan struct{} // wakes one consumer that waits; who fetches wakes the next
	closing   []*delivery   // order_by: what waits, in memory, for the end of the spill
	feeding   bool
	readTo    uint64        // the number after the last pack that the feed has read
	room      chan struct{} // tells the feed that something has changed
	lastErr   string
	lastErrAt time.Time
	lastOKAt  time.Time
}

// laneConf is what a lane delivers with.
type laneConf struct {
	sink      sinks.Sink
	options   Options
	policy    Policy
	limiter   *rate.Limiter // nil: no limit
	pull      *sinks.Pull   // consumers fetch: there are no workers
	users     int           // attempts under way; guarded by the lane's mutex
	retired   bool          // replaced: the last user closes the sink
	removed   bool          // it stands in for a sink that was taken out
	deadlines deadlines     // of attempts; guarded by the lane's mutex
	// current ends when the configuration is replaced.
	current context.Context
	cancel  context.CancelFunc
}

const (
	queueDeliveries = 1024    // on the direct way
	queueBytes      = 8 << 20 // on either way
	feedDeliveries  = 128     // read ahead from the backlog; also what a crash may repeat
)

func (d *Dispatcher) newLane(name string) *lane {
	l := &lane{
		name:     name,
		d:        d,
		log:      d.log.With("sink", name),
		metrics:  d.metrics.lane(name),
		books:    d.newLedger(bus.Backlog, false),
		running:  map[*delivery]struct{}{},
		unsaved:  unsaved{keys: map[string]uint64{}},
		detached: map[bus.Position]*delivery{},
		known:    map[uint64]int{},
		readTo:   1,
		room:     make(chan struct{}, 1),
		company:  make(chan struct{}, 1),
		arrived:  make(chan struct{}, 1),
		holding:  make(chan struct{}, 1),
	}
	l.books.whole = func(seq uint64) { d.remover.remove(d.backlogStream, l.books, seq) }
	return l
}

// admit takes over a delivery that has just come into being. It never waits.
func (l *lane) admit(d *delivery) {
	l = l.current()
	defer l.mu.Unlock()
	l.metrics.entered(d.rule, fromEvent)
	l.accept(d)
}

// accept gives a delivery its place in the lane. The caller holds the lock.
func (l *lane) accept(d *delivery) {
	d.offered = time.Now()
	d.state = queued
	if d.pinned {
		d.pinned = false
		l.pinned--
	}
	switch {
	case d.reserved:
		l.queue.pushHead(d) // it has its key, and a record of its own
	case l.canClose() && len(l.closing) < queueDeliveries, l.cramped && l.ordered() && l.spillover:
		l.closing = append(l.closing, d)
		return
	case !l.cramped && (l.spillover || l.full() || l.blocked(d.offered)):
		if !l.coverRunning() {
			l.spillover = true
			l.closing = append(l.closing, d)
			return
		}
		if l.ordered() && !l.spillover {
			l.flush()
		}
		l.spillMore()
		l.spill(d)
		return
	default:
		l.queue.push(d)
	}
	l.dispatch(d.offered)
}

// ordered tells whether deliveries of one key keep their order.
func (l *lane) ordered() bool { return l.queue.keyOf != nil }

func (l *lane) full() bool {
	return l.queue.len() >= queueDeliveries || l.queue.len() > 0 && l.queue.bytes >= queueBytes
}

// blocked tells whether no attempt may start at all.
func (l *lane) blocked(now time.Time) bool {
	return l.conf == nil || l.hold != nil && !l.conf.removed || l.searched || l.stopped || l.breaker.shut(now) ||
		l.ordered() && !l.d.retriesKnown.Load() // they come first
}

// dispatch starts workers for what is queued.
func (l *lane) dispatch(now time.Time) {
	if l.conf != nil && l.conf.pull != nil {
		if l.queue.runnable() > 0 && !l.blocked(now) {
			signal(l.arrived)
		}
		l.nudgeFeed()
		return
	}
	batches := l.conf != nil && l.conf.options.Batch.on()
	if l.gathering && l.queue.runnable() > 0 {
		signal(l.company)
	}
	for l.queue.runnable() > 0 && l.workers < l.limit() && !l.gathering && !l.blocked(now) {
		l.gathering = batches
		d := l.queue.pop()
		l.take(d)
		l.workers++
		l.d.crew.begin(l, d)
	}
	l.nudgeFeed()
}

// limit is how many attempts may run at the same time.
func (l *lane) limit() int {
	switch {
	case l.conf == nil:
		return 0
	case l.breaker.open:
		return 1
	}
	return l.pace.allowed()
}

func (l *lane) take(d *delivery) {
	d.state = running
	l.running[d] = struct{}{}
}

// work makes attempts until there is nothing left to do for this worker.
func (l *lane) work(d *delivery) {
	for d != nil {
		l.attempt(d)
		d = l.next()
	}
}

// next is the next delivery for a worker, or nil when it has to go.
func (l *lane) next() *delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.queue.runnable() == 0 || l.gathering || l.workers > l.limit() || l.blocked(time.Now()) || l.conf.pull != nil {
		l.workers--
		l.nudgeFeed()
		return nil
	}
	d := l.queue.pop()
	l.take(d)
	l.gathering = l.conf.options.Batch.on()
	if l.queue.len() == feedDeliveries/2 {
		l.nudgeFeed()
	}
	return d
}

// end ends a delivery for good, and counts it as what it came to.
func (l *lane) end(d *delivery, outcome *atomic.Int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	outcome.Add(1)
	l.settle(d)
	if l.ordered() {
		l.ended(d)
		l.releaseKey(d.key)
	}
}

// releaseKey lets the next delivery of a key go. The caller holds the lock.
func (l *lane) releaseKey(key string) {
	if parked := l.queue.release(key); parked != nil {
		l.startUnpark(key, parked)
	}
	l.dispatch(time.Now())
}

func (l *lane) startUnpark(key string, k *orderKey) {
	l.d.work.Go(func() { l.unpark(key, k) })
}

// settle ends a delivery's stay in the lane: the record that covers it is not
// needed any more. Whoever calls it holds the lock, and gives the delivery its next
// place under it: at no time is it in two places or in none.
func (l *lane) settle(d *delivery) {
	delete(l.running, d)
	d.state = done
	d.origin.settle(d)
	if d.origin.ledger == l.books {
		delete(l.detached, d.origin.pos)
	}
}

// leave is settle for a delivery that its record covers on. next gives it its next
// place, under the lock.
func (l *lane) leave(d *delivery, next func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, d)
	d.state = done
	next()
}

// nowhere is next for a delivery that is left for the next start of the bus.
func nowhere() {}

// ending keeps the sweep away from a delivery whose attempt is over, and adds
// that to its history. The first that was sent is what a share of retries is due to.
func (l *lane) ending(d *delivery, a Attempt, verdict Verdict, sent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent && d.tried() == 0 && l.budget.fresh() {
		l.d.retries.turnNow(l.name)
	}
	if d.state == running {
		d.state = done
	}
	if verdict != Delivered && verdict != Leased {
		d.addAttempt(a)
	}
}

// configure makes the lane deliver with conf; nil takes the sink out.
func (l *lane) configure(conf *laneConf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.conf
	l.conf = conf
	if old != nil {
		old.retired = true
		old.cancel()
		l.d.closeUnused(old)
	}
	l.logins = logins{}
	if conf != nil {
		l.breaker.reload(conf.options.Breaker, time.Now())
		l.pace.reload(conf.options.Concurrency)
		l.budget.share = float64(conf.options.Retry.budget()) / 100
		l.reorder(conf.options.OrderBy)
	}
	l.refresh()
}

// reorder changes what the order of the queue goes by.
func (l *lane) reorder(by string) {
	if by == l.orderBy {
		return
	}
	l.orderBy = by
	l.flush()
	places := l.queue.parkedPlaces()
	kept := l.queue.take(func(*delivery) bool { return true }, func(string, *orderKey) {})
	// What is being read back this moment counts as parked until it is there.
	l.queue = queue{keyOf: keyFunc(by), keys: map[string]*orderKey{}, generation: l.queue.generation + 1, apart: l.queue.apart}
	if len(places) > 0 {
		l.d.work.Go(func() { l.requeue(places) })
	}
	for d := range l.running {
		l.queue.reserve(d)
	}
	for _, d := range kept {
		d.reserved = false
		l.queue.push(d)
	}
}

// requeue brings back what was parked under another order_by.
func (l *lane) requeue(places []bus.Position) {
	for len(places) > 0 {
		n := min(len(places), feedDeliveries)
		read, err := l.readPlaces(places[:n])
		if err != nil {
			return // the bus is stopping: their records cover them
		}
		places = places[n:]
		l.mu.Lock()
		for _, d := range read {
			l.queue.pushBacklog(d)
		}
		l.queue.apart -= n
		l.metrics.live.damaged.Add(int64(n - len(read)))
		l.caughtUp()
		l.dispatch(time.Now())
		l.mu.Unlock()
	}
}

// refresh acts on a change of what may pass. The caller holds the lock.
func (l *lane) refresh() {
	now := time.Now()
	if l.hold != nil {
		l.held = true
	} else if l.held { // it has a backlog now, as after an outage
		l.held = false
		l.pace.restart()
	}
	if l.blocked(now) && !l.stopped {
		l.flush()
	}
	l.dispatch(now)
}

// use takes the configuration for one attempt.
func (l *lane) use() *laneConf {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf == nil {
		return nil
	}
	l.conf.users++
	if l.gathering && !l.conf.options.Batch.on() { // a reload has turned batches off
		l.gathering = false
		l.dispatch(time.Now())
	}
	return l.conf
}

func (l *lane) release(c *laneConf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.users--
	l.d.closeUnused(c)
}

// stop lets nothing new start. What waits or runs on the direct way gets a record of
// its own if the store takes it: else its event covers it, and the next start
// would offer that to every sink again.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf != nil && !l.ordered() { // records made now could come out of order
		l.flush()
		for d := range l.running {
			if d.state == running && l.direct(d) {
				l.detach(d)
			}
		}
	}
	l.stopped = true
	l.nudgeFeed()
}

// close retires the sink once no attempt uses it any more.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.retire()
}

// retire is close for who holds the lock.
func (l *lane) retire() {
	if l.conf != nil {
		l.conf.retired = true
		l.conf.cancel()
		l.d.closeUnused(l.conf)
		l.conf = nil
	}
}

// configured tells whether the lane has a sink of the config.
func (l *lane) configured() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conf != nil && !l.conf.removed
}

// backlogDepth is how many deliveries wait in the backlog.
func (l *lane) backlogDepth() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.depth + l.old
}

// waitRate waits for the sink's rate. False means that the attempt is off: the
// sink was replaced or paused meanwhile, its breaker has opened, or the bus is stopping.
func (l *lane) waitRate(c *laneConf, batch []*delivery) bool {
	if c.limiter == nil {
		return true
	}
	ctx, cancel := context.WithCancel(c.current)
	defer cancel()
	defer context.AfterFunc(l.d.intake, cancel)() // a stop has no time for that
	err := c.limiter.Wait(ctx)
	l.mu.Lock()
	blocked := l.blocked(time.Now())
	l.mu.Unlock()
	if err == nil && !blocked {
		return true
	}
	for _, d := range batch {
		if l.d.intake.Err() != nil {
			l.leave(d, nowhere)
		} else {
			l.giveBack(d)
		}
	}
	return false
}
