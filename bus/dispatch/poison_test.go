package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// blocking keeps order by subject, and tries what is given up for ever.
func blocking(o *dispatch.Options) {
	o.OrderBy, o.OnPoison = "subject", dispatch.PoisonBlocks
	o.Retry.MaxAge, o.Retry.Max = lasting(5*time.Minute), lasting(time.Second)
}

// failing answers err to one event, and takes all others.
func failing(id string, err error) func(context.Context, sinks.Delivery) error {
	return func(_ context.Context, d sinks.Delivery) error {
		if d.Event.ID() == id {
			return err
		}
		return nil
	}
}

// buried are the reasons of all dead letters, by event.
func (b *bench) buried() map[string]string {
	b.t.Helper()
	all, _, err := b.DeadLetters(b.t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 1e6)
	if err != nil {
		b.t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, l := range all {
		reasons[l.Event.ID()] = l.Reason
	}
	return reasons
}

// A poison event blocks its key and no other, for as long as it takes, over a restart and
// over a crash; and those behind it come after it, in order.
func TestPoisonBlocksItsKey(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err   error
		crash bool
	}{
		"rejected, and a restart": {err: sinks.Answered(400, nil)},
		"rejected, and a crash":   {err: sinks.Answered(400, nil), crash: true},
		"for longer than max_age": {err: sinks.Answered(503, nil)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(failing("k1", c.err))
				table := func() dispatch.Table { return one(t, spec("f", f, blocking)) }
				store := memlog.New(memlog.Options{})
				d := start(t, store, table())
				ids := [][]string{{"k0", "k1", "k2"}, {"k3"}, {"k4"}}
				for process := range 3 {
					d.publishKeyed(t, "k", ids[process]...)
					d.publishKeyed(t, "other", fmt.Sprint("o", process))
					pass(10 * time.Minute)
					if n := d.Unsettled(); n > 0 { // what waits behind it has records of its own
						t.Errorf("in process %d %d events hold the floor", process, n)
					}
					if key, other := f.tookOf("k"), f.tookOf("o"); !slices.Equal(key, []string{"k0"}) || !slices.Equal(other, names("o", process+1)) {
						t.Fatalf("in process %d the sink has taken %v and %v", process, key, other)
					}
					if c.crash {
						store = store.Restart()
						d.stop()
					} else {
						d.stop()
						store = store.Restart()
					}
					d = start(t, store, table())
				}
				tried := f.attempts()
				pass(10 * time.Minute)
				if n := f.attempts() - tried; n < 9 || n > 11 {
					t.Errorf("%d attempts in ten minutes", n)
				}
				f.set(nil)
				pass(10 * time.Minute)
				if key := f.tookOf("k"); !slices.Equal(key, names("k", 5)) {
					t.Errorf("of the key came %v", key)
				}
				if got := d.buried(); len(got) > 0 {
					t.Errorf("dead letters: %v", got)
				}
				d.settled()
				d.stop()
			})
		})
	}
}

// A sink that says that it is gone is disabled, also where a poison event blocks: what
// waits is kept, and nobody asks it again before it is resumed.
func TestGoneSinkIsDisabledWherePoisonBlocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(sinks.Answered(410, nil)))
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, spec("f", f, blocking)) }
		d := start(t, store, table())
		d.publishKeyed(t, "k", names("e", 3)...)
		pass(10 * time.Minute)
		if s := d.Sinks()[0]; s.State != dispatch.StateGone || f.attempts() != 1 || len(d.buried()) > 0 {
			t.Fatalf("the sink is %s after %d attempts, dead letters %v", s.State, f.attempts(), d.buried())
		}
		d.stop()
		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(10 * time.Minute)
		if s := d.Sinks()[0]; s.State != dispatch.StateGone || f.attempts() != 1 {
			t.Fatalf("after a restart the sink is %s after %d attempts", s.State, f.attempts())
		}
		f.set(nil)
		if err := d.Resume(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		if got := f.tookOf("e"); !slices.Equal(got, names("e", 3)) {
			t.Errorf("after it was resumed came %v", got)
		}
		d.settled()
	})
}

// A delivery whose answer goes round in a circle is a dead letter, also where a poison event
// blocks: another attempt would do all of that once more.
func TestLoopIsADeadLetterWherePoisonBlocks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(failing("e0", fmt.Errorf("it goes round: %w", sinks.ErrLoop)))
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, blocking)))
		defer d.stop()
		d.publishKeyed(t, "k", names("e", 3)...)
		pass(10 * time.Minute)
		if got := d.buried(); len(got) != 1 || got["e0"] != "loop" || f.attempts() != 3 {
			t.Errorf("dead letters %v after %d attempts", got, f.attempts())
		}
		if got := f.tookOf("e"); !slices.Equal(got, []string{"e1", "e2"}) {
			t.Errorf("behind it came %v", got)
		}
		d.settled()
	})
}

// A batch that may have been done is not sent again, nor any part of it.
func TestBatchThatMayBeDoneIsNotDivided(t *testing.T) {
	bubble(t, func(t *testing.T) {
		long := errors.New("the answer is too long")
		f := &farBatch{far: newFar(nil), judge: func([]string) ([]error, error) {
			return nil, &sinks.Error{Err: long, Permanent: true, MayBeDone: true}
		}}
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, batches(100, time.Second))))
		defer d.stop()
		d.publish(names("e", 100)...)
		pass(10 * time.Minute)
		if got := d.buried(); f.attempts() != 1 || len(got) != 100 || got["e0"] != "rejected" {
			t.Errorf("%d attempts of %v, %d dead letters", f.attempts(), f.sizes, len(got))
		}
		d.settled()
	})
}

// tookOf is what the far side has taken of the events whose ids begin with a letter, in
// order.
func (f *far) tookOf(letter string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.order), func(id string) bool { return !strings.HasPrefix(id, letter) })
}
