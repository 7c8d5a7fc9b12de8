package dispatch_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
)

func big(t *testing.T, id string) bus.Event {
	t.Helper()
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: "test"}, {Name: "type", Value: "big"}, {Name: "datacontenttype", Value: "text/plain"},
	}, []byte(strings.Repeat("x", 32<<10)))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestHistoryMakesRoom fills a store with settled events: they go before new ones
// are refused. Events that are not settled stay, and publishers are told.
func TestHistoryMakesRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		d := start(t, memlog.New(memlog.Options{Limit: 2 << 20}), one(t, spec("f", f, nil)))
		defer d.stop()
		for i := range 500 {
			if _, err := d.pub.Publish(t.Context(), big(t, fmt.Sprint(i))); err != nil {
				t.Fatalf("event %d was refused although everything before it is settled: %v", i, err)
			}
			pass(200 * time.Millisecond)
		}
		if f.count() != 500 {
			t.Fatalf("%d of 500 events arrived", f.count())
		}
		d.settled()

		f.set(hang)
		refused := 0
		for i := range 200 {
			_, err := d.pub.Publish(t.Context(), big(t, fmt.Sprint("late", i)))
			if err != nil && !errors.Is(err, bus.ErrFull) {
				t.Fatal(err)
			}
			if err != nil {
				refused++
			}
			pass(200 * time.Millisecond)
		}
		if refused == 0 {
			t.Fatal("a store of 2 MiB took 6 MiB of events that are not settled")
		}
		f.set(nil)
		pass(2 * time.Hour)
		synctest.Wait()
		if f.count() != 700-refused {
			t.Fatalf("%d events arrived, %d were accepted", f.count(), 700-refused)
		}
		d.settled()
	})
}

func TestRetentionByAgeSparesWhatIsNotSettled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		store := memlog.New(memlog.Options{})
		table := one(t, spec("f", f, nil))
		table.Retain = dispatch.Retention{Age: time.Hour, DeadLetters: time.Hour}
		d := start(t, store, table)
		defer d.stop()
		d.publish(names("e", 10)...)
		pass(30 * time.Minute)
		d.publish("young")
		pass(45 * time.Minute)
		info, err := store.Stream(bus.Events).Info(t.Context())
		if err != nil || info.Packs != 1 {
			t.Fatalf("%d packs are left, want the one of half an hour ago; error %v", info.Packs, err)
		}
	})
}
