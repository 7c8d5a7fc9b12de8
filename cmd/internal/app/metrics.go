package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/cmd/internal/api"
	"sluice/sources"
)

// metrics are those of the process around the bus; the bus registers its own.
type metrics struct {
	registry   *prometheus.Registry
	ingest     *prometheus.CounterVec
	restarts   *prometheus.CounterVec
	reloadOK   prometheus.Gauge
	reloadTime prometheus.Gauge
}

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		ingest: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_ingest_events_total", Help: "Events that came to a door, by source and outcome.",
		}, []string{"source", "outcome"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_source_restarts_total", Help: "How often a source failed and was started again.",
		}, []string{"source"}),
		reloadOK: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_last_reload_successful", Help: "1 when the last attempt to read the config succeeded, 0 when the config before it still runs.",
		}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_config_last_reload_success_timestamp_seconds", Help: "When the config was last read successfully.",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sluice_build_info", Help: "Always 1; the label says which version runs.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	m.registry.MustRegister(m.ingest, m.restarts, m.reloadOK, m.reloadTime, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.reloaded(true)
	return m
}

func (m *metrics) reloaded(ok bool) {
	if !ok {
		m.reloadOK.Set(0)
		return
	}
	m.reloadOK.Set(1)
	m.reloadTime.Set(float64(time.Now().UnixNano()) / 1e9)
}

// forget removes the series of a source.
func (m *metrics) forget(source string) {
	m.ingest.DeletePartialMatch(prometheus.Labels{"source": source})
	m.restarts.DeleteLabelValues(source)
}

// observe counts what became of events at the door of a source.
func (m *metrics) observe(source string) func(sources.Outcome, int) {
	counters := map[sources.Outcome]prometheus.Counter{}
	for _, o := range sources.Outcomes() {
		counters[o] = m.ingest.WithLabelValues(source, string(o))
	}
	return func(outcome sources.Outcome, events int) {
		if c := counters[outcome]; c != nil {
			c.Add(float64(events))
		}
	}
}

// sourceCollector shows how the sources are doing that run now.
type sourceCollector struct{ sources func() []api.Source }

// sourceMetric is one gauge of every source; ok is false where it has no value.
type sourceMetric struct {
	desc  *prometheus.Desc
	value func(api.Source) (v float64, ok bool)
}

// sourceMetrics is the table of the gauges.
func sourceMetrics() []sourceMetric {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_source_"+name, help, []string{"source", "kind"}, nil)
	}
	is := func(state string) func(api.Source) (float64, bool) {
		return func(s api.Source) (float64, bool) {
			if s.State == state {
				return 1, true
			}
			return 0, true
		}
	}
	lag := func(value func(*api.SourceLag) float64) func(api.Source) (float64, bool) {
		return func(s api.Source) (float64, bool) {
			if s.Lag == nil {
				return 0, false
			}
			return value(s.Lag), true
		}
	}
	return []sourceMetric{
		{desc("up", "1 when the source runs and has no trouble."), is(api.SourceRunning)},
		{desc("paused", "1 when the source is paused by hand."), is(api.SourcePaused)},
		{desc("dead_letters", "Dead letters of input that could not become an event."), func(s api.Source) (float64, bool) {
			return float64(s.DeadLetters), true
		}},
		{desc("last_event_timestamp_seconds", "When the source last took an event."), func(s api.Source) (float64, bool) {
			return float64(s.LastEvent.UnixNano()) / 1e9, !s.LastEvent.IsZero()
		}},
		{desc("lag_records", "Records that upstream has and the bus does not, where the source can know."), lag(func(l *api.SourceLag) float64 { return float64(l.Records) })},
		{desc("lag_bytes", "The same in bytes, where the source can know."), lag(func(l *api.SourceLag) float64 { return float64(l.Bytes) })},
		{desc("lag_seconds", "The age of the oldest of them, where the source can know."), lag(func(l *api.SourceLag) float64 { return l.AgeSeconds })},
	}
}

// Describe is prometheus.Collector.Describe.
func (c sourceCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range sourceMetrics() {
		descs <- m.desc
	}
}

// Collect is prometheus.Collector.Collect.
func (c sourceCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.sources() {
		for _, m := range sourceMetrics() {
			if v, ok := m.value(s); ok {
				out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, v, s.Name, s.Kind)
			}
		}
	}
}
