package dispatch_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

// churn does to a bus what happens to one: sinks that fail, wait, are paused, change
// their order, are taken out and come back, redrives and replays. It returns once
// all publishers are through.
func (b *bench) churn(rounds int, a, f *far) {
	b.t.Helper()
	quick := func(o *dispatch.Options) {
		o.Retry = dispatch.Retry{MaxAttempts: 3, Initial: 1e6, Max: 4e6, Multiplier: 2, Jitter: "none", Preset: "default"}
		o.Breaker.Failures = 0
		o.SpillAfter = 1e8
	}
	orders := []string{"", "subject", "type"}
	table := func(i int) dispatch.Table {
		return one(b.t, spec("a", a, quick), spec("f", f, func(o *dispatch.Options) {
			quick(o)
			o.OrderBy = orders[i%len(orders)]
			o.Batch = dispatch.Batch{}
		}))
	}
	var wg sync.WaitGroup
	for p := range 4 {
		wg.Go(func() {
			for i := range rounds {
				b.publishKeyed(b.t.(*testing.T), fmt.Sprint("k", i%7), names(fmt.Sprintf("p%d.%d.", p, i), 8)...)
			}
		})
	}
	for i := range rounds / 4 {
		var err error
		switch i % 7 {
		case 0:
			err = b.Pause(b.t.Context(), "f", "")
		case 1:
			err = b.Resume(b.t.Context(), "f")
		case 2:
			err = b.Reload(b.t.Context(), table(i/7))
		case 3:
			_, err = b.Redrive(b.t.Context(), dispatch.Redrive{Limit: 20})
		case 4:
			_, err = b.Replay(b.t.Context(), dispatch.Replay{Sinks: []string{"a"}, Since: time.Now().Add(-5 * time.Millisecond)})
		case 5:
			without := one(b.t, dispatch.SinkSpec{Name: "a"})
			without.Removed = map[string]string{"f": []string{dispatch.RemovedKeep, dispatch.RemovedDeadLetter, dispatch.RemovedDrop}[i%3]}
			err = b.Reload(b.t.Context(), without)
		case 6:
			err = b.Reload(b.t.Context(), table(i/7))
		}
		if err != nil {
			b.t.Errorf("step %d: %v", i, err)
		}
		<-time.After(2 * time.Millisecond)
	}
	wg.Wait()
}

// flaky fails some attempts, gives up on few, and takes its time for others.
func flaky(ctx context.Context, _ sinks.Delivery) error {
	switch rand.IntN(10) {
	case 0, 1:
		return sinks.Answered(503, nil)
	case 2:
		return sinks.Answered(400, nil)
	case 3:
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// TestBooksAreEvenAtAnyMoment looks at the books without pause while everything
// moves: not one look may show a difference.
func TestBooksAreEvenAtAnyMoment(t *testing.T) {
	t.Parallel()
	a, f := newFar(nil), newFar(flaky)
	d := start(t, memlog.New(memlog.Options{}), one(t, spec("a", a, nil), spec("f", f, nil)))
	defer d.stop()
	var over atomic.Bool
	done := make(chan int)
	go func() {
		looks := 0
		for ; !over.Load(); looks++ {
			for sink, b := range d.Balances() {
				if b.Lost() != 0 {
					t.Errorf("sink %s, look %d: %+v differ by %d", sink, looks, b, b.Lost())
					over.Store(true)
				}
			}
		}
		done <- looks
	}()
	d.churn(280, a, f)
	over.Store(true)
	t.Logf("%d looks, %+v", <-done, d.Balance())
}

// TestHealthyBusShowsNoDifference compares, for hours of churn, as the check does.
func TestHealthyBusShowsNoDifference(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		for life := range 3 {
			a, f := newFar(nil), newFar(flaky)
			d := start(t, store, one(t, spec("a", a, nil), spec("f", f, nil)))
			for range 3 {
				d.churn(56, a, f)
				pass(dispatch.ConserveBound)
				if c := d.Conservation(); !c.OK() || c.Checked.IsZero() {
					t.Fatalf("life %d: %+v", life, c)
				}
			}
			d.stop()
			if life == 1 {
				store = store.Restart()
			}
		}
	})
}

