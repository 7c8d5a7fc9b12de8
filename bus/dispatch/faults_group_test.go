package dispatch_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// TestGroupsKeepOrder goes through random histories of a queue with groups: whatever
// crashes, nobody sees a message before those of its group that were accepted earlier
// were acknowledged.
func TestGroupsKeepOrder(t *testing.T) {
	t.Parallel()
	seen := newCrashPoints()
	t.Cleanup(func() { t.Logf("%d crashes at %d kinds of points", seen.total, len(seen.at)) })
	for seed := range max(seeds()/6, 1) {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { groups(t, uint64(seed), seen) })
		})
	}
}

func groups(t *testing.T, seed uint64, seen *crashPoints) {
	w := newWorld(seed)
	w.cramped, w.seen = false, seen
	table := func() dispatch.Table {
		return one(t, queueSpec(t, "q", func(q *sinks.Queue) { q.MaxReceives = 0 }, func(o *dispatch.Options) { o.OrderBy = "subject" }))
	}
	accepted, done := map[string][]string{}, map[string]bool{}
	store := memlog.New(memlog.Options{Hook: w.hook})
	for life := range 4 {
		w.arm([]int{300, 300, 300, 0}[life])
		d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		m := newMortal(d)
		w.runs(m)
		if err := m.start(t.Context(), table()); err == nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			var all sync.WaitGroup
			all.Go(func() {
				for i := range 12 {
					id, key := fmt.Sprintf("l%d.%d", life, i), strconv.Itoa(w.n("publisher", 2))
					_, err := d.Publisher("test").Publish(ctx, keyed(t, id, key))
					w.mu.Lock()
					if err == nil {
						accepted[key] = append(accepted[key], id)
					}
					w.mu.Unlock()
					<-time.After(time.Duration(w.n("publisher", 2000)) * time.Millisecond)
				}
			})
			for c := range 2 {
				all.Go(func() { w.inOrder(ctx, t, d, fmt.Sprint("consumer ", c), accepted, done) })
			}
			all.Wait()
			cancel()
		}
		w.runs(nil)
		m.die()
		store = store.Restart()
	}
	for _, ids := range accepted {
		for _, id := range ids {
			if !done[id] {
				t.Errorf("seed %d: %s was accepted and never acknowledged", seed, id)
			}
		}
	}
}

// inOrder consumes, and checks what may be seen.
func (w *world) inOrder(ctx context.Context, t *testing.T, d *dispatch.Dispatcher, who string, accepted map[string][]string, done map[string]bool) {
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, 5*time.Second)
		got, err := d.Receive(wait, "q", 3, 3*time.Second)
		cancel()
		if err != nil {
			return
		}
		for _, m := range got {
			w.mu.Lock()
			for _, before := range accepted[m.Event.Subject()] {
				if before == m.Event.ID() {
					break
				}
				// What was not answered as accepted is in no list, and has no place.
				if !done[before] && slices.Contains(accepted[m.Event.Subject()], m.Event.ID()) {
					t.Errorf("%s is seen before %s was acknowledged", m.Event.ID(), before)
				}
			}
			w.mu.Unlock()
			<-time.After(time.Duration(w.n(who, 1500)) * time.Millisecond)
			receipt := []string{m.Receipt}
			switch w.n(who, 6) {
			case 0:
				d.Nack(ctx, time.Duration(w.n(who, 3))*time.Second, receipt...)
				continue
			case 1:
				continue
			case 2:
				d.Extend(ctx, 5*time.Second, receipt...)
			}
			w.mu.Lock()
			done[m.Event.ID()] = true
			w.mu.Unlock()
			_ = d.Ack(ctx, receipt...)
		}
	}
}
