package cli

import (
	"slices"
	"testing"

	"sluice/config"
)

// TestPlanTellsWhatWaits looks at sinks that go away while deliveries wait.
func TestPlanTellsWhatWaits(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("test", []byte(`
sinks: {a: {stdout: {}}}
rules: {all: {match: {type: [{exists: true}]}, to: [a]}}
removed_sinks: {drop: drop, keep: keep, dead: dead_letter}
`), newRig("").kinds)
	if err != nil {
		t.Fatal(err)
	}
	now := sideOf("test", c)
	old := sideOf("test", c)
	old.sinks = map[string]sinkSide{"a": {version: ""}, "drop": {waiting: 1}, "keep": {waiting: 2}, "dead": {waiting: 3000}, "open": {waiting: 4}, "idle": {}}
	p := compareSides(old, now, c)
	var got []string
	for _, gone := range p.Removed {
		got = append(got, gone.Name+": "+join(gone.Details, "nothing"))
	}
	want := []string{
		"dead: 3,000 deliveries wait for it: removed_sinks makes them dead letters",
		"drop: 1 delivery waits for it: removed_sinks discards them",
		"idle: nothing",
		"keep: 2 deliveries wait for it: removed_sinks keeps them until the sink is back",
		"open: 4 deliveries wait for it: the server will refuse this config until removed_sinks says keep, dead_letter or drop",
	}
	if !slices.Equal(got, want) || !p.Changes {
		t.Errorf("got %q", got)
	}
	if len(p.Changed) != 1 || p.Changed[0].Details[0] != "the server does not tell whether its settings differ" {
		t.Errorf("got %+v", p.Changed)
	}
}
