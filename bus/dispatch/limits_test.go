package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// failOnce fails each event that is chosen the first time that it comes.
func failOnce(chosen func(id string) bool) func(ids []string) ([]error, error) {
	var mu sync.Mutex
	seen := map[string]bool{}
	return func(ids []string) ([]error, error) {
		mu.Lock()
		defer mu.Unlock()
		failed := make([]error, len(ids))
		for i, id := range ids {
			if chosen(id) && !seen[id] {
				failed[i] = errors.New("the function reported the event as failed")
			}
			seen[id] = true
		}
		return failed, nil
	}
}

// A function that works, and fails a small share of each batch, is within its budget: that
// counts first attempts as it counts retries, by event.
func TestRetriesOfBatchesDrain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &farBatch{far: newFar(nil), judge: failOnce(func(id string) bool { return strings.HasSuffix(id, "7") })}
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, batches(100, 10*time.Millisecond))))
		defer d.stop()
		for i := range 80 {
			d.publish(names(fmt.Sprintf("e%d.", i), 100)...)
			pass(100 * time.Millisecond)
		}
		if waiting := d.Sinks()[0].Retries; waiting < 50 || waiting > 150 {
			t.Errorf("%d retries wait when a hundred fail each second, and come again after one", waiting)
		}
		pass(2 * time.Second)
		if got := f.count(); got != 8000 {
			t.Errorf("%d of 8000 arrived, %d still wait", got, d.Sinks()[0].Retries)
		}
		d.settled()
	})
}

// Retries stay within the share of the first attempts, and ten a second.
func TestRetriesStayWithinTheBudget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		first, again := 0, 0
		f := newFar(func(_ context.Context, d sinks.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if d.Attempt > 1 {
				again++
				return nil
			}
			first++
			if first%2 == 0 {
				return sinks.Answered(503, nil)
			}
			return nil
		})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) { o.Retry.Jitter = "none" })))
		defer d.stop()
		before := 0
		for second := range 12 {
			d.publish(names(fmt.Sprintf("e%d.", second), 200)...)
			pass(time.Second)
			mu.Lock()
			if n := again - before; second > 5 && (n < 45 || n > 52) {
				t.Errorf("second %d: %d retries beside 200 first attempts, want 40 and 10", second, n)
			}
			before = again
			mu.Unlock()
		}
		pass(5 * time.Minute)
		if got := f.count(); got != 2400 {
			t.Errorf("%d of 2400 arrived", got)
		}
		d.settled()
	})
}

// A batch that fails is one write of the log, however many are in it.
func TestFailedBatchIsOneWrite(t *testing.T) {
	t.Parallel()
	every := func(err error) func(ids []string) ([]error, error) {
		return func(ids []string) ([]error, error) { return slices.Repeat([]error{err}, len(ids)), nil }
	}
	for name, c := range map[string]struct {
		judge func(ids []string) ([]error, error)
		want  map[string]int
	}{
		"all of it":  {func([]string) ([]error, error) { return nil, sinks.Answered(503, nil) }, map[string]int{bus.Retries: 1}},
		"one by one": {every(errors.New("failed")), map[string]int{bus.Retries: 1}},
		"rejected":   {every(sinks.Answered(400, nil)), map[string]int{bus.DeadLetters: 1, bus.Backlog: 1}},
		"some of each": {func(ids []string) ([]error, error) {
			failed, _ := every(sinks.Answered(400, nil))(ids)
			for i := range failed {
				if i%2 == 0 {
					failed[i] = errors.New("failed")
				}
			}
			return failed, nil
		}, map[string]int{bus.DeadLetters: 1, bus.Retries: 1, bus.Backlog: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var mu sync.Mutex
				writes := map[string]int{}
				store := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
					if op.Name == memlog.OpAppend && op.When == memlog.Before && op.Stream != bus.Events {
						mu.Lock()
						defer mu.Unlock()
						writes[op.Stream]++
					}
					return nil
				}})
				f := &farBatch{far: newFar(nil), judge: c.judge}
				table := one(t, spec("f", f, func(o *dispatch.Options) {
					batches(100, time.Second)(o)
					o.OnFailure = "reports"
				}))
				table.Sinks = append(table.Sinks, spec("reports", newFar(nil), nil))
				d := start(t, store, table)
				defer d.stop()
				d.publish(names("e", 100)...)
				pass(500 * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				if f.attempts() != 1 || !maps.Equal(writes, c.want) {
					t.Errorf("%d attempts, writes of the log: %v, want %v", f.attempts(), writes, c.want)
				}
			})
		})
	}
}
