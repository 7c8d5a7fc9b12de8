package sources

import (
	"fmt"
	"testing"
	"time"
)

// take claims the keys and settles at once.
func take(o *once, now time.Time, taken bool, keys ...string) (own bool) {
	list := make([]onceKey, len(keys))
	for i, k := range keys {
		list[i] = keyOf(k)
	}
	c, own := o.claim(now, list)
	if own {
		o.settle(c, list, taken)
	}
	return own
}

func TestOnce(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := newOnce(time.Minute, 100)
	for i, step := range []struct {
		after time.Duration
		taken bool
		keys  []string
		own   bool
	}{
		{0, true, []string{"id 1", "sig 1"}, true},
		{0, true, []string{"id 1", "sig 2"}, false},
		{0, true, []string{"id 2", "sig 1"}, false},
		{0, true, []string{"id 3", "sig 3"}, true},
		{0, false, []string{"id 4"}, true},
		{0, true, []string{"id 4"}, true}, // it was not taken before
		{time.Minute - 1, true, []string{"id 1"}, false},
		{1, true, []string{"id 1"}, false}, // in the old half
		{time.Minute - 1, true, []string{"id 3"}, false},
		{1, true, []string{"id 1"}, true}, // forgotten
		{time.Hour, true, []string{"id 1"}, true},
	} {
		now = now.Add(step.after)
		if own := take(o, now, step.taken, step.keys...); own != step.own {
			t.Errorf("step %d: %v", i, own)
		}
	}
}

// However many ids come, no more than two halves are kept, and the latest are.
func TestOnceIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := newOnce(time.Hour, 100)
	for i := range 10_000 {
		take(o, now, true, fmt.Sprint(i))
		if len(o.young) > 100 || len(o.old) > 100 {
			t.Fatalf("%d and %d", len(o.young), len(o.old))
		}
	}
	if take(o, now, true, "9950") {
		t.Error("a late one is forgotten")
	}
}
