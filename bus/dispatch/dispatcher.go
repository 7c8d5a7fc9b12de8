package dispatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
)

// Dispatcher is the engine over one log. Make it with New, then Start it once.
type Dispatcher struct {
	store   bus.Log
	log     *slog.Logger
	metrics *metrics
	events  *ledger
	dirty   chan struct{} // a ledger has changed
	fates   *fates
	history *history
	jobs    *jobs
	dedup   *dedup           // nil: every publish is stored
	now     func() time.Time // the wall clock
	passage passage
	replies bus.Publisher // of what sinks answered
	awaits  awaits
	calls   calls

	leaseKey []byte // of the tokens of leases
	leaseURL func(deliveryID string) string

	conserved atomic.Pointer[Conservation]
	faults    []bus.Fault // of the store, that were found at the start

	backlogStream, retryStream                          bus.Stream
	backlogHead                                         uint64 // the last pack that was there at the start
	eventWriter, backlogWriter, retryWriter, deadWriter *writer
	remover                                             *remover
	contents                                            map[string]*contents // of BACKLOG and RETRIES
	gathering                                           *Job                 // waits for more that is lost; guarded by committing
	unsure                                              []Loss               // likewise: of which it is not known what is settled
	offered                                             time.Time            // when the last such job began or is to begin; likewise
	router                                              *router
	retries                                             *retries
	dead                                                *deadLetters

	committing  sync.Mutex    // one at a time
	commits     atomic.Uint64 // how many have begun
	savedCommit atomic.Uint64 // the last that is durable
	saving      saving

	routing atomic.Pointer[routing]
	reload  sync.Mutex // one at a time

	mu    sync.RWMutex
	lanes map[string]*lane
	gone  Balance // of the lanes that are gone

	// intake ends when no new work may begin, attempts when what runs is cut off.
	intake, attempts          context.Context
	stopIntake, cutAttempts   context.CancelFunc
	background, writers, work sync.WaitGroup
	crew                      *crew
	started                   atomic.Bool // the writers run
	stop                      sync.Once
	recovered                 bool        // what is saved may be replaced
	retriesKnown              atomic.Bool // the retries of an earlier process are in memory
}

// Config is what a Dispatcher is made of.
type Config struct {
	Store    bus.Log
	Log      *slog.Logger
	Registry prometheus.Registerer // nil: the metrics are not registered
	Dedup    Dedup
	// LeaseURL is where a sink says how a job ended that it took a lease for; nil: it
	// is told the path alone.
	LeaseURL func(deliveryID string) string
	// Clock is the wall clock, by which everything goes that outlives the process;
	// nil is time.Now. What happens within the process goes by time.Now, which does
	// not jump.
	Clock func() time.Time
}

// Table is what a Dispatcher works with, and what a reload replaces.
type Table struct {
	Version   string // of the config; kept in dead letters
	Routes    []Route
	Sinks     []SinkSpec
	Unmatched []string          // the sinks of events that no rule matched
	Removed   map[string]string // by sink that is not in Sinks any more: a Removed constant
	// Transient tells which of the sinks that are in neither of the two nobody will bring
	// back: what waits for them is dropped. Nil: none.
	Transient func(sink string) bool
	Retain    Retention
}

// SinkSpec is one sink. A nil Sink means the one of that name that is running
// already, with its options.
type SinkSpec struct {
	Name    string
	Sink    sinks.Sink
	Options Options
}

const (
	packRecords = 2048
	packBytes   = 4 << 20
	// waitingBytes is how much may wait for the store before publishers are told
	// that the bus is overloaded.
	waitingBytes = 64 << 20
	// unlimited is for records that are bounded by what the router lets in.
	unlimited = math.MaxInt
	// linger lets deliveries on their way to the backlog gather: nobody waits.
	linger = 10 * time.Millisecond
)

