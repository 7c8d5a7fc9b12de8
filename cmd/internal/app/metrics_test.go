package app_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"sluice/cmd/internal/app/apptest"
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

// What a running bus shows is in good form, and everything issue 2 asks for is
// there.
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
		"sluice_sink_in_flight_deliveries", "sluice_sink_retries_waiting", "sluice_sink_breaker_open", "sluice_sink_dead_letters",
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
