package app_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/cmd/internal/app/apptest"
)

// Two buses that hand every event on to each other: each event ends in one dead letter
// that says why, after as many hops as there may be.
func TestTwoBusesInALoop(t *testing.T) {
	t.Parallel()
	const config = "sinks:\n  other: {sluice: {url: %q}%s}\nrules:\n  all: {match: {type: [{exists: true}]}, to: [other]}\n"
	one := apptest.Start(t, "sinks:\n  none: {stdout: {}}\n")
	two := apptest.Start(t, fmt.Sprintf(config, one.URL(), ", batch: {max: 10}"))
	one.WriteConfig(fmt.Sprintf(config, two.URL(), ""))
	if r := one.Reload(t.Context()); !r.OK {
		t.Fatalf("%+v", r)
	}
	const events = 20
	for i := range events {
		one.MustPublish(fmt.Sprint("e", i), "made", "{}")
	}
	var dead deadLetters
	apptest.Eventually(t, "each event is a dead letter", func() bool {
		dead = deadLetters{}
		for _, n := range []*apptest.Node{one, two} {
			var page deadLetters
			n.Get("/api/v1/dead-letters?limit=100", &page)
			dead.DeadLetters = append(dead.DeadLetters, page.DeadLetters...)
		}
		return len(dead.DeadLetters) >= events
	})
	for _, d := range dead.DeadLetters {
		if d.Reason != "loop" {
			t.Errorf("%s: the reason is %q", d.Event.ID, d.Reason)
		}
	}
	// The first bus gets an event with 0, 2, … 16 hops, and ends it.
	if len(dead.DeadLetters) != events || !strings.Contains(one.Logs.String(), "was handed on 16 times and would be again") {
		t.Errorf("%d dead letters of %d events", len(dead.DeadLetters), events)
	}
}
