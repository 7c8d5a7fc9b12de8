package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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
	// Lost, when there is any, is what the store has lost: only that is delivered
	// again, as if for the first time, and to where the rules send it now.
	Lost []Loss `json:"lost,omitempty"`
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
	lost   *offering // nil: everything is delivered again
	saved  time.Time
	from   string

	// What was read and is not sent yet.
	out   []outgoing
	bytes int
	read  Job

	missing bool      // events are not there that should be
	newest  time.Time // the time of the last event that was read
}

// saveEvery is how often a replay saves how far it is: so much is repeated by a
// restart.
const saveEvery = 200 * time.Millisecond

func (j *jobs) replay(ctx context.Context, job *Job) error {
	set, err := compilePattern(job.Replay.Pattern)
	if err != nil {
		return err
	}
	r := &replaying{j: j, job: job, sender: newSender(job.Replay.Rate), set: set, from: fromReplay, saved: time.Now()}
	if len(job.Replay.Lost) > 0 {
		j.d.gather(ctx, job)
		r.lost, err = j.d.newOffering(ctx, job.Replay.Lost)
		j.d.searched(job.Replay.Lost)
		if err != nil {
			return err
		}
		if r.from = fromLoss; !job.Unsure() {
			r.sender.ahead = math.MaxInt
		}
	}
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
	if err == nil {
		r.missing = r.missing || !r.newest.IsZero() && r.newest.Before(until)
		err = r.flush(ctx)
	}
	if err == nil && r.lost != nil {
		r.sumUp()
	}
	return err
}

// pack chooses from one pack, and sends what has gathered when it is enough.
func (r *replaying) pack(ctx context.Context, pack bus.Pack) error {
	if before := max(r.job.Cursor, r.read.Cursor); pack.Seq > before {
		r.missing = true
	}
	r.read.Cursor, r.newest = pack.Seq+1, pack.Time
	if r.lost == nil || r.lost.covers(pack.Time, "") {
		if err := r.choose(pack); err != nil {
			return err
		}
	}
	if len(r.out) < r.sender.batch && r.bytes < queueBytes && time.Since(r.saved) < saveEvery {
		return ctx.Err()
	}
	return r.flush(ctx)
}

func (r *replaying) choose(pack bus.Pack) error {
	r.read.Scanned += len(pack.Records)
	for i, rec := range pack.Records {
		event, err := bus.DecodeRecord(rec)
		if err != nil {
			r.j.d.damaged(bus.Events, bus.Position{Seq: pack.Seq, Index: i}, err)
			r.missing = true
			continue
		}
		if r.set != nil && !matches(r.set, event) {
			continue
		}
		again, err := r.redelivery(event, pack.Time)
		if err != nil {
			return err
		}
		if r.lost != nil && len(again) == 0 {
			continue // it is there
		}
		r.read.Chosen++
		if len(again) == 0 {
			r.read.Skipped++
		}
		if !r.job.Replay.DryRun {
			r.out = append(r.out, again...)
			r.bytes += len(again) * event.Size()
		}
	}
	return nil
}

// flush sends what has gathered, and notes how far the job is.
func (r *replaying) flush(ctx context.Context) error {
	if err := r.sender.send(ctx, r.out, r.from); err != nil {
		return err
	}
	if r.lost != nil {
		r.j.d.metrics.lost.WithLabelValues("offered").Add(float64(len(r.out)))
	}
	r.j.update(r.job, func(job *Job) {
		job.Scanned += r.read.Scanned
		job.Chosen += r.read.Chosen
		job.Skipped += r.read.Skipped
		job.Sent += len(r.out)
		job.Cursor = max(job.Cursor, r.read.Cursor)
		job.Missing = r.lost != nil && (job.Missing || r.missing)
	})
	clear(r.out)
	r.out, r.bytes, r.read = r.out[:0], 0, Job{}
	if now := time.Now(); now.Sub(r.saved) >= saveEvery {
		r.saved = now
		return r.j.progress(ctx, r.job)
	}
	return ctx.Err()
}

// redelivery makes the deliveries of an event that was stored at a time.
func (r *replaying) redelivery(event bus.Event, stored time.Time) (out []outgoing, err error) {
	d := r.j.d
	if r.lost != nil {
		return r.lost.again(d.routing.Load(), event, stored)
	}
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
			event: marked, id: deliveryID(event, t.rule, t.lane.name, r.job.ID), rule: t.rule, sink: t.lane.name, accepted: d.now(), stored: stored,
			shaped: d.routing.Load().shapes(t.rule),
		}})
	}
	return out, nil
}
