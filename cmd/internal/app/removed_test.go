package app_test

import (
	"strings"
	"testing"

	"sluice/cmd/internal/app/apptest"
)

// TestSinkRemovedOverARestart takes out a sink with a backlog while the bus is down:
// /readyz?verbose tells of it until somebody has said what becomes of that.
func TestSinkRemovedOverARestart(t *testing.T) {
	t.Parallel()
	dir, f := t.TempDir(), apptest.NewFunction(t, apptest.Status(503))
	n := apptest.Start(t, toOne(f, ""), apptest.OnDisk(dir))
	n.Do("POST", "/api/v1/sinks/hook/pause", "")
	n.MustPublish("1", "a", "{}")
	apptest.Eventually(t, "it waits on disk", func() bool { return n.Bus().Balance().Backlog == 1 && n.Bus().Unsettled() == 0 })
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	const says = "hook is not in the config, and 1 deliveries wait for it: put it back, or write removed_sinks: {hook: keep | dead_letter | drop}"
	for yaml, told := range map[string]bool{"sinks: {}\n": true, "removed_sinks: {hook: keep}\n": false} {
		n := apptest.Start(t, yaml, apptest.OnDisk(dir))
		ready := n.Do("GET", "/readyz?verbose", "")
		if ready.Status != 200 || strings.Contains(string(ready.Body), says) != told {
			t.Errorf("%s: %d %s", yaml, ready.Status, ready.Body)
		}
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
