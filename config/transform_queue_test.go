package config_test

import (
	"strings"
	"testing"

	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

// A queue gives out what a transform makes of an event. What it does to a request is a
// fault there, and only there.
func TestTransformToQueue(t *testing.T) {
	t.Parallel()
	opts := config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds()}
	for _, c := range []struct{ to, transform, fault string }{
		{"[jobs, out]", "{input: {a: 1}}", ""},
		{"[jobs, out]", `{paths: {a: $.id}, template: "<a>"}`, ""},
		{"[out]", "{http: {path: /x}}", ""},
		{"[out, jobs]", "{input: 1, http: {path: /x}}", `a.yaml:4:74: rules.all.transform.http: makes a request, and "jobs" is a queue`},
		{"[jobs]", "{http: {query: {a: b}}}", "rules.all.transform.http: makes a request"},
		{"[jobs]", "{http: {headers: {A: b}}}", "rules.all.transform.http: makes a request"},
	} {
		cfg, err := config.Parse("a.yaml", []byte(`
sinks: {jobs: {queue: {}}, out: {stdout: {}}}
rules:
  all: {match: {type: [x]}, to: `+c.to+`, transform: `+c.transform+`}
  other: {match: {type: [y]}, to: [out, jobs]}
`), opts)
		switch {
		case c.fault == "" && (err != nil || len(cfg.Warnings) > 0):
			t.Errorf("%s: %v", c.transform, err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %v, want %s", c.transform, err, c.fault)
		}
	}
}