// New makes a dispatcher over a log. It takes the log's content as it is; nothing
// moves before Start.
func New(c Config) (*Dispatcher, error) {
	counters := newMetrics()
	d := &Dispatcher{
		store: countedLog{c.Store, counters.wrote(stateTable)}, log: c.Log, metrics: counters, dedup: newDedup(c.Dedup),
		dirty: make(chan struct{}, 1), fates: newFates(), lanes: map[string]*lane{}, remover: newRemover(c.Log),
		contents:      map[string]*contents{bus.Backlog: {}, bus.Retries: {}},
		backlogStream: c.Store.Stream(bus.Backlog), retryStream: c.Store.Stream(bus.Retries),
	}
	if d.now = c.Clock; d.now == nil {
		d.now = time.Now
	}
	d.history = newHistory(d.now)
	if d.leaseURL = c.LeaseURL; d.leaseURL == nil {
		d.leaseURL = func(id string) string { return "/api/v1/leases/" + id }
	}
	d.events = d.newLedger(bus.Events, true)
	d.routing.Store(&routing{Matcher: &Matcher{}, removal: Table{}.removal})
	d.intake, d.stopIntake = context.WithCancel(context.Background())
	d.attempts, d.cutAttempts = context.WithCancel(context.Background())
	d.crew = newCrew(&d.work, d.attempts.Done())
	d.eventWriter = d.newWriter(bus.Events, waitingBytes, false)
	d.eventWriter.stored = func(seq uint64, pack []write) { d.passage.wrote(seq, len(pack)) }
	d.backlogWriter = d.newWriter(bus.Backlog, unlimited, true)
	d.backlogWriter.linger = linger
	d.retryWriter = d.newWriter(bus.Retries, unlimited, true)
	d.backlogWriter.stored, d.retryWriter.stored = d.listed(bus.Backlog), d.listed(bus.Retries)
	d.deadWriter = d.newWriter(bus.DeadLetters, unlimited, true)
	d.router = newRouter(d)
	d.retries = newRetries(d)
	d.dead = newDeadLetters(d)
	d.jobs = newJobs(d)
	d.replies = d.Publisher(ReplySource)
	if c.Registry != nil {
		for _, m := range append(d.metrics.collectors(), &collector{d}) {
			if err := c.Registry.Register(m); err != nil {
				return nil, fmt.Errorf("register metrics: %w", err)
			}
		}
	}
	return d, nil
}

func (d *Dispatcher) newWriter(stream string, waiting int, persist bool) *writer {
	w := newWriter(d.store.Stream(stream), d.log.With("stream", stream), writerLimits{packRecords, packBytes, waiting})
	w.persist = persist
	w.wrote = d.metrics.wrote(stream)
	w.saveFirst = d.saveFirst
	if stream != bus.Events { // an event that was stored is routed, whatever its publisher was told
		w.strays = func(first, last uint64) { d.removeStrays(w.stream, stream, first, last) }
	}
	return w
}

// removeStrays removes packs whose write was repeated because its answer got lost.
func (d *Dispatcher) removeStrays(s bus.Stream, name string, first, last uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), savePatience)
	defer cancel()
	var seqs []uint64
	for seq := first; seq <= last; seq++ {
		seqs = append(seqs, seq)
	}
	if err := s.Remove(ctx, seqs...); err != nil {
		d.log.Warn("what was written twice stays in the store, and may be delivered twice", "stream", name, "first", first, "last", last, "err", err)
	}
}

