package dispatch_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
)

func startDedup(t *testing.T, store bus.Log, f *far, window time.Duration, key string) *bench {
	t.Helper()
	d, err := dispatch.New(dispatch.Config{Store: store, Log: quiet(), Dedup: dispatch.Dedup{Window: value.Duration(window), Key: key}})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), one(t, spec("f", f, nil))); err != nil {
		t.Fatal(err)
	}
	return &bench{Dispatcher: d, t: t, pub: d.Publisher("test")}
}

func (b *bench) repeated(id string) bool {
	b.t.Helper()
	results, err := b.pub.Publish(b.t.Context(), event(b.t, id))
	if err != nil {
		b.t.Fatal(err)
	}
	return results[0].Deduplicated
}

func TestDedup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		store := memlog.New(memlog.Options{})
		d := startDedup(t, store, f, time.Minute, "")
		if d.repeated("e") {
			t.Fatal("a new event counts as a repeated one")
		}
		pass(59 * time.Second)
		if !d.repeated("e") {
			t.Fatal("a repeated event counts as new")
		}
		d.stop()
		d = startDedup(t, store.Restart(), f, time.Minute, "")
		defer d.stop()
		if !d.repeated("e") {
			t.Fatal("the restart made it forget")
		}
		pass(2 * time.Minute)
		if d.repeated("e") {
			t.Fatal("an event is remembered for far longer than the window")
		}
		synctest.Wait()
		if f.times("e") != 2 {
			t.Fatalf("the event was delivered %d times", f.times("e"))
		}
		d.settled()
	})
}

// TestDedupWaitsForTheFirst publishes the same event many times at once: each
// answer comes only when the event is durable, and it is stored once.
func TestDedupWaitsForTheFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		slow := func(_ context.Context, op memlog.Op) error {
			if op.Name == memlog.OpAppend && op.Stream == bus.Events {
				<-time.After(time.Second)
			}
			return nil
		}
		d := startDedup(t, memlog.New(memlog.Options{Hook: slow}), f, time.Minute, "subject")
		defer d.stop()
		began := time.Now()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				d.repeated("e")
				if time.Since(began) < time.Second {
					t.Error("an answer came before the event was durable")
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		pass(5 * time.Second)
		if f.times("e") != 1 {
			t.Fatalf("the event was delivered %d times", f.times("e"))
		}
		d.settled()
	})
}

// With a key of its own, dedup drops neither events that have nothing there nor what
// answers an event of the same key.
func TestDedupByKey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newFar(nil)
		store := memlog.New(memlog.Options{})
		d := startDedup(t, store, f, time.Minute, "data.order.id")
		keyed := []struct {
			id, data, cause string
			repeated        bool
		}{
			{"1", `{"order":{"id":7}}`, "", false},
			{"2", `{"order":{"id":7}}`, "", true},
			{"3", `{"order":{"id":8}}`, "", false},
			{"4", `{"order":{}}`, "", false},
			{"5", `{"order":{}}`, "", false},
			{"6", `{"order":{"id":null}}`, "", false},
			{"7", `{"order":{"id":""}}`, "", false},
			{"8", `no JSON`, "", false},
			{"9", `no JSON`, "", false},
			{"10", `{"order":{"id":7}}`, "1", false},
			{"5", `{"order":{}}`, "", true},
			{"10", `{"order":{"id":7}}`, "1", true},
		}
		publish := func(again bool) {
			for _, k := range keyed {
				attrs := []bus.Attr{{Name: "id", Value: k.id}, {Name: "source", Value: "/test"}, {Name: "type", Value: "t"}}
				if k.cause != "" {
					attrs = append(attrs, bus.Attr{Name: dispatch.CauseAttribute, Value: k.cause})
				}
				e, err := bus.NewEvent(attrs, []byte(k.data))
				if err != nil {
					t.Fatal(err)
				}
				results, err := d.pub.Publish(t.Context(), e)
				if err != nil {
					t.Fatal(err)
				}
				if results[0].Deduplicated != (k.repeated || again) {
					t.Errorf("event %s with %s, published again %v: deduplicated is %v", k.id, k.data, again, results[0].Deduplicated)
				}
			}
		}
		publish(false)
		d.stop()
		d = startDedup(t, store.Restart(), f, time.Minute, "data.order.id")
		defer d.stop()
		publish(true)
		synctest.Wait()
		d.settled()
	})
}
