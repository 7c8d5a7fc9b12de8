package dispatch_test

import (
	"context"
	"errors"
	"fmt"
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

// queueSpec is a queue in a table.
func queueSpec(t testing.TB, name string, change func(*sinks.Queue), options func(*dispatch.Options)) dispatch.SinkSpec {
	t.Helper()
	q := sinks.NewQueue()
	if change != nil {
		change(q)
	}
	if faults := q.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	s, err := q.Open(t.Context(), sinks.Env{})
	if err != nil {
		t.Fatal(err)
	}
	return spec(name, s, options)
}

func (b *bench) receive(most int) []dispatch.Message {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer cancel()
	got, err := b.Receive(ctx, "q", most, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

func (b *bench) ack(messages ...dispatch.Message) {
	b.t.Helper()
	for _, m := range messages {
		if errs := b.Ack(b.t.Context(), m.Receipt); errs[0] != nil {
			b.t.Fatalf("ack %s: %v", m.Event.ID(), errs[0])
		}
	}
}

func eventIDs(messages []dispatch.Message) (got []string) {
	for _, m := range messages {
		got = append(got, m.Event.ID())
	}
	slices.Sort(got)
	return got
}

// receiveAll receives until nothing comes any more.
func (b *bench) receiveAll() (all []dispatch.Message) {
	b.t.Helper()
	for {
		got := b.receive(dispatch.MaxReceive)
		if len(got) == 0 {
			return all
		}
		all = append(all, got...)
	}
}

// A message is seen once while somebody has it, again when that takes too long, and
// no more once it is acknowledged, in each case after a restart too.
func TestQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, queueSpec(t, "q", nil, nil)) }
		d := start(t, store, table())
		d.publish("a", "b", "c", "d")
		pass(10 * time.Second) // they have spilled
		got := d.receive(3)
		if len(got) != 3 || got[0].Receives != 1 {
			t.Fatalf("received %+v", got)
		}
		rest := d.receive(10)
		if len(rest) != 1 || len(d.receive(10)) != 0 {
			t.Fatalf("then received %d", len(rest))
		}
		d.ack(got[0])
		if errs := d.Nack(t.Context(), 0, got[1].Receipt); errs[0] != nil {
			t.Fatal(errs)
		}
		d.balanced()
		d.stop()

		store = store.Restart()
		d = start(t, store, table())
		again := d.receive(10)
		if len(again) != 1 || again[0].ID != got[1].ID || again[0].Receives != 2 {
			t.Fatalf("after the restart: %+v", again)
		}
		if errs := d.Extend(t.Context(), 10*time.Minute, got[2].Receipt); errs[0] != nil {
			t.Fatal(errs)
		}
		pass(time.Minute)
		late := d.receiveAll() // two leases that run out together need not come together
		if want := slices.Sorted(slices.Values([]string{again[0].Event.ID(), rest[0].Event.ID()})); !slices.Equal(eventIDs(late), want) {
			t.Fatalf("after a minute: %v, want %v", eventIDs(late), want)
		}
		if errs := d.Ack(t.Context(), again[0].Receipt, "x", "a.1.b"); !errors.Is(errs[0], dispatch.ErrLease) || errs[1] == nil || !errors.Is(errs[2], bus.ErrNotFound) {
			t.Errorf("receipts that are over, or none: %v", errs)
		}
		d.ack(append(late, got[2])...)
		if errs := d.Ack(t.Context(), got[2].Receipt); !errors.Is(errs[0], bus.ErrNotFound) {
			t.Errorf("acknowledged twice: %v", errs)
		}
		d.settled()
		d.stop()

		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(time.Hour)
		if got := d.receive(10); len(got) != 0 {
			t.Errorf("acknowledged, and received again: %+v", got)
		}
		d.settled()
	})
}

