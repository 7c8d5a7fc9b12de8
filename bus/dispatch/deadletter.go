package dispatch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bus"
	"sluice/rules"
)

// DeadLetter is a delivery that was given up: the untouched event, why, and
// every attempt. Or it is input of a source that could not become an event: then
// Source is set, there is no sink, and Event is a wrapper around the raw bytes.
type DeadLetter struct {
	ID         string // its position, which no other dead letter will ever have
	DeliveryID string
	Event      bus.Event
	Source     string // of what is no delivery
	Sink       string
	Rule       string
	Reason     string // one of DeadLetterReasons
	Config     string // the version of the config that was running
	Accepted   time.Time
	Died       time.Time
	Attempts   []Attempt

	shaped  bool // see delivery
	stored  time.Time
	dropped int // attempts that are not in Attempts
}

// key is that of its pack.
func (d *DeadLetter) key() string {
	if d.Source != "" {
		return sourceKey + d.Source
	}
	return d.Sink
}

// DeadLetterFilter chooses dead letters. Every field that is set must hold; the
// zero filter chooses all.
type DeadLetterFilter struct {
	Source, Sink, Rule, Reason string

	Since, Until time.Time // when they died
	Pattern      *rules.Set
	IDs          []string
}

func (f *DeadLetterFilter) accepts(d *DeadLetter) bool {
	switch {
	case f.Source != "" && f.Source != d.Source,
		f.Sink != "" && f.Sink != d.Sink,
		f.Rule != "" && f.Rule != d.Rule,
		f.Reason != "" && f.Reason != d.Reason,
		!f.Since.IsZero() && d.Died.Before(f.Since),
		!f.Until.IsZero() && d.Died.After(f.Until),
		len(f.IDs) > 0 && !slices.Contains(f.IDs, d.ID):
		return false
	}
	return f.Pattern == nil || matches(f.Pattern, d.Event)
}

func matches(set *rules.Set, e bus.Event) bool {
	hits, err := set.MatchEvent(e, nil)
	return err == nil && len(hits) > 0
}

// deadLetters is the store of what was given up.
type deadLetters struct {
	d      *Dispatcher
	stream bus.Stream
	books  *ledger // of the packs that some dead letter was removed from

	mu     sync.Mutex
	counts map[string]int // by the keys of their packs
	known  bus.Position   // those below it are counted
	head   uint64         // the last pack of an earlier process
}

func newDeadLetters(d *Dispatcher) *deadLetters {
	dl := &deadLetters{d: d, stream: d.store.Stream(bus.DeadLetters), books: d.newLedger(bus.DeadLetters, false), counts: map[string]int{}}
	dl.books.whole = func(seq uint64) { d.remover.remove(dl.stream, dl.books, seq) }
	return dl
}

func (dl *deadLetters) count(key string, n int) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	dl.add(key, n)
}

// add is count for who holds the lock.
func (dl *deadLetters) add(key string, n int) {
	if dl.counts[key] += n; dl.counts[key] == 0 {
		delete(dl.counts, key)
	}
}

// bySink is how many there are of each sink that has any.
func (dl *deadLetters) bySink() map[string]int {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	all := maps.Clone(dl.counts)
	maps.DeleteFunc(all, func(key string, _ int) bool { _, source := SourceOf(key); return source })
	return all
}

func (dl *deadLetters) total(key string) int {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	return dl.counts[key]
}

// buryAgain is how long a delivery waits, and is then tried once more, that could
// not become a dead letter because the store is full.
const buryAgain = 10 * time.Second

// bury makes dead letters of deliveries of a lane, in one write. Who waits for buried
// knows that they are durable, and what covered the deliveries is settled.
func (d *Dispatcher) bury(l *lane, all []death) (buried *sync.WaitGroup) {
	buried = new(sync.WaitGroup)
	writes := make([]write, len(all))
	for i, one := range all {
		writes[i] = d.burial(l, one.d, one.why, buried.Done)
	}
	buried.Add(len(all))
	if err := d.deadWriter.submit(writes...); err != nil { // shutting down
		for _, one := range all {
			l.leave(one.d, nowhere)
			buried.Done()
		}
	}
	return buried
}

// burial is the write that makes a dead letter of a delivery.
func (d *Dispatcher) burial(l *lane, dv *delivery, why Verdict, done func()) write {
	l.mu.Lock() // what covers it may be about to change: see detachedAs
	m := dv.meta()
	l.mu.Unlock()
	m.Due = time.Time{}
	m.Reason, m.Died, m.Config = why.String(), d.now(), d.routing.Load().version
	return write{key: dv.sink, record: appendDelivery(nil, &m, dv.event), done: func(_ bus.Position, _ int, err error) {
		defer done()
		if err != nil {
			d.retries.keep(l, dv, time.Now().Add(buryAgain), err)
			return
		}
		d.dead.count(dv.sink, 1)
		dv.sealed = true
		l.metrics.buried(dv.rule, m.Reason)
		l.end(dv, &l.metrics.live.dead)
	}}
}

