package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/bus"
)

// What is kept in the log's state table: the ledgers, which sinks are held, and
// the jobs.
const (
	ledgersKey = "ledgers"
	jobPrefix  = "job."
)

// HoldPrefix comes before the name of a sink in the key that its Hold is kept under.
const HoldPrefix = "hold."

// ledgers visits every ledger under the name that it is saved by.
func (d *Dispatcher) ledgers(visit func(name string, books *ledger, w *writer, l *lane)) {
	visit(bus.Events, d.events, d.eventWriter, nil)
	visit(bus.Retries, d.retries.books, d.retryWriter, nil)
	visit(bus.DeadLetters, d.dead.books, d.deadWriter, nil)
	for _, l := range d.allLanes() {
		visit(bus.Backlog+"/"+l.name, l.books, d.backlogWriter, l)
	}
}

// commit saves the ledgers.
func (d *Dispatcher) commit(ctx context.Context) error {
	d.committing.Lock() // or an older snapshot might replace a newer one
	defer d.committing.Unlock()
	// The number of the commit and what is answered are from before any snapshot.
	number := d.commits.Add(1)
	saved, ended, settled := map[string]savedLedger{}, d.retries.takeEnded(), d.remover.take()
	answered := map[*writer]uint64{}
	d.writersByName(func(name string, w *writer) {
		answered[w] = w.answered.Load()
		saved[name] = savedLedger{Stream: w.stream.ID(), Head: w.head.Load(), Answered: answered[w]}
	})
	d.ledgers(func(name string, books *ledger, w *writer, l *lane) {
		s := savedLedger{Answered: answered[w], Stream: w.stream.ID()}
		books.save(&s)
		s.Head = w.head.Load()
		if l != nil {
			s.Depth = l.backlogDepth()
			if s.Depth == 0 && len(s.Snapshot) <= 2 {
				return // an empty backlog
			}
		}
		saved[name] = s
	})
	// What the snapshots say as settled has a new record in the lists by now, if it has
	// one at all.
	for books, todo := range settled {
		if c := d.contents[books.stream]; c != nil {
			c.drop(todo.seqs...)
		}
	}
	for name, c := range d.contents {
		s := saved[name]
		s.Contents = c.save()
		saved[name] = s
	}
	text, err := json.Marshal(saved)
	if err != nil {
		return err
	}
	if err = d.offerLost(ctx); err == nil {
		err = d.store.PutState(ctx, ledgersKey, text)
	}
	if err != nil {
		d.retries.keepEnded(ended)
		if refused(err) { // room first: a crash now would repeat what it need not
			d.remover.release(settled)
		} else {
			d.remover.keep(settled)
		}
		d.events.touch() // try again next time
		return err
	}
	d.savedCommit.Store(number)
	for _, l := range d.allLanes() {
		l.saved(number)
	}
	d.remover.release(settled)
	for _, pos := range ended { // the ledgers say it now
		d.retries.books.settle(pos)
	}
	return nil
}

// commitEvery is how often the ledgers are saved. When saving them takes long, it
// may take a commitShare-th of the time, but what a crash repeats is never more
// than that of commitMost.
const (
	commitEvery = 50 * time.Millisecond
	commitMost  = 250 * time.Millisecond
	commitShare = 20
)

// keepState commits what changes until ctx ends.
func (d *Dispatcher) keepState(ctx context.Context) {
	wait := commitEvery
	for {
		select {
		case <-d.dirty:
		case <-ctx.Done():
			return
		}
		pause(ctx, wait)
		start := time.Now()
		if err := d.commit(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("cannot save what is settled; a crash now would repeat more than usual", "err", err)
			wait = time.Second
			continue
		}
		wait = min(max(commitEvery, commitShare*time.Since(start)), commitMost)
	}
}

// restore begins from what the last commit saved.
func (d *Dispatcher) restore(ctx context.Context) error {
	saved, err := savedLedgers(ctx, d.store)
	if errors.Is(err, bus.ErrDamaged) || err == nil && len(saved) == 0 && d.used() {
		return d.withoutLedgers(ctx)
	}
	if err != nil {
		return err
	}
	err = checkHeads(ctx, d.store, saved, func(f bus.Fault) error {
		d.log.Error("the end of a stream is lost", "stream", f.Stream, "first", f.First, "last", f.Last)
		if saved[f.Stream].Contents == nil { // or that tells how many deliveries it was
			d.metrics.damaged.WithLabelValues(f.Stream).Add(float64(f.Last - f.First + 1))
		}
		d.faults = append(d.faults, f)
		return nil
	})
	if err != nil {
		return err
	}
	for name := range saved {
		if sink, ok := strings.CutPrefix(name, bus.Backlog+"/"); ok {
			d.lane(sink)
		}
	}
	d.ledgers(func(name string, books *ledger, w *writer, l *lane) {
		s, ok := saved[name]
		if !ok || err != nil {
			return
		}
		if s.Stream != w.stream.ID() {
			d.log.Warn("the stream was made anew; what was settled in it before is not known", "stream", name)
			return
		}
		if err = books.restore(&s); err == nil && l != nil {
			l.old = s.Depth
		}
		books.cut(w.head.Load())
	})
	if err != nil {
		return err
	}
	if err := d.restoreContents(ctx, saved); err != nil {
		return err
	}
	if len(saved) == 0 { // the first start: what follows needs to know these streams
		return d.commit(ctx)
	}
	return d.takeOver(ctx, saved)
}

