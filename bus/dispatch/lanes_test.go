package dispatch_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// cleared lets pass what a lane may take to go: a feed stays for a while.
func cleared() { pass(10 * time.Second) }

// series are the series that have a label of that value.
func series(t *testing.T, registry prometheus.Gatherer, value string) (found []string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetValue() == value {
					found = append(found, fmt.Sprint(f.GetName(), m.GetLabel()))
				}
			}
		}
	}
	return found
}

// state is that of one sink; "" when it is not listed.
func (b *bench) state(sink string) string {
	for _, s := range b.Sinks() {
		if s.Name == sink {
			return s.State
		}
	}
	return ""
}

// await waits until something holds, by the clock of the machine.
func (b *bench) await(holds func() bool) {
	b.t.Helper()
	limit := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-limit:
			b.t.Fatalf("in vain: lanes %s, %+v", b.Lanes(), b.Balance())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A sink that was taken out leaves no lane and no series once nothing waits for it,
// whatever it went through before, and the sums of the bus stay what they were.
func TestRemovedSinkLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		choice string
		answer error // of the sink
		pause  bool
		dead   int64
	}{
		"nothing waits":            {},
		"what waits is discarded":  {choice: dispatch.RemovedDrop, pause: true},
		"what waits is dead":       {choice: dispatch.RemovedDeadLetter, pause: true, dead: 50},
		"retries are discarded":    {choice: dispatch.RemovedDrop, answer: sinks.Answered(503, nil)},
		"retries are dead letters": {choice: dispatch.RemovedDeadLetter, answer: sinks.Answered(503, nil), dead: 50},
		"only dead letters":        {answer: sinks.Answered(400, nil), dead: 50},
		"it was disabled":          {choice: dispatch.RemovedDrop, answer: sinks.Answered(410, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f, other := newFar(always(c.answer)), newFar(nil)
				d, _, registry := watchedStart(t, memlog.New(memlog.Options{}), one(t, spec("f", f, orderedBy("subject")), spec("other", other, nil)))
				defer d.stop()
				if c.pause {
					if err := d.Pause(t.Context(), "f", ""); err != nil {
						t.Fatal(err)
					}
				}
				d.publish(names("e", 50)...)
				pass(2 * time.Second)
				without := one(t, dispatch.SinkSpec{Name: "other"})
				without.Removed = map[string]string{"f": c.choice}
				before := d.Balance()
				if err := d.Reload(t.Context(), without); err != nil {
					t.Fatal(err)
				}
				pass(time.Hour)
				if left := series(t, registry, "f"); len(left) > 0 {
					t.Errorf("series are left: %s", left)
				}
				if got := d.Lanes(); !slices.Equal(got, []string{"other"}) {
					t.Errorf("lanes: %s", got)
				}
				d.settled()
				b := d.Balance()
				if b.Entered != before.Entered || b.Dead < c.dead || b.Delivered+b.Dead+b.Discarded != 100 || !d.Conservation().OK() {
					t.Errorf("before %+v, after %+v, %+v", before, b, d.Conservation())
				}
				if want := b.Dead > 0; (d.state("f") == dispatch.StateRemoved) != want || (len(d.letters()) > 0) != want {
					t.Errorf("it is %q, and has %d dead letters", d.state("f"), len(d.letters()))
				}
				if f.closed != 1 {
					t.Errorf("it was closed %d times", f.closed)
				}
			})
		})
	}
}

