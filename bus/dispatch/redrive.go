package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/bus"
)

// Redrive says which dead letters are delivered again, and how.
type Redrive struct {
	Source  string          `json:"source,omitempty"` // of what a source rejected: it can be chosen, and not redriven
	Sink    string          `json:"sink,omitempty"`
	Rule    string          `json:"rule,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Since   time.Time       `json:"since,omitzero"`
	Until   time.Time       `json:"until,omitzero"`
	Pattern json.RawMessage `json:"pattern,omitempty"`
	IDs     []string        `json:"ids,omitempty"`

	To      string  `json:"to,omitempty"`      // another sink than the one that failed
	Reroute bool    `json:"reroute,omitempty"` // to where the rules send the event now
	Rate    float64 `json:"rate,omitempty"`    // deliveries a second; 0: as fast as it goes
	Limit   int     `json:"limit,omitempty"`   // dead letters at most; 0: all
	Canary  int     `json:"canary,omitempty"`  // stop unless the first so many are delivered
	DryRun  bool    `json:"dry_run,omitempty"` // count only
}

// Filter is the part of a redrive that chooses.
func (r Redrive) Filter() (DeadLetterFilter, error) {
	set, err := compilePattern(r.Pattern)
	return DeadLetterFilter{
		Source: r.Source, Sink: r.Sink, Rule: r.Rule, Reason: r.Reason, Since: r.Since, Until: r.Until, Pattern: set, IDs: r.IDs,
	}, err
}

var errCanary = errors.New("stopped by the canary")

// canaryPatience is how long a canary may take for its first attempts.
const canaryPatience = 2 * time.Minute

// Redrive delivers dead letters again. Each is removed once its new delivery is
// durable; one that fails again becomes a dead letter anew, which this job does
// not look at. Those of sources are left alone: they hold no event.
func (d *Dispatcher) Redrive(ctx context.Context, r Redrive) (Job, error) {
	if r.To != "" && r.Reroute {
		return Job{}, errors.New("a redrive goes either to a sink or to where the rules say, not both")
	}
	if r.To != "" {
		if l := d.laneNamed(r.To); l == nil || !l.configured() {
			return Job{}, fmt.Errorf("sink %q: %w", r.To, bus.ErrNotFound)
		}
	}
	if _, err := r.Filter(); err != nil {
		return Job{}, err
	}
	info, err := d.dead.stream.Info(ctx)
	if err != nil {
		return Job{}, err
	}
	total := 0
	for _, n := range d.dead.bySink() {
		total += n
	}
	return d.jobs.begin(ctx, Job{Redrive: &r, Head: info.Last, Total: total})
}

// redriving is one redrive under way.
type redriving struct {
	j      *jobs
	job    *Job
	sender *sender
	batch  []redriven
}

// redriven is a dead letter with the deliveries that replace it.
type redriven struct {
	letter *DeadLetter
	pack   int // records in its pack
	out    []outgoing
}

func (j *jobs) redrive(ctx context.Context, job *Job) error {
	filter, err := job.Redrive.Filter()
	if err != nil {
		return err
	}
	r := &redriving{j: j, job: job, sender: newSender(job.Redrive.Rate)}
	var failed error
	err = j.d.dead.walk(ctx, bus.Position{}, func(letter *DeadLetter, n int) bool {
		pos, _ := bus.ParsePosition(letter.ID)
		if pos.Seq > job.Head || ctx.Err() != nil {
			return false
		}
		j.update(job, func(job *Job) { job.Scanned++ })
		if letter.Source == "" && filter.accepts(letter) { // what is no event goes nowhere
			failed = r.choose(ctx, letter, n)
		}
		return failed == nil && !r.enough()
	})
	if err == nil {
		err = failed
	}
	if err == nil && ctx.Err() == nil {
		err = r.flush(ctx)
	}
	return err
}

func (r *redriving) enough() bool {
	return r.job.Redrive.Limit > 0 && r.job.Chosen >= r.job.Redrive.Limit
}

// choose takes a dead letter into the batch, and sends that when it is full or
// the canary is complete.
func (r *redriving) choose(ctx context.Context, letter *DeadLetter, n int) error {
	out := r.j.d.redelivery(r.job.Redrive, letter)
	r.j.update(r.job, func(job *Job) {
		job.Chosen++
		if len(out) == 0 {
			job.Skipped++
		}
	})
	if r.job.Redrive.DryRun || len(out) == 0 {
		return nil
	}
	r.batch = append(r.batch, redriven{letter, n, out})
	canary := r.job.Redrive.Canary
	sent := r.job.Chosen - r.job.Skipped
	switch {
	case canary > 0 && sent == canary:
		return r.tryCanary(ctx)
	case len(r.batch) >= r.sender.batch && sent > canary:
		return r.flush(ctx)
	}
	return nil
}

// redelivery makes the deliveries of a dead letter; none when there is no sink.
func (d *Dispatcher) redelivery(r *Redrive, letter *DeadLetter) (out []outgoing) {
	add := func(rule string, l *lane) {
		if l == nil || !l.configured() {
			return
		}
		id := letter.DeliveryID
		if rule != letter.Rule || l.name != letter.Sink {
			id = deliveryID(letter.Event, rule, l.name, "")
		}
		out = append(out, outgoing{l, &delivery{
			event: letter.Event, id: id, rule: rule, sink: l.name, accepted: d.now(),
			stored: bornAt(letter.Accepted, letter.stored), shaped: letter.shaped || d.routing.Load().shapes(rule),
		}})
	}
	switch {
	case r.To != "":
		add(letter.Rule, d.laneNamed(r.To))
	case r.Reroute:
		table := d.routing.Load()
		hits, _, err := table.match(letter.Event, nil, nil)
		if err != nil {
			return nil
		}
		for _, t := range table.targets(letter.Event, hits, nil) {
			add(t.rule, t.lane)
		}
	default:
		add(letter.Rule, d.laneNamed(letter.Sink))
	}
	return out
}

// flush sends the batch, and removes the dead letters of which every delivery is
// durable.
func (r *redriving) flush(ctx context.Context) error {
	for _, one := range chunks(r.batch, r.sender.batch) {
		var out []outgoing
		for _, dead := range one {
			out = append(out, dead.out...)
		}
		began := r.j.d.now() // a delivery may be made before send returns
		if err := r.sender.send(ctx, out, fromRedrive); err != nil {
			return err
		}
		for _, dead := range one {
			r.j.d.history.redriven(dead.letter, r.job.ID, dead.out, began)
			r.j.d.dead.remove(dead.letter, dead.pack)
		}
		r.j.update(r.job, func(job *Job) { job.Sent += len(out) })
	}
	r.batch = nil
	return nil
}

func chunks[T any](all []T, size int) (parts [][]T) {
	for len(all) > size {
		parts, all = append(parts, all[:size]), all[size:]
	}
	if len(all) > 0 {
		parts = append(parts, all)
	}
	return parts
}

// tryCanary sends the batch and waits for the first attempt at each delivery.
func (r *redriving) tryCanary(ctx context.Context) error {
	w, stop := r.j.d.fates.watch()
	defer stop()
	waiting := map[string]bool{}
	for _, dead := range r.batch {
		for _, o := range dead.out {
			waiting[o.d.id] = true
		}
	}
	n := len(waiting)
	if err := r.flush(ctx); err != nil {
		return err
	}
	patience := time.NewTimer(canaryPatience)
	defer patience.Stop()
	for len(waiting) > 0 {
		select {
		case notice := <-w.notices:
			if !waiting[notice.DeliveryID] {
				continue
			}
			if notice.Stage != StageDelivered {
				return fmt.Errorf("%w: sink %s, event %s: %s", errCanary, notice.Sink, notice.Event.ID(), notice.Error)
			}
			delete(waiting, notice.DeliveryID)
		case <-patience.C:
			return fmt.Errorf("%w: %d of %d deliveries had no attempt within %s", errCanary, len(waiting), n, canaryPatience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
