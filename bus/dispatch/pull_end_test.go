package dispatch_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// What is older than the retention of its queue becomes a dead letter when its next
// receive fails, and is received and acknowledged until then.
func TestQueueRetention(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table {
			return one(t, queueSpec(t, "q", func(q *sinks.Queue) { q.Retention, q.MaxReceives = lasting(10*time.Minute), 0 }, nil))
		}
		d := start(t, store, table())
		d.publish("acked", "nacked", "forgotten", "put off")
		for range 3 { // within the retention failures cost nothing
			pass(2 * time.Minute)
			for _, m := range d.receive(4) {
				d.Nack(t.Context(), 0, m.Receipt)
			}
		}
		pass(time.Second)
		for _, m := range d.receive(4) {
			if m.Event.ID() == "put off" { // to a time that is beyond it
				d.Nack(t.Context(), 5*time.Minute, m.Receipt)
			} else {
				d.Nack(t.Context(), 0, m.Receipt)
			}
		}
		d.stop()
		pass(5 * time.Minute)
		d = start(t, store.Restart(), table())
		defer d.stop()
		got := d.receiveAll()
		if !slices.Equal(eventIDs(got), []string{"acked", "forgotten", "nacked"}) || got[0].Receives != 5 {
			t.Fatalf("after the retention: %v", eventIDs(got))
		}
		for _, m := range got {
			switch m.Event.ID() {
			case "acked":
				d.ack(m)
			case "nacked":
				d.Nack(t.Context(), 0, m.Receipt)
			}
		}
		pass(time.Minute)
		if got := d.receiveAll(); len(got) != 0 {
			t.Errorf("received again: %v", eventIDs(got))
		}
		pass(time.Second)
		letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
		var dead []string
		for _, l := range letters {
			if dead = append(dead, l.Event.ID()); l.Reason != "expired" {
				t.Errorf("%s: %s", l.Event.ID(), l.Reason)
			}
		}
		slices.Sort(dead)
		if err != nil || !slices.Equal(dead, []string{"forgotten", "nacked", "put off"}) {
			t.Errorf("dead letters %v, %v", dead, err)
		}
		d.settled()
	})
}

// A receipt is good at the queue that gave it, and nowhere else.
func TestReceiptsAreOfOneQueue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newLessee(time.Minute)
		table := func() dispatch.Table {
			return one(t, queueSpec(t, "q", nil, nil), queueSpec(t, "other", nil, nil), spec("job", f, leases(time.Hour)))
		}
		d := start(t, memlog.New(memlog.Options{}), table())
		defer d.stop()
		d.publish("e")
		m := d.receive(1)[0]
		synctest.Wait()
		id, token := f.of("e")
		for what, c := range map[string]struct {
			queue, receipt string
			want           error
		}{
			"its own":             {"q", m.Receipt, nil},
			"another":             {"other", m.Receipt, dispatch.ErrOtherQueue},
			"none":                {"nowhere", m.Receipt, dispatch.ErrOtherQueue},
			"no queue":            {"job", m.Receipt, dispatch.ErrOtherQueue},
			"the lease of a job":  {"q", id + ".1." + token, dispatch.ErrOtherQueue},
			"no receipt":          {"q", "nonsense", nil},
			"no receipt, no sink": {"nowhere", "nonsense", bus.ErrNotFound},
			"over":                {"q", "a.1.b", nil},
		} {
			if err := d.CheckReceipts(c.queue, "nonsense", c.receipt); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", what, err, c.want)
			}
		}
		without := one(t, queueSpec(t, "other", nil, nil), spec("job", f, leases(time.Hour)))
		without.Removed = map[string]string{"q": dispatch.RemovedKeep}
		if err := d.Reload(t.Context(), without); err != nil {
			t.Fatal(err)
		}
		if err := d.CheckReceipts("q", m.Receipt); err != nil {
			t.Errorf("of a queue that is out of the config: %v", err)
		}
		if errs := d.Ack(t.Context(), m.Receipt); !errors.Is(errs[0], bus.ErrUnavailable) {
			t.Errorf("an ack while the queue is out of the config: %v", errs[0])
		}
		if err := d.Reload(t.Context(), table()); err != nil {
			t.Fatal(err)
		}
		d.ack(m)
		if err := d.EndLease(t.Context(), id, token, sinks.Answer{}, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A message that is put off for hours is seen when those are over, after a restart
// too, and has not been received meanwhile.
func TestQueuePutOff(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		table := func() dispatch.Table { return one(t, queueSpec(t, "q", nil, nil)) }
		d := start(t, store, table())
		d.publish("3h", "12h", "year")
		for _, m := range d.receive(3) {
			after := map[string]time.Duration{"3h": 3 * time.Hour, "12h": 12 * time.Hour, "year": 365 * 24 * time.Hour}[m.Event.ID()]
			if errs := d.Nack(t.Context(), after, m.Receipt); errs[0] != nil {
				t.Fatal(errs)
			}
		}
		pass(2 * time.Hour)
		d.stop()
		d = start(t, store.Restart(), table())
		defer d.stop()
		pass(59 * time.Minute)
		if got := d.receive(10); len(got) != 0 {
			t.Errorf("received before its time: %v", eventIDs(got))
		}
		pass(time.Minute)
		got := d.receive(10)
		if !slices.Equal(eventIDs(got), []string{"3h"}) || got[0].Receives != 2 {
			t.Fatalf("after three hours: %+v", got)
		}
		d.ack(got...)
		pass(9 * time.Hour)
		if got = d.receiveAll(); !slices.Equal(eventIDs(got), []string{"12h", "year"}) {
			t.Fatalf("after twelve hours: %v", eventIDs(got))
		}
		d.ack(got...)
		d.settled()
	})
}
