package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// lose removes packs of a stream behind the back of the bus, as a damaged block does:
// of its n packs those from a share of them up to another.
func lose(t *testing.T, store bus.Log, stream string, from, to float64) {
	t.Helper()
	s := store.Stream(stream)
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	span := float64(info.Last + 1 - info.First)
	for seq := info.First + uint64(from*span); seq < info.First+uint64(to*span); seq++ {
		if err := s.Remove(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
}

// waiting is a store with n events that have reached the sink well, and wait for the
// sink dead in a stream; its process has crashed.
func waiting(t *testing.T, n int, stream string, hook memlog.Hook, dead, well *far, retain dispatch.Retention) (*memlog.Log, dispatch.Table) {
	t.Helper()
	dead.set(always(sinks.Answered(503, nil)))
	table := one(t, spec("dead", dead, func(o *dispatch.Options) {
		if stream == bus.Retries {
			o.Breaker.Failures = 0
			o.Retry = dispatch.Retry{MaxAttempts: 9, Initial: 60e9, Max: 60e9, Multiplier: 1, Jitter: "none", Preset: "default"}
		}
	}), spec("well", well, nil))
	table.Retain = retain
	store := memlog.New(memlog.Options{Hook: hook})
	d := start(t, store, table)
	for i := range n / 4 {
		d.publish(names(fmt.Sprint("e", i, "."), 4)...)
		pass(20 * time.Millisecond)
	}
	pass(3 * time.Second)
	if b := d.Balance(); d.Unsettled() > 0 || well.count() != n || stream == bus.Retries && b.Retries != int64(n) {
		t.Fatalf("before the crash: %+v, %d unsettled", b, d.Unsettled())
	}
	store = store.Restart()
	d.stop()
	dead.set(nil)
	return store, table
}

// TestLostRecordsComeAgain takes packs out of the store between two processes: the
// next one offers what was in them again from the events, to that sink alone, once.
func TestLostRecordsComeAgain(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{bus.Backlog, bus.Retries} {
		for name, share := range map[string][2]float64{"the first": {0, 0.3}, "some": {0.4, 0.6}, "the last": {0.7, 1}, "one": {0.5, 0.53}, "all": {0, 1}} {
			t.Run(stream+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					dead, well := newFar(nil), newFar(nil)
					store, table := waiting(t, 200, stream, nil, dead, well, dispatch.Retention{})
					lose(t, store, stream, share[0], share[1])
					tries := dead.attempts()
					d, log, _ := watchedStart(t, store, table)
					defer d.stop()
					pass(2 * time.Minute)
					d.settled()
					if dead.count() != 200 || dead.attempts()-tries != 200 || well.attempts() != 200 {
						t.Errorf("%d of 200 arrived, in %d attempts; the sink that was well had %d", dead.count(), dead.attempts()-tries, well.attempts())
					}
					if f := d.Faults(); len(f) != 1 || f[0].Stream != stream || f[0].Kind != bus.FaultMissing || !strings.Contains(f[0].Detail, " dead ") {
						t.Errorf("the faults are %v", f)
					}
					jobs := d.LostJobs()
					if len(jobs) != 1 || jobs[0].State != dispatch.JobDone || jobs[0].Gone != 0 || !strings.Contains(jobs[0].Note, fmt.Sprint("offered again: ", jobs[0].Sent)) {
						t.Fatalf("the jobs are %+v", jobs)
					}
					if !strings.Contains(log.String(), "deliveries are lost in the store: they are offered again") {
						t.Errorf("the log says\n%s", log)
					}
				})
			})
		}
	}
}

// TestLostBehindRetention has events that were retained no longer than it took to
// deliver them: what cannot come again is counted, and said.
func TestLostBehindRetention(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dead, well := newFar(nil), newFar(nil)
		store, table := waiting(t, 200, bus.Backlog, nil, dead, well, dispatch.Retention{Age: 3500 * time.Millisecond})
		events, err := store.Stream(bus.Events).Info(t.Context())
		if err != nil || events.Packs == 0 || events.First == 1 {
			t.Fatalf("some events are retained: %+v, %v", events, err)
		}
		lose(t, store, bus.Backlog, 0, 1)
		d, log, _ := watchedStart(t, store, table)
		defer d.stop()
		pass(2 * time.Minute)
		d.settled()
		gone := 200 - dead.count()
		jobs := d.LostJobs()
		if gone == 0 || gone == 200 || len(jobs) != 1 || jobs[0].Gone < gone-10 || jobs[0].Gone > gone+10 {
			t.Errorf("%d are gone, and the jobs are %+v", gone, jobs)
		}
		if !strings.Contains(log.String(), "their events are not there any more") {
			t.Errorf("the log says\n%s", log)
		}
	})
}

// TestRetentionWaitsForWhatIsLost lets a store be so full that what was lost cannot be
// offered again at once: its events stay until it is.
func TestRetentionWaitsForWhatIsLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var full atomic.Bool
		hook := func(_ context.Context, op memlog.Op) error {
			if full.Load() && op.Name == memlog.OpAppend && op.Stream == bus.Backlog && op.When == memlog.Before {
				return bus.ErrFull
			}
			return nil
		}
		dead, well := newFar(nil), newFar(nil)
		store, table := waiting(t, 1000, bus.Backlog, hook, dead, well, dispatch.Retention{Age: time.Minute})
		lose(t, store, bus.Backlog, 0, 1)
		full.Store(true)
		d := start(t, store, table)
		defer d.stop()
		pass(10 * time.Minute)
		full.Store(false)
		pass(time.Minute)
		d.settled()
		if dead.count() != 1000 {
			t.Errorf("%d of 1000 arrived", dead.count())
		}
	})
}

