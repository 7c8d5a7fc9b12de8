package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"sluice/bus"
	"sluice/rules"
)

// The names that stand in place of a rule's. No rule can be called so.
const (
	UnmatchedRule = "(unmatched)" // the delivery of an event that no rule matched
	ReplayRule    = "(replay)"    // a replay that was given its sinks
)

// Route is one rule and the sinks that its events go to.
type Route struct {
	Name      string
	Pattern   rules.Pattern
	Where     *rules.Where     // nil: the pattern alone decides
	Transform *rules.Transform // nil: the event itself is sent
	To        []string
}

// routing is what the router works with: replaced whole by a reload.
type routing struct {
	version string
	*Matcher
	lanes      [][]*lane                   // by rule
	transforms map[string]*rules.Transform // by the name of the rule
	unmatched  []*lane
	ruleStats  []*ruleStat
	retain     Retention
	removal    func(sink string) string // of a sink that is not in the table: see Table.removal
}

// target is one (rule, sink) that an event goes to.
type target struct {
	rule string
	lane *lane
}

// targets appends where an event goes: nothing when no rule matches and there is
// no sink for that.
func (r *routing) targets(e bus.Event, hits []int, to []target) []target {
	for _, hit := range hits {
		for _, l := range r.lanes[hit] {
			to = append(to, target{r.routes[hit].Name, l})
		}
	}
	if len(hits) == 0 {
		for _, l := range r.unmatched {
			to = append(to, target{UnmatchedRule, l})
		}
	}
	return to
}

// How much the router may have on its way at once. Beyond it the router waits:
// the events are safe in the log.
const (
	windowEvents = 16384
	windowBytes  = 64 << 20
)

// router reads the log in order, matches each event once, and offers what
// follows to the lanes.
type router struct {
	d      *Dispatcher
	books  *ledger
	stream bus.Stream
	head   uint64        // the last pack that was there at the start
	first  uint64        // the first one
	next   atomic.Uint64 // the pack that is routed next; 0 before run
	room   chan struct{}
	stir   chan struct{} // something is on its way

	counted int // of the pack under way: events that count as routed, unmatched or damaged
	hits    []int
	misses  []Miss
	to      []target
}

func newRouter(d *Dispatcher) *router {
	r := &router{d: d, books: d.events, stream: d.store.Stream(bus.Events), room: make(chan struct{}, 1), stir: make(chan struct{}, 1)}
	r.books.freed = func() { signal(r.room) }
	return r
}

// run routes until ctx ends.
func (r *router) run(ctx context.Context) {
	var reader bus.Reader
	from := max(r.books.floor(), r.first)
	r.next.Store(from)
	for ctx.Err() == nil {
		var err error
		if reader == nil {
			reader, err = r.stream.Read(ctx, "", from)
		}
		var pack bus.Pack
		if err == nil {
			pack, err = reader.Next(ctx)
		}
		if err == nil {
			if r.awaitRoom(ctx) {
				r.skipped(from, pack.Seq)
				r.routePack(pack)
				from = pack.Seq + 1
				r.next.Store(from)
			}
			continue
		}
		if reader != nil {
			_ = reader.Close()
			reader = nil
		}
		if ctx.Err() == nil && !errors.Is(err, bus.ErrClosed) {
			r.d.log.Warn("cannot read the log; trying again", "err", err)
			pause(ctx, time.Second)
		} else if ctx.Err() == nil {
			<-ctx.Done()
		}
	}
	if reader != nil {
		_ = reader.Close()
	}
}

// skipped reports packs that should have come before one. The numbers of EVENTS
// follow one another, and nothing goes that the router has not routed.
func (r *router) skipped(from, next uint64) {
	if next <= from {
		return
	}
	r.d.metrics.damaged.WithLabelValues(bus.Events).Add(float64(next - from))
	r.d.log.Error("events are missing in the store and lost: `sluice doctor` tells more", "stream", bus.Events, "packs", next-from,
		"first", from, "last", next-1)
}

// awaitRoom waits while too much is on its way. False means that ctx ended.
func (r *router) awaitRoom(ctx context.Context) bool {
	for ctx.Err() == nil {
		events, bytes := r.books.load()
		if events < windowEvents && bytes < windowBytes {
			return true
		}
		select {
		case <-r.room:
		case <-ctx.Done():
		}
	}
	return false
}

func (r *router) routePack(pack bus.Pack) {
	size := 0
	for _, rec := range pack.Records {
		size += len(rec)
	}
	r.books.begin(pack.Seq, len(pack.Records), size)
	r.books.forget(pack.Seq)
	signal(r.stir)
	table := r.d.routing.Load()
	r.counted = 0
	for i, rec := range pack.Records {
		pos := bus.Position{Seq: pack.Seq, Index: i}
		if r.books.settled(pos) {
			continue // known from before a restart
		}
		if pack.Seq <= r.head {
			r.d.metrics.recovered.Inc()
		}
		event, err := bus.DecodeRecord(rec)
		if rec == nil || err != nil {
			r.d.damaged(bus.Events, pos, err)
			r.counted++
			r.books.settle(pos)
			continue
		}
		r.route(table, event, pos, pack.Time)
	}
	r.books.read(pack.Seq)
	r.d.passage.passed(pack.Seq, r.counted)
}

// route matches one event and offers it to the lanes.
func (r *router) route(table *routing, event bus.Event, pos bus.Position, accepted time.Time) {
	var err error
	r.hits, r.misses, err = table.match(event, r.hits[:0], r.misses[:0])
	if err != nil {
		// An event was validated at the door, so this is a fault of ours. It is
		// kept from vanishing: it counts as unmatched, loudly.
		r.d.metrics.matchErrors.Inc()
		r.d.log.Error("cannot match an event", "event_id", event.ID(), "source", event.Source(), "err", err)
		r.hits = r.hits[:0]
	}
	for _, hit := range r.hits {
		table.ruleStats[hit].matched(accepted)
	}
	for i := range r.misses {
		r.d.missed(table.ruleStats[r.misses[i].index], &r.misses[i], event)
	}
	r.counted++
	if len(r.hits) == 0 {
		r.d.metrics.unmatched.Inc()
	} else {
		r.d.metrics.routed.Inc()
	}
	r.to = table.targets(event, r.hits, r.to[:0])
	r.d.fates.accepted(event, pos, accepted, table, r.hits, r.misses)
	r.d.history.accepted(event, pos, accepted, table, r.hits, r.misses)
	r.books.start(pos, len(r.to))
	for _, t := range r.to {
		id := deliveryID(event, t.rule, t.lane.name, "")
		if b := (branch{t.rule, t.lane.name}); r.books.branchSettled(pos, b) { // before a crash
			r.books.settleBranch(pos, b)
			continue
		}
		t.lane.admit(&delivery{
			event: event, id: id, rule: t.rule, sink: t.lane.name,
			accepted: accepted, origin: origin{r.books, pos}, shaped: table.shapes(t.rule),
		})
	}
}

// missed counts a rule whose where did not match.
func (d *Dispatcher) missed(stat *ruleStat, m *Miss, event bus.Event) {
	if m.Err == nil {
		stat.rejected()
		return
	}
	if stat.failed(m.Err) { // the first, or another than before: the log is not flooded
		d.log.Warn("where has no answer: the rule does not match; the counters tell how often", "event_id", event.ID(),
			"source", event.Source(), "rule", m.Rule, "err", m.Err)
	}
}
