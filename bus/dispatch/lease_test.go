package dispatch_test

import (
	"context"
	"errors"
	"slices"
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

// lessee is a sink that takes a lease of each delivery, and remembers the tokens.
type lessee struct {
	*replying
	mu     sync.Mutex
	tokens map[string]string // by event id
	ids    map[string]string // of deliveries, by event id
}

func newLessee(want time.Duration) *lessee {
	l := &lessee{tokens: map[string]string{}, ids: map[string]string{}}
	l.replying = newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tokens[d.Event.ID()], l.ids[d.Event.ID()] = d.Ask.Lease.Token, d.ID
		return sinks.Answer{Status: 202, Lease: want}, nil
	})
	return l
}

func (l *lessee) of(event string) (id, token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[event], l.tokens[event]
}

func leases(most time.Duration) func(*dispatch.Options) {
	return func(o *dispatch.Options) {
		o.Lease = lasting(most)
		o.Retry = dispatch.Retry{Preset: "default", MaxAttempts: 2, Initial: lasting(time.Second), Jitter: "none"}
	}
}

// A job that took a lease is done, fails or is forgotten, before and after a
// restart of the bus.
func TestLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		f, last := newLessee(2*time.Minute), newFar(nil)
		table := func() dispatch.Table { return byType(t, spec("job", f, leases(time.Hour)), spec("done", last, nil)) }
		d := start(t, store, table())
		for _, id := range []string{"done", "later", "failed", "forgotten"} {
			if _, err := d.pub.Publish(t.Context(), typed(t, id, "job")); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		if bal := d.Balance(); bal.Open() != 4 || bal.Retries != 4 || d.Unsettled() != 0 {
			t.Fatalf("while they run: %+v, %d hold the floor", bal, d.Unsettled())
		}
		id, token := f.of("done")
		if err := d.EndLease(t.Context(), id, token+"x", sinks.Answer{}, nil); !errors.Is(err, dispatch.ErrLease) {
			t.Errorf("with a wrong token: %v", err)
		}
		reply := sinks.Answer{Events: []bus.Event{typed(t, "reply", "done")}}
		if err := d.EndLease(t.Context(), id, token, reply, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.EndLease(t.Context(), id, token, reply, nil); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("ended twice: %v", err)
		}
		pass(time.Second)
		if last.times("reply") != 1 {
			t.Error("the reply did not arrive")
		}
		d.stop()

		pass(time.Minute) // of the two of the leases
		store = store.Restart()
		d = start(t, store, table())
		pass(30 * time.Second)
		if n := f.attempts(); n != 4 {
			t.Fatalf("%d attempts: a lease did not survive the restart", n)
		}
		id, token = f.of("later")
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, nil); err != nil {
			t.Fatal(err)
		}
		id, token = f.of("failed")
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, sinks.Permanent(errors.New("no"))); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
		if err != nil || len(letters) != 2 {
			t.Fatalf("%d dead letters, %v", len(letters), err)
		}
		for _, l := range letters {
			switch id := l.Event.ID(); {
			case id == "failed" && l.Reason == "rejected" && len(l.Attempts) == 1:
			case id == "forgotten" && l.Reason == "attempts_exhausted" && len(l.Attempts) == 2 && l.Attempts[0].Class == "lease_over":
			default:
				t.Errorf("%s: %s, %+v", id, l.Reason, l.Attempts)
			}
		}
		d.settled()
		d.stop()

		// What was said is durable: nothing comes back.
		store = store.Restart()
		d = start(t, store, table())
		defer d.stop()
		pass(10 * time.Minute)
		if n := f.attempts(); n != 5 {
			t.Errorf("%d attempts in all, want 5", n)
		}
		d.settled()
	})
}

// A job that failed comes again when its function said, and not within the hour that
// is all that a Retry-After can ask for.
func TestLeasePutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newLessee(time.Minute)
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("job", f, leases(time.Hour))))
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "job")); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		id, token := f.of("e")
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, sinks.NotBefore(errors.New("busy until three"), 3*time.Hour)); err != nil {
			t.Fatal(err)
		}
		pass(3*time.Hour - time.Second)
		if n := f.attempts(); n != 1 {
			t.Errorf("%d attempts before its time", n)
		}
		pass(2 * time.Second)
		if n := f.attempts(); n != 2 {
			t.Errorf("%d attempts after its time", n)
		}
		id, token = f.of("e")
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, nil); err != nil {
			t.Fatal(err)
		}
		d.settled()
	})
}