// crashesWhileLost is at how many operations a crash is tried: the last of them come
// after what was lost has come again.
const crashesWhileLost = 150

// TestCrashWhileLostComesAgain crashes at each of the first operations of the process
// that offers again what was lost, before it and after it; once more with a disk that
// then loses what was offered too.
func TestCrashWhileLostComesAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stream string
		twice  bool
	}{"backlog": {bus.Backlog, false}, "retries": {bus.Retries, false}, "backlog twice": {bus.Backlog, true}, "retries twice": {bus.Retries, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for k := 1; k <= crashesWhileLost && !t.Failed(); k++ {
				synctest.Test(t, func(t *testing.T) {
					if !crashWhileLost(t, c.stream, k, c.twice) {
						t.Errorf("no crash at operation %d: the history does nothing", k)
					}
				})
			}
		})
	}
}

func crashWhileLost(t *testing.T, stream string, k int, twice bool) (crashed bool) {
	var mu sync.Mutex
	var process *mortal
	ops := -1 // until the crash
	hook := func(context.Context, memlog.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if ops < 0 {
			return nil
		}
		if ops--; ops > 0 {
			return nil
		}
		ops, crashed = -1, true
		go process.die()
		return memlog.ErrCrash
	}
	crashAt := func(d *dispatch.Dispatcher, k int) *mortal {
		mu.Lock()
		defer mu.Unlock()
		process, ops = newMortal(d), k
		return process
	}
	dead, well := newFar(nil), newFar(nil)
	store, table := waiting(t, 24, stream, hook, dead, well, dispatch.Retention{})
	lose(t, store, stream, 0.3, 0.8)
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	m := crashAt(d, k)
	if err = m.start(t.Context(), table); err == nil {
		pass(2 * time.Minute)
	}
	crashAt(d, -1)
	m.die()
	store = store.Restart()
	if twice {
		lose(t, store, bus.Backlog, 0, 1)
	}
	last := start(t, store, table)
	defer last.stop()
	last.rest(time.Hour)
	if dead.count() != 24 {
		t.Errorf("crash at operation %d: %d of 24 arrived", k, dead.count())
	}
	for _, job := range last.LostJobs() {
		if job.State == dispatch.JobRunning {
			t.Errorf("crash at operation %d: a job is still running: %+v", k, job)
		}
	}
	return crashed
}

// TestNothingIsLostInDamagedStores runs random histories with crashes as
// TestNothingIsLostWhereverItCrashes does, and after each crash some packs of BACKLOG
// and RETRIES are not there any more.
func TestNothingIsLostInDamagedStores(t *testing.T) {
	t.Parallel()
	seen := newCrashPoints()
	for seed := range max(seeds()/3, min(seeds(), 300)) {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(uint64(seed))
				w.cramped, w.seen, w.unsound = true, seen, true // there is no order in what comes again
				w.history(t, uint64(seed), func(store *memlog.Log) {
					random := rand.New(rand.NewPCG(uint64(seed), 2))
					for _, stream := range []string{bus.Backlog, bus.Retries} {
						from := random.Float64()
						lose(t, store, stream, from, from+random.Float64()*(1-from))
					}
				})
			})
		})
	}
}

// TestLostWhileItRuns takes packs away that a bus that runs is about to read.
func TestLostWhileItRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newFar(nil)
		store := memlog.New(memlog.Options{})
		d := start(t, store, one(t, spec("a", a, nil)))
		defer d.stop()
		if err := d.Pause(t.Context(), "a", ""); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			d.publish(names(fmt.Sprint("e", i, "."), 4)...)
			pass(20 * time.Millisecond)
		}
		pass(time.Second)
		lose(t, store, bus.Backlog, 0.5, 1)
		if err := d.Resume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Minute)
		d.settled()
		if a.count() != 80 || a.attempts() != 80 {
			t.Errorf("%d of 80 arrived in %d attempts", a.count(), a.attempts())
		}
	})
}

// TestDamageWithoutEnd has a disk that damages whatever goes to the backlog: the bus
// tries again, and not all the time.
func TestDamageWithoutEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newFar(nil)
		d := start(t, damaging{memlog.New(memlog.Options{}), true}, one(t, spec("a", a, nil)))
		defer d.stop()
		if err := d.Pause(t.Context(), "a", ""); err != nil {
			t.Fatal(err)
		}
		d.publish(names("e", 10)...)
		pass(time.Second)
		if err := d.Resume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		if n := len(d.LostJobs()); n < 10 || n > 61 || a.count() != 9 {
			t.Errorf("%d jobs in 10 minutes for one record that is always damaged; %d of 9 others arrived", n, a.count())
		}
	})
}

// TestLostRedriveComesAgain loses a dead letter's redelivery, and the replay of
// another event: that event is older than its delivery.
func TestLostRedriveComesAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newFar(always(sinks.Answered(400, nil)))
		table := one(t, spec("a", a, nil))
		store := memlog.New(memlog.Options{})
		d := start(t, store, table)
		d.publish("e1", "e2")
		pass(time.Hour)
		err := errors.Join(d.Pause(t.Context(), "a", ""))
		if err == nil {
			_, err = d.Redrive(t.Context(), dispatch.Redrive{})
		}
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		a.set(nil)
		d.stop()
		store = store.Restart()
		lose(t, store, bus.Backlog, 0, 1)
		d = start(t, store, table)
		defer d.stop()
		if err := d.Resume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if a.count() != 2 {
			t.Errorf("%d of 2 arrived", a.count())
		}
	})
}