// What waits for a removed sink, and that it is paused, stays until it is back.
func TestLaneStaysForWhatIsKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		f, g := newFar(nil), newFar(nil)
		both := func() dispatch.Table { return one(t, spec("f", f, nil), spec("g", g, nil)) }
		d := start(t, store, both())
		if err := d.Pause(t.Context(), "g", "mending"); err != nil {
			t.Fatal(err)
		}
		d.publish("before")
		pass(time.Second)
		if err := d.Pause(t.Context(), "f", "mending"); err != nil {
			t.Fatal(err)
		}
		none := dispatch.Table{Version: "none", Removed: map[string]string{"g": dispatch.RemovedKeep}}
		for range 2 { // and after a restart
			if err := d.Reload(t.Context(), none); err != nil {
				t.Fatal(err)
			}
			cleared()
			if s := d.Sinks(); len(s) != 2 || s[0].State != dispatch.StateRemoved || s[0].Hold == nil || s[1].Backlog != 1 {
				t.Errorf("%+v", s)
			}
			d.stop()
			store = store.Restart()
			d = start(t, store, none)
		}
		defer d.stop()
		if err := d.Reload(t.Context(), both()); err != nil {
			t.Fatal(err)
		}
		cleared()
		if d.state("f") != dispatch.StatePaused || d.state("g") != dispatch.StatePaused {
			t.Fatalf("they were paused: %+v", d.Sinks())
		}
		if err := d.Resume(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if f.times("before") != 1 || g.times("before") != 1 {
			t.Errorf("f got it %d times, g %d times", f.times("before"), g.times("before"))
		}
	})
}

// A lane stays as long as the store has anything of it or is about to: a write that is
// under way when its sink is taken out, or settled records that are not removed.
func TestLaneStaysForItsRecords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ op, choice string }{
		"a write under way":            {memlog.OpAppend, dispatch.RemovedKeep},
		"records that are still there": {memlog.OpRemove, dispatch.RemovedDeadLetter},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				stuck := make(chan struct{})
				free := sync.OnceFunc(func() { close(stuck) })
				defer free()
				f := newFar(nil)
				d := start(t, memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
					if op.Name == c.op && op.Stream == bus.Backlog && op.When == memlog.Before {
						<-stuck
					}
					return nil
				}}), one(t, spec("f", f, nil)))
				defer d.stop()
				defer free()
				_, replay := d.HoldLane("f")
				replayed := make(chan error, 1)
				go func() { replayed <- replay(t.Context(), event(t, "e")) }()
				pass(time.Second)
				if err := d.Reload(t.Context(), dispatch.Table{Version: "none", Removed: map[string]string{"f": c.choice}}); err != nil {
					t.Fatal(err)
				}
				if cleared(); !slices.Contains(d.Lanes(), "f") {
					t.Error("the lane went before its records")
				}
				free()
				if err := <-replayed; err != nil {
					t.Fatal(err)
				}
				cleared()
				if kept := c.choice == dispatch.RemovedKeep; slices.Contains(d.Lanes(), "f") != kept {
					t.Errorf("lanes %s, %+v", d.Lanes(), d.Balance())
				}
				if err := d.Reload(t.Context(), one(t, spec("f", f, nil))); err != nil {
					t.Fatal(err)
				}
				cleared()
				if d.settled(); f.count() != 1 {
					t.Errorf("it arrived %d times", f.count())
				}
			})
		})
	}
}

// A sink that is back before its lane was removed keeps it.
func TestLaneOfASinkThatIsBackStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
		defer d.stop()
		if err := d.Reload(t.Context(), dispatch.Table{Version: "none"}); err != nil {
			t.Fatal(err)
		}
		clearLane := d.ClearLater("f")
		if err := d.Reload(t.Context(), one(t, spec("f", f, nil))); err != nil {
			t.Fatal(err)
		}
		if err := clearLane(t.Context()); err != nil || !slices.Contains(d.Lanes(), "f") {
			t.Errorf("lanes %s, %v", d.Lanes(), err)
		}
		d.publish("e")
		pass(time.Second)
		if d.settled(); f.count() != 1 {
			t.Errorf("it arrived %d times", f.count())
		}
	})
}

