package dispatch_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
)

// countedLog counts what is written to a log, and lets each write take its time.
type countedLog struct {
	takes time.Duration
	mu    sync.Mutex
	n     map[string]int // by stream; STATE is the table of state
}

func (c *countedLog) hook(_ context.Context, op memlog.Op) error {
	if op.Name != memlog.OpAppend && op.Name != memlog.OpPutState {
		return nil
	}
	if op.When == memlog.Before {
		<-time.After(c.takes)
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if op.Name == memlog.OpPutState {
		op.Stream = "STATE"
	}
	c.n[op.Stream]++
	return nil
}

func (c *countedLog) written() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}

// writes are the counters of writes, by stream.
func writes(t *testing.T, registry prometheus.Gatherer) map[string]int {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, family := range families {
		if family.GetName() != "sluice_store_writes_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			n[m.GetLabel()[0].GetValue()] = int(m.GetCounter().GetValue())
		}
	}
	return n
}

// TestAnEventIsWrittenOnce counts what is written to the log of a bus whose sinks are
// all well: an event is written once however many of them it goes to, under load many
// share a write, and what is settled is saved at most 20 times a second.
func TestAnEventIsWrittenOnce(t *testing.T) {
	t.Parallel()
	const publishers, each = 8, 25
	for _, fanout := range []int{1, 10, 100} {
		t.Run(fmt.Sprint(fanout, " sinks"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				count := &countedLog{takes: time.Millisecond, n: map[string]int{}}
				var specs []dispatch.SinkSpec
				fars := make([]*far, fanout)
				for i := range fars {
					fars[i] = newFar(nil)
					specs = append(specs, spec(fmt.Sprint("s", i), fars[i], nil))
				}
				d, _, registry := watchedStart(t, memlog.New(memlog.Options{Hook: count.hook}), one(t, specs...))
				defer d.stop()
				begin := time.Now()
				pass(time.Second)
				before := count.written()["STATE"]
				d.publish("alone")
				pass(time.Second)
				if got := count.written(); got[bus.Events] != 1 || got["STATE"]-before != 1 {
					t.Errorf("a lone event took %d writes to EVENTS and %d saves, want one of each", got[bus.Events], got["STATE"]-before)
				}
				var load sync.WaitGroup
				for p := range publishers {
					load.Go(func() {
						for _, id := range names(fmt.Sprintf("p%d.", p), each) {
							d.publish(id)
						}
					})
				}
				load.Wait()
				pass(time.Second)
				const events = publishers*each + 1
				for i, f := range fars {
					if f.count() != events {
						t.Fatalf("sink %d of %d got %d of %d events", i, fanout, f.count(), events)
					}
				}
				d.settled()
				got := count.written()
				t.Logf("%d events to %d sinks: %v", events, fanout, got)
				if got[bus.Events] > events/2 {
					t.Errorf("%d writes for %d events that came %d at a time: they share none", got[bus.Events], events, publishers)
				}
				if n := got[bus.Backlog] + got[bus.Retries] + got[bus.DeadLetters]; n > 0 {
					t.Errorf("%d writes for deliveries that went well", n)
				}
				if most := int(20*time.Since(begin).Seconds()) + 2; got["STATE"] == 0 || got["STATE"] > most {
					t.Errorf("what is settled was saved %d times, want 1 to %d", got["STATE"], most)
				}
				for stream, n := range writes(t, registry) {
					if n != got[stream] {
						t.Errorf("the metric says %d writes to %s, and it was %d", n, stream, got[stream])
					}
				}
				if len(writes(t, registry)) != len(bus.StreamNames())+1 {
					t.Errorf("the metric has %v", writes(t, registry))
				}
			})
		})
	}
}
