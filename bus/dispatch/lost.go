package dispatch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/bus"
)

// A damaged block takes packs of BACKLOG and RETRIES with it, or a flipped byte a
// record. The events of what was lost are nearly always still in EVENTS: so they are
// offered again, to the sinks that it was lost of, by a replay (replay.go) that goes
// over the time in which those events were stored, to where the rules send them, and
// leaves out what is still there, or a dead letter. A loss is forgotten only once that job is durable,
// and the job goes on where it was after a crash.

// Loss is some deliveries that a damaged store has lost.
type Loss struct {
	Stream     string    `json:"stream"`
	First      uint64    `json:"first"` // the packs that it lies in, of which some may be there
	Last       uint64    `json:"last"`
	Packs      int       `json:"packs"`      // that are lost; 0 where a pack is there and a record unreadable
	Deliveries int       `json:"deliveries"` // in them, about: some may have been settled
	Since      time.Time `json:"since"`      // their events were stored no earlier
	Until      time.Time `json:"until"`      // and no later
	Sinks      []string  `json:"sinks"`      // they are of these; none: of any

	there []deliveryKey // are not lost, as far as this process knows
}

func deliveriesIn(losses []Loss) (n int) {
	for _, l := range losses {
		n += l.Deliveries
	}
	return n
}