// TestReloadAndRemovalOfALaneDoNotCross has both without pause.
func TestReloadAndRemovalOfALaneDoNotCross(t *testing.T) {
	t.Parallel()
	d := start(t, memlog.New(memlog.Options{}), dispatch.Table{Version: "none"})
	defer d.stop()
	var over atomic.Bool
	var clearing sync.WaitGroup
	clearing.Go(func() {
		for !over.Load() {
			d.ClearLanes(context.Background())
		}
	})
	for i := range 3000 {
		if err := d.Reload(t.Context(), one(t, spec("f", newFar(nil), nil))); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(d.Lanes(), "f") {
			t.Errorf("reload %d: the sink has no lane", i)
			break
		}
		if err := d.Reload(t.Context(), dispatch.Table{Version: "none"}); err != nil {
			t.Fatal(err)
		}
	}
	over.Store(true)
	clearing.Wait()
}

// What an earlier process left for a sink that nobody brings back is dropped, with all
// that was remembered of it: also what is found after the start.
func TestTransientSinkIsGoneAfterRestart(t *testing.T) {
	for name, c := range map[string]struct {
		answer error
		pause  bool
	}{
		"backlog": {pause: true}, "retries": {answer: sinks.Answered(503, nil)}, "disabled": {answer: sinks.Answered(410, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				store := memlog.New(memlog.Options{})
				f := newFar(always(c.answer))
				d := start(t, store, one(t, spec("tmp.f", f, nil)))
				if c.pause {
					if err := d.Pause(t.Context(), "tmp.f", ""); err != nil {
						t.Fatal(err)
					}
				}
				d.publish(names("e", 20)...)
				pass(1500 * time.Millisecond)
				d.stop()
				none := dispatch.Table{Version: "none", Transient: func(sink string) bool { return strings.HasPrefix(sink, "tmp.") }}
				for range 2 {
					store = store.Restart()
					d = start(t, store, none)
					pass(time.Minute)
					if d.settled(); len(d.Lanes()) > 0 {
						t.Errorf("lanes: %s", d.Lanes())
					}
					d.stop()
				}
				keys, err := store.Restart().StateKeys(t.Context(), dispatch.HoldPrefix)
				if err != nil || len(keys) > 0 {
					t.Errorf("it is remembered that it was held: %s, %v", keys, err)
				}
			})
		})
	}
}

// Who still has a lane that is gone reaches the one of now, or what the table says of a
// sink that it has not.
func TestLaneOfBeforeIsTheOneOfNow(t *testing.T) {
	t.Parallel()
	for choice, late := range map[string]int{"back": 2, dispatch.RemovedKeep: 2, dispatch.RemovedDrop: 0} {
		t.Run(choice, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(nil)
				d, _, registry := watchedStart(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
				defer d.stop()
				admit, replay := d.HoldLane("f")
				if err := d.Reload(t.Context(), dispatch.Table{Version: "none", Removed: map[string]string{"f": choice}}); err != nil {
					t.Fatal(err)
				}
				cleared()
				if len(d.Lanes()) > 0 {
					t.Fatalf("lanes: %s", d.Lanes())
				}
				back := one(t, spec("f", f, nil))
				if choice == "back" {
					if err := d.Reload(t.Context(), back); err != nil {
						t.Fatal(err)
					}
				}
				admit(event(t, "admitted"))
				if err := replay(t.Context(), event(t, "replayed")); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				d.balanced()
				if choice == dispatch.RemovedDrop && (len(d.Lanes()) > 0 || len(series(t, registry, "f")) > 0 || d.Balance().Discarded != 2) {
					t.Errorf("lanes %s, series %s, %+v", d.Lanes(), series(t, registry, "f"), d.Balance())
				}
				if choice != "back" {
					if err := d.Reload(t.Context(), back); err != nil {
						t.Fatal(err)
					}
				}
				pass(time.Minute)
				if d.settled(); f.count() != late {
					t.Errorf("%d arrived, want %d", f.count(), late)
				}
			})
		})
	}
}

