package dispatch_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
)

// age fails unless the oldest that waits for a sink is so old, to the second.
func (b *bench) age(what, sink string, want time.Duration) {
	b.t.Helper()
	for _, s := range b.Sinks() {
		if s.Name == sink && s.OldestAge.Round(time.Second) != want {
			b.t.Errorf("%s: the oldest is %s old, want %s (%d in memory, %d on disk)", what, s.OldestAge, want, s.Queued, s.Backlog)
		}
	}
}

// However few wait in a queue, the age of the oldest is seen, and falls when that is
// acknowledged.
func TestAgeOfAQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, queueSpec(t, "q", nil, nil)) }
		d := start(t, store, table())
		d.age("nothing", "q", 0)
		d.publish("a")
		pass(time.Hour)
		d.publish("b", "c")
		d.age("after an hour", "q", time.Hour)
		got := d.receive(1)
		d.age("without what a consumer has", "q", 0)
		pass(10 * time.Second)
		d.Nack(t.Context(), 0, got[0].Receipt)
		pass(50 * time.Second)
		d.age("behind newer ones", "q", time.Hour+time.Minute)
		d.stop()

		pass(time.Hour)
		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(time.Second)
		d.age("after a restart", "q", 2*time.Hour+time.Minute+time.Second)
		for _, m := range d.receiveAll() {
			if m.Event.ID() == "a" {
				d.ack(m)
				continue
			}
			d.Nack(t.Context(), 0, m.Receipt)
		}
		pass(time.Second)
		d.age("after an ack of the oldest", "q", time.Hour+time.Minute+7*time.Second)
		d.ack(d.receiveAll()...)
		d.age("empty", "q", 0)
		d.settled()
	})
}

// The age is that of what waits deep in memory and on the disk alike: of a queue that
// is received from, and of a sink that is paused over a restart.
func TestAgeOfABacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		f := newFar(nil)
		table := func() dispatch.Table { return one(t, queueSpec(t, "q", nil, nil), spec("f", f, nil)) }
		d := start(t, store, table())
		if err := d.Pause(t.Context(), "f", "for a while"); err != nil {
			t.Fatal(err)
		}
		for i := range 10 { // one second apart
			d.publish(names(fmt.Sprint("e", i, "."), 1000)...)
			pass(time.Second)
		}
		pass(time.Hour)
		for _, sink := range []string{"q", "f"} {
			d.age("10,000", sink, time.Hour+10*time.Second)
		}
		left := []int{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000} // by when they were accepted
		for received := 0; received < 9500; {
			got := d.receive(dispatch.MaxReceive)
			received += len(got)
			receipts := make([]string, len(got))
			for i, m := range got {
				receipts[i] = m.Receipt
				left[m.Event.ID()[1]-'0']--
			}
			if err := errors.Join(d.Ack(t.Context(), receipts...)...); err != nil {
				t.Fatal(err)
			}
			if oldest := slices.IndexFunc(left, func(n int) bool { return n > 0 }); received%500 == 0 {
				d.age(fmt.Sprint(received, " acknowledged"), "q", time.Hour+time.Duration(10-oldest)*time.Second)
			}
		}
		d.stop()

		d = start(t, store.Restart(), table())
		defer d.stop()
		d.age("paused, after a restart", "f", time.Hour+10*time.Second)
		pass(time.Second)
		oldest := slices.IndexFunc(left, func(n int) bool { return n > 0 })
		d.age("after a restart", "q", time.Hour+time.Duration(11-oldest)*time.Second)
		if err := d.Resume(t.Context(), "f"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		d.age("delivered", "f", 0)
		d.ack(d.receiveAll()...)
		d.age("acknowledged", "q", 0)
		d.settled()
	})
}