// A message that is received too often becomes a dead letter, with every receive.
func TestQueueMaxReceives(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", func(q *sinks.Queue) { q.MaxReceives = 3 }, nil)))
		defer d.stop()
		d.publish("e")
		d.receive(1)
		pass(time.Minute)
		got := d.receive(1)
		d.Nack(t.Context(), 20*time.Second, got[0].Receipt)
		if got := d.receive(1); len(got) != 0 {
			t.Error("received before its time")
		}
		pass(30 * time.Second)
		if got = d.receive(1); len(got) != 1 || got[0].Receives != 3 {
			t.Fatalf("got %+v", got)
		}
		d.Nack(t.Context(), 0, got[0].Receipt)
		synctest.Wait()
		letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
		if err != nil || len(letters) != 1 || len(letters[0].Attempts) != 3 || letters[0].Reason != "attempts_exhausted" {
			t.Fatalf("%+v, %v", letters, err)
		}
		for i, want := range []string{"lease_over", "nacked", "nacked"} {
			if letters[0].Attempts[i].Class != want {
				t.Errorf("receive %d: %s, want %s", i+1, letters[0].Attempts[i].Class, want)
			}
		}
		d.settled()
	})
}

// A message with a delay is not seen before, however it is looked for.
func TestQueueDelay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table {
			return one(t, queueSpec(t, "q", func(q *sinks.Queue) { q.Delay = lasting(time.Minute) }, nil))
		}
		d := start(t, store, table())
		d.publish("slow")
		if _, err := d.pub.Publish(t.Context(), typed(t, "fast", "t", bus.Attr{Name: "delayseconds", Value: "0"})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := d.receive(10)
		if !slices.Equal(eventIDs(got), []string{"fast"}) {
			t.Fatalf("at once: %v", eventIDs(got))
		}
		d.ack(got...)
		d.stop()
		d = start(t, store.Restart(), table())
		defer d.stop()
		if got := d.receive(10); len(got) != 0 {
			t.Fatalf("after the restart: %v", eventIDs(got))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		got, err := d.Receive(ctx, "q", 10, 0)
		if err != nil || !slices.Equal(eventIDs(got), []string{"slow"}) {
			t.Fatalf("in the end: %v, %v", eventIDs(got), err)
		}
		d.ack(got...)
		d.settled()
	})
}

// With order_by a queue has FIFO groups: the next of a group is not seen while
// somebody has the one before.
func TestQueueGroups(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, func(o *dispatch.Options) { o.OrderBy = "subject" })))
		defer d.stop()
		for i := range 30 {
			e := typed(t, fmt.Sprintf("%02d", i), "t", bus.Attr{Name: "subject", Value: string(rune('a' + i%3))})
			if _, err := d.pub.Publish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
		}
		pass(5 * time.Second)
		last := map[string]string{}
		for n := 0; n < 30; {
			got := d.receive(10)
			groups := map[string]bool{}
			for _, m := range got {
				group := m.Event.Subject()
				if groups[group] {
					t.Fatalf("two of group %s at once", group)
				}
				groups[group] = true
				if m.Event.ID() <= last[group] {
					t.Fatalf("%s after %s in group %s", m.Event.ID(), last[group], group)
				}
				last[group] = m.Event.ID()
			}
			d.ack(got...)
			n += len(got)
		}
		d.settled()
	})
}

// Whoever waits gets a message as soon as there is one; a reload that makes
// something else of the queue ends the waiting.
func TestQueueWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		type result struct {
			got  []dispatch.Message
			took time.Duration
		}
		results := make(chan result, 1)
		wait := func() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			got, _ := d.Receive(ctx, "q", 1, 0)
			results <- result{got, time.Since(began)}
		}
		go wait()
		pass(7 * time.Second)
		d.publish("e")
		if r := <-results; len(r.got) != 1 || r.took != 7*time.Second {
			t.Errorf("got %d after %v", len(r.got), r.took)
		} else {
			d.ack(r.got...)
		}
		go wait()
		if r := <-results; len(r.got) != 0 || r.took != 20*time.Second {
			t.Errorf("got %d after %v", len(r.got), r.took)
		}
		// A reload that takes the queue out.
		go wait()
		pass(3 * time.Second)
		without := dispatch.Table{Version: "v2", Removed: map[string]string{"q": dispatch.RemovedKeep}}
		if err := d.Reload(t.Context(), without); err != nil {
			t.Fatal(err)
		}
		if r := <-results; len(r.got) != 0 || r.took != 3*time.Second {
			t.Errorf("the queue was taken out: got %d after %v", len(r.got), r.took)
		}
		if _, err := d.Receive(t.Context(), "nope", 1, 0); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("of no queue: %v", err)
		}
	})
}

