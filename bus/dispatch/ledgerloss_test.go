package dispatch_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
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

// unreadable is a log of which an entry of the table of state is damaged.
type unreadable struct {
	bus.Log
	key string
}

// State implements bus.Log.
func (u unreadable) State(ctx context.Context, key string) ([]byte, error) {
	if key == u.key {
		return nil, fmt.Errorf("state %s: %w", key, bus.ErrDamaged)
	}
	return u.Log.State(ctx, key)
}

// TestUnreadableState starts over a store with a paused sink in which one entry of the
// table of state cannot be read: the bus starts and says so, and the sink stays paused.
func TestUnreadableState(t *testing.T) {
	t.Parallel()
	for key, says := range map[string]string{
		"hold.f":    "why a sink is held cannot be read any more",
		"lease-key": "the key of the receipts cannot be read any more",
		"ledgers":   "what is settled is not known any more",
		"job.":      "what is kept of a job cannot be read any more",
	} {
		t.Run(key, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f, store := newFar(nil), memlog.New(memlog.Options{})
				d := start(t, store, one(t, spec("f", f, nil)))
				if err := d.Pause(t.Context(), "f", ""); err != nil {
					t.Fatal(err)
				}
				d.publish(names("e", 10)...)
				job, err := d.Replay(t.Context(), dispatch.Replay{DryRun: true})
				if err != nil {
					t.Fatal(err)
				}
				pass(time.Second)
				d.stop()
				if key == "job." {
					key += job.ID
				}
				d, log, _ := watchedStart(t, unreadable{store, key}, one(t, spec("f", f, nil)))
				defer d.stop()
				pass(time.Minute)
				if s := d.Sinks()[0]; s.State != dispatch.StatePaused || f.attempts() > 0 || !strings.Contains(log.String(), says) {
					t.Errorf("%+v, %d attempts:\n%s", s, f.attempts(), log)
				}
				if err := d.Resume(t.Context(), "f"); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				if d.settled(); f.count() != 10 || f.attempts() != 10 {
					t.Errorf("%d events arrived in %d attempts", f.count(), f.attempts())
				}
			})
		})
	}
}
