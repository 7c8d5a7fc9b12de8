package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/config"
	"sluice/sinks"
)

// besides loads a config of one sink of two lines, and gives what is said about it.
func besides(kind, option string) (said []string) {
	yaml := fmt.Sprintf("sinks:\n  a:\n    %s\n    %s\nrules:\n  r: {match: {type: [x]}, to: [a]}\n", kind, option)
	c, err := config.Parse("sluice.yaml", []byte(yaml), realKinds())
	if err != nil {
		return strings.Split(err.Error(), "\n")
	}
	for _, f := range c.Warnings {
		said = append(said, f.String())
	}
	return said
}

// An option that does nothing beside a kind is a fault: nobody is left to think that
// it does.
func TestOptionsThatAKindIgnores(t *testing.T) {
	t.Parallel()
	const hook = `http: {url: "http://127.0.0.1:9000/"}`
	for _, c := range []struct{ kind, option, want string }{
		{"queue: {}", "retry: {max_attempts: 3}", "sluice.yaml:4:5: sinks.a.retry: does nothing beside queue: leave it out; `sluice kinds queue` lists what that goes by"},
		{"queue: {}", "timeout: 5s", "sluice.yaml:4:5: sinks.a.timeout: does nothing beside queue"},
		{"queue: {}", "concurrency: 3", "sluice.yaml:4:5: sinks.a.concurrency: does nothing beside queue"},
		{"queue: {}", "rate: 5/s", "sluice.yaml:4:5: sinks.a.rate: does nothing beside queue"},
		{"queue: {}", "breaker: {failures: 0}", "sluice.yaml:4:5: sinks.a.breaker: does nothing beside queue"},
		{"queue: {}", "replies: ignore", "sluice.yaml:4:5: sinks.a.replies: does nothing beside queue"},
		{"queue: {}", "lease: 1h", "sluice.yaml:4:5: sinks.a.lease: does nothing beside queue"},
		{"queue: {}", "startup_grace: 1m", "sluice.yaml:4:5: sinks.a.startup_grace: does nothing beside queue"},
		{"queue: {}", "verdicts: {404: retry}", "sluice.yaml:4:5: sinks.a.verdicts: does nothing beside queue"},
		{"queue: {}", "on_success: a", "sluice.yaml:4:5: sinks.a.on_success: does nothing beside queue"},
		{"queue: {}", "batch: {max: 10}", "sluice.yaml:4:5: sinks.a.batch: does nothing beside queue"},
		{"stdout: {}", "batch: {max: 10}", "sluice.yaml:4:5: sinks.a.batch: does nothing beside stdout"},
		{"file: {path: events.ndjson}", "batch: {max: 10}", "sluice.yaml:4:5: sinks.a.batch: does nothing beside file"},
		{hook, "batch: {max: 10}", ""},
		{hook, "batch: {max: 10}\n    replies: publish", "sluice.yaml:5:5: sinks.a.replies: warning: events in the answer to a batch are not published"},
		{hook, "batch: {max: 1}\n    replies: publish", ""},
		{hook, "batch: {max: 10}\n    replies: ignore", ""},
		{hook, "batch: {max: 10}\n    on_success: a", "sluice.yaml:5:17: sinks.a.on_success: does not go with batch"},
		{"queue: {}", "order_by: subject", ""}, {"queue: {}", "on_failure: a", ""}, {"queue: {}", "spill_after: 2s", ""},
		{"queue: {}", "order_by: subject\n    on_poison: block", ""}, {"stdout: {}", "retry: {max_attempts: 3}", ""},
	} {
		said := besides(c.kind, c.option)
		if c.want == "" && len(said) > 0 || c.want != "" && (len(said) != 1 || !strings.HasPrefix(said[0], c.want)) {
			t.Errorf("%s with %s: %q, want %q", c.kind, c.option, said, c.want)
		}
	}
}

// What the table of kinds says that one ignores are options.
func TestIgnoredOptionsAreOptions(t *testing.T) {
	t.Parallel()
	var options []string
	for _, o := range config.SinkOptions() {
		options = append(options, o.Key)
	}
	for _, k := range sinks.Kinds() {
		for _, key := range k.Ignores {
			if !slices.Contains(options, key) {
				t.Errorf("%s ignores %q, which is no option", k.Name, key)
			}
		}
	}
}
