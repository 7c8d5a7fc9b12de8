package dispatch_test

import (
	"context"
	"testing"
	"time"

	"sluice/bus/memlog"
	"sluice/sinks"
)

// What is published while a function is unknown for 45 seconds arrives, over a restart
// of the bus too; a function that stays unknown is believed after a minute.
func TestStartupGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		unknown := func(context.Context, sinks.Delivery) error { return sinks.Answered(404, nil) }
		slow, never := newFar(unknown), newFar(unknown)
		d := start(t, store, one(t, spec("slow", slow, nil), spec("never", never, nil)))
		d.publish(names("e", 40)...)
		pass(20 * time.Second)
		d.stop()
		d = start(t, store.Restart(), one(t, spec("slow", slow, nil), spec("never", never, nil)))
		defer d.stop()
		pass(25 * time.Second)
		slow.set(nil)
		pass(10 * time.Minute)
		if n := slow.count(); n != 40 {
			t.Errorf("%d of 40 events arrived at the function that starts", n)
		}
		dead := map[string]int{}
		for _, s := range d.Sinks() {
			dead[s.Name] = s.DeadLetters
		}
		if dead["slow"] != 0 || dead["never"] != 40 {
			t.Errorf("dead letters %v, want 40, all of the function that never is", dead)
		}
		d.settled()
	})
}
