package app

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/sources"
)

// A source that fails is started again, after a pause that grows.
func TestSupervise(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var starts []time.Time
		source := runFunc(func(ctx context.Context) error {
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
		done := make(chan struct{})
		go func() {
			defer close(done)
			supervise(ctx, source, nil, slog.New(slog.DiscardHandler), func() { restarts++ })
		}()
		<-time.After(time.Minute) // of the bubble's clock
		synctest.Wait()
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

func TestLimitListener(t *testing.T) {
	t.Parallel()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limitListener(inner, 1)
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
