package app

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

var (
	description = regexp.MustCompile(`fqName: "([a-z0-9_]+)".*constLabels: \{(.*?)\}, variableLabels: \{(.*?)\}`)
	selector    = regexp.MustCompile(`\b(sluice_[a-z0-9_]+)(?:\{(.*?)\})?`)
	labelName   = regexp.MustCompile(`([a-z]+) *(?:=~|!~|!=|=)`)
	suffix      = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// metricsOf gives the labels of every metric that a running bus has, also of those
// that have not counted anything yet.
func metricsOf(t *testing.T) map[string][]string {
	t.Helper()
	c, err := config.Parse("sluice.yaml", []byte(`
sinks: {f: {http: {url: "http://127.0.0.1:1"}}, g: {sluice: {url: "http://127.0.0.1:1"}}}
rules: {all: {match: {type: [{exists: true}]}, to: [f, g]}}
`), config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds()})
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(Options{Config: c, Listen: "127.0.0.1:0", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	found := map[string][]string{}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		a.metrics.registry.Describe(descriptions)
		close(descriptions)
	}()
	for d := range descriptions {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("not understood: %s", d)
		}
		found[m[1]] = strings.Split(m[3], ",")
	}
	// Those that depend on the sinks are described only by their values.
	resp, err := http.Get(a.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range selector.FindAllStringSubmatch(string(text), -1) {
		found[m[1]] = append(found[m[1]], labelsIn(m[2])...)
	}
	return found
}

func labelsIn(selector string) (names []string) {
	for _, m := range labelName.FindAllStringSubmatch(selector, -1) {
		names = append(names, m[1])
	}
	return names
}

// TestDeployedMetrics checks that the alerts and the dashboard ask for metrics and
// labels that there are.
func TestDeployedMetrics(t *testing.T) {
	t.Parallel()
	metrics := metricsOf(t)
	for _, file := range []string{"prometheus/alerts.yml", "grafana/sluice.json"} {
		text, err := os.ReadFile("../../../deploy/" + file)
		if err != nil {
			t.Fatal(err)
		}
		asked := selector.FindAllStringSubmatch(string(text), -1)
		if len(asked) < 10 {
			t.Errorf("%s asks for %d metrics only", file, len(asked))
		}
		for _, m := range asked {
			labels, ok := metrics[suffix.ReplaceAllString(m[1], "")]
			if !ok {
				t.Errorf("%s: there is no metric %s", file, m[1])
			}
			for _, name := range labelsIn(m[2]) {
				// instance and job come from Prometheus.
				if name != "instance" && name != "job" && !slices.Contains(labels, name) {
					t.Errorf("%s: %s has no label %s", file, m[1], name)
				}
			}
		}
	}
}
