package dispatch_test

import (
	"context"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// TestQueueContract holds the queue to what every kind of sink that is fetched from has
// to do. A queue is one in the bus only, so it is tested here.
func TestQueueContract(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T, visibility time.Duration) sinks.Sink {
		s := sinks.NewQueue()
		s.Visibility, s.MaxReceives = value.Duration(visibility), 0
		opened, err := s.Open(t.Context(), sinks.Env{Name: "q"})
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	sinktest.RunPuller(t, open, func(t *testing.T, q sinks.Puller) *sinktest.Queue {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, spec("q", q, nil)) }
		d := start(t, store, table())
		t.Cleanup(func() { d.stop() })
		return &sinktest.Queue{
			Publish: func(t *testing.T, events ...bus.Event) {
				t.Helper()
				results, err := d.pub.Publish(t.Context(), events...)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range results {
					if r.Err != nil {
						t.Fatal(r.Err)
					}
				}
			},
			Receive: func(ctx context.Context, most int) (all []sinktest.Message, err error) {
				got, err := d.Receive(ctx, "q", most, 0)
				for _, m := range got {
					all = append(all, sinktest.Message{ID: m.ID, Receipt: m.Receipt, Receives: m.Receives, Event: m.Event})
				}
				return all, err
			},
			Ack: func(ctx context.Context, receipt string) error { return d.Ack(ctx, receipt)[0] },
			Restart: func(t *testing.T) {
				t.Helper()
				d.stop()
				store = store.Restart()
				d = start(t, store, table())
			},
		}
	})
}
