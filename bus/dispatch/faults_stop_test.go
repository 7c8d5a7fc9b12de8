package dispatch_test

import (
	"context"
	"testing"
	"time"

	"sluice/bus/memlog"
)

// TestStopRepeatsNothing stops the bus in good order while one of two sinks hangs:
// after the restart the other gets nothing a second time.
func TestStopRepeatsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f, hung := newFar(nil), newFar(hang)
		store := memlog.New(memlog.Options{})
		d := start(t, store, one(t, spec("f", f, nil), spec("hung", hung, nil)))
		d.publish(names("e", 100)...)
		pass(100 * time.Millisecond) // less than spill_after
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := d.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		hung.set(nil)
		d = start(t, store.Restart(), one(t, spec("f", f, nil), spec("hung", hung, nil)))
		defer d.stop()
		pass(time.Minute)
		for _, id := range names("e", 100) {
			if f.times(id) != 1 || hung.times(id) != 1 {
				t.Errorf("%s came %d times to the one and %d times to the other", id, f.times(id), hung.times(id))
			}
		}
		d.settled()
	})
}