// walk calls visit with each dead letter that is there from a position on, in
// order, and with the number of records in its pack, until visit says false.
func (dl *deadLetters) walk(ctx context.Context, from bus.Position, visit func(*DeadLetter, int) bool) error {
	return eachPack(ctx, dl.stream, max(from.Seq, 1), func(pack bus.Pack) bool {
		for i, rec := range pack.Records {
			pos := bus.Position{Seq: pack.Seq, Index: i}
			if pos.Less(from) || dl.books.marked(pos) {
				continue
			}
			letter, err := decodeDeadLetter(rec, pos, pack.Key)
			if err != nil {
				dl.d.damaged(bus.DeadLetters, pos, err)
				continue
			}
			if !visit(letter, len(pack.Records)) {
				return false
			}
		}
		return true
	})
}

// eachPack calls visit with each pack that a stream has from a number on, until
// visit says false.
func eachPack(ctx context.Context, s bus.Stream, from uint64, visit func(bus.Pack) bool) error {
	return eachPackOf(ctx, s, "", from, visit)
}

// eachPackOf is eachPack for the packs of one key.
func eachPackOf(ctx context.Context, s bus.Stream, key string, from uint64, visit func(bus.Pack) bool) error {
	reader, err := s.Read(ctx, key, from)
	if err != nil {
		return err
	}
	defer func() { _ = reader.Close() }()
	for {
		pack, ok, err := reader.TryNext(ctx)
		if err != nil || !ok || !visit(pack) {
			return err
		}
	}
}

func decodeDeadLetter(rec []byte, pos bus.Position, key string) (*DeadLetter, error) {
	m, e, err := decodeMeta(rec)
	if err != nil {
		return nil, err
	}
	letter := &DeadLetter{
		ID: pos.String(), DeliveryID: m.ID, Event: e, Rule: m.Rule, Reason: m.Reason,
		Config: m.Config, Accepted: m.Accepted, Died: m.Died, Attempts: m.Attempts, shaped: m.Shaped, stored: m.Stored, dropped: m.Dropped,
	}
	if source, ok := strings.CutPrefix(key, sourceKey); ok {
		letter.Source = source
	} else {
		letter.Sink = key
	}
	return letter, nil
}

// remove takes a dead letter out; n is the number of records in its pack.
func (dl *deadLetters) remove(letter *DeadLetter, n int) {
	pos, err := bus.ParsePosition(letter.ID)
	if err != nil {
		panic(err) // made by walk
	}
	dl.books.begin(pos.Seq, n, 0)
	dl.books.read(pos.Seq)
	if dl.books.settled(pos) {
		return
	}
	dl.books.settle(pos)
	dl.mu.Lock()
	defer dl.mu.Unlock()
	if pos.Less(dl.known) || pos.Seq > dl.head { // or it is not counted yet
		dl.add(letter.key(), -1)
	}
}

// DeadLetters lists dead letters from a position on, oldest first and limit at
// most; next is where to go on, or zero at the end.
func (d *Dispatcher) DeadLetters(ctx context.Context, f DeadLetterFilter, from bus.Position, limit int) (list []DeadLetter, next bus.Position, err error) {
	err = d.dead.walk(ctx, from, func(letter *DeadLetter, _ int) bool {
		if !f.accepts(letter) {
			return true
		}
		if len(list) == limit {
			next, _ = bus.ParsePosition(letter.ID)
			return false
		}
		list = append(list, *letter)
		return true
	})
	return list, next, err
}

// DeadLetter is one dead letter, or bus.ErrNotFound.
func (d *Dispatcher) DeadLetter(ctx context.Context, id string) (DeadLetter, error) {
	missing := fmt.Errorf("dead letter %q: %w: `sluice dlq ls` lists what there is", id, bus.ErrNotFound)
	pos, err := bus.ParsePosition(id)
	if err != nil {
		return DeadLetter{}, missing
	}
	pack, err := d.dead.stream.Get(ctx, pos.Seq)
	if errors.Is(err, bus.ErrNotFound) {
		return DeadLetter{}, missing
	}
	if err != nil {
		return DeadLetter{}, err
	}
	if pos.Index >= len(pack.Records) || d.dead.books.marked(pos) {
		return DeadLetter{}, missing
	}
	letter, err := decodeDeadLetter(pack.Records[pos.Index], pos, pack.Key)
	if err != nil {
		return DeadLetter{}, err
	}
	return *letter, nil
}

// PurgeDeadLetters removes the dead letters that f chooses, for good.
func (d *Dispatcher) PurgeDeadLetters(ctx context.Context, f DeadLetterFilter) (removed int, err error) {
	err = d.dead.walk(ctx, bus.Position{}, func(letter *DeadLetter, n int) bool {
		if f.accepts(letter) {
			d.history.purged(letter)
			d.dead.remove(letter, n)
			d.countPurged(letter, "purged")
			removed++
		}
		return true
	})
	return removed, err
}

// recover counts what an earlier process left in the packs up to head.
func (dl *deadLetters) recover(ctx context.Context, head uint64) error {
	return dl.walk(ctx, dl.known, func(letter *DeadLetter, _ int) bool {
		pos, _ := bus.ParsePosition(letter.ID)
		if pos.Seq > head {
			return false
		}
		dl.mu.Lock()
		defer dl.mu.Unlock()
		if !dl.books.marked(pos) {
			dl.add(letter.key(), 1)
		}
		dl.known = bus.Position{Seq: pos.Seq, Index: pos.Index + 1}
		return true
	})
}
