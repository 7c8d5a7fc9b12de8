package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/bus"
)

// The ledgers are kept twice (bus/jetstream), so no one fault of a disk loses them. When
// both copies are lost all the same, nobody knows which of the retained events were
// settled. Nothing may be lost, so all of them are offered again; but by a job, as after
// any loss (lost.go): what comes in now does not wait behind it, what still waits or is a
// dead letter is left out, and `sluice jobs cancel` stops it.

// withoutLedgers begins over a log that has held something and has no ledgers.
func (d *Dispatcher) withoutLedgers(ctx context.Context) error {
	info, err := d.router.stream.Info(ctx)
	if err != nil {
		return err
	}
	d.log.Error("what is settled is not known any more: every retained event is offered again by a job, but for what waits or is a dead letter; "+
		"`sluice jobs ls` shows it, and `sluice jobs cancel` stops it", "events_packs", info.Packs, "since", info.FirstTime)
	d.faults = append(d.faults, bus.Fault{
		Index: -1, Kind: bus.FaultLost,
		Detail: fmt.Sprintf("what is settled was not known at the start: all of the %d packs of events are offered again", info.Packs),
	})
	d.events.skip(info.Last + 1)
	if info.Packs > 0 {
		last, err := d.router.stream.Get(ctx, info.Last)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return err
		}
		until := d.now()
		if last.Time.After(until) { // the clock was set back
			until = last.Time
		}
		d.unsure = []Loss{{Stream: bus.Events, First: info.First, Last: info.Last, Packs: int(info.Packs), Since: info.FirstTime, Until: until}}
		if err := d.searchAll(ctx); err != nil {
			return err
		}
	}
	// Every record that is there may have taken over from another one, and is listed.
	saved := map[string]savedLedger{}
	for _, name := range []string{bus.Backlog, bus.Retries, bus.DeadLetters} {
		saved[name] = savedLedger{Stream: d.store.Stream(name).ID()}
	}
	d.events.touch()
	return d.takeOver(ctx, saved)
}

// searchAll keeps every sink that something waits for from delivering that, until the
// job has seen what is there.
func (d *Dispatcher) searchAll(ctx context.Context) error {
	for _, name := range []string{bus.Backlog, bus.Retries} {
		keys, err := d.store.Stream(name).Keys(ctx)
		if err != nil {
			return err
		}
		for sink := range keys {
			d.search([]Loss{{Sinks: []string{sink}}})
		}
	}
	return nil
}

// everySink tells that a loss may be of any sink.
func (l *Loss) everySink() bool { return len(l.Sinks) == 0 }

// ofEverySink tells whether one of the losses may be of any sink.
func ofEverySink(losses []Loss) bool {
	for i := range losses {
		if losses[i].everySink() {
			return true
		}
	}
	return false
}

// lossOf are the sinks that losses are of.
func (d *Dispatcher) lossOf(losses []Loss) (sinks []string) {
	if !ofEverySink(losses) {
		return sinksOf(losses)
	}
	for _, l := range d.allLanes() {
		sinks = append(sinks, l.name)
	}
	return sinks
}

// Unsure tells of a job that offers every retained event again, since it is not known
// what of them is settled.
func (j *Job) Unsure() bool { return j.Replay != nil && ofEverySink(j.Replay.Lost) }

// sumUpUnsure says what became of what may be lost.
func (r *replaying) sumUpUnsure(job Job) {
	note := fmt.Sprintf("it was not known what is settled: offered again of the retained events from %s to %s: %d",
		job.Replay.Since.UTC().Format(time.RFC3339), job.Replay.Until.UTC().Format(time.RFC3339), job.Sent)
	r.j.update(r.job, func(job *Job) { job.Note = note })
}
