package dispatch_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// What waits for a sink that a reload makes a queue of is not sent any more, which
// would use up its receives.
func TestSinkBecomesQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := newFar(func(ctx context.Context, _ sinks.Delivery) error {
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
			}
			return nil
		})
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("q", slow, func(o *dispatch.Options) { o.Concurrency = 2 })))
		defer d.stop()
		d.publish(names("e", 20)...)
		pass(time.Second)
		if err := d.Reload(t.Context(), one(t, queueSpec(t, "q", nil, nil))); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		got := append(d.receive(10), d.receive(10)...)
		for _, m := range got {
			if m.Receives != 1 {
				t.Errorf("%s: %d receives", m.Event.ID(), m.Receives)
			}
		}
		if len(got) != 18 {
			t.Errorf("%d of 18 messages: %+v", len(got), d.Balance())
		}
	})
}

// A purge does not wait for what consumers have.
func TestPurgeBehindLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, func(o *dispatch.Options) { o.OrderBy = "subject" })))
		defer d.stop()
		d.publishKeyed(t, "k", names("e", 5)...)
		pass(3 * time.Second)
		got := d.receive(10)
		if len(got) != 1 {
			t.Fatal(len(got))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if n, err := d.Purge(ctx, "q"); n != 0 || err != nil {
			t.Errorf("purged %d, %v", n, err)
		}
		d.balanced()
	})
}

// A paused queue cannot be purged, and says so.
func TestPurgePaused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		if err := d.Pause(t.Context(), "q", ""); err != nil {
			t.Fatal(err)
		}
		d.publish("e")
		pass(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		n, err := d.Purge(ctx, "q")
		if ctx.Err() != nil || !errors.Is(err, dispatch.ErrHeld) {
			t.Errorf("purged %d, %v", n, err)
		}
	})
}

// Whoever waits for a message when the bus stops is told so at once.
func TestReceiveEndsWithTheBus(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, nil)))
		ended := make(chan error, 1)
		go func() {
			_, err := d.Receive(t.Context(), "q", 1, 0)
			ended <- err
		}()
		synctest.Wait()
		d.stop()
		if err := <-ended; !errors.Is(err, bus.ErrClosed) {
			t.Error(err)
		}
		if err := d.Ack(t.Context(), "x.1.y")[0]; !errors.Is(err, bus.ErrClosed) {
			t.Error(err)
		}
	})
}

// held blocks the appends to RETRIES while it is on.
type held struct {
	mu   sync.Mutex
	wait chan struct{}
}

func (h *held) hook(_ context.Context, op memlog.Op) error {
	h.mu.Lock()
	wait := h.wait
	h.mu.Unlock()
	if wait != nil && op.Name == memlog.OpAppend && op.Stream == bus.Retries && op.When == memlog.Before {
		<-wait
	}
	return nil
}

// A heartbeat and the end of a job may come at the same time: neither fails.
func TestAckWhileExtending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := &held{}
		d := start(t, memlog.New(memlog.Options{Hook: h.hook}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		d.publish("e")
		m := d.receive(1)[0]
		h.mu.Lock()
		h.wait = make(chan struct{})
		h.mu.Unlock()
		extended, acked := make(chan error, 1), make(chan error, 1)
		go func() { extended <- d.Extend(t.Context(), time.Minute, m.Receipt)[0] }()
		synctest.Wait()
		go func() { acked <- d.Ack(t.Context(), m.Receipt)[0] }()
		synctest.Wait()
		close(h.wait)
		if err := <-extended; err != nil {
			t.Error(err)
		}
		if err := <-acked; err != nil {
			t.Error("ack:", err)
		}
		synctest.Wait()
		d.settled()
	})
}

