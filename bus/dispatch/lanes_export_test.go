package dispatch

import (
	"context"
	"time"

	"sluice/bus"
)

// ClearEvery is how long a lane may outlive the last that it had to do.
const ClearEvery = clearEvery

// ClearLanes looks once for lanes of which nothing is left, out of turn.
func (d *Dispatcher) ClearLanes(ctx context.Context) { d.clearLanes(ctx) }

// Lanes are the names of the sinks that have a lane.
func (d *Dispatcher) Lanes() (names []string) {
	for _, l := range d.allLanes() {
		names = append(names, l.name)
	}
	return names
}

// HoldLane gives two ways to the lane that a sink has now, for whoever uses them later: as
// the router does by the rules of before a reload, and as a replay does.
func (d *Dispatcher) HoldLane(sink string) (admit func(bus.Event), replay func(context.Context, bus.Event) error) {
	l := d.lane(sink)
	made := func(e bus.Event) *delivery {
		return &delivery{event: e, id: deliveryID(e, "all", sink, ""), rule: "all", sink: sink, accepted: time.Now()}
	}
	return func(e bus.Event) { l.admit(made(e)) },
		func(ctx context.Context, e bus.Event) error {
			return store(ctx, []outgoing{{l, made(e)}}, fromReplay)
		}
}

// ClearLater gives what removes the lane that a sink has now, if that is empty then.
func (d *Dispatcher) ClearLater(sink string) func(context.Context) error {
	l := d.laneNamed(sink)
	return func(ctx context.Context) error { return d.clearLane(ctx, l) }
}

// RememberedRules is how many rules have counters.
func (d *Dispatcher) RememberedRules() int {
	d.metrics.mu.Lock()
	defer d.metrics.mu.Unlock()
	return len(d.metrics.rules)
}