// used tells whether the log has held events. A bus saves its ledgers before it takes
// the first.
func (d *Dispatcher) used() bool { return d.router.head > 0 }

func savedLedgers(ctx context.Context, store bus.Log) (map[string]savedLedger, error) {
	saved := map[string]savedLedger{}
	text, err := store.State(ctx, ledgersKey)
	if errors.Is(err, bus.ErrNotFound) {
		return saved, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	return saved, nil
}

// checkHeads visits the streams that end before they did when the ledgers were saved.
func checkHeads(ctx context.Context, store bus.Log, saved map[string]savedLedger, visit func(bus.Fault) error) error {
	heads := map[string]uint64{}
	for name, s := range saved {
		stream, _, _ := strings.Cut(name, "/")
		if s.Stream == store.Stream(stream).ID() {
			heads[stream] = max(heads[stream], s.Head)
		}
	}
	for _, stream := range bus.StreamNames() {
		info, err := store.Stream(stream).Info(ctx)
		if err != nil {
			return err
		}
		if info.Last >= heads[stream] {
			continue
		}
		err = visit(bus.Fault{
			Stream: stream, First: info.Last + 1, Last: heads[stream], Index: -1, Kind: bus.FaultCut,
			Detail: fmt.Sprintf("the bus wrote up to %d and the stream ends at %d: a block was damaged or cut off", heads[stream], info.Last),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Hold is why a sink gets nothing: it was paused, or it was disabled because it
// answered 410. Its backlog is kept.
type Hold struct {
	Reason string    `json:"reason"` // paused or gone
	Note   string    `json:"note,omitempty"`
	Since  time.Time `json:"since"`
}

// The reasons of a Hold.
const (
	HoldPaused = "paused"
	HoldGone   = "gone"
)

// Pause holds a sink back until Resume. What is under way ends; the rest waits
// in the backlog. It is remembered over restarts.
func (d *Dispatcher) Pause(ctx context.Context, sink, note string) error {
	return d.hold(ctx, sink, &Hold{Reason: HoldPaused, Note: note, Since: time.Now()})
}

// Resume lets a paused or disabled sink go on.
func (d *Dispatcher) Resume(ctx context.Context, sink string) error {
	return d.hold(ctx, sink, nil)
}

func (d *Dispatcher) hold(ctx context.Context, sink string, h *Hold) error {
	l := d.laneNamed(sink)
	if l == nil {
		return fmt.Errorf("sink %q: %w", sink, bus.ErrNotFound)
	}
	select {
	case l.holding <- struct{}{}:
		defer func() { <-l.holding }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if d.laneNamed(sink) != l {
		return d.hold(ctx, sink, h) // it went while we waited
	}
	var text []byte
	if h != nil {
		var err error
		if text, err = json.Marshal(h); err != nil {
			return err
		}
	}
	if err := d.store.PutState(ctx, HoldPrefix+sink, text); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold = h
	if h == nil {
		if l.breaker.open { // it has a backlog, and nobody knows yet that it is well
			l.pace.restart()
		}
		l.breaker = breaker{}
	}
	l.refresh()
	return nil
}

// disable holds a sink that answered 410.
func (d *Dispatcher) disable(l *lane, cause error) {
	l.log.Error("the sink says that it is gone: it is disabled and its backlog kept; `sluice sinks resume` enables it", "err", cause)
	h := &Hold{Reason: HoldGone, Note: cause.Error(), Since: time.Now()}
	if err := d.hold(d.attempts, l.name, h); err != nil {
		l.log.Warn("cannot save that the sink is disabled", "err", err)
		l.mu.Lock()
		l.hold = h
		l.refresh()
		l.mu.Unlock()
	}
}

// restoreHolds reads which sinks are held.
func (d *Dispatcher) restoreHolds(ctx context.Context) error {
	keys, err := d.store.StateKeys(ctx, HoldPrefix)
	if err != nil {
		return err
	}
	for _, key := range keys {
		text, err := d.store.State(ctx, key)
		h := &Hold{}
		if errors.Is(err, bus.ErrDamaged) {
			h = &Hold{Reason: HoldPaused, Note: "why it was held cannot be read in the store any more", Since: d.now()}
			text, err = json.Marshal(h)
			d.log.Error("why a sink is held cannot be read any more: it stays paused; `sluice sinks resume` enables it", "sink", strings.TrimPrefix(key, HoldPrefix))
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(text, h); err != nil {
			return fmt.Errorf("state %s: %w", key, err)
		}
		d.lane(strings.TrimPrefix(key, HoldPrefix)).hold = h
	}
	return nil
}
