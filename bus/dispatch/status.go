package dispatch

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
	"sluice/sinks"
)

// SinkStatus is how one sink is doing now.
type SinkStatus struct {
	Name        string
	State       string        // one of the State constants
	Hold        *Hold         // why it is paused or disabled
	Concurrency int           // attempts that may run at the same time
	Queued      int           // in memory, waiting for their turn
	InFlight    int           // attempts under way
	Backlog     int           // on disk, not read yet
	OldestAge   time.Duration // of what is queued or in the backlog
	Retries     int           // waiting for their next attempt
	DeadLetters int
	Delivered   int64 // since the start
	LastOK      time.Time
	LastError   string
	LastErrorAt time.Time
	Connection  *sinks.Connection // nil for a kind that holds none
}

// Waiting is how many deliveries wait for the sink.
func (s *SinkStatus) Waiting() int { return s.Backlog + s.Retries + s.Queued }

// The states of a sink.
const (
	StateActive  = "active"
	StatePaused  = "paused"       // by hand
	StateGone    = "gone"         // it answered 410
	StateBroken  = "breaker_open" // it keeps failing
	StateRemoved = "removed"      // not in the config; its backlog is kept
) // and StateUnauthorized

// Sinks tells how every sink is doing, by name. One that was taken out is there as long
// as something waits for it, it is held, or it has dead letters.
func (d *Dispatcher) Sinks() []SinkStatus {
	all, dead := d.laneStatuses()
	for name, n := range dead {
		all = append(all, SinkStatus{Name: name, State: StateRemoved, DeadLetters: n})
	}
	slices.SortFunc(all, func(a, b SinkStatus) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// laneStatuses are those of the sinks that have a lane; dead are the numbers of dead
// letters of others.
func (d *Dispatcher) laneStatuses() (all []SinkStatus, dead map[string]int) {
	dead = d.dead.bySink()
	for _, l := range d.allLanes() {
		all = append(all, l.status())
		delete(dead, l.name)
	}
	return all, dead
}

func (l *lane) status() SinkStatus {
	s := SinkStatus{
		Name: l.name, State: StateActive, Retries: l.d.retries.count(l.name), DeadLetters: l.d.dead.total(l.name),
		Delivered: l.metrics.live.delivered.Load(), Connection: l.connection(),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Hold, s.Queued, s.InFlight = l.hold, l.queue.len()+len(l.refused)+len(l.closing), len(l.running)
	s.Backlog = l.depth + l.old + l.spilling + l.queue.apart
	s.LastOK, s.LastError, s.LastErrorAt = l.lastOKAt, l.lastErr, l.lastErrAt
	if oldest := l.oldestWaiting(); !oldest.IsZero() {
		s.OldestAge = max(0, l.d.now().Sub(oldest))
	}
	if l.conf != nil {
		s.Concurrency = l.limit()
	}
	switch {
	case l.conf == nil, l.conf.removed:
		s.State = StateRemoved
	case l.hold != nil && l.hold.Reason == HoldGone:
		s.State = StateGone
	case l.hold != nil:
		s.State = StatePaused
	case l.breaker.open:
		s.State = StateBroken
	case l.logins.unauthorized():
		s.State = StateUnauthorized
	}
	return s
}

// RuleStatus is what a rule has done since the start.
type RuleStatus struct {
	Name      string
	To        []string
	Matches   int64
	LastMatch time.Time

	// Of the events that its pattern matched: for how many where was false, and for
	// how many it had no answer.
	WhereRejections, WhereErrors int64
	LastWhereError               string
}

// Rules lists the rules as they run now.
func (d *Dispatcher) Rules() []RuleStatus {
	table := d.routing.Load()
	all := make([]RuleStatus, len(table.routes))
	for i, r := range table.routes {
		s := table.ruleStats[i]
		all[i] = RuleStatus{
			Name: r.Name, To: r.To, Matches: s.count.Load(),
			WhereRejections: s.rejections.Load(), WhereErrors: s.whereErrs.Load(),
		}
		if text := s.lastErr.Load(); text != nil {
			all[i].LastWhereError = *text
		}
		if last := s.last.Load(); last > 0 {
			all[i].LastMatch = time.Unix(0, last)
		}
	}
	return all
}

// Routes are the rules as they run now, with their patterns.
func (d *Dispatcher) Routes() []Route { return d.routing.Load().routes }

// Match tells which rules match an event now, and which sinks it would go to.
func (d *Dispatcher) Match(e bus.Event) (Routed, error) {
	table := d.routing.Load()
	return table.Route(e, table.unmatchedSinks())
}

func (r *routing) unmatchedSinks() (names []string) {
	for _, l := range r.unmatched {
		names = append(names, l.name)
	}
	return names
}

// Version is the version of the config that runs now.
func (d *Dispatcher) Version() string { return d.routing.Load().version }

// Balance is the sum that must come out even: every delivery that came into
// being was delivered, is a dead letter, was discarded, was damaged in the store, or
// is open somewhere that can be named. It counts what this process has seen.
type Balance struct {
	Entered, Delivered, Dead, Discarded, Damaged int64

	Queued, Running, Spilling, Backlog, Retries int64
}

// Open is what has not ended.
func (b Balance) Open() int64 { return b.Queued + b.Running + b.Spilling + b.Backlog + b.Retries }

// Lost is the difference of the two sides: 0 when nothing has vanished.
func (b Balance) Lost() int64 {
	return b.Entered - b.Delivered - b.Dead - b.Discarded - b.Damaged - b.Open()
}

// Balance adds up all sinks.
func (d *Dispatcher) Balance() Balance {
	lanes, b := d.lanesAndGone()
	for _, l := range lanes {
		b.add(l.balance())
	}
	return b
}

func (b *Balance) add(o Balance) {
	b.Entered += o.Entered
	b.Delivered += o.Delivered
	b.Dead += o.Dead
	b.Discarded += o.Discarded
	b.Damaged += o.Damaged
	b.Queued += o.Queued
	b.Running += o.Running
	b.Spilling += o.Spilling
	b.Backlog += o.Backlog
	b.Retries += o.Retries
}

// balance is that of one sink. A delivery changes its place under the lock, so the
// sum comes out even at any moment.
func (l *lane) balance() Balance {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum()
}

// sum is balance for who holds the lock.
func (l *lane) sum() Balance {
	live, retries := l.metrics.live, 0
	if !l.gone { // or they are those of another lane
		retries = l.d.retries.count(l.name)
	}
	return Balance{
		Entered: live.entered.Load(), Delivered: live.delivered.Load(), Dead: live.dead.Load(),
		Discarded: live.discarded.Load(), Damaged: live.damaged.Load(),
		Queued:  int64(l.queue.len() + len(l.refused) + len(l.closing)),
		Running: int64(len(l.running)), Spilling: int64(l.spilling),
		Backlog: int64(l.depth + l.queue.apart), Retries: int64(retries),
	}
}

// Unsettled is how many events of the log are not settled: those that this process has
// stored and not routed, and those of which a delivery is under way.
func (d *Dispatcher) Unsettled() int {
	behind := d.passage.behind() // before the others: what is routed meanwhile counts twice, and not never
	n, _ := d.events.load()
	return behind + n
}

// Recovering tells that not everything which an earlier process left is read yet: the
// numbers of what waits are too low until it is.
func (d *Dispatcher) Recovering() bool {
	if next := d.router.next.Load(); next == 0 || next <= d.router.head || !d.retriesKnown.Load() {
		return true
	}
	for _, l := range d.allLanes() {
		l.mu.Lock()
		unread := l.oldPacks > 0
		l.mu.Unlock()
		if unread {
			return true
		}
	}
	return false
}

// Usage is how full the store is.
func (d *Dispatcher) Usage() bus.Usage { return d.store.Usage() }

// collector reads the metrics that are states when they are asked for.
type collector struct{ d *Dispatcher }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

const deadLettersHelp = "Dead letters that are kept, by sink; those of sinks that were taken out are (removed)."

// Describe implements prometheus.Collector. It sends nothing: the descriptions
// come with the values (an unchecked collector), because the sinks change.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	put := func(name, help string, v float64, labels ...string) {
		var names []string
		if len(labels) > 0 {
			names = []string{"sink"}
		}
		out <- prometheus.MustNewConstMetric(desc(name, help, names...), prometheus.GaugeValue, v, labels...)
	}
	sinks, removed := c.d.laneStatuses()
	if len(removed) > 0 {
		sum := 0
		for _, n := range removed {
			sum += n
		}
		put("sink_dead_letters", deadLettersHelp, float64(sum), RemovedSinks)
	}
	for _, s := range sinks {
		put("sink_queued_deliveries", "Deliveries in memory that wait for their turn.", float64(s.Queued), s.Name)
		put("sink_in_flight_deliveries", "Attempts under way.", float64(s.InFlight), s.Name)
		put("sink_backlog_deliveries", "Deliveries on disk that wait for the sink.", float64(s.Backlog), s.Name)
		put("sink_backlog_oldest_age_seconds", "Age of the oldest delivery that waits for its turn, in memory or on disk.", s.OldestAge.Seconds(), s.Name)
		put("sink_retries_waiting", "Deliveries that wait for their next attempt.", float64(s.Retries), s.Name)
		put("sink_dead_letters", deadLettersHelp, float64(s.DeadLetters), s.Name)
		put("sink_breaker_open", "1 while the breaker is open.", boolean(s.State == StateBroken), s.Name)
		put("sink_unauthorized", "1 while the sink refuses the credentials that it is given.", boolean(s.State == StateUnauthorized), s.Name)
		if s.Connection != nil {
			put("sink_disconnected", "1 while the far side of a sink that holds a connection cannot be reached.", boolean(s.Disconnected()), s.Name)
		}
		put("sink_held", "1 while the sink is paused or disabled.", boolean(s.Hold != nil), s.Name)
	}
	c.d.routing.Load().collect(out)
	u := c.d.Usage()
	put("store_bytes", "Bytes that the store holds.", float64(u.Stored))
	put("store_limit_bytes", "Bytes that the store may hold.", float64(u.Limit))
	if u.Free >= 0 {
		put("store_free_bytes", "Bytes that are free on the volume of the store.", float64(u.Free))
	}
	put("events_unsettled", "Events on their way that have no other durable record.", float64(c.d.Unsettled()))
	conserved := c.d.Conservation()
	put("conservation_difference_deliveries", "Deliveries that the counters do not account for; 0 when nothing has vanished.", float64(conserved.Deliveries))
	put("conservation_difference_events", "Accepted events that were neither routed nor unmatched, though the router is past them; 0 when nothing has vanished.", float64(conserved.Events))
	put("deliveries_open", "Deliveries that have not ended, of all sinks.", float64(c.d.Balance().Open()))
}

// collect gives the counters of the rules. Those of a where are there once a rule has one.
func (r *routing) collect(out chan<- prometheus.Metric) {
	put := func(name, help string, v *atomic.Int64, rule string) {
		out <- prometheus.MustNewConstMetric(desc(name, help, "rule"), prometheus.CounterValue, float64(v.Load()), rule)
	}
	for i, route := range r.routes {
		s := r.ruleStats[i]
		put("rule_matches_total", "Events that matched, by rule.", &s.count, s.name)
		if route.Where != nil || s.rejections.Load()+s.whereErrs.Load() > 0 {
			put("rule_where_rejections_total", "Events that matched the pattern and for which where was false, by rule.", &s.rejections, s.name)
			put("rule_where_errors_total", "Events that matched the pattern and for which where had no answer, by rule.", &s.whereErrs, s.name)
		}
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
