package dispatch_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
)

// TestRemovedSinkNeedsAChoice takes out a sink for which deliveries wait.
func TestRemovedSinkNeedsAChoice(t *testing.T) {
	t.Parallel()
	for choice, want := range map[string]struct{ dead, back int }{
		dispatch.RemovedKeep:       {0, 50},
		dispatch.RemovedDeadLetter: {50, 0},
		dispatch.RemovedDrop:       {0, 0},
	} {
		t.Run(choice, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f, other := newFar(nil), newFar(nil)
				d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil), spec("other", other, nil)))
				defer d.stop()
				if err := d.Pause(t.Context(), "f", ""); err != nil {
					t.Fatal(err)
				}
				d.publish(names("e", 50)...)
				pass(time.Second)
				without := one(t, dispatch.SinkSpec{Name: "other"})
				if err := d.Reload(t.Context(), without); err == nil || !strings.Contains(err.Error(), "removed_sinks: {f: keep}") {
					t.Fatalf("taking out a sink with a backlog: %v", err)
				}
				without.Removed = map[string]string{"f": choice}
				if err := d.Reload(t.Context(), without); err != nil {
					t.Fatal(err)
				}
				if err := d.Resume(t.Context(), "f"); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				d.balanced()
				letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{Sink: "f"}, bus.Position{}, 100)
				if err != nil || len(letters) != want.dead {
					t.Fatalf("%d dead letters, want %d, error %v", len(letters), want.dead, err)
				}
				if err := d.Reload(t.Context(), one(t, spec("f", f, nil), dispatch.SinkSpec{Name: "other"})); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				if f.count() != want.back {
					t.Fatalf("%d events arrived when the sink was back, want %d", f.count(), want.back)
				}
				d.publish("new")
				synctest.Wait()
				if f.times("new") != 1 || other.count() != 51 {
					t.Fatal("deliveries stopped")
				}
				d.settled()
			})
		})
	}
}

// TestSinkThatIsRemovedOverARestart takes out a sink with a backlog while the bus is
// down: it starts, and says once per sink what waits and what to write.
func TestSinkThatIsRemovedOverARestart(t *testing.T) {
	t.Parallel()
	for choice, said := range map[string]int{"": 1, dispatch.RemovedKeep: 0} {
		for _, stream := range []string{bus.Backlog, bus.Retries} {
			t.Run(stream+"/"+choice, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					dead, well := newFar(nil), newFar(nil)
					store, _ := waiting(t, 40, stream, nil, dead, well, dispatch.Retention{})
					table := one(t, spec("well", well, nil))
					if choice != "" {
						table.Removed = map[string]string{"dead": choice}
					}
					d, log, _ := watchedStart(t, store, table)
					defer d.stop()
					pass(time.Second)
					if n := strings.Count(log.String(), "removed_sinks: {dead: keep | dead_letter | drop}"); n != said {
						t.Errorf("said %d times, want %d:\n%s", n, said, log)
					}
					all := d.Unchosen()
					if len(all) != said || said > 0 && (all[0].Name != "dead" || all[0].Waiting() < 30) {
						t.Errorf("%+v", all)
					}
				})
			})
		}
	}
}
