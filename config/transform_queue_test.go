package config_test

import (
	"strings"
	"testing"

	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

// A queue gives out the event itself: a transform on the way there is told.
func TestTransformToQueueWarns(t *testing.T) {
	t.Parallel()
	opts := config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds()}
	cfg, err := config.Parse("a.yaml", []byte(`
sinks: {jobs: {queue: {}}, out: {stdout: {}}}
rules:
  all: {match: {type: [x]}, to: [jobs, out], transform: {input: {a: 1}}}
`), opts)
	if err != nil {
		t.Fatal(err)
	}
	if text := cfg.Warnings.Error(); len(cfg.Warnings) != 1 || !strings.Contains(text, `rules.all.transform: warning: is not applied for "jobs"`) {
		t.Errorf("warnings: %s", text)
	}
}