// An event that was published twice is two messages of one id: each can be extended
// and acknowledged.
func TestQueueSameEventTwice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		d.publish("e")
		d.publish("e")
		synctest.Wait()
		got := d.receive(10)
		if len(got) != 2 {
			t.Fatal(len(got))
		}
		for i, err := range d.Extend(t.Context(), 10*time.Minute, receipts(got)...) {
			if err != nil {
				t.Errorf("extend %d: %v", i, err)
			}
		}
		pass(2 * time.Minute)
		if n := len(d.receive(10)); n != 0 {
			t.Errorf("%d came back", n)
		}
		for i, err := range d.Ack(t.Context(), receipts(got)...) {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		synctest.Wait()
		d.settled()
	})
}

// A crash right after a receive, or after more time was given, gives the message to
// nobody else.
func TestReceiveIsDurable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, queueSpec(t, "q", nil, nil)) }
		d := start(t, store, table())
		d.publish(names("e", 3)...)
		pass(5 * time.Second)
		got := d.receive(10)
		next := store.Restart()
		d.stop()
		d = start(t, next, table())
		if again := d.receive(10); len(again) != 0 {
			t.Errorf("after the crash: %v once more", eventIDs(again))
		}
		if errs := d.Extend(t.Context(), time.Hour, receipts(got)...); errors.Join(errs...) != nil {
			t.Error(errs)
		}
		next2 := next.Restart()
		d.stop()
		d = start(t, next2, table())
		defer d.stop()
		pass(time.Minute)
		if again := d.receive(10); len(again) != 0 {
			t.Errorf("after the extension and a crash: %v once more", eventIDs(again))
		}
		d.ack(got...)
		synctest.Wait()
		d.settled()
	})
}

// A reload that takes the queue out ends the waiting.
func TestReloadEndsReceive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		ended := make(chan error, 1)
		began := time.Now()
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := d.Receive(ctx, "q", 1, 0)
			ended <- err
		}()
		pass(time.Second)
		if err := d.Reload(t.Context(), one(t, spec("other", newFar(nil), nil))); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; time.Since(began) > 2*time.Second || !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// batching takes batches and leases.
type batching struct{ *lessee }

func (b batching) DeliverBatch(ctx context.Context, ds []sinks.Delivery) ([]error, error) {
	for _, d := range ds {
		if err := b.Deliver(ctx, d); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// A lease that ran out does not hold up those that would go into a batch with it.
func TestLeaseOverInABatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newLessee(time.Minute)
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("a", f, leases(time.Hour))))
		defer d.stop()
		d.publish("leased")
		pass(time.Second)
		table := one(t, spec("a", batching{f}, func(o *dispatch.Options) {
			o.Batch = dispatch.Batch{Max: 10, Wait: lasting(20 * time.Second)}
			o.Concurrency = 1
		}))
		if err := d.Reload(t.Context(), table); err != nil {
			t.Fatal(err)
		}
		pass(50 * time.Second)
		d.publish("x", "y")
		pass(5 * time.Minute)
		d.publish("z")
		pass(5 * time.Minute)
		d.settled()
		if f.count() != 4 {
			t.Errorf("%d of 4 arrived", f.count())
		}
	})
}

// What is received while the bus stops is either given out or there again.
func TestReceiveWhileStopping(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := &held{}
		store := memlog.New(memlog.Options{Hook: h.hook})
		table := func() dispatch.Table { return one(t, queueSpec(t, "q", nil, nil)) }
		d := start(t, store, table())
		d.publish("e")
		pass(5 * time.Second)
		m := make(chan []dispatch.Message, 1)
		var failed error
		h.mu.Lock()
		h.wait = make(chan struct{})
		h.mu.Unlock()
		go func() {
			got, err := d.Receive(t.Context(), "q", 1, time.Hour)
			failed = err
			m <- got
		}()
		synctest.Wait()
		stopped := make(chan struct{})
		go func() { d.stop(); close(stopped) }()
		pass(5 * time.Second)
		close(h.wait)
		got := <-m
		<-stopped
		d = start(t, store.Restart(), table())
		defer d.stop()
		again := d.receive(1)
		if failed == nil && len(got)+len(again) != 1 {
			t.Errorf("received %d, again %d", len(got), len(again))
		}
	})
}
