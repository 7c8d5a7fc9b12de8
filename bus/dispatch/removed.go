package dispatch

import (
	"context"
	"errors"
	"fmt"

	"sluice/sinks"
)

// What can become of the deliveries that wait for a sink when that is taken out of
// the config.
const (
	RemovedKeep       = "keep"        // they wait until the sink is back
	RemovedDeadLetter = "dead_letter" // they become dead letters
	RemovedDrop       = "drop"        // they are discarded, and counted
)

var (
	errSinkRemoved = errors.New("the sink was taken out of the config")
	errDiscarded   = errors.New("discarded: the sink was taken out of the config")
)

// checkRemoved refuses a table that takes out a sink for which deliveries wait
// without saying what becomes of them.
func (d *Dispatcher) checkRemoved(t Table) error {
	keep := map[string]bool{}
	for _, s := range t.Sinks {
		keep[s.Name] = true
	}
	for _, l := range d.allLanes() {
		if keep[l.name] || t.removal(l.name) != "" || !l.configured() {
			continue
		}
		if n := l.backlogDepth() + d.retries.count(l.name); n > 0 {
			return fmt.Errorf("sink %q is taken out while %d deliveries wait for it: say what becomes of them with removed_sinks: {%s: keep}, or dead_letter, or drop", l.name, n, l.name)
		}
	}
	return nil
}

// Unchosen are the sinks that are not in the config while something waits for them, and
// of which nobody has said what becomes of that: it stays until they are back. A reload
// refuses such a config; a restart cannot.
func (d *Dispatcher) Unchosen() (all []SinkStatus) {
	removal := d.routing.Load().removal
	for _, s := range d.Sinks() {
		if s.State == StateRemoved && s.Waiting() > 0 && removal(s.Name) == "" {
			all = append(all, s)
		}
	}
	return all
}

// warnUnchosen says at a start what a reload would have refused.
func (d *Dispatcher) warnUnchosen() {
	for _, s := range d.Unchosen() {
		d.log.Warn("deliveries wait for a sink that is not in the config, and stay until it is back: put it back, or say what becomes of them with "+
			"removed_sinks: {"+s.Name+": keep | dead_letter | drop}", "sink", s.Name, "waiting", s.Waiting())
	}
}

// removal is what becomes of the deliveries that wait for a sink that is not in Sinks:
// a Removed constant, or "" when nobody has said it.
func (t Table) removal(sink string) string {
	choice := t.Removed[sink]
	if choice == "" && t.Transient != nil && t.Transient(sink) {
		choice = RemovedDrop
	}
	return choice
}

// removedConf is what a lane delivers with whose sink was taken out; nil keeps
// what waits.
func (d *Dispatcher) removedConf(choice string) *laneConf {
	var err error
	switch choice {
	case RemovedDeadLetter:
		err = sinks.Permanent(errSinkRemoved)
	case RemovedDrop:
		err = errDiscarded
	default:
		return nil
	}
	o := DefaultOptions()
	o.Breaker.Failures = 0
	o.Retry.Preset = "none"
	c := d.newLaneConf(SinkSpec{Sink: removedSink{err}, Options: o})
	c.removed = true
	return c
}

// removedSink fails everything.
type removedSink struct{ err error }

// Deliver implements sinks.Sink.
func (s removedSink) Deliver(context.Context, sinks.Delivery) error { return s.err }