// TestSinkComesAndGoesUnderLoad takes one sink out and puts it back without pause while
// everybody publishes, and its lane is removed at each chance.
func TestSinkComesAndGoesUnderLoad(t *testing.T) {
	t.Parallel()
	for _, choice := range []string{dispatch.RemovedKeep, dispatch.RemovedDrop} {
		t.Run(choice, func(t *testing.T) {
			t.Parallel()
			a, f := newFar(nil), newFar(nil)
			with := func() dispatch.Table {
				return one(t, dispatch.SinkSpec{Name: "a"}, spec("f", f, func(o *dispatch.Options) { o.OrderBy = "subject" }))
			}
			without := one(t, dispatch.SinkSpec{Name: "a"})
			without.Removed = map[string]string{"f": choice}
			d := start(t, memlog.New(memlog.Options{}), one(t, spec("a", a, nil), spec("f", f, nil)))
			defer d.stop()
			went, published := d.toggle(with, without)
			if err := d.Reload(t.Context(), with()); err != nil {
				t.Fatal(err)
			}
			d.await(func() bool { return d.Balance().Open() == 0 && d.Unsettled() == 0 })
			d.settled()
			d.Compare()
			b := d.Balance()
			t.Logf("%d events, the lane went %d times, %+v", published, went, b)
			if choice == dispatch.RemovedDrop && went == 0 || a.count() != published || int64(published+f.count()) != b.Delivered ||
				choice == dispatch.RemovedKeep && b.Discarded > 0 || !d.Conservation().OK() {
				t.Errorf("a got %d of %d, f %d", a.count(), published, f.count())
			}
		})
	}
}

// toggle reloads between two tables under load. It returns how often the lane of f was
// seen to be gone, and how many events were published.
func (b *bench) toggle(with func() dispatch.Table, without dispatch.Table) (went, published int) {
	var over atomic.Bool
	var count atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		for !over.Load() {
			b.ClearLanes(context.Background())
			for sink, balance := range b.Balances() {
				if balance.Lost() != 0 {
					b.t.Errorf("sink %s: %+v", sink, balance)
				}
			}
			<-time.After(100 * time.Microsecond)
		}
	})
	for p := range 3 {
		all.Go(func() {
			for i := 0; !over.Load(); i++ {
				ids := names(fmt.Sprintf("p%d.%d.", p, i), 20)
				b.publish(ids...)
				count.Add(int64(len(ids)))
				<-time.After(time.Millisecond)
			}
		})
	}
	for range 25 {
		if err := b.Reload(context.Background(), without); err != nil {
			b.t.Error(err)
		}
		for range 20 {
			if !slices.Contains(b.Lanes(), "f") {
				went++
				break
			}
			<-time.After(time.Millisecond)
		}
		if err := b.Reload(context.Background(), with()); err != nil {
			b.t.Error(err)
		}
		<-time.After(5 * time.Millisecond)
	}
	over.Store(true)
	all.Wait()
	return went, int(count.Load())
}

// TestBooksAreEvenAfterManySinks has sinks that come, get something and go.
func TestBooksAreEvenAfterManySinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t))
		defer d.stop()
		transient := func(sink string) bool { return strings.HasPrefix(sink, "s") }
		var want dispatch.Balance
		for i := range 300 {
			answer := []error{nil, sinks.Answered(400, nil), sinks.Answered(503, nil)}[i%3]
			table := one(t, spec(fmt.Sprint("s", i), newFar(always(answer)), nil))
			table.Transient = transient
			if err := d.Reload(t.Context(), table); err != nil {
				t.Fatal(err)
			}
			d.publish(names(fmt.Sprint("e", i, "."), 5)...)
			pass(100 * time.Millisecond)
			switch want.Entered += 5; i % 3 {
			case 0:
				want.Delivered += 5
			case 1:
				want.Dead += 5
			default:
				want.Discarded += 5
			}
		}
		if err := d.Reload(t.Context(), dispatch.Table{Version: "none", Transient: transient}); err != nil {
			t.Fatal(err)
		}
		pass(time.Hour)
		if got := d.Balance(); got != want || len(d.Lanes()) > 0 || !d.Conservation().OK() || d.Conservation().Checked.IsZero() {
			t.Errorf("%+v, want %+v; lanes %s; %+v", got, want, d.Lanes(), d.Conservation())
		}
	})
}

// footprint is what a bus takes of the machine while nothing happens.
type footprint struct {
	heap               uint64
	goroutines, series int
}

