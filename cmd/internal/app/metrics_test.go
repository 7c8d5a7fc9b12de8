package app_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sluice/bus"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
	"sluice/config/value"
	"sluice/sources"
)

// metricsOf are the counters and gauges of a bus: each series as
// name{label="value"}, and the sum of all series under the name.
func metricsOf(t *testing.T, n *apptest.Node) map[string]float64 {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(n.Do("GET", "/metrics", "").Body)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			got[name] += v
			if labels := labelsOf(m); labels != "" {
				got[name+"{"+labels+"}"] = v
			}
		}
	}
	return got
}

func labelsOf(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.GetLabel() {
		pairs = append(pairs, l.GetName()+`="`+l.GetValue()+`"`)
	}
	return strings.Join(pairs, ",")
}

// What a running bus shows is in good form, and everything that people go by is there.
func TestMetrics(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, apptest.Status(400))
	n := apptest.Start(t, toOne(f, ""), apptest.OnDisk(t.TempDir()))
	n.MustPublish("1", "order", `{}`)
	n.Publish("", "order", `{}`)
	apptest.Eventually(t, "a dead letter", func() bool { return n.Bus().Balance().Dead == 1 })
	text := string(n.Do("GET", "/metrics", "").Body)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for _, name := range []string{
		"sluice_events_accepted_total", "sluice_events_routed_total", "sluice_events_unmatched_total", "sluice_rule_matches_total",
		"sluice_ingest_events_total", "sluice_deliveries_total", "sluice_delivery_attempts_total",
		"sluice_delivery_attempt_duration_seconds_bucket", "sluice_sink_backlog_deliveries", "sluice_sink_backlog_oldest_age_seconds",
		"sluice_sink_in_flight_deliveries", "sluice_sink_retries_waiting", "sluice_sink_breaker_open", "sluice_sink_unauthorized", "sluice_sink_dead_letters",
		"sluice_dead_letters_total", "sluice_store_bytes", "sluice_store_free_bytes", "sluice_config_last_reload_successful",
		"sluice_config_last_reload_success_timestamp_seconds", "sluice_build_info", "go_goroutines", "process_start_time_seconds",
	} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("there is no %s", name)
		}
	}
	if got := metricsOf(t, n)[`sluice_ingest_events_total{outcome="invalid",source="(ingest)"}`]; got != 1 {
		t.Errorf("%v invalid events", got)
	}
}

// lagging is a source that is behind, by an hour.
type lagging struct {
	env   sources.Env
	begun chan struct{}
}

func (l *lagging) Validate() value.Faults { return nil }

func (l *lagging) Open(_ context.Context, env sources.Env) (sources.Source, error) {
	l.env = env
	return l, nil
}

func (l *lagging) Run(ctx context.Context, _ bus.Publisher) error {
	l.begun <- struct{}{}
	<-ctx.Done()
	return nil
}

func (l *lagging) Lag() (sources.Lag, bool) {
	return sources.Lag{Records: 3, Bytes: 4096, Age: time.Hour}, true
}

// What is shown of a source follows what becomes of it.
func TestSourceMetrics(t *testing.T) {
	t.Parallel()
	l := &lagging{begun: make(chan struct{}, 2)}
	f := apptest.NewFunction(t, nil)
	n := apptest.Start(t, toOne(f, "")+"sources: {late: {lagging: {}}}\n", func(o *app.Options) {
		o.Kinds.Sources = append(o.Kinds.Sources, sources.Kind{Name: "lagging", Doc: "Lags.", New: func() sources.Settings { return l }})
	})
	<-l.begun
	want := func(when string, values map[string]float64) {
		t.Helper()
		got := metricsOf(t, n)
		for name, v := range values {
			series := "sluice_source_" + name + `{kind="lagging",source="late"}`
			if value, shown := got[series]; !shown || value != v {
				t.Errorf("%s: %s is %v (%v), want %v", when, series, value, shown, v)
			}
		}
	}
	want("at the start", map[string]float64{"up": 1, "paused": 0, "dead_letters": 0, "lag_records": 3, "lag_bytes": 4096, "lag_seconds": 3600})
	last := `sluice_source_last_event_timestamp_seconds{kind="lagging",source="late"}`
	if got, shown := metricsOf(t, n)[last]; shown {
		t.Errorf("before the first event: %s is %v", last, got)
	}
	l.env.Observe(sources.Accepted, 1)
	if got := metricsOf(t, n)[last]; time.Since(time.Unix(int64(got), 0)) > time.Minute {
		t.Errorf("after an event: %s is %v", last, got)
	}
	if err := l.env.Reject(t.Context(), sources.Rejected{ID: "1", Data: []byte("{")}); err != nil {
		t.Fatal(err)
	}
	l.env.Report(errors.New("the connection is lost"))
	want("in trouble", map[string]float64{"up": 0, "paused": 0, "dead_letters": 1})
	l.env.Report(nil)
	want("well again", map[string]float64{"up": 1})
	var answer map[string]any
	n.Post("/api/v1/sources/late/pause", "", &answer)
	apptest.Eventually(t, "it is paused", func() bool {
		return metricsOf(t, n)[`sluice_source_paused{kind="lagging",source="late"}`] == 1
	})
	want("paused", map[string]float64{"up": 0, "paused": 1})
	n.Post("/api/v1/sources/late/resume", "", &answer)
	<-l.begun
	want("resumed", map[string]float64{"up": 1, "paused": 0, "dead_letters": 1})
}
