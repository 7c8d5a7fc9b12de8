package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/bus"
	"sluice/rules"
)

// Replay says which retained events are delivered again. Replayed events carry
// the ReplayAttribute, and delivery ids of their own.
type Replay struct {
	Since   time.Time       `json:"since,omitzero"` // when they were accepted
	Until   time.Time       `json:"until,omitzero"`
	Pattern json.RawMessage `json:"pattern,omitempty"`
	Sinks   []string        `json:"sinks,omitempty"`   // none: to where the rules send them now
	Rate    float64         `json:"rate,omitempty"`    // deliveries a second; 0: as fast as it goes
	DryRun  bool            `json:"dry_run,omitempty"` // count only
}

// ReplayAttribute is the extension attribute that marks a replayed event; its
// value is the job's id.
const ReplayAttribute = "sluicereplay"

// Replay delivers retained events again.
func (d *Dispatcher) Replay(ctx context.Context, r Replay) (Job, error) {
	for _, sink := range r.Sinks {
		if l := d.laneNamed(sink); l == nil || !l.configured() {
			return Job{}, fmt.Errorf("sink %q: %w", sink, bus.ErrNotFound)
		}
	}
	if !r.Until.IsZero() && r.Until.Before(r.Since) {
		return Job{}, errors.New("until lies before since")
	}
	if _, err := compilePattern(r.Pattern); err != nil {
		return Job{}, err
	}
	stream := d.router.stream
	info, err := stream.Info(ctx)
	if err != nil {
		return Job{}, err
	}
	job := Job{Replay: &r, Cursor: max(info.First, 1), Head: info.Last}
	if !r.Since.IsZero() {
		if job.Cursor, err = stream.Since(ctx, r.Since); err != nil {
			return Job{}, err
		}
	}
	return d.jobs.begin(ctx, job)
}

// replaying is one replay under way.
type replaying struct {
	j      *jobs
	job    *Job
	sender *sender
	set    *rules.Set
	saved  time.Time
}

// saveEvery is how often a replay saves how far it is: so much is repeated by a
// restart.
const saveEvery = 200 * time.Millisecond

func (j *jobs) replay(ctx context.Context, job *Job) error {
	set, err := compilePattern(job.Replay.Pattern)
	if err != nil {
		return err
	}
	r := &replaying{j: j, job: job, sender: newSender(job.Replay.Rate), set: set}
	until := job.Replay.Until
	var failed error
	err = eachPack(ctx, j.d.router.stream, job.Cursor, func(pack bus.Pack) bool {
		if pack.Seq > job.Head || !until.IsZero() && pack.Time.After(until) {
			return false
		}
		failed = r.pack(ctx, pack)
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return err
}

// pack replays what was chosen of one pack.
func (r *replaying) pack(ctx context.Context, pack bus.Pack) error {
	var out []outgoing
	chosen, skipped := 0, 0
	for i, rec := range pack.Records {
		event, err := bus.DecodeRecord(rec)
		if err != nil {
			r.j.d.damaged(bus.Events, bus.Position{Seq: pack.Seq, Index: i}, err)
			continue
		}
		if r.set != nil && !matches(r.set, event) {
			continue
		}
		chosen++
		again, err := r.redelivery(event)
		if err != nil {
			return err
		}
		if len(again) == 0 {
			skipped++
		}
		out = append(out, again...)
	}
	if r.job.Replay.DryRun {
		out = nil
	}
	if err := r.sender.send(ctx, out, fromReplay); err != nil {
		return err
	}
	r.j.update(r.job, func(job *Job) {
		job.Scanned += len(pack.Records)
		job.Chosen += chosen
		job.Skipped += skipped
		job.Sent += len(out)
		job.Cursor = pack.Seq + 1
	})
	if now := time.Now(); now.Sub(r.saved) >= saveEvery {
		r.saved = now
		return r.j.save(ctx, r.j.copy(r.job))
	}
	return ctx.Err()
}

func (r *replaying) redelivery(event bus.Event) (out []outgoing, err error) {
	d := r.j.d
	to := make([]target, 0, len(r.job.Replay.Sinks))
	for _, sink := range r.job.Replay.Sinks {
		if l := d.laneNamed(sink); l != nil && l.configured() { // or it was taken out meanwhile
			to = append(to, target{ReplayRule, l})
		}
	}
	if len(r.job.Replay.Sinks) == 0 {
		table := d.routing.Load()
		hits, _, err := table.match(event, nil, nil)
		if err != nil {
			return nil, err
		}
		to = table.targets(event, hits, nil)
	}
	marked, err := event.With(bus.Attr{Name: ReplayAttribute, Value: r.job.ID})
	if err != nil {
		return nil, err
	}
	for _, t := range to {
		out = append(out, outgoing{t.lane, &delivery{
			event: marked, id: deliveryID(event, t.rule, t.lane.name, r.job.ID), rule: t.rule, sink: t.lane.name, accepted: d.now(),
			shaped: d.routing.Load().shapes(t.rule),
		}})
	}
	return out, nil
}
