package dispatch_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// script is one small history with two sinks, step by step. The log crashes at
// an operation that is given by its number; then the next process goes on with
// the step that was cut short, as an operator would.
type script struct {
	t       *testing.T
	seen    *crashPoints
	a, b    *far
	table   func() dispatch.Table
	d       *dispatch.Dispatcher
	acked   []string
	made    map[string]int  // the rank of each event
	poison  map[string]bool // rejected once: what comes of it later has no order
	dropped bool            // what waited for b may have been discarded

	mu      sync.Mutex
	step    string
	crashAt []int // operations until the next crashes, one for each process
	crashed bool
	running *mortal
}

func (s *script) runs(m *mortal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = m
}

type scriptStep struct {
	name string
	do   func(*script)
}

// slowAppend is longer than the ledgers take to be saved: what is settled before
// its new record is durable is then saved as settled, and lost by a crash.
const slowAppend = 120 * time.Millisecond

func (s *script) hook(_ context.Context, op memlog.Op) error {
	if op.Name == memlog.OpAppend && op.When == memlog.Before {
		<-time.After(slowAppend)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.crashAt) == 0 || s.crashed {
		return nil
	}
	if s.crashAt[0]--; s.crashAt[0] > 0 {
		return nil
	}
	s.crashAt = s.crashAt[1:]
	s.crashed = true
	s.seen.add(op, " in "+s.step)
	if s.running != nil {
		go s.running.die()
	}
	return memlog.ErrCrash
}

// down tells whether the log has crashed, and lets the next process begin.
func (s *script) down() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.crashed
	s.crashed = false
	return was
}

func (s *script) at(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step = step
}

func (s *script) both() dispatch.Table {
	return one(s.t, spec("a", s.a, orderBySubject), spec("b", s.b, nil))
}

func (s *script) publish(n int) {
	var events []bus.Event
	for range n {
		id := fmt.Sprint("e", len(s.made))
		s.made[id] = len(s.made)
		events = append(events, keyed(s.t, id, "k"))
	}
	results, _ := s.d.Publisher("test").Publish(s.t.Context(), events...)
	for i, r := range results {
		if r.Err == nil {
			s.acked = append(s.acked, events[i].ID())
		}
	}
}

// reload changes the table for this process and those after it.
func (s *script) reload(table func() dispatch.Table) {
	s.table = table
	_ = s.d.Reload(s.t.Context(), table())
}

func (s *script) withoutB(choice string) func() dispatch.Table {
	return func() dispatch.Table {
		t := one(s.t, spec("a", s.a, orderBySubject))
		t.Removed = map[string]string{"b": choice}
		return t
	}
}

func failTimes(n int, err error) func(context.Context, sinks.Delivery) error {
	var mu sync.Mutex
	return func(context.Context, sinks.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return nil
		}
		return err
	}
}

