package memlog_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/bustest"
	"sluice/bus/memlog"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(*testing.T) bustest.Harness {
		l := memlog.New(memlog.Options{Limit: 4 << 20, MaxPack: 256 << 10})
		return bustest.Harness{Log: l, Reopen: func() bus.Log {
			if err := l.Close(); err != nil {
				panic(err)
			}
			l = l.Restart()
			return l
		}}
	})
}

// failing gives a hook that answers err at one side of one operation.
func failing(name string, when memlog.When, err error) memlog.Hook {
	return func(_ context.Context, op memlog.Op) error {
		if op.Name == name && op.When == when {
			return err
		}
		return nil
	}
}

func TestHookFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("no luck")
	for _, c := range []struct {
		when   memlog.When
		stored uint64
		want   error
	}{
		{memlog.Before, 0, cause},
		{memlog.After, 1, bus.ErrUnavailable},
	} {
		t.Run(c.when.String(), func(t *testing.T) {
			t.Parallel()
			l := memlog.New(memlog.Options{Hook: failing(memlog.OpAppend, c.when, cause)})
			s := l.Stream(bus.Events)
			_, err := s.Append(t.Context(), "", [][]byte{[]byte("x")})
			if !errors.Is(err, c.want) || !errors.Is(err, cause) {
				t.Errorf("got error %v, want %v for %v", err, c.want, cause)
			}
			info, err := s.Info(t.Context())
			if err != nil || info.Packs != c.stored {
				t.Errorf("%d packs are stored, want %d (%v)", info.Packs, c.stored, err)
			}
		})
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		when memlog.When
		last uint64
	}{{memlog.Before, 1}, {memlog.After, 2}} {
		t.Run(c.when.String(), func(t *testing.T) {
			t.Parallel()
			var armed atomic.Bool
			l := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
				if op.When == c.when && op.Name == memlog.OpAppend && armed.CompareAndSwap(true, false) {
					return memlog.ErrCrash
				}
				return nil
			}})
			s, ctx, pack := l.Stream(bus.Events), t.Context(), [][]byte{[]byte("x")}
			r, err := s.Read(ctx, "", 2)
			if err != nil {
				t.Fatal(err)
			}
			read := make(chan error, 1)
			if _, err := s.Append(ctx, "", pack); err != nil {
				t.Fatal(err)
			}
			go func() { _, err := r.Next(ctx); read <- err }()
			armed.Store(true)
			_, err = s.Append(ctx, "", pack)
			_, after := s.Info(ctx)
			for what, err := range map[string]error{"Append": err, "Info": after, "Close": l.Close()} {
				if !errors.Is(err, memlog.ErrCrash) {
					t.Errorf("%s of a crashed log: %v", what, err)
				}
			}
			if err := <-read; c.when == memlog.Before && !errors.Is(err, memlog.ErrCrash) {
				t.Errorf("Next of a log that crashed: %v", err)
			}
			info, err := l.Restart().Stream(bus.Events).Info(ctx)
			if err != nil || info.Last != c.last {
				t.Errorf("after the restart the last pack is %d (%v), want %d", info.Last, err, c.last)
			}
		})
	}
}

// TestRestartOfRunning shows that a log left behind cannot write any more.
func TestRestartOfRunning(t *testing.T) {
	t.Parallel()
	old := memlog.New(memlog.Options{})
	fresh := old.Restart()
	if err := old.PutState(t.Context(), "k", []byte("old")); !errors.Is(err, memlog.ErrCrash) {
		t.Errorf("PutState of the old log: %v", err)
	}
	if _, err := fresh.State(t.Context(), "k"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("State of the fresh log: %v", err)
	}
}

func TestBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New(memlog.Options{Hook: func(ctx context.Context, op memlog.Op) error {
			if op.Name == memlog.OpAppend && op.When == memlog.Before {
				<-time.After(time.Minute) // of the bubble's time
			}
			return nil
		}})
		s := l.Stream(bus.Events)
		r, err := s.Read(t.Context(), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		go func() {
			if _, err := s.Append(t.Context(), "k", [][]byte{[]byte("x")}); err != nil {
				t.Error(err)
			}
		}()
		p, err := r.Next(t.Context())
		if err != nil || time.Since(start) != time.Minute || !p.Time.Equal(time.Now()) {
			t.Errorf("after %v: pack of %v, error %v", time.Since(start), p.Time, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next at the end: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