// A crash right after a job began does not begin it again: that the lease is held is
// saved at once and not with the next sweep.
func TestLeaseCrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var crash atomic.Bool
		store := memlog.New(memlog.Options{Hook: func(context.Context, memlog.Op) error {
			if crash.Swap(false) {
				return memlog.ErrCrash
			}
			return nil
		}})
		f := newLessee(time.Minute)
		table := func() dispatch.Table { return byType(t, spec("job", f, leases(time.Hour))) }
		d := start(t, store, table())
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "job")); err != nil {
			t.Fatal(err)
		}
		pass(time.Millisecond)
		crash.Store(true)
		d.stop()
		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(30 * time.Second)
		if n := f.attempts(); n != 1 {
			t.Errorf("%d attempts while the lease is held", n)
		}
		id, token := f.of("e")
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, nil); err != nil {
			t.Fatal(err)
		}
		d.settled()
	})
}

// A heartbeat gives a job more time, durably and not more than the sink may have.
func TestExtendLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		f := newLessee(time.Hour) // of which it gets ten minutes
		table := func() dispatch.Table { return byType(t, spec("job", f, leases(10*time.Minute))) }
		d := start(t, store, table())
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "job")); err != nil {
			t.Fatal(err)
		}
		pass(9 * time.Minute)
		id, token := f.of("e")
		if got, err := d.ExtendLease(t.Context(), id, token, time.Hour); err != nil || got != 10*time.Minute {
			t.Fatalf("extended by %v, %v", got, err)
		}
		d.stop()
		store = store.Restart()
		d = start(t, store, table())
		defer d.stop()
		pass(9 * time.Minute)
		if n := f.attempts(); n != 1 {
			t.Fatalf("%d attempts: the lease ran out", n)
		}
		if _, err := d.ExtendLease(t.Context(), id, "", time.Hour); !errors.Is(err, dispatch.ErrLease) {
			t.Errorf("without a token: %v", err)
		}
		pass(5 * time.Minute)
		if n := f.attempts(); n != 2 {
			t.Fatalf("%d attempts after the lease ran out", n)
		}
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, nil); !errors.Is(err, dispatch.ErrLease) {
			t.Errorf("with the token of the first attempt: %v", err)
		}
		id, token = f.of("e")
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		d.settled()
	})
}

// A reply may come while a heartbeat is being written: whose it is is known all the
// time, since its source follows from that.
func TestLeaseSinkDuringExtend(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var looked []string
		var look atomic.Pointer[func()]
		store := memlog.New(memlog.Options{Hook: func(_ context.Context, op memlog.Op) error {
			if f := look.Load(); f != nil && op.Name == memlog.OpAppend && op.Stream == bus.Retries {
				(*f)()
			}
			return nil
		}})
		f := newLessee(time.Minute)
		d := start(t, store, byType(t, spec("job", f, leases(time.Hour))))
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "job")); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		id, token := f.of("e")
		ask := func() { looked = append(looked, d.LeaseSink(id)) }
		look.Store(&ask)
		if _, err := d.ExtendLease(t.Context(), id, token, time.Minute); err != nil {
			t.Fatal(err)
		}
		look.Store(nil)
		if len(looked) == 0 || slices.Contains(looked, "") {
			t.Errorf("while the heartbeat is written the lease is of %q", looked)
		}
	})
}

// A reply that cannot be stored leaves the lease as it was: the function says it
// again.
func TestEndLeaseAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		full := newSwitch()
		store := memlog.New(memlog.Options{Hook: full.hook})
		f := newLessee(time.Hour)
		d := start(t, store, byType(t, spec("job", f, leases(time.Hour))))
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "job")); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		id, token := f.of("e")
		reply := sinks.Answer{Events: []bus.Event{typed(t, "reply", "none")}}
		full.set(true)
		if err := d.EndLease(t.Context(), id, token, reply, nil); !errors.Is(err, bus.ErrFull) {
			t.Errorf("while the store is full: %v", err)
		}
		d.balanced()
		full.set(false)
		if err := d.EndLease(t.Context(), id, token, reply, nil); err != nil {
			t.Errorf("afterwards: %v", err)
		}
		pass(time.Second)
		d.settled()
	})
}

// Events in the answer that takes a lease are published like any others.
func TestLeaseWithEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, last := newLessee(time.Minute), newFar(nil)
		take := f.reply
		f.reply = func(d sinks.Delivery) (sinks.Answer, error) {
			a, err := take(d)
			a.Events = []bus.Event{typed(t, "begun", "end")}
			return a, err
		}
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("job", f, leases(time.Hour)), spec("end", last, nil)))
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "job")); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if last.times("begun") != 1 || d.Balance().Retries != 1 {
			t.Errorf("%d times, %+v", last.times("begun"), d.Balance())
		}
	})
}
