package dispatch

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
)

// metrics are the counters of the engine. What has a state rather than a history
// is read from the lanes when it is asked for: see collector.go.
type metrics struct {
	accepted     *prometheus.CounterVec
	refused      *prometheus.CounterVec
	deduplicated *prometheus.CounterVec
	recovered    prometheus.Counter
	routed       prometheus.Counter
	unmatched    prometheus.Counter
	matchErrors  prometheus.Counter
	damaged      *prometheus.CounterVec
	lost         *prometheus.CounterVec
	entered      *prometheus.CounterVec
	deliveries   *prometheus.CounterVec
	attempts     *prometheus.CounterVec
	spilled      *prometheus.CounterVec
	purged       *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	age          *prometheus.HistogramVec
	writes       *prometheus.CounterVec
	records      *prometheus.CounterVec
	writeTime    *prometheus.HistogramVec
	deadReasons  *prometheus.CounterVec

	mu    sync.Mutex
	rules map[string]*ruleStat
}

// How a delivery came to a lane: the label "from" of sluice_deliveries_entered_total.
const (
	fromEvent   = "event"
	fromStore   = "store" // left by an earlier process
	fromRedrive = "redrive"
	fromReplay  = "replay"
	fromReport  = "report" // of another delivery
	fromLoss    = "loss"   // of its record in the store
)

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "sluice", Name: name, Help: help}, labels)
	}
	single := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "sluice", Name: name, Help: help})
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "sluice", Name: name, Help: help, Buckets: buckets}, labels)
	}
	return &metrics{
		accepted:     counter("events_accepted_total", "Events that were stored durably, by source.", "source"),
		deduplicated: counter("events_deduplicated_total", "Events that were published before within the window of dedup, by source.", "source"),
		refused:      counter("events_refused_total", "Events that the store did not take, by source and reason.", "source", "reason"),
		recovered:    single("events_recovered_total", "Events that an earlier process had accepted and not settled."),
		routed:       single("events_routed_total", "Events that at least one rule matched."),
		unmatched:    single("events_unmatched_total", "Events that no rule matched."),
		matchErrors:  single("match_errors_total", "Events that the rules could not be applied to."),
		damaged:      counter("records_damaged_total", "Records that were unreadable in the store, by stream.", "stream"),
		lost:         counter("lost_deliveries_total", "Deliveries whose records the store has lost, by outcome: offered again, or gone because their events are not retained.", "outcome"),
		entered:      counter("deliveries_entered_total", "Deliveries that came into being, by rule, sink and where from.", "rule", "sink", "from"),
		deliveries:   counter("deliveries_total", "Deliveries that ended, by rule, sink and outcome.", "rule", "sink", "outcome"),
		attempts:     counter("delivery_attempts_total", "Attempts at a delivery, by sink and class of the result.", "sink", "class"),
		spilled:      counter("deliveries_spilled_total", "Deliveries that went through the backlog, by sink.", "sink"),
		purged:       counter("dead_letters_purged_total", "Dead letters that were removed without being delivered, by sink and cause (by hand, or expired).", "sink", "cause"),
		duration: histogram("delivery_attempt_duration_seconds", "How long one attempt took, by sink.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900}, "sink"),
		age: histogram("delivery_age_seconds", "Time from the acceptance of an event to its delivery, by sink.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 30, 60, 300, 1800, 3600, 21600, 86400}, "sink"),
		writes:  counter("store_writes_total", "Packs written, by stream; of STATE the saves of what is settled, held and under way.", "stream"),
		records: counter("store_records_total", "Records written, by stream.", "stream"),
		writeTime: histogram("store_write_duration_seconds", "How long one write took, by stream.",
			[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5}, "stream"),
		deadReasons: counter("dead_letters_total", "Deliveries that became dead letters, by sink and reason.", "sink", "reason"),
		rules:       map[string]*ruleStat{},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		m.accepted, m.refused, m.deduplicated, m.recovered, m.routed, m.unmatched, m.matchErrors, m.damaged, m.lost,
		m.entered, m.deliveries, m.attempts, m.spilled, m.purged, m.duration, m.age, m.writes, m.records,
		m.writeTime, m.deadReasons,
	}
}

// refusal is the label of an error of the store.
func refusal(err error) string {
	switch {
	case errors.Is(err, bus.ErrFull):
		return "full"
	case errors.Is(err, bus.ErrOverloaded):
		return "overloaded"
	case errors.Is(err, bus.ErrClosed):
		return "closed"
	case errors.Is(err, bus.ErrTooLarge):
		return "too_large"
	}
	return "unavailable"
}

// wrote counts the packs of one stream.
func (m *metrics) wrote(stream string) func(records, bytes int, took time.Duration, err error) {
	writes, records, took := m.writes.WithLabelValues(stream), m.records.WithLabelValues(stream), m.writeTime.WithLabelValues(stream)
	return func(n, _ int, d time.Duration, err error) {
		if err == nil {
			writes.Inc()
			records.Add(float64(n))
			took.Observe(d.Seconds())
		}
	}
}

// stateTable is the label of what is put into the table of state.
const stateTable = "STATE"

// countedLog counts what is put into the table of state, as the writers count what
// they write.
type countedLog struct {
	bus.Log
	wrote func(records, bytes int, took time.Duration, err error)
}

// PutState is bus.Log.
func (l countedLog) PutState(ctx context.Context, key string, value []byte) error {
	start := time.Now()
	err := l.Log.PutState(ctx, key, value)
	l.wrote(1, len(value), time.Since(start), err)
	return err
}

// laneMetrics are the counters of one sink, looked up once.
type laneMetrics struct {
	m        *metrics
	sink     string
	spilled  prometheus.Counter
	duration prometheus.Observer
	age      prometheus.Observer
	ok       prometheus.Counter
	live     *liveCounts
	series   *laneSeries
}

// laneSeries are the series of a sink that have further labels.
type laneSeries struct {
	mu  sync.Mutex
	all map[seriesLabels]prometheus.Counter
}

type seriesLabels struct {
	vec   *prometheus.CounterVec
	ruled bool // it has a rule
	rule  string
	value string
}

// liveCounts add up what came into a lane and what ended there, for the check
// that nothing vanishes: entered = delivered + dead + discarded + damaged + open.
// They change under the lock of the lane, together with the place of the delivery:
// so whoever holds that lock sees a sum that comes out even.
type liveCounts struct {
	entered, delivered, dead, discarded atomic.Int64

	damaged atomic.Int64 // their record was unreadable when its turn came
}

func (m *metrics) lane(sink string) laneMetrics {
	l := laneMetrics{
		m: m, sink: sink,
		spilled:  m.spilled.WithLabelValues(sink),
		duration: m.duration.WithLabelValues(sink),
		age:      m.age.WithLabelValues(sink),
		live:     &liveCounts{},
		series:   &laneSeries{all: map[seriesLabels]prometheus.Counter{}},
	}
	l.ok = l.by(m.attempts, "ok")
	return l
}

func (s seriesLabels) values(sink string) []string {
	if s.ruled {
		return []string{s.rule, sink, s.value}
	}
	return []string{sink, s.value}
}

// by is a counter by sink and one more label, and byRule one by rule, sink and one more.
func (l *laneMetrics) by(vec *prometheus.CounterVec, value string) prometheus.Counter {
	return l.counter(seriesLabels{vec: vec, value: value})
}

func (l *laneMetrics) byRule(vec *prometheus.CounterVec, rule, value string) prometheus.Counter {
	return l.counter(seriesLabels{vec, true, rule, value})
}

func (l *laneMetrics) counter(labels seriesLabels) prometheus.Counter {
	l.series.mu.Lock()
	defer l.series.mu.Unlock()
	c := l.series.all[labels]
	if c == nil {
		c = labels.vec.WithLabelValues(labels.values(l.sink)...)
		l.series.all[labels] = c
	}
	return c
}

// forget removes every series of the sink.
func (l *laneMetrics) forget() {
	l.m.spilled.DeleteLabelValues(l.sink)
	l.m.duration.DeleteLabelValues(l.sink)
	l.m.age.DeleteLabelValues(l.sink)
	l.series.mu.Lock()
	defer l.series.mu.Unlock()
	for labels := range l.series.all {
		labels.vec.DeleteLabelValues(labels.values(l.sink)...)
	}
}

// entered counts a delivery that came into being. The caller holds the lock of the
// lane and gives the delivery its place before it lets go.
func (l *laneMetrics) entered(rule, from string) {
	l.live.entered.Add(1)
	l.byRule(l.m.entered, rule, from).Inc()
}

func (l *laneMetrics) attempt(class string, took time.Duration) {
	l.duration.Observe(took.Seconds())
	if class == "ok" {
		l.ok.Inc()
		return
	}
	l.by(l.m.attempts, class).Inc()
}

func (l *laneMetrics) delivered(rule string, age time.Duration) {
	l.age.Observe(age.Seconds())
	l.byRule(l.m.deliveries, rule, "delivered").Inc()
}

func (l *laneMetrics) buried(rule, reason string) {
	l.byRule(l.m.deliveries, rule, "dead_lettered").Inc()
	l.by(l.m.deadReasons, reason).Inc()
}

func (l *laneMetrics) discarded(rule string) {
	l.byRule(l.m.deliveries, rule, "discarded").Inc()
}

// ruleStat outlives reloads, so that a rule keeps its history as long as it is there.
type ruleStat struct {
	name  string
	count atomic.Int64
	last  atomic.Int64 // unix nanoseconds

	// What where kept from matching.
	rejections, whereErrs atomic.Int64
	lastErr               atomic.Pointer[string]
}

// rule is the stat of a rule.
func (m *metrics) rule(name string) *ruleStat {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.rules[name]
	if s == nil {
		s = &ruleStat{name: name}
		m.rules[name] = s
	}
	return s
}

// keepRules forgets the rules that are not among these.
func (m *metrics) keepRules(stats []*ruleStat) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules = make(map[string]*ruleStat, len(stats))
	for _, s := range stats {
		m.rules[s.name] = s
	}
}

func (r *ruleStat) matched(at time.Time) {
	r.count.Add(1)
	r.last.Store(at.UnixNano())
}

// rejected counts a where that was false.
func (r *ruleStat) rejected() { r.rejections.Add(1) }

// failed counts a where that has no answer, and tells whether the reason is
// another than the last time.
func (r *ruleStat) failed(err error) bool {
	r.whereErrs.Add(1)
	text := err.Error()
	last := r.lastErr.Swap(&text)
	return last == nil || *last != text
}