// Start recovers what the log holds and begins to route and to deliver. Stop it
// even when it fails.
func (d *Dispatcher) Start(ctx context.Context, t Table) error {
	d.writersByName(func(_ string, w *writer) {
		// A writer is ended by stop alone: what was submitted is always answered.
		d.writers.Go(func() { w.run(context.Background()) })
	})
	d.writers.Go(func() { d.remover.run(context.Background()) })
	d.started.Store(true)
	heads, err := d.recover(ctx)
	if err != nil {
		return fmt.Errorf("recover the state: %w", err)
	}
	d.recovered = true
	if d.dedup != nil {
		if err := d.dedup.recover(ctx, d.router.stream, d.now()); err != nil {
			return fmt.Errorf("read back the events that dedup remembers: %w", err)
		}
	}
	if err := d.Reload(ctx, t); err != nil {
		return err
	}
	d.background.Go(func() { d.recoverLater(heads) })
	d.background.Go(func() { d.retries.run(d.intake) })
	d.background.Go(func() { d.router.run(d.intake) })
	d.background.Go(func() { d.keepState(d.intake) })
	d.background.Go(func() { d.sweep(d.intake) })
	d.background.Go(func() { d.keepRetention(d.intake) })
	d.background.Go(func() { d.conserve(d.intake) })
	d.background.Go(func() { d.keepLanes(d.intake) })
	return d.jobs.recover(ctx)
}

// writersByName visits the writers under the names of their streams.
func (d *Dispatcher) writersByName(visit func(stream string, w *writer)) {
	visit(bus.Events, d.eventWriter)
	visit(bus.Backlog, d.backlogWriter)
	visit(bus.Retries, d.retryWriter)
	visit(bus.DeadLetters, d.deadWriter)
}

// heads are the last packs of the streams at the start: what is not newer was
// left by an earlier process.
type heads struct{ retries, dead bus.StreamInfo }

func (d *Dispatcher) recover(ctx context.Context) (h heads, err error) {
	events, err := d.router.stream.Info(ctx)
	if err != nil {
		return h, err
	}
	d.router.head, d.router.first = events.Last, events.First
	d.passage.begin(events.Last)
	if h.retries, err = d.retryStream.Info(ctx); err != nil {
		return h, err
	}
	if h.dead, err = d.dead.stream.Info(ctx); err != nil {
		return h, err
	}
	d.dead.head = h.dead.Last
	backlog, err := d.backlogStream.Info(ctx)
	if err != nil {
		return h, err
	}
	d.backlogHead = backlog.Last
	for w, info := range map[*writer]bus.StreamInfo{d.eventWriter: events, d.backlogWriter: backlog, d.retryWriter: h.retries, d.deadWriter: h.dead} {
		w.head.Store(info.Last)
	}
	if err := d.restore(ctx); err != nil {
		return h, err
	}
	if err := d.restoreLeaseKey(ctx); err != nil {
		return h, err
	}
	if err := d.restoreHolds(ctx); err != nil {
		return h, err
	}
	d.restoreHistory(ctx)
	waiting, err := d.backlogStream.Keys(ctx)
	if err != nil {
		return h, err
	}
	since := d.contents[bus.Backlog].since()
	for _, l := range d.allLanes() {
		l.recovered(waiting[l.name], since[l.name])
	}
	for sink, packs := range waiting {
		if d.laneNamed(sink) == nil {
			d.lane(sink).recovered(packs, since[sink])
		}
	}
	return h, nil
}

// recovered begins with a backlog of so many packs. Of their events none is older than
// since says.
func (l *lane) recovered(packs int, since time.Time) {
	l.oldPacks, l.oldFrom = packs, since
	l.spillover = packs > 0
	l.old = max(l.old, packs)
	if packs == 0 {
		l.old = 0
	}
}

// recoverLater reads what need not be known before the first delivery.
func (d *Dispatcher) recoverLater(h heads) {
	if h.retries.Packs > 0 && !d.untilDone("retries", func() error { return d.retries.recover(d.intake, h.retries.Last) }) {
		return
	}
	d.retriesKnown.Store(true)
	d.warnUnchosen()
	for _, l := range d.allLanes() {
		l.wake()
	}
	if h.dead.Packs > 0 {
		d.untilDone("dead letters", func() error { return d.dead.recover(d.intake, h.dead.Last) })
	}
}

// untilDone does something until it succeeds. False means that the bus is stopping.
func (d *Dispatcher) untilDone(what string, do func() error) bool {
	for d.intake.Err() == nil {
		err := do()
		if err == nil {
			return true
		}
		d.log.Error("cannot recover everything; trying again", "what", what, "err", err)
		pause(d.intake, time.Second)
	}
	return false
}