func footprintOf(t *testing.T, registry prometheus.Gatherer) (p footprint) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		p.series += len(family.GetMetric())
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	p.heap, p.goroutines = m.HeapAlloc, runtime.NumGoroutine()
	return p
}

// TestSinksWithoutEndTakeNoMemory is not parallel to others: it counts goroutines and
// bytes of the process.
func TestSinksWithoutEndTakeNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, registry := watchedStart(t, memlog.New(memlog.Options{}), one(t, spec("a", newFar(nil), nil)))
		defer d.stop()
		cycles := func(from, n int) footprint {
			table := dispatch.Table{Version: "none", Transient: func(string) bool { return true }}
			for i := range n {
				name := fmt.Sprint("s", from+i)
				with := table
				with.Sinks = []dispatch.SinkSpec{{Name: "a"}, spec(name, newFar(nil), nil)}
				with.Routes = []dispatch.Route{{Name: name, Pattern: everything(t), To: []string{name}}}
				if err := d.Reload(t.Context(), with); err != nil {
					t.Fatal(err)
				}
				if i%10 == 0 {
					d.publish(fmt.Sprint("e", from+i))
					pass(time.Second)
				}
			}
			table.Sinks = []dispatch.SinkSpec{{Name: "a"}}
			if err := d.Reload(t.Context(), table); err != nil {
				t.Fatal(err)
			}
			cleared()
			d.settled()
			return footprintOf(t, registry)
		}
		first := cycles(0, 500)
		next := cycles(500, 1000)
		t.Logf("after 500 sinks %+v, after 1000 more %+v", first, next)
		if next.goroutines > first.goroutines || next.series != first.series || next.heap > first.heap+512<<10 || d.RememberedRules() > 0 {
			t.Error("something stays of sinks that are gone")
		}
	})
}

// The dead letters of sinks that are gone are counted, and removed, without a series
// for each of them.
func TestDeadLettersOfRemovedSinks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		rejecting := newFar(always(sinks.Answered(400, nil)))
		d, _, registry := watchedStart(t, memlog.New(memlog.Options{}), one(t, spec("f", rejecting, nil), spec("g", rejecting, nil), spec("a", newFar(nil), nil)))
		defer d.stop()
		d.publish(names("e", 3)...)
		pass(time.Second)
		if err := d.Reload(t.Context(), one(t, dispatch.SinkSpec{Name: "a"})); err != nil {
			t.Fatal(err)
		}
		cleared()
		if got := d.Sinks(); len(got) != 3 || got[1].Name != "f" || got[1].DeadLetters != 3 || got[2].State != dispatch.StateRemoved {
			t.Errorf("%+v", got)
		}
		job, err := d.Redrive(t.Context(), dispatch.Redrive{Sink: "f", To: "a", Limit: 1})
		if err != nil || job.Total != 6 {
			t.Errorf("%+v, %v", job, err)
		}
		pass(time.Second)
		if n, err := d.PurgeDeadLetters(t.Context(), dispatch.DeadLetterFilter{Sink: "f"}); n != 2 || err != nil {
			t.Errorf("%d purged, %v", n, err)
		}
		want := `# HELP sluice_dead_letters_purged_total Dead letters that were removed without being delivered, by sink and cause (by hand, or expired).
# TYPE sluice_dead_letters_purged_total counter
sluice_dead_letters_purged_total{cause="purged",sink="(removed)"} 2
# HELP sluice_sink_dead_letters Dead letters that are kept, by sink; those of sinks that were taken out are (removed).
# TYPE sluice_sink_dead_letters gauge
sluice_sink_dead_letters{sink="(removed)"} 3
sluice_sink_dead_letters{sink="a"} 0
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "sluice_dead_letters_purged_total", "sluice_sink_dead_letters"); err != nil {
			t.Error(err)
		}
		if d.state("f") != "" || d.state("g") != dispatch.StateRemoved {
			t.Errorf("%+v", d.Sinks())
		}
	})
}