// A purge discards what is there, counts it, and leaves what consumers have.
func TestQueuePurge(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		d.publish(names("e", 3000)...)
		pass(5 * time.Second)
		held := d.receive(5)
		n, err := d.Purge(t.Context(), "q")
		if err != nil || n != 2995 {
			t.Errorf("purged %d, %v", n, err)
		}
		d.publish("new")
		synctest.Wait()
		peeked, err := d.Peek("q", 10)
		if err != nil || !slices.Equal(eventIDs(peeked), []string{"new"}) || peeked[0].Receipt != "" {
			t.Errorf("peeked %v, %v", eventIDs(peeked), err)
		}
		d.ack(append(held, d.receive(10)...)...)
		if b := d.Balance(); b.Discarded != 2995 || b.Delivered != 6 {
			t.Errorf("%+v", b)
		}
		d.settled()
	})
}

// Many consumers, some of which die with messages in hand, through restarts of the
// bus: each message is acknowledged once, none is lost.
func TestQueueConsumers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const messages, consumers = 2000, 8
		store := memlog.New(memlog.Options{})
		var mu sync.Mutex
		acked := map[string]int{}
		table := func() dispatch.Table {
			return one(t, queueSpec(t, "q", func(q *sinks.Queue) { q.MaxReceives = 0 }, nil))
		}
		d := start(t, store, table())
		d.publish(names("e", messages)...)
		for life := range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			var all sync.WaitGroup
			for c := range consumers {
				all.Go(func() {
					for round := 0; ctx.Err() == nil; round++ {
						got, err := d.Receive(ctx, "q", 10, 0)
						if err != nil {
							return
						}
						if (c+round+life)%5 == 0 {
							continue // it dies, and another comes
						}
						<-time.After(100 * time.Millisecond)
						for i, err := range d.Ack(t.Context(), receipts(got)...) {
							if err == nil {
								mu.Lock()
								acked[got[i].Event.ID()]++
								mu.Unlock()
							}
						}
					}
				})
			}
			all.Wait()
			cancel()
			d.balanced()
			d.stop()
			store = store.Restart()
			d = start(t, store, table())
		}
		defer d.stop()
		if len(acked) != messages {
			t.Errorf("%d of %d were acknowledged", len(acked), messages)
		}
		for id, n := range acked {
			if n != 1 {
				t.Errorf("%s was acknowledged %d times", id, n)
			}
		}
		pass(time.Minute)
		d.settled()
	})
}

func receipts(messages []dispatch.Message) (all []string) {
	for _, m := range messages {
		all = append(all, m.Receipt)
	}
	return all
}

// Two requests name the same messages, in another order and one of them twice: each
// message ends once, and nobody waits for anybody for ever.
func TestQueueAcksTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		slow := func(_ context.Context, op memlog.Op) error {
			if op.Name == memlog.OpAppend && op.When == memlog.Before {
				<-time.After(20 * time.Millisecond)
			}
			return nil
		}
		d := start(t, memlog.New(memlog.Options{Hook: slow}), one(t, queueSpec(t, "q", nil, nil)))
		defer d.stop()
		d.publish("a", "b")
		pass(time.Second)
		all := receipts(d.receive(2))
		var both sync.WaitGroup
		var ended atomic.Int32
		for _, names := range [][]string{{all[0], all[1]}, {all[1], all[0], all[1]}} {
			both.Go(func() {
				for _, err := range d.Ack(t.Context(), names...) {
					if err == nil {
						ended.Add(1)
					} else if !errors.Is(err, bus.ErrNotFound) {
						t.Error(err)
					}
				}
			})
		}
		both.Wait()
		if ended.Load() != 2 {
			t.Errorf("%d acknowledgements of 2 messages were taken", ended.Load())
		}
		d.settled()
	})
}
