package app

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

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
