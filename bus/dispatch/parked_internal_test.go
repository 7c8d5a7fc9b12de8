package dispatch

import (
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"sluice/bus"
	"sluice/bus/memlog"
)

// What is due and beyond the budget costs nothing while it waits: each retry is looked at
// when it falls due and when it goes, however long that takes and however many they are.
func TestRetriesBeyondTheBudgetAreNotLookedAt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const many, other = 20000, 5
		d, err := New(Config{Store: memlog.New(memlog.Options{}), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "e"}, {Name: "source", Value: "test"}, {Name: "type", Value: "made"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := d.retries
		add := func(sink string, n int) {
			for i := range n {
				r.add(&retry{due: time.Now(), sink: sink, d: &delivery{event: e, id: strconv.Itoa(i), rule: "all", sink: sink}})
			}
		}
		steps := func() (n int) {
			for {
				w, _ := r.next(time.Now())
				if w == nil {
					return n
				}
				r.bring(t.Context(), w)
				n++
			}
		}
		add("slow", many)
		if n := steps(); n != many {
			t.Fatalf("%d steps for %d that fell due", n, many)
		}
		if left := r.count("slow"); left != many-budgetFloor*budgetMost {
			t.Fatalf("%d of %d wait, once what was saved up is spent", left, many)
		}
		add("beside", other)
		if n := steps(); n != other || r.count("beside") != 0 {
			t.Errorf("%d steps, and %d of another sink still wait behind those", n, r.count("beside"))
		}
		n := 0
		for range 600 {
			<-time.After(100 * time.Millisecond)
			n += steps()
		}
		if went := many - budgetFloor*budgetMost - r.count("slow"); went < 590 || went > 610 || n > 700 {
			t.Errorf("%d went in a minute of ten a second, in %d steps", went, n)
		}
		l := d.lane("slow") // first attempts bring tokens
		l.mu.Lock()
		l.budget.share = 1
		for range 50 {
			if l.budget.fresh() {
				r.turnNow("slow")
			}
		}
		l.mu.Unlock()
		before := r.count("slow")
		if n := steps(); n != 1 || before-r.count("slow") < 50 {
			t.Errorf("%d went in %d steps when 50 tokens came", before-r.count("slow"), n)
		}
		if held := r.bytes; held != 0 && held != r.count("slow")*(e.Size()+deliveryWeight) {
			t.Errorf("%d bytes are counted for %d retries of %d", held, r.count("slow"), e.Size())
		}
	})
}

// The deliveries that wait in memory are bounded with all that they hold: small events have
// much beside them, and the answers of a history may be larger than the event.
func TestRetriesInMemoryAreWeighed(t *testing.T) {
	t.Parallel()
	if own := unsafe.Sizeof(delivery{}); own+128 > deliveryWeight || unsafe.Sizeof(Attempt{}) > attemptWeight {
		t.Errorf("a delivery of %d bytes with an event weighs %d, an attempt of %d bytes %d", own, deliveryWeight, unsafe.Sizeof(Attempt{}), attemptWeight)
	}
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "e"}, {Name: "source", Value: "test"}, {Name: "type", Value: "made"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(Config{Store: memlog.New(memlog.Options{}), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	const many, answer = 10000, 4 << 10
	history := slices.Repeat([]Attempt{{Answer: make([]byte, answer), Error: "answered 500"}}, 4)
	for range many {
		d.retries.add(&retry{due: time.Now(), sink: "f", d: &delivery{event: e, sink: "f", attempts: history}})
	}
	kept := 0
	for _, w := range d.retries.heap {
		if w.d != nil {
			kept++
		}
	}
	if most := retryMemory / (4 * answer); kept > most || kept < most/2 || d.retries.count("f") != many {
		t.Errorf("%d of %d that wait are in memory, where there is room for %d", kept, many, most)
	}
	for w, _ := d.retries.next(time.Now()); w != nil; w, _ = d.retries.next(time.Now()) {
		d.retries.gone("f")
	}
	if d.retries.bytes != 0 {
		t.Errorf("%d bytes are counted for none", d.retries.bytes)
	}
}