// Reload replaces what the dispatcher works with. When it fails, nothing has
// changed but that the new sinks of t are closed.
func (d *Dispatcher) Reload(_ context.Context, t Table) error {
	d.reload.Lock()
	defer d.reload.Unlock()
	next, err := d.build(t)
	if err == nil {
		err = d.checkRemoved(t)
	}
	if err == nil && !d.calls.enter() {
		err = bus.ErrClosed
	} else if err == nil {
		defer d.calls.leave()
	}
	if err != nil {
		for _, s := range t.Sinks {
			d.closeSink(s.Name, s.Sink)
		}
		return err
	}
	keep := map[string]bool{}
	for _, s := range t.Sinks {
		keep[s.Name] = true
		if s.Sink != nil {
			d.lane(s.Name).configure(d.newLaneConf(s))
		}
	}
	d.routing.Store(next)
	d.metrics.keepRules(next.ruleStats)
	for _, l := range d.allLanes() {
		if !keep[l.name] {
			l.configure(d.removedConf(next.removal(l.name)))
		}
	}
	return nil
}

// build makes the routing of a table without changing anything that runs.
func (d *Dispatcher) build(t Table) (*routing, error) {
	known := map[string]bool{}
	for _, s := range t.Sinks {
		known[s.Name] = true
		if l := d.laneNamed(s.Name); s.Sink == nil && (l == nil || !l.configured()) {
			return nil, fmt.Errorf("sink %q is not running and none was given", s.Name)
		}
		if _, ok := s.Sink.(sinks.BatchSink); s.Sink != nil && s.Options.Batch.on() && !ok {
			return nil, fmt.Errorf("sink %q: its kind cannot take batches: leave batch out", s.Name)
		}
	}
	for _, s := range t.Sinks {
		for _, to := range []string{s.Options.OnSuccess, s.Options.OnFailure} {
			if s.Sink != nil && to != "" && !known[to] {
				return nil, fmt.Errorf("sink %q reports to %q, which is no sink", s.Name, to)
			}
		}
	}
	next := &routing{version: t.Version, transforms: transformsOf(t.Routes), retain: t.Retain, removal: t.removal}
	for _, r := range t.Routes {
		for _, to := range r.To {
			if !known[to] {
				return nil, fmt.Errorf("rule %q goes to %q, which is no sink", r.Name, to)
			}
		}
	}
	for _, to := range t.Unmatched {
		if !known[to] {
			return nil, fmt.Errorf("unmatched events go to %q, which is no sink", to)
		}
	}
	var err error
	if next.Matcher, err = NewMatcher(t.Routes); err != nil {
		return nil, err
	}
	for _, r := range t.Routes {
		next.lanes = append(next.lanes, d.lanesOf(r.To))
		next.ruleStats = append(next.ruleStats, d.metrics.rule(r.Name))
	}
	next.unmatched = d.lanesOf(t.Unmatched)
	return next, nil
}

func (d *Dispatcher) lanesOf(names []string) (lanes []*lane) {
	for _, name := range names {
		if l := d.lane(name); !slices.Contains(lanes, l) {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

func (d *Dispatcher) newLaneConf(s SinkSpec) *laneConf {
	c := &laneConf{sink: s.Sink, options: s.Options, policy: NewPolicy(s.Options, rand.Float64)}
	c.deadlines = deadlines{parent: d.attempts, time: time.Duration(s.Options.Timeout)}
	if q, ok := s.Sink.(sinks.Puller); ok {
		pull := q.Pull()
		c.pull, c.policy, c.options.Lease = &pull, pullPolicy(pull), value.Duration(maxLease)
	}
	c.current, c.cancel = context.WithCancel(d.attempts)
	if perSecond := s.Options.Rate.PerSecond(); perSecond > 0 {
		c.limiter = rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/10)))
	}
	return c
}

