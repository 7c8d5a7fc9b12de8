package sinks

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestShared goes through the life of a shared value on a clock of its own.
func TestShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		var n atomic.Int64
		var fail atomic.Bool
		s := &shared[int]{timeout: 10 * time.Second, pause: 5 * time.Second, fetch: func(context.Context) (int, time.Duration, error) {
			<-time.After(time.Second)
			if n.Add(1); fail.Load() {
				return 0, 0, broken
			}
			return int(n.Load()), 10 * time.Minute, nil
		}}
		expect := func(want int, wantErr error, fetched int64) {
			t.Helper()
			got, err := s.get(t.Context())
			synctest.Wait()
			if err != wantErr || err == nil && got != want || n.Load() != fetched { //nolint:errorlint // the very error
				t.Errorf("get is %d, %v after %d fetches; want %d, %v after %d", got, err, n.Load(), want, wantErr, fetched)
			}
		}
		pass := func(d time.Duration) { <-time.After(d); synctest.Wait() }

		expect(1, nil, 1)
		pass(8 * time.Minute)
		expect(1, nil, 1)
		pass(time.Minute) // the last minute: it is good, and a new one is fetched meanwhile
		expect(1, nil, 1)
		pass(time.Second)
		expect(2, nil, 2)
		fail.Store(true)
		pass(9*time.Minute + 30*time.Second)
		expect(2, nil, 2)
		pass(time.Second) // failed, and that stands for a while
		expect(2, nil, 3)
		pass(time.Second)
		expect(2, nil, 3)
		pass(time.Minute) // and now it is no good any more
		expect(0, broken, 4)
		expect(0, broken, 4)
		fail.Store(false)
		pass(5 * time.Second)
		expect(5, nil, 5)
		s.drop(4)
		expect(5, nil, 5)
		s.drop(5)
		expect(6, nil, 6)
		s.close()
		expect(0, errClosed, 6)
	})
}

// TestSharedWaits: whoever gives up does not end the fetch of the others; Close does.
func TestSharedWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &shared[int]{timeout: 10 * time.Second, fetch: func(ctx context.Context) (int, time.Duration, error) {
			<-ctx.Done()
			return 0, 0, ctx.Err()
		}}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.get(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		start := time.Now()
		if _, err := s.get(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 9*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		failed := make(chan error, 1)
		go func() {
			_, err := s.get(t.Context())
			failed <- err
		}()
		synctest.Wait()
		s.close()
		s.close()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestWarmer: it asks only while nothing is delivered.
func TestWarmer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		w := newWarmer(&HTTPWarm{Every: 300e9}, Env{}, func(context.Context) error { asked.Add(1); return errors.New("down") })
		start := time.Now()
		for time.Since(start) < time.Hour {
			<-time.After(time.Minute)
			w.touch()
		}
		if n := asked.Load(); n != 0 {
			t.Errorf("asked %d times although events were delivered", n)
		}
		<-time.After(5*time.Minute + 31*time.Second)
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times after the first pause", n)
		}
		<-time.After(time.Hour)
		was := asked.Load()
		if was < 10 || was > 13 {
			t.Errorf("asked %d times in an hour", was)
		}
		w.close()
		w.close()
		<-time.After(time.Hour)
		if asked.Load() != was {
			t.Error("it asks after Close")
		}
	})
}

// TestWarmerCloses: Close does not wait for a function that does not answer.
func TestWarmerCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWarmer(&HTTPWarm{Every: 60e9}, Env{}, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		<-time.After(70 * time.Second)
		start := time.Now()
		w.close()
		if time.Since(start) > 0 {
			t.Errorf("Close took %v", time.Since(start))
		}
	})
}
