package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/sinks"
)

// sinkFunc is a sink made of a function.
type sinkFunc func(ctx context.Context, d sinks.Delivery) error

func (f sinkFunc) Deliver(ctx context.Context, d sinks.Delivery) error { return f(ctx, d) }

// A crowd of attempts leaves no more goroutines behind than may wait, those make the
// next ones, and all of them are gone after the stop: synctest fails when one is left.
func TestCrew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const crowd = 3 * crewIdle
		var under sync.WaitGroup
		under.Add(crowd)
		open := make(chan struct{})
		d := startOne(t, 30*time.Second, crowd, func(context.Context, sinks.Delivery) error {
			under.Done()
			<-open
			return nil
		})
		publishMany(t, d, crowd)
		under.Wait()
		close(open)
		synctest.Wait()
		if idle := d.crew.idle.Load(); idle != crewIdle {
			t.Errorf("%d goroutines wait for more after %d attempts at once, want %d", idle, crowd, crewIdle)
		}
		under.Add(1)
		publishMany(t, d, 1)
		under.Wait()
		synctest.Wait()
		if idle := d.crew.idle.Load(); idle != crewIdle {
			t.Errorf("%d goroutines wait after one more attempt, want %d as before", idle, crewIdle)
		}
		if err := d.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Each attempt has at least its time, and at most a 32nd more; those that begin
// together share a context, and none is cut off because another has ended.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const timeout = 32 * time.Second
		began := time.Now()
		took := make(chan time.Duration, 2)
		seen := make(chan context.Context, 2)
		d := startOne(t, timeout, 4, func(ctx context.Context, _ sinks.Delivery) error {
			start := time.Now()
			seen <- ctx
			<-ctx.Done()
			took <- time.Since(start)
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				t.Errorf("an attempt ended with %v, want its deadline", ctx.Err())
			}
			return ctx.Err()
		})
		publishMany(t, d, 1)
		first := <-seen
		<-time.After(timeout/deadlineShare - time.Since(began) - time.Millisecond)
		publishMany(t, d, 1)
		if second := <-seen; second != first {
			t.Error("two attempts that began within a 32nd of their time have two contexts")
		}
		for range 2 {
			if got := <-took; got < timeout || got > timeout+timeout/deadlineShare {
				t.Errorf("an attempt had %v, want %v to %v", got, timeout, timeout+timeout/deadlineShare)
			}
		}
		if err := d.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// startOne starts a dispatcher with one sink that gets everything.
func startOne(t *testing.T, timeout time.Duration, concurrency int, deliver sinkFunc) *Dispatcher {
	t.Helper()
	log := memlog.New(memlog.Options{})
	t.Cleanup(func() { _ = log.Close() })
	d, err := New(Config{Store: log, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Timeout, o.Concurrency = value.Duration(timeout), Concurrency(concurrency)
	table := Table{Unmatched: []string{"a"}, Sinks: []SinkSpec{{Name: "a", Sink: deliver, Options: o}}}
	if err := d.Start(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	return d
}

func publishMany(t *testing.T, d *Dispatcher, n int) {
	t.Helper()
	var events []bus.Event
	for range n {
		e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/test"}, {Name: "type", Value: "t"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	if _, err := d.Publisher("test").Publish(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
}
