package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/cmd/internal/api"
	"sluice/config"
	"sluice/config/value"
	"sluice/sources"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// memoryHold is a hold that can be set.
func memoryHold(t *testing.T, s *source) {
	t.Helper()
	store := memlog.New(memlog.Options{})
	t.Cleanup(func() { _ = store.Close() })
	s.hold.state = sourceState{store, holdPrefix}
}

// A source that fails is started again, after a pause that grows.
func TestSupervise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var starts []time.Time
		s := newSource("s", "k", silent())
		s.run = runFunc(func(ctx context.Context) error {
			starts = append(starts, time.Now())
			switch len(starts) {
			case 1:
				return errors.New("no connection")
			case 2:
				panic("a fault")
			case 3:
				return nil // before it was told to
			case 5:
				<-ctx.Done()
				return nil
			}
			return errors.New("again")
		})
		restarts := 0
		s.restarted = func() { restarts++ }
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.supervise(ctx)
		}()
		synctest.Wait()
		if got := s.status(); got.State != api.SourceFailed || got.LastError != "no connection" || !got.NextStart.After(time.Now()) {
			t.Errorf("after the first failure: %+v", got)
		}
		<-time.After(time.Minute) // of the bubble's clock
		synctest.Wait()
		if got := s.status(); got.State != api.SourceRunning || got.Restarts != 4 {
			t.Errorf("in the end: %+v", got)
		}
		cancel()
		<-done
		if len(starts) != 5 || restarts != 4 {
			t.Fatalf("%d starts, %d restarts", len(starts), restarts)
		}
		for i, wait := 1, restartFirst; i < len(starts); i, wait = i+1, 2*wait {
			if pause := starts[i].Sub(starts[i-1]); pause < wait/2 || pause > wait {
				t.Errorf("pause %d is %v, want about %v", i, pause, wait)
			}
		}
		if got := s.status(); got.State != api.SourceStopped {
			t.Errorf("afterwards: %+v", got)
		}
	})
}

// A paused source does not run, and one that failed is started at once when it is
// paused and resumed. Trouble that it reports shows.
func TestPausedSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSource("s", "k", silent())
		memoryHold(t, s)
		runs, running, fail := 0, 0, false
		s.run = runFunc(func(ctx context.Context) error {
			runs++
			running++
			defer func() { running-- }()
			if fail {
				return errors.New("no luck")
			}
			<-ctx.Done()
			return nil
		})
		hold := func(h *dispatch.Hold) {
			if err := s.hold.set(ctx, "s", h); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		hold(&dispatch.Hold{Reason: dispatch.HoldPaused, Note: "wait"})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.supervise(ctx)
		}()
		synctest.Wait()
		if got := s.status(); runs != 0 || got.State != api.SourcePaused || got.Hold.Note != "wait" {
			t.Errorf("paused: %d runs, %+v", runs, got)
		}
		again := newSource("s", "k", silent())
		again.hold.state = s.hold.state
		if err := again.hold.load(ctx, "s"); err != nil || !again.hold.held() {
			t.Errorf("after a restart: %v", err)
		}
		for range 2 { // the second time there is nothing to do
			hold(nil)
			if got := s.status(); runs != 1 || running != 1 || got.State != api.SourceRunning || got.Hold != nil {
				t.Errorf("resumed: %d runs, %d running, %+v", runs, running, got)
			}
		}
		s.report(errors.New("no connection"))
		if got := s.status(); got.State != api.SourceDegraded || got.LastError != "no connection" {
			t.Errorf("in trouble: %+v", got)
		}
		s.report(nil)
		fail = true
		hold(&dispatch.Hold{Reason: dispatch.HoldPaused})
		if got := s.status(); running != 0 || got.State != api.SourcePaused || got.Restarts != 0 {
			t.Errorf("paused again: %d running, %+v", running, got)
		}
		hold(nil)
		if got := s.status(); runs != 2 || got.State != api.SourceFailed {
			t.Errorf("failed: %d runs, %+v", runs, got)
		}
		fail = false
		hold(nil)
		if got := s.status(); runs != 3 || got.State != api.SourceRunning {
			t.Errorf("resumed while it waited: %d runs, %+v", runs, got)
		}
		cancel()
		<-done
	})
}

type runFunc func(context.Context) error

func (f runFunc) Run(ctx context.Context, _ bus.Publisher) error { return f(ctx) }

var _ sources.Source = runFunc(nil)

// A source that does not end is waited for, but not for ever.
func TestEndSources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start, ended, stuck := time.Now(), make(chan struct{}), make(chan struct{})
		close(ended)
		a := &App{log: slog.New(slog.DiscardHandler)}
		a.endSources(ctx, map[string]*source{
			"good": {name: "good", cancel: func() {}, done: ended},
			"bad":  {name: "bad", cancel: func() {}, done: stuck},
		})
		if took := time.Since(start); took != time.Minute {
			t.Errorf("waited %v", took)
		}
	})
}

