package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/rules"
	"sluice/sinks"
)

// far is the far side of a sink: it notes what it got, and answers as told.
type far struct {
	mu     sync.Mutex
	got    map[string]int // deliveries by event id
	order  []string
	tries  int
	ids    map[string]map[string]bool // delivery ids by event id
	keys   map[string]string          // the subject by event id
	answer func(ctx context.Context, d sinks.Delivery) error
	closed int
}

func newFar(answer func(ctx context.Context, d sinks.Delivery) error) *far {
	return &far{got: map[string]int{}, ids: map[string]map[string]bool{}, keys: map[string]string{}, answer: answer}
}

func (f *far) Deliver(ctx context.Context, d sinks.Delivery) error {
	f.mu.Lock()
	f.tries++
	answer := f.answer
	f.mu.Unlock()
	var err error
	if answer != nil {
		err = answer(ctx, d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	id := d.Event.ID()
	if f.ids[id] == nil {
		f.ids[id] = map[string]bool{}
	}
	f.ids[id][d.ID] = true
	f.keys[id] = d.Event.Subject()
	if err == nil {
		f.got[id]++
		f.order = append(f.order, id)
	}
	return err
}

func (f *far) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

func (f *far) set(answer func(ctx context.Context, d sinks.Delivery) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *far) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

func (f *far) attempts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tries
}

func (f *far) times(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got[id]
}

func always(err error) func(context.Context, sinks.Delivery) error {
	return func(context.Context, sinks.Delivery) error { return err }
}

// hang waits for the end of its context, as a sink does that never answers.
func hang(ctx context.Context, _ sinks.Delivery) error {
	<-ctx.Done()
	return ctx.Err()
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func everything(t testing.TB) rules.Pattern {
	t.Helper()
	p, err := rules.ParsePattern([]byte(`{"type":[{"exists":true}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func options(change func(*dispatch.Options)) dispatch.Options {
	o := dispatch.DefaultOptions()
	if change != nil {
		change(&o)
	}
	return o
}

// one is the table of one rule that sends everything to the sinks.
func one(t testing.TB, specs ...dispatch.SinkSpec) dispatch.Table {
	t.Helper()
	table := dispatch.Table{Version: "v1", Sinks: specs}
	route := dispatch.Route{Name: "all", Pattern: everything(t)}
	for _, s := range specs {
		route.To = append(route.To, s.Name)
	}
	table.Routes = []dispatch.Route{route}
	return table
}

func spec(name string, s sinks.Sink, change func(*dispatch.Options)) dispatch.SinkSpec {
	return dispatch.SinkSpec{Name: name, Sink: s, Options: options(change)}
}

// bench is a dispatcher under test.
type bench struct {
	*dispatch.Dispatcher
	t   testing.TB
	pub bus.Publisher
}

func start(t testing.TB, store bus.Log, table dispatch.Table) *bench {
	t.Helper()
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), table); err != nil {
		t.Fatal(err)
	}
	return &bench{Dispatcher: d, t: t, pub: d.Publisher("test")}
}

func (b *bench) stop() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := b.Stop(ctx); err != nil && !errors.Is(err, memlog.ErrCrash) {
		b.t.Fatal(err)
	}
}

func event(t testing.TB, id string) bus.Event {
	t.Helper()
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: "test"}, {Name: "type", Value: "test.made"},
		{Name: "datacontenttype", Value: "application/json"},
	}, []byte(`{"n":1}`))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (b *bench) publish(ids ...string) {
	b.t.Helper()
	var events []bus.Event
	for _, id := range ids {
		events = append(events, event(b.t, id))
	}
	results, err := b.pub.Publish(b.t.Context(), events...)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			b.t.Fatal(r.Err)
		}
	}
}

func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return ids
}

// balanced fails unless everything is accounted for and nothing is open.
func (b *bench) balanced() {
	b.t.Helper()
	if bal := b.Balance(); bal.Lost() != 0 {
		b.t.Fatalf("the deliveries do not add up: %+v", bal)
	}
}

func (b *bench) settled() {
	b.t.Helper()
	b.balanced()
	if bal := b.Balance(); bal.Open() != 0 {
		b.t.Fatalf("deliveries are still open: %+v", bal)
	}
	if n := b.Unsettled(); n != 0 {
		b.t.Fatalf("%d events hold the floor", n)
	}
}

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, test)
}

// pass lets the bubble's clock go on by d, and everything that follows happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestDeliversToEverySink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newFar(nil), newFar(nil)
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("a", a, nil), spec("b", b, nil)))
		defer d.stop()
		d.publish(names("e", 500)...)
		synctest.Wait()
		if a.count() != 500 || b.count() != 500 {
			t.Fatalf("a got %d and b %d of 500 events", a.count(), b.count())
		}
		d.settled()
	})
}

func TestRetriesThenDeadLetterThenRedrive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(sinks.Answered(500, []byte("no luck"))))
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
			o.Retry = dispatch.Retry{MaxAttempts: 4, Initial: 1e9, Max: 60e9, Multiplier: 2, Jitter: "none", Preset: "default"}
		})))
		defer d.stop()
		d.publish("e")
		synctest.Wait()
		for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if n := f.attempts(); n != i+1 {
				t.Fatalf("%d attempts before the delay of %v, want %d", n, wait, i+1)
			}
			pass(wait - time.Millisecond)
			if n := f.attempts(); n != i+1 {
				t.Fatalf("attempt %d came before the delay of %v was over", n, wait)
			}
			pass(time.Millisecond)
		}
		letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
		if err != nil || len(letters) != 1 {
			t.Fatalf("%d dead letters, error %v", len(letters), err)
		}
		l := letters[0]
		if l.Reason != "attempts_exhausted" || l.Rule != "all" || l.Sink != "f" || l.Config != "v1" || len(l.Attempts) != 4 ||
			l.Attempts[3].Status != 500 || string(l.Attempts[3].Answer) != "no luck" || l.Event.ID() != "e" {
			t.Fatalf("the dead letter is %+v", l)
		}
		d.settled()

		f.set(nil)
		job, err := d.Redrive(t.Context(), dispatch.Redrive{})
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if job, _ = d.Job(job.ID); job.State != dispatch.JobDone || job.Sent != 1 {
			t.Fatalf("the redrive ended as %+v", job)
		}
		if f.times("e") != 1 {
			t.Fatalf("the event was delivered %d times", f.times("e"))
		}
		if letters, _, _ := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10); len(letters) != 0 {
			t.Fatalf("%d dead letters are left", len(letters))
		}
		if ids := slices.Collect(maps.Keys(f.ids["e"])); len(ids) != 1 {
			t.Fatalf("the delivery id changed: %v", ids)
		}
		d.settled()
	})
}

func TestVerdictsOfOneAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		err    error
		reason string
		state  string
	}{
		{"400", sinks.Answered(400, nil), "rejected", dispatch.StateActive},
		{"410", sinks.Answered(410, nil), "gone", dispatch.StateGone},
		{"permanent", sinks.Permanent(errors.New("never")), "rejected", dispatch.StateActive},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := newFar(always(c.err))
				d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
				defer d.stop()
				d.publish("e")
				synctest.Wait()
				letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
				if err != nil || len(letters) != 1 || letters[0].Reason != c.reason {
					t.Fatalf("dead letters %+v, error %v", letters, err)
				}
				if s := d.Sinks()[0]; s.State != c.state || s.DeadLetters != 1 {
					t.Fatalf("the sink is %+v", s)
				}
				d.settled()
			})
		})
	}
}

func TestGoneSinkKeepsItsBacklogUntilResumed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(sinks.Answered(410, nil)))
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
		defer d.stop()
		d.publish("first")
		synctest.Wait()
		d.publish(names("e", 20)...)
		pass(time.Minute)
		if s := d.Sinks()[0]; s.Backlog != 20 || f.attempts() != 1 {
			t.Fatalf("%d attempts, the sink is %+v", f.attempts(), s)
		}
		f.set(nil)
		if err := d.Resume(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if f.count() != 20 {
			t.Fatalf("%d of 20 events arrived after the resume", f.count())
		}
		d.settled()
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(sinks.RetryAfter(sinks.Answered(429, nil), 90*time.Second)))
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
		defer d.stop()
		d.publish("e")
		pass(89 * time.Second)
		if f.attempts() != 1 {
			t.Fatalf("%d attempts within the 90 s asked for", f.attempts())
		}
		f.set(nil)
		pass(2 * time.Second)
		if f.times("e") != 1 {
			t.Fatal("no attempt after the 90 s asked for")
		}
		d.settled()
	})
}

// A secret that rotates while the sink is down for long kills nothing that waits: a 401
// has its three more attempts after any other failures, also over a restart.
func TestLateAuthFailureIsRetried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(sinks.Answered(503, nil)))
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, spec("s", f, nil)) }
		d := start(t, store, table())
		d.publish("e")
		pass(time.Hour)
		f.set(always(sinks.Answered(401, nil)))
		before := f.attempts()
		for range 30 {
			if f.attempts() < before+2 {
				pass(time.Minute)
			}
		}
		d.stop()
		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(time.Hour)
		letters := d.letters()
		if n := f.attempts() - before; n != 4 || len(letters) != 1 || letters[0].Reason != "attempts_exhausted" {
			t.Errorf("%d attempts with the wrong secret, dead letters %+v", n, letters)
		}
		d.settled()
	})
}

func TestSlowSinkHoldsNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := newFar(func(ctx context.Context, d sinks.Delivery) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		fast := newFar(nil)
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("fast", fast, nil), spec("slow", slow, nil)))
		defer d.stop()
		const seconds, rate = 30, 400
		for i := range seconds {
			d.publish(names(fmt.Sprintf("s%d-", i), rate)...)
			synctest.Wait()
			if fast.count() != (i+1)*rate {
				t.Fatalf("after %d s the fast sink has %d of %d events", i, fast.count(), (i+1)*rate)
			}
			pass(time.Second)
		}
		if n := d.Unsettled(); n > 1024 {
			t.Fatalf("%d events hold the floor for the slow sink", n)
		}
		d.balanced()
		pass(seconds * rate * 5 * time.Second / 32)
		pass(10 * time.Second)
		if slow.count() != seconds*rate {
			t.Fatalf("the slow sink has %d of %d events", slow.count(), seconds*rate)
		}
		d.settled()
	})
}

func TestHangingDeliveryIsMadeDurableAndNotRepeated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(func(ctx context.Context, d sinks.Delivery) error {
			<-time.After(20 * time.Second)
			return nil
		})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
		defer d.stop()
		d.publish("e")
		pass(3 * time.Second)
		if d.Unsettled() != 0 {
			t.Fatal("a long delivery holds the floor")
		}
		d.balanced()
		pass(30 * time.Second)
		if f.times("e") != 1 || f.attempts() != 1 {
			t.Fatalf("delivered %d times in %d attempts", f.times("e"), f.attempts())
		}
		d.settled()
	})
}

func TestBreakerProbesOneByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(always(sinks.Answered(503, nil)))
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, nil)))
		defer d.stop()
		d.publish(names("e", 1000)...)
		pass(time.Minute)
		// 32 at once, 9 in the places of those that failed before the breaker opened,
		// then one probe after 1, 2, 4, 8, 16 and 32 s.
		if n := f.attempts(); n < 10 || n > 47 {
			t.Fatalf("%d attempts in the first minute of an outage", n)
		}
		if s := d.Sinks()[0]; s.State != dispatch.StateBroken {
			t.Fatalf("the sink is %+v", s)
		}
		d.balanced()
		f.set(nil)
		pass(20 * time.Minute)
		if f.count() != 1000 {
			t.Fatalf("%d of 1000 events arrived after the outage", f.count())
		}
		d.settled()
	})
}

func TestPausedSinkDrainsInOrderAfterRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table {
			return one(t, spec("f", f, func(o *dispatch.Options) { o.Concurrency = 1 }))
		}
		d := start(t, store, table())
		if err := d.Pause(t.Context(), "f", "maintenance"); err != nil {
			t.Fatal(err)
		}
		ids := names("e", 3000)
		for i := 0; i < len(ids); i += 10 {
			d.publish(ids[i : i+10]...)
			pass(10 * time.Millisecond)
		}
		synctest.Wait()
		d.stop()

		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(time.Second)
		if s := d.Sinks()[0]; s.State != dispatch.StatePaused || s.Hold.Note != "maintenance" || s.Backlog != 3000 || f.attempts() != 0 {
			t.Fatalf("after the restart the sink is %+v, with %d attempts", s, f.attempts())
		}
		if err := d.Resume(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if !slices.Equal(f.order, ids) {
			t.Fatalf("%d of %d events came in order", len(f.order), len(ids))
		}
		d.settled()
	})
}

func TestTimeoutIsRetried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(hang)
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) { o.Timeout = 2e9 })))
		defer d.stop()
		d.publish("e")
		pass(2500 * time.Millisecond)
		f.set(nil)
		pass(10 * time.Second) // a second attempt that hangs, and the jitter
		if f.times("e") != 1 {
			t.Fatalf("delivered %d times in %d attempts", f.times("e"), f.attempts())
		}
		d.settled()
	})
}