// watchedStart is start with a log and metrics to look at.
func watchedStart(t *testing.T, store bus.Log, table dispatch.Table) (*bench, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	d, err := dispatch.New(dispatch.Config{Store: store, Registry: registry, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))})
	if err == nil {
		err = d.Start(t.Context(), table)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Dispatcher: d, t: t, pub: d.Publisher("test")}, &log, registry
}

// TestLeakShows lets deliveries vanish from the books of a bus under load.
func TestLeakShows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newFar(nil), newFar(always(sinks.Answered(503, nil)))
		d, log, registry := watchedStart(t, memlog.New(memlog.Options{}), one(t, spec("a", a, nil), spec("b", b, nil)))
		defer d.stop()
		busy := func(rounds int) {
			for i := range rounds {
				d.publish(fmt.Sprint("e", time.Now().UnixNano(), i))
				pass(100 * time.Millisecond)
			}
		}
		busy(10)
		d.Leak("b", 2)
		busy(int(dispatch.ConserveBound/(100*time.Millisecond)) + 1)
		c := d.Conservation()
		if c.Deliveries != 2 || c.Events != 0 || len(c.Sinks) != 1 || c.Sinks[0].Sink != "b" || c.Sinks[0].Lost() != 2 || c.Since.IsZero() {
			t.Fatalf("two deliveries of b vanished: %+v", c)
		}
		want := `# HELP sluice_conservation_difference_deliveries Deliveries that the counters do not account for; 0 when nothing has vanished.
# TYPE sluice_conservation_difference_deliveries gauge
sluice_conservation_difference_deliveries 2
`
		if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "sluice_conservation_difference_deliveries"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.GatherAndLint(registry, "sluice_conservation_difference_deliveries", "sluice_conservation_difference_events"); err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
		d.Leak("a", -1) // and one counted twice, at another sink: it does not make up for those
		busy(int(dispatch.ConserveBound/(100*time.Millisecond)) + 1)
		if c := d.Conservation(); c.Deliveries != 3 {
			t.Fatalf("one more: %+v", c)
		}
		pass(time.Minute)
		if n := strings.Count(log.String(), "the counters do not add up"); n != 2 {
			t.Errorf("it is said %d times, want once for each change:\n%s", n, log)
		}
		d.Leak("b", -2)
		d.Leak("a", 1)
		pass(dispatch.ConserveBound)
		if c := d.Conservation(); !c.OK() || !c.Since.IsZero() || !strings.Contains(log.String(), "add up again") {
			t.Errorf("healed: %+v\n%s", c, log)
		}
	})
}

// gappy loses one pack of EVENTS on the way to whoever reads it.
type gappy struct {
	bus.Log
	lose uint64
}

type gappyStream struct {
	bus.Stream
	lose uint64
}

type gappyReader struct {
	bus.Reader
	lose uint64
}

func (l gappy) Stream(name string) bus.Stream {
	if name != bus.Events {
		return l.Log.Stream(name)
	}
	return gappyStream{l.Log.Stream(name), l.lose}
}

func (s gappyStream) Read(ctx context.Context, key string, from uint64) (bus.Reader, error) {
	r, err := s.Stream.Read(ctx, key, from)
	return gappyReader{r, s.lose}, err
}

func (r gappyReader) Next(ctx context.Context) (bus.Pack, error) {
	p, err := r.Reader.Next(ctx)
	if err == nil && p.Seq == r.lose {
		return r.Reader.Next(ctx)
	}
	return p, err
}