// sweepEvery is how often the lanes are looked over for what takes too long.
const sweepEvery = 100 * time.Millisecond

// sweep looks the lanes over while events are on their way, until ctx ends.
func (d *Dispatcher) sweep(ctx context.Context) {
	for {
		if n, _ := d.events.load(); n == 0 {
			select {
			case <-d.router.stir:
			case <-ctx.Done():
				return
			}
		}
		pause(ctx, sweepEvery)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		d.mu.RLock()
		for _, l := range d.lanes {
			l.sweep(now)
		}
		d.mu.RUnlock()
	}
}

// wakeAt lets a lane look again at a time.
func (d *Dispatcher) wakeAt(l *lane, at time.Time) {
	time.AfterFunc(time.Until(at), l.wake)
}

func (l *lane) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.stopped {
		l.refresh()
	}
}

// closeUnused closes a retired sink once the last attempt has left it. The caller
// holds the lock of its lane.
func (d *Dispatcher) closeUnused(c *laneConf) {
	if c.retired && c.users == 0 && c.sink != nil {
		sink := c.sink
		c.sink = nil
		d.work.Go(func() { d.closeSink("", sink) })
	}
}

func (d *Dispatcher) closeSink(name string, s sinks.Sink) {
	if closer, ok := s.(io.Closer); ok {
		if err := closer.Close(); err != nil {
			d.log.Warn("cannot close a sink", "sink", name, "err", err)
		}
	}
}

// abandoned hears that a delivery could not be given a new record, which happens
// only while the bus shuts down: the old record still covers it.
func (d *Dispatcher) abandoned(dv *delivery, err error) {
	d.log.Debug("left for the next start", "event_id", dv.event.ID(), "sink", dv.sink, "rule", dv.rule, "err", err)
}

// damaged reports a record that cannot be read.
func (d *Dispatcher) damaged(stream string, pos bus.Position, err error) {
	if err == nil {
		err = errors.New("its checksum is wrong")
	}
	d.metrics.damaged.WithLabelValues(stream).Inc()
	d.log.Error("a record in the store is damaged and lost", "stream", stream, "position", pos.String(), "err", err)
}

// Stop ends the engine: publishers get bus.ErrClosed at once, what is under way
// may end until ctx does and is then cut off. Everything unfinished stays in the
// log for the next start. The log itself stays open.
func (d *Dispatcher) Stop(ctx context.Context) error {
	var err error
	d.stop.Do(func() { err = d.shutdown(ctx) })
	return err
}

func (d *Dispatcher) shutdown(ctx context.Context) error {
	if !d.started.Load() {
		return nil // there is nothing to end, and nothing to save
	}
	d.eventWriter.stop()
	d.awaits.end() // a reply could not be stored any more
	d.stopIntake()
	d.background.Wait()
	for _, l := range d.allLanes() {
		l.stop()
	}
	cut := context.AfterFunc(ctx, func() {
		d.cutAttempts()
		for _, w := range []*writer{d.backlogWriter, d.retryWriter, d.deadWriter} {
			w.hurry()
		}
	})
	d.calls.close() // they start work
	d.jobs.wait()
	d.work.Wait()
	cut()
	d.cutAttempts()
	d.crew.all.Wait()
	for _, w := range []*writer{d.backlogWriter, d.retryWriter, d.deadWriter} {
		w.stop()
	}
	var err error
	if d.recovered {
		err = d.commit(context.Background())
	}
	d.remover.stop()
	d.writers.Wait()
	for _, l := range d.allLanes() {
		l.close()
	}
	d.work.Wait()
	if !d.recovered || err != nil {
		return err
	}
	d.saveHistory(context.Background())
	return d.commit(context.Background()) // of what was removed
}

func (d *Dispatcher) newLedger(stream string, ordered bool) *ledger {
	l := newLedger(stream, ordered)
	l.dirty = func() { signal(d.dirty) }
	return l
}

// signal wakes who waits on c, which holds one signal.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