// The steps that the scripts are made of.
var (
	stepPublish = scriptStep{"publish", func(s *script) { s.publish(2); pass(time.Second) }}
	stepSpill   = scriptStep{"spill", func(s *script) {
		_ = s.d.Pause(s.t.Context(), "b", "")
		s.publish(2)
		pass(2 * time.Second)
	}}
	stepSlow = scriptStep{"slow", func(s *script) { // made durable while it runs
		s.a.set(func(ctx context.Context, _ sinks.Delivery) error {
			select {
			case <-time.After(3 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		s.publish(2)
		pass(8 * time.Second)
		s.a.set(nil)
	}}
	stepRetry = scriptStep{"retry", func(s *script) {
		s.a.set(failTimes(2, sinks.Answered(503, nil)))
		s.publish(2)
		pass(10 * time.Second)
	}}
	stepDead = scriptStep{"dead letter", func(s *script) {
		rejects := failTimes(1, sinks.Answered(400, nil))
		s.a.set(func(ctx context.Context, d sinks.Delivery) error {
			err := rejects(ctx, d)
			if err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.poison[d.Event.ID()] = true
			}
			return err
		})
		s.publish(2)
		pass(time.Second)
		s.a.set(nil)
	}}
	stepRedrive = scriptStep{"redrive", func(s *script) { _, _ = s.d.Redrive(s.t.Context(), dispatch.Redrive{}); pass(time.Second) }}
	stepReplay  = scriptStep{"replay", func(s *script) { _, _ = s.d.Replay(s.t.Context(), dispatch.Replay{}); pass(time.Second) }}
	stepReload  = scriptStep{"reload", func(s *script) { s.publish(1); s.reload(s.both); s.publish(1); pass(time.Second) }}
	stepResume  = scriptStep{"resume", func(s *script) { _ = s.d.Resume(s.t.Context(), "b"); pass(2 * time.Second) }}
	stepBack    = scriptStep{"sink back", func(s *script) { s.reload(s.both); s.publish(1); pass(2 * time.Second) }}
)

func stepRemove(choice string) scriptStep {
	return scriptStep{"remove: " + choice, func(s *script) {
		s.dropped = s.dropped || choice == dispatch.RemovedDrop
		s.reload(s.withoutB(choice))
		pass(2 * time.Second)
	}}
}

func scripts() map[string][]scriptStep {
	return map[string][]scriptStep{
		"direct":      {stepPublish, stepReload, stepPublish},
		"spill":       {stepSpill, stepResume, stepSlow},
		"retry":       {stepRetry, stepDead, stepRedrive},
		"keep":        {stepSpill, stepReplay, stepRemove(dispatch.RemovedKeep), stepBack, stepResume},
		"dead letter": {stepSpill, stepRemove(dispatch.RemovedDeadLetter), stepResume, stepBack, stepRedrive},
		"drop":        {stepSpill, stepRemove(dispatch.RemovedDrop), stepResume, stepBack},
		"all": {stepPublish, stepSpill, stepRetry, stepDead, stepRedrive, stepReplay, stepReload,
			stepRemove(dispatch.RemovedKeep), stepBack, stepResume},
	}
}

// secondCrashes is how many operations after the start of the next process a
// second crash is tried at: more than a recovery has.
const secondCrashes = 48

// TestCrashAtEveryOperation goes through small histories once for each operation
// of their log, and crashes before and after it. Then it does so again with a
// second crash while, or right after, the next process recovers: at one operation
// for each first crash, at every one when SLUICE_SEEDS is set, and not at all with
// -short.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	seen := newCrashPoints()
	var mu sync.Mutex
	points, runs, every := 0, 0, os.Getenv("SLUICE_SEEDS") != ""
	t.Cleanup(func() {
		t.Logf("%d crash points in %d histories, %d runs, %d crashes at %d kinds of points", points, len(scripts()), runs, seen.total, len(seen.at))
		for _, kind := range []string{"before " + scarce, "after " + scarce} {
			if seen.at[kind+" in "+stepRedrive.name] == 0 {
				t.Errorf("none of %d crashes came %s", seen.total, kind)
			}
		}
	})
	for name, steps := range scripts() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, r := 0, 0
			for k := 1; runScript(t, seen, steps, k); k++ {
				n, r = k, r+1
				if t.Failed() {
					t.Fatalf("at crash point %d", k)
				}
				for j := 1; j <= secondCrashes && !testing.Short(); j++ {
					if every || j == 1+k%secondCrashes {
						runScript(t, seen, steps, k, j)
						r++
					}
				}
				if t.Failed() {
					t.Fatalf("at crash point %d and a second crash", k)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			points, runs = points+n, runs+r
			if n < 30 {
				t.Errorf("only %d crash points: the history does nothing", n)
			}
		})
	}
}

// runScript tells whether the first crash came before the history was over.
func runScript(t *testing.T, seen *crashPoints, steps []scriptStep, crashAt ...int) (crashed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &script{t: t, seen: seen, a: newFar(nil), b: newFar(nil), crashAt: slices.Clone(crashAt), made: map[string]int{}, poison: map[string]bool{}}
		s.table = s.both
		store := memlog.New(memlog.Options{Hook: s.hook})
		for len(steps) > 0 {
			steps = s.process(store, steps)
			if s.down() {
				crashed = true
			}
			store = store.Restart()
		}
		s.end(store, fmt.Sprint("crash at ", crashAt))
	})
	return crashed
}

// process runs one process until its log crashes or the steps are done, and
// returns those that are not.
func (s *script) process(store *memlog.Log, steps []scriptStep) []scriptStep {
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.d = d
	m := newMortal(d)
	defer m.die()
	defer s.runs(nil)
	s.at("start")
	s.runs(m)
	if err := m.start(s.t.Context(), s.table()); err != nil {
		return steps
	}
	for len(steps) > 0 {
		s.at(steps[0].name)
		steps[0].do(s)
		s.mu.Lock()
		crashed := s.crashed
		s.mu.Unlock()
		if crashed {
			return steps
		}
		steps = steps[1:]
	}
	return nil
}

// end lets everything come to rest, and looks for what was acknowledged.
func (s *script) end(store *memlog.Log, what string) {
	s.t.Helper()
	s.mu.Lock()
	s.crashAt = nil
	s.mu.Unlock()
	s.a.set(nil)
	d := start(s.t, store, s.both())
	defer d.stop()
	_ = d.Resume(s.t.Context(), "b")
	d.rest(time.Hour)
	s.checkOrder(what)
	letters, _, err := d.DeadLetters(s.t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 1e6)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range letters {
		map[string]*far{"a": s.a, "b": s.b}[l.Sink].got[l.Event.ID()]++
	}
	for _, id := range s.acked {
		if s.a.times(id) == 0 || s.b.times(id) == 0 && !s.dropped {
			s.t.Errorf("%s: event %s was acknowledged and is lost: %d times at a, %d at b", what, id, s.a.times(id), s.b.times(id))
		}
	}
	for _, job := range d.Jobs() {
		if job.State == dispatch.JobRunning {
			s.t.Errorf("%s: a job is still running: %+v", what, job)
		}
	}
}

// checkOrder looks at what came to the ordered sink for the first time: that came in the
// order in which it was published, whatever was delivered once more in between.
func (s *script) checkOrder(what string) {
	s.t.Helper()
	last, seen := "", map[string]bool{}
	for _, id := range s.a.order {
		if seen[id] || s.poison[id] {
			continue
		}
		if last != "" && s.made[id] < s.made[last] {
			s.t.Errorf("%s: event %s came to the ordered sink after %s: %v", what, id, last, s.a.order)
		}
		seen[id], last = true, id
	}
}