// TestLostPackShows has a log that loses a pack of three events in silence.
func TestLostPackShows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newFar(nil)
		d, log, _ := watchedStart(t, gappy{memlog.New(memlog.Options{}), 4}, one(t, spec("a", a, nil)))
		defer d.stop()
		for i := range 10 {
			d.publish(names(fmt.Sprint("e", i, "."), 3)...)
			synctest.Wait()
		}
		pass(dispatch.ConserveBound)
		if c := d.Conservation(); c.Events != 3 || c.Deliveries != 0 {
			t.Errorf("a pack of three events was lost: %+v", c)
		}
		if a.count() != 27 || !strings.Contains(log.String(), "events are missing in the store") {
			t.Errorf("%d events arrived, want 27:\n%s", a.count(), log)
		}
	})
}

// TestDamagedRecordsComeAgain damages what waits for a paused sink: the books say so,
// and it comes again from its event.
func TestDamagedRecordsComeAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a := newFar(nil)
		d := start(t, damaging{memlog.New(memlog.Options{}), false}, one(t, spec("a", a, nil)))
		defer d.stop()
		if err := d.Pause(t.Context(), "a", ""); err != nil {
			t.Fatal(err)
		}
		d.publish(names("e", 10)...)
		pass(time.Second)
		if err := d.Resume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		pass(dispatch.ConserveBound)
		if b := d.Balance(); b.Damaged != 1 || b.Delivered != 10 || a.count() != 10 || b.Lost() != 0 || !d.Conservation().OK() {
			t.Errorf("one record of ten is damaged: %+v", b)
		}
		d.settled()
	})
}

// damaging gives the first record of the first pack of the backlog as a damaged one,
// or that of every pack.
type damaging struct {
	bus.Log
	every bool
}

type damagingStream struct {
	bus.Stream
	every bool
}

type damagingReader struct {
	bus.Reader
	every bool
}

func (l damaging) Stream(name string) bus.Stream {
	if name != bus.Backlog {
		return l.Log.Stream(name)
	}
	return damagingStream{l.Log.Stream(name), l.every}
}

func (s damagingStream) Read(ctx context.Context, key string, from uint64) (bus.Reader, error) {
	r, err := s.Stream.Read(ctx, key, from)
	return damagingReader{r, s.every}, err
}

func (r damagingReader) Next(ctx context.Context) (bus.Pack, error) {
	p, err := r.Reader.Next(ctx)
	if err == nil && (r.every || p.Seq == 1) {
		p.Records = append([][]byte{nil}, p.Records[1:]...)
	}
	return p, err
}

// BenchmarkConservation is what one comparison costs on a bus of 1,000 sinks.
func BenchmarkConservation(b *testing.B) {
	var specs []dispatch.SinkSpec
	for i := range 1000 {
		specs = append(specs, spec(fmt.Sprint("s", i), newFar(nil), nil))
	}
	d := start(b, memlog.New(memlog.Options{}), one(b, specs...))
	defer d.stop()
	for b.Loop() {
		d.Compare()
	}
}

// An event that the router has not come to yet is not settled.
func TestUnsettledBehindTheRouter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var held atomic.Bool
		slow := func(_ context.Context, op memlog.Op) error {
			if op.Name == memlog.OpNext && op.Stream == bus.Events && held.Load() {
				<-time.After(time.Minute)
			}
			return nil
		}
		f := newFar(nil)
		d := start(t, memlog.New(memlog.Options{Hook: slow}), one(t, spec("f", f, nil)))
		defer d.stop()
		held.Store(true)
		d.publish("e1") // the read that waits already gets it
		synctest.Wait()
		d.publish("e2", "e3")
		synctest.Wait()
		if n := d.Unsettled(); n != 2+1-f.count() {
			t.Errorf("%d events are unsettled while the router has not read them, of which %d arrived", n, f.count())
		}
		pass(5 * time.Minute)
		if n := d.Unsettled(); n != 0 || f.count() != 3 {
			t.Errorf("%d events are unsettled in the end, and %d of 3 arrived", n, f.count())
		}
	})
}
