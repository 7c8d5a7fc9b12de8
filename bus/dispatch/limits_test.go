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
	"sluice/config/value"
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
		table := func() dispatch.Table {
			return one(t, spec("f", f, func(o *dispatch.Options) { o.Retry.Jitter = "none" }))
		}
		d := start(t, memlog.New(memlog.Options{}), table())
		defer d.stop()
		before := 0
		for second := range 12 {
			d.publish(names(fmt.Sprintf("e%d.", second), 200)...)
			pass(time.Second)
			if err := d.Reload(t.Context(), table()); err != nil { // which saves up nothing
				t.Fatal(err)
			}
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

// A rate is how many attempts start in a time, each of one event or of a batch.
func TestRate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rate     string
		batch    int
		span     time.Duration
		min, max int
	}{
		"one by one":     {rate: "10/s", batch: 1, span: 30 * time.Second, min: 300, max: 301},
		"in batches":     {rate: "10/s", batch: 20, span: 30 * time.Second, min: 300, max: 301},
		"with a burst":   {rate: "100/s", batch: 1, span: 10 * time.Second, min: 1000, max: 1010},
		"many a minute":  {rate: "30/m", batch: 1, span: time.Minute, min: 30, max: 31},
		"few in an hour": {rate: "4/h", batch: 5, span: 2 * time.Hour, min: 8, max: 9},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := &farBatch{far: newFar(nil)}
				limit, err := value.ParseRate(c.rate)
				if err != nil {
					t.Fatal(err)
				}
				d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
					o.Rate, o.Batch.Max = limit, c.batch
				})))
				defer d.stop()
				for i := range c.batch {
					d.publish(names(string(rune('a'+i)), 1200)...)
				}
				pass(c.span)
				if n := f.attempts(); n < c.min || n > c.max || f.count() < (n-2)*c.batch {
					t.Errorf("%d attempts in %v, want %d to %d; %d events", n, c.span, c.min, c.max, f.count())
				}
			})
		})
	}
}

// After an outage, or a pause, a sink is met with one attempt at a time, then two, four, up
// to a half of what it is given, and all of that only after a while.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ broken, restart, resume bool }{
		"after the breaker": {broken: true}, "when the breaker is closed by hand": {broken: true, resume: true},
		"after a pause": {}, "after a pause and a restart": {restart: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f, store := &slowly{}, memlog.New(memlog.Options{})
				f.far = newFar(f.answerLater)
				table := func() dispatch.Table {
					return one(t, spec("f", f, func(o *dispatch.Options) { o.Retry.Jitter = "none" }))
				}
				d := start(t, store, table())
				if c.broken {
					f.fail(errors.New("connection reset"))
				} else if err := d.Pause(t.Context(), "f", ""); err != nil {
					t.Fatal(err)
				}
				d.publish(names("e", 600)...)
				pass(10 * time.Second)
				if c.restart {
					d.stop()
					d = start(t, store.Restart(), table())
					pass(time.Second)
				}
				defer d.stop()
				if s := d.Sinks()[0]; (s.State == dispatch.StateBroken) != c.broken || (s.State == dispatch.StatePaused) == c.broken {
					t.Fatalf("the sink is %s", s.State)
				}
				f.fail(nil)
				if !c.broken || c.resume {
					if err := d.Resume(t.Context(), "f"); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Minute)
				f.checkGrowth(t)
				d.settled()
			})
		})
	}
}

// checkGrowth looks at how the number of attempts at the same time grew to the 32 that
// there may be.
func (f *slowly) checkGrowth(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	full, most := slices.Index(f.taken, 32), 0
	for i, n := range f.taken {
		if n > most+max(1, most) && i > 0 {
			t.Errorf("from %d attempts at the same time to %d", most, n)
		}
		most = max(most, n)
	}
	if f.taken[0] != 1 || full < 100 {
		t.Errorf("%d attempts at first, and 32 at the same time after %d of %d", f.taken[0], full, len(f.taken))
	}
}

// slowly is a far side that takes 100 ms for each event, and notes how many it had at the
// same time as it took one.
type slowly struct {
	*far
	mu    sync.Mutex
	err   error
	now   int
	taken []int
}

func (f *slowly) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *slowly) answerLater(context.Context, sinks.Delivery) error {
	f.mu.Lock()
	f.now++
	f.mu.Unlock()
	<-time.After(100 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.taken = append(f.taken, f.now)
	}
	f.now--
	return f.err
}