func sinksOf(losses []Loss) []string {
	var all []string
	for _, l := range losses {
		all = append(all, l.Sinks...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// listed is what a writer of a stream says its packs to.
func (d *Dispatcher) listed(stream string) func(seq uint64, pack []write) {
	return func(seq uint64, pack []write) {
		var born []time.Time
		for i := range pack {
			if !pack[i].born.IsZero() {
				born = append(born, pack[i].born)
			}
		}
		d.contents[stream].add(seq, pack[0].key, born)
	}
}

// list lists a pack that was written after the last commit.
func (d *Dispatcher) list(stream string, p bus.Pack) {
	c := d.contents[stream]
	if c == nil {
		return
	}
	var all []time.Time
	eachDelivery(p, func(_ bus.Position, _ deliveryKey, born time.Time) { all = append(all, born) })
	c.add(p.Seq, p.Key, all)
}

// restoreContents begins from the saved lists, and notes what they have and the
// store has not. A stream that was made anew has nothing of it.
func (d *Dispatcher) restoreContents(ctx context.Context, saved map[string]savedLedger) error {
	for name := range d.contents {
		s := d.store.Stream(name)
		c, err := restoreContents(saved[name].Contents)
		if err != nil {
			return err
		}
		gone := s.Gone
		if saved[name].Stream != s.ID() {
			gone = func(_ context.Context, seqs ...uint64) ([]uint64, error) { return slices.Clone(seqs), nil }
		}
		d.contents[name] = c
		lost, err := d.compareContents(ctx, name, gone)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		c.last = min(c.last, info.Last) // the numbers behind will be used again
		if len(lost) > 0 {
			d.faults = append(d.faults, lossFault(name, lost))
			d.search(lost)
		}
	}
	return nil
}

// findLost looks for packs that the store has lost while the bus runs.
func (d *Dispatcher) findLost(ctx context.Context, stream string) error {
	_, err := d.compareContents(ctx, stream, d.store.Stream(stream).Gone)
	return err
}

func (d *Dispatcher) compareContents(ctx context.Context, stream string, gone func(context.Context, ...uint64) ([]uint64, error)) (lost []Loss, err error) {
	c := d.contents[stream]
	err = c.numbers(func(seqs []uint64) error {
		seqs, err := gone(ctx, seqs...)
		lost = append(lost, c.lose(stream, seqs)...)
		return err
	})
	if len(lost) > 0 {
		d.metrics.damaged.WithLabelValues(stream).Add(float64(deliveriesIn(lost)))
		d.events.touch() // the next commit begins the job
	}
	return lost, err
}

// lossFault is the fault of the store that lost packs are.
func lossFault(stream string, lost []Loss) bus.Fault {
	packs := 0
	f := bus.Fault{Stream: stream, First: math.MaxUint64, Index: -1, Kind: bus.FaultMissing}
	for _, l := range lost {
		packs += l.Packs
		f.First, f.Last = min(f.First, l.First), max(f.Last, l.Last)
	}
	f.Detail = fmt.Sprintf("%d packs in here with about %d deliveries to %s are not there, and were never settled: a block was damaged or cut off",
		packs, deliveriesIn(lost), strings.Join(sinksOf(lost), ", "))
	return f
}

// checkContents visits what the saved lists have and the store has not.
func checkContents(ctx context.Context, store bus.Log, saved map[string]savedLedger, visit func(bus.Fault) error) error {
	for _, name := range []string{bus.Backlog, bus.Retries} {
		s := store.Stream(name)
		c, err := restoreContents(saved[name].Contents)
		if err != nil {
			return err
		}
		if saved[name].Stream != s.ID() {
			continue // that is a fault of its own
		}
		var gone []uint64
		err = c.numbers(func(seqs []uint64) error {
			some, err := s.Gone(ctx, seqs...)
			gone = append(gone, some...)
			return err
		})
		if err != nil {
			return err
		}
		if len(gone) == 0 {
			continue
		}
		// What a bus that runs has settled meanwhile is not in the list any more.
		now, err := savedLedgers(ctx, store)
		if err != nil {
			return err
		}
		if c, err = restoreContents(now[name].Contents); err != nil {
			return err
		}
		if lost := c.lose(name, gone); len(lost) > 0 {
			if err := visit(lossFault(name, lost)); err != nil {
				return err
			}
		}
	}
	return nil
}

// lostPause is how long after a job of lost deliveries the next one begins at the
// earliest: what is found meanwhile is gathered, and a disk that damages everything
// is not written full.
const lostPause = 10 * time.Second

// offerLost makes a job of what was found lost since the last one, or adds it to that
// if it is still to begin. It is durable before the commit that forgets the loss.
func (d *Dispatcher) offerLost(ctx context.Context) error {
	losses := d.unsure
	for _, name := range slices.Sorted(maps.Keys(d.contents)) {
		losses = append(losses, d.contents[name].takeLost()...)
	}
	if len(losses) == 0 {
		return nil
	}
	all := losses
	if d.gathering != nil {
		all = slices.Concat(d.gathering.Replay.Lost, losses)
	}
	job, err := d.lostJob(ctx, all)
	if err == nil {
		err = d.jobs.save(ctx, job)
	}
	if err != nil {
		for _, l := range losses {
			if !l.everySink() {
				d.contents[l.Stream].keepLost([]Loss{l})
			}
		}
		return fmt.Errorf("note what the store has lost: %w", err)
	}
	d.unsure = nil
	if n := deliveriesIn(losses); n > 0 {
		d.log.Error("deliveries are lost in the store: they are offered again from the events that are retained",
			"job", job.ID, "deliveries", n, "sinks", sinksOf(losses), "since", job.Replay.Since, "until", job.Replay.Until)
	}
	if d.intake.Err() == nil { // or the next start goes on with it
		d.beginLost(ctx, job)
	}
	return nil
}

func (d *Dispatcher) beginLost(ctx context.Context, job Job) {
	if d.gathering != nil {
		d.jobs.update(d.gathering, func(g *Job) { g.Replay, g.Cursor, g.Head, g.Missing = job.Replay, job.Cursor, job.Head, job.Missing })
		return
	}
	now := time.Now()
	job.wait = max(0, d.offered.Add(lostPause).Sub(now))
	d.offered = now.Add(job.wait)
	d.gathering = d.jobs.start(job)
	d.jobs.forgetOld(ctx)
}

// gather waits until a job of lost deliveries may begin. From then on nothing is
// added to it.
func (d *Dispatcher) gather(ctx context.Context, job *Job) {
	if job.wait > 0 {
		pause(ctx, job.wait)
	}
	d.committing.Lock()
	defer d.committing.Unlock()
	if d.gathering == job {
		d.gathering = nil
	}
}

// lostJob is the job that offers losses again.
func (d *Dispatcher) lostJob(ctx context.Context, losses []Loss) (Job, error) {
	slices.SortFunc(losses, func(a, b Loss) int { return a.Since.Compare(b.Since) })
	r := &Replay{Since: losses[0].Since, Lost: losses}
	for _, l := range losses {
		if l.Until.After(r.Until) {
			r.Until = l.Until
		}
	}
	info, err := d.router.stream.Info(ctx)
	if err != nil {
		return Job{}, err
	}
	job := newJob(Job{Replay: r, Head: info.Last})
	if len(losses) == 1 && losses[0].everySink() {
		job.Head = losses[0].Last // what has come in since then is delivered as ever
	}
	if d.gathering != nil {
		job.ID, job.Created = d.gathering.ID, d.gathering.Created
	}
	job.Missing = info.Packs == 0 || info.FirstTime.After(r.Since)
	job.Cursor, err = d.router.stream.Since(ctx, r.Since)
	return job, err
}

// spoiled reports a record of a delivery that cannot be read: it is offered again.
// The caller settles it then.
func (d *Dispatcher) spoiled(stream string, pos bus.Position, err error) {
	d.damaged(stream, pos, err)
	d.contents[stream].spoil(stream, pos.Seq, 1, nil)
}

// offering is what a replay of lost deliveries goes by.
type offering struct {
	losses []Loss // by Since
	there  map[deliveryKey]struct{}
}

// deliveryKey is the id of a delivery, in half of the room.
type deliveryKey [18]byte

func keyOf(id string) (k deliveryKey, ok bool) {
	n, err := base64.RawURLEncoding.Decode(k[:], []byte(id[:min(len(id), 24)]))
	return k, err == nil && n == len(k) && len(id) == 24
}

// newOffering reads which of the deliveries that may be lost are still there: in the
// order in which a delivery goes through the streams, so that none is overlooked.
func (d *Dispatcher) newOffering(ctx context.Context, losses []Loss) (*offering, error) {
	o := &offering{losses: losses, there: map[deliveryKey]struct{}{}}
	for _, l := range losses {
		for _, k := range l.there {
			o.there[k] = struct{}{}
		}
	}
	for _, sink := range d.lossOf(losses) {
		for _, books := range []*ledger{d.retries.books, d.lane(sink).books, d.dead.books} {
			if err := o.look(ctx, d.store.Stream(books.stream), sink, books); err != nil {
				return nil, err
			}
		}
	}
	return o, ctx.Err()
}

// look notes the deliveries of a sink that a stream has. One that is settled there
// has moved on, and that may be what is lost.
func (o *offering) look(ctx context.Context, s bus.Stream, sink string, books *ledger) error {
	const some = 1024
	var seqs []uint64
	found := map[uint64][]deliveryKey{}
	note := func() error {
		// The books forget a pack that was removed: what they said before counts only
		// if it is there yet.
		gone, err := s.Gone(ctx, seqs...)
		for _, seq := range gone {
			delete(found, seq)
		}
		for _, keys := range found {
			for _, k := range keys {
				o.there[k] = struct{}{}
			}
		}
		clear(found)
		seqs = seqs[:0]
		return err
	}
	var failed error
	err := eachPackOf(ctx, s, sink, 1, func(p bus.Pack) bool {
		eachDelivery(p, func(pos bus.Position, k deliveryKey, born time.Time) {
			if o.covers(born, sink) && !books.marked(pos) {
				found[p.Seq] = append(found[p.Seq], k)
			}
		})
		if seqs = append(seqs, p.Seq); len(seqs) == some {
			failed = note()
		}
		return failed == nil && ctx.Err() == nil
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		err = note()
	}
	return err
}

// eachDelivery visits those of the records of a pack that can be read.
func eachDelivery(p bus.Pack, visit func(pos bus.Position, k deliveryKey, born time.Time)) {
	for i, rec := range p.Records {
		var m meta
		text, _, err := splitMeta(rec)
		if err != nil || json.Unmarshal(text, &m) != nil || m.Ended {
			continue
		}
		if k, ok := keyOf(m.ID); ok {
			visit(bus.Position{Seq: p.Seq, Index: i}, k, bornAt(m.Accepted, m.Stored))
		}
	}
}

// search keeps the sinks that have lost something from delivering what they have
// until it is known what that is, or it would come twice.
func (d *Dispatcher) search(losses []Loss) {
	for _, sink := range sinksOf(losses) {
		l := d.lane(sink).current()
		l.searched = true
		l.mu.Unlock()
	}
}

func (d *Dispatcher) searched(losses []Loss) {
	for _, sink := range d.lossOf(losses) {
		l := d.lane(sink).current()
		l.searched = false
		l.mu.Unlock()
		l.wake()
	}
}

// covers tells whether a delivery to a sink of an event that was stored at a time may
// be lost; with no sink, whether any may.
func (o *offering) covers(stored time.Time, sink string) bool {
	for i := range o.losses {
		l := &o.losses[i]
		if l.Since.After(stored) {
			return false
		}
		if !stored.After(l.Until) && (sink == "" || l.everySink() || slices.Contains(l.Sinks, sink)) {
			return true
		}
	}
	return false
}

// again makes the deliveries of an event that may be lost, as the router did.
func (o *offering) again(table *routing, event bus.Event, stored time.Time) (out []outgoing, err error) {
	hits, _, err := table.match(event, nil, nil)
	if err != nil {
		return nil, err
	}
	for _, t := range table.targets(event, hits, nil) {
		id := deliveryID(event, t.rule, t.lane.name, "")
		k, _ := keyOf(id)
		if _, there := o.there[k]; there || !o.covers(stored, t.lane.name) {
			continue
		}
		out = append(out, outgoing{t.lane, &delivery{
			event: event, id: id, rule: t.rule, sink: t.lane.name, accepted: stored, shaped: table.shapes(t.rule),
		}})
	}
	return out, nil
}

// sumUp says what became of what was lost.
func (r *replaying) sumUp() {
	d, job := r.j.d, r.j.copy(r.job)
	if job.Unsure() {
		r.sumUpUnsure(job)
		return
	}
	lost := deliveriesIn(job.Replay.Lost)
	note := fmt.Sprintf("about %d deliveries were lost in the store, of events from %s to %s; offered again: %d", lost,
		job.Replay.Since.UTC().Format(time.RFC3339), job.Replay.Until.UTC().Format(time.RFC3339), job.Sent)
	gone := 0
	if job.Missing {
		gone = max(0, lost-job.Sent)
		note += fmt.Sprintf("; not any more, since their events are not there: about %d", gone)
		d.metrics.lost.WithLabelValues("gone").Add(float64(gone))
		d.log.Error("deliveries are lost: their events are not there any more", "job", job.ID, "deliveries", gone)
	}
	r.j.update(r.job, func(job *Job) { job.Note, job.Gone = note, gone })
}

// Lost is how many deliveries, about, the store has lost that a job offers again.
func (j *Job) Lost() int {
	if j.Replay == nil {
		return 0
	}
	return deliveriesIn(j.Replay.Lost)
}

// LostJobs are the jobs that offer again what the store has lost.
func (d *Dispatcher) LostJobs() []Job {
	return slices.DeleteFunc(d.Jobs(), func(j Job) bool { return j.Replay == nil || len(j.Replay.Lost) == 0 })
}

// needed is the first event that such a job has still to read: no retention takes it.
func (j *jobs) needed() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := uint64(math.MaxUint64)
	for _, job := range j.all {
		if job.State == JobRunning && job.Replay != nil && len(job.Replay.Lost) > 0 {
			first = min(first, job.Cursor)
		}
	}
	return first
}