// lateSource is one that never says that it is ready.
type lateSource struct{ runFunc }

func (lateSource) Ready() <-chan struct{} { return nil }

// However many sources are slow to get ready, they are waited for together; none of
// them starts before those that they replace have ended.
func TestSwapSources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		at := map[string]time.Duration{}
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			at[what] = time.Since(begin)
		}
		late := func(name string, linger time.Duration) *source {
			s := newSource(name, "k", silent())
			s.run = lateSource{func(ctx context.Context) error {
				note(name + " starts")
				<-ctx.Done()
				<-time.After(linger) // of the bubble's clock
				note(name + " ended")
				return nil
			}}
			return s
		}
		cfg := &config.Config{Server: config.Server{DrainTimeout: value.Duration(time.Minute)}}
		a := &App{log: silent()}
		a.view.Store(&api.View{Config: cfg})
		a.swapSources(map[string]*source{"a": late("old a", 3*time.Second), "b": late("old b", 0)})
		if took := time.Since(begin); took != readyPatience {
			t.Errorf("the first start took %v", took)
		}
		door := late("door", 0)
		door.doors["/in"] = sources.Door{}
		next := map[string]*source{"a": late("a", 0), "b": late("b", 0), "c": late("c", 0), "door": door, "other": late("other", 0)}
		other := next["other"]
		other.doors["/in/other"] = sources.Door{}
		mu.Lock()
		begin = time.Now()
		mu.Unlock()
		a.swapSources(next)
		if took := time.Since(begin); took != 2*readyPatience+3*time.Second {
			t.Errorf("the swap took %v", took)
		}
		synctest.Wait()
		mu.Lock()
		for what, want := range map[string]time.Duration{
			"door starts": 0, "other starts": 0, "old b ended": readyPatience, "old a ended": readyPatience + 3*time.Second,
			"a starts": readyPatience + 3*time.Second, "b starts": readyPatience + 3*time.Second, "c starts": readyPatience + 3*time.Second,
		} {
			if at[what] != want {
				t.Errorf("%s at %v, want %v", what, at[what], want)
			}
		}
		mu.Unlock()
		a.endSources(t.Context(), next)
	})
}

// forgetfulSource notes what is asked of it.
type forgetfulSource struct {
	runFunc
	forgot *bool
}

func (f forgetfulSource) Forget(context.Context) error {
	*f.forgot = true
	return nil
}

// Of a source that is taken out nothing counts for another of its name; one that is
// changed stays as it is.
func TestForgetSource(t *testing.T) {
	t.Parallel()
	store := memlog.New(memlog.Options{})
	t.Cleanup(func() { _ = store.Close() })
	a := &App{log: silent(), metrics: newMetrics("test")}
	a.view.Store(&api.View{Config: &config.Config{Server: config.Server{DrainTimeout: value.Duration(time.Minute)}}})
	open := func(name string, forgot *bool) *source {
		s := newSource(name, "k", silent())
		s.run = forgetfulSource{func(ctx context.Context) error { <-ctx.Done(); return nil }, forgot}
		s.hold.state = sourceState{store, holdPrefix}
		mustBe(t, s.hold.load(t.Context(), name))
		a.metrics.restarts.WithLabelValues(name).Inc()
		a.metrics.observe(name)(sources.Accepted, 1)
		return s
	}
	var changed, removed bool
	a.swapSources(map[string]*source{"changed": open("changed", &changed), "removed": open("removed", &removed)})
	for _, name := range []string{"changed", "removed"} {
		mustBe(t, a.PauseSource(t.Context(), name, "wait"))
	}
	a.swapSources(map[string]*source{"changed": open("changed", &changed)})
	if changed || !removed {
		t.Errorf("forgotten: changed %v, removed %v", changed, removed)
	}
	if again := open("changed", &changed); !again.hold.held() {
		t.Error("a source that was changed is not paused any more")
	}
	families, err := a.metrics.registry.Gather()
	mustBe(t, err)
	if text := fmt.Sprint(families); strings.Contains(text, `"removed"`) || !strings.Contains(text, `"changed"`) {
		t.Errorf("the series are %s", text)
	}
	if again := open("removed", &removed); again.hold.held() {
		t.Error("a source that was removed is still paused when it comes back")
	}
	a.endSources(t.Context(), a.sources)
}

func mustBe(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestLimitListener(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitListener(inner, 1, silent())
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	first := <-accepted
	select {
	case <-accepted:
		t.Fatal("a second connection was accepted")
	default:
	}
	_ = first.Close()
	_ = first.Close() // gives one slot back, not two
	second := <-accepted
	defer func() { _ = second.Close() }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}
