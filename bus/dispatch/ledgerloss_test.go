package dispatch_test

import (
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
)

// TestLostLedgers starts over a store that has events and no ledgers: nothing is lost,
// what waits comes once, what comes in does not wait, and it is said what is done.
func TestLostLedgers(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{bus.Backlog, bus.Retries} {
		t.Run(stream, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				const n = 80
				dead, well := newFar(nil), newFar(nil)
				store, table := waiting(t, n, stream, nil, dead, well, dispatch.Retention{})
				if err := store.PutState(t.Context(), "ledgers", nil); err != nil {
					t.Fatal(err)
				}
				tries := dead.attempts()
				d, log, _ := watchedStart(t, store, table)
				defer d.stop()
				d.publish(names("new.", 2)...)
				pass(2 * time.Minute)
				d.settled()
				// Which part of a pack was settled went with the ledgers: what the breaker had
				// let through comes from there once more.
				if got := dead.attempts() - tries; dead.count() != n+2 || got > n+2+5 {
					t.Errorf("what waited, and the new events: %d arrived, in %d attempts, want %d", dead.count(), got, n+2)
				}
				if got := well.count(); got != n+2 {
					t.Errorf("the other sink has %d of the events, want %d", got, n+2)
				}
				if got := well.attempts(); got != 2*n+2 {
					t.Errorf("the other sink got %d deliveries, want each of the old ones once again: %d", got, 2*n+2)
				}
				job := d.LostJobs()[0]
				if !job.Unsure() || !strings.Contains(job.Note, "offered again of the retained events") || job.Sent != n {
					t.Errorf("%+v", job)
				}
				if len(d.Faults()) != 1 || !strings.Contains(log.String(), "what is settled is not known any more") {
					t.Errorf("%v\n%s", d.Faults(), log)
				}
			})
		})
	}
}
