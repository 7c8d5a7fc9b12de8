package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/bus"
)

// How a story finds its parts: the event and what it caused in the log, deliveries in
// the lanes and in the streams. Every look is bounded in time, and says how far it got.

const (
	// storyWindow is how far back the first look through the log goes; each further one
	// goes storyStep times as far.
	storyWindow = time.Minute
	storyStep   = 8
	// storyMore is how long the log is looked through for further events of the same
	// id once one was found.
	storyMore = time.Second
	// storyEvents is how many events one answer tells of at most.
	storyEvents = 200
)

// within runs a look with a share of the time that is left.
func (t *telling) within(share int) time.Time {
	return time.Now().Add(max(0, time.Until(t.deadline)) / time.Duration(share))
}

// findEvents finds the event, what it answers, and what it caused.
func (t *telling) findEvents(ctx context.Context) error {
	info, err := t.d.router.stream.Info(ctx)
	if err != nil {
		return err
	}
	if err := t.hints(ctx); err != nil {
		return err
	}
	if err := t.lookBack(ctx, info); err != nil {
		return err
	}
	return t.follow(ctx)
}

// hints takes the places that the history remembers: then the event is found even
// when the log is too long to be looked through.
func (t *telling) hints(ctx context.Context) error {
	for _, e := range t.d.history.find(map[uint64]bool{historyKey(t.q.ID): true}) {
		if e.stage != codeAccepted {
			continue
		}
		pack, err := t.d.router.stream.Get(ctx, e.pos.Seq)
		if errors.Is(err, bus.ErrNotFound) {
			continue // it was removed since
		}
		if err != nil {
			return err
		}
		if e.pos.Index < len(pack.Records) && !pack.Time.Before(t.q.Since) {
			if event, err := bus.DecodeRecord(pack.Records[e.pos.Index]); err == nil && t.asks(event) {
				t.node(event).stored(e.pos, pack.Time)
			}
		}
	}
	return nil
}

// asks tells whether an event is one that was asked for.
func (t *telling) asks(e bus.Event) bool {
	return e.ID() == t.q.ID && (t.q.Source == "" || e.Source() == t.q.Source)
}

// lookBack looks through the log in windows, the newest first: so an event of just now
// is found at once, however long the log is.
func (t *telling) lookBack(ctx context.Context, info bus.StreamInfo) error {
	until := t.within(2)
	found := false
	high, age := info.Last, storyWindow
	t.search.From = t.asked
	for high >= max(info.First, 1) {
		from := t.asked.Add(-age)
		last := !from.After(t.q.Since)
		if last {
			from = t.q.Since
		}
		low, err := t.d.router.stream.Since(ctx, from)
		if err != nil {
			return err
		}
		low = max(low, info.First, 1)
		if low <= high {
			done, err := t.window(ctx, low, high, until)
			if err != nil {
				return err
			}
			if !done {
				t.note(fmt.Sprintf("the log was looked through back to %s: that took all the time there was", t.search.From.UTC().Format(time.RFC3339)))
				return nil
			}
		}
		t.search.From = from
		if len(t.nodes) > 0 && !found {
			found, until = true, earlier(until, time.Now().Add(storyMore))
		}
		if last || low <= info.First {
			break
		}
		high, age = min(high, low-1), age*storyStep
	}
	t.search.From, t.search.Complete = t.q.Since, true
	if info.FirstTime.After(t.q.Since) {
		t.search.From = info.FirstTime
	}
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// window looks through a part of the log; done is false when the time did not suffice.
func (t *telling) window(ctx context.Context, low, high uint64, until time.Time) (done bool, err error) {
	causes := len(t.wanted)
	done, err = t.scan(ctx, low, high, until, func() []string { return t.ids }, t.take)
	if err == nil && done && len(t.wanted) > causes { // the cause comes before what answers it
		done, err = t.scan(ctx, low, high, until, func() []string { return t.wanted }, t.take)
	}
	return done, err
}

// take takes an event that was asked for, or one that it answers.
func (t *telling) take(e bus.Event, pos bus.Position, at time.Time) {
	if t.asks(e) {
		t.node(e).stored(pos, at)
	}
	ref := refOf(e)
	ref.Accepted = at
	if slices.Contains(t.wanted, e.ID()) && !slices.Contains(t.causes, ref) && len(t.causes) < maxCopies {
		t.causes = append(t.causes, ref)
	}
}

// scan visits the events between two packs whose record holds one of some ids.
func (t *telling) scan(ctx context.Context, low, high uint64, until time.Time, ids func() []string, visit func(bus.Event, bus.Position, time.Time)) (done bool, err error) {
	done = true
	err = eachPack(ctx, t.d.router.stream, low, func(pack bus.Pack) bool {
		if pack.Seq > high {
			return false
		}
		if !time.Now().Before(until) || ctx.Err() != nil {
			done = false
			return false
		}
		for i, rec := range pack.Records {
			if !holdsAny(rec, ids()) {
				continue
			}
			if e, err := bus.DecodeRecord(rec); err == nil { // the router has reported one that is damaged
				visit(e, bus.Position{Seq: pack.Seq, Index: i}, pack.Time)
			}
		}
		return true
	})
	return done, err
}

// holdsAny tells whether a record may be about one of some ids. Attributes are in it
// as they are.
func holdsAny(rec []byte, ids []string) bool {
	if len(ids) > 16 {
		return true // to look at the attributes is quicker
	}
	return slices.ContainsFunc(ids, func(id string) bool { return bytes.Contains(rec, []byte(id)) })
}

// follow finds what the events caused, and what that caused.
func (t *telling) follow(ctx context.Context) error {
	if len(t.order) == 0 {
		return nil
	}
	ids := map[string]bool{}
	var list []string
	know := func(id string) {
		if !ids[id] {
			ids[id] = true
			list = append(list, id)
		}
	}
	from := uint64(0)
	for _, s := range t.order {
		know(s.ID)
		for _, p := range s.Accepted {
			if from == 0 || p.pos.Seq < from {
				from = p.pos.Seq
			}
		}
	}
	until := t.within(2)
	reached := t.asked
	high, err := t.d.router.stream.Info(ctx)
	if err != nil {
		return err
	}
	if from == 0 {
		if from, err = t.d.router.stream.Since(ctx, t.q.Since); err != nil {
			return err
		}
	}
	done, err := t.scan(ctx, from, high.Last, until, func() []string { return list }, func(e bus.Event, pos bus.Position, at time.Time) {
		reached = at
		cause := e.Get(CauseAttribute)
		switch {
		case cause == "" || !ids[cause], t.nodes[identityOf(e)] != nil && t.asks(e):
		case t.nodes[identityOf(e)] == nil && len(t.order) >= storyEvents:
			t.note(fmt.Sprintf("it caused more than %d events: the others are left out", storyEvents-1))
		default:
			t.node(e).stored(pos, at)
			know(e.ID())
		}
	})
	if err == nil && !done {
		t.note("what the event caused was looked for up to about " + reached.UTC().Format(time.RFC3339) + ": that took all the time there was")
		t.search.Complete = false
	}
	return err
}

// held is a delivery that has not ended.
type held struct {
	event    bus.Event
	id       string
	rule     string
	sink     string
	accepted time.Time
	attempts []Attempt
	dropped  int
	state    string
	due      time.Time
}

func hold(d *delivery, state string) *held {
	h := &held{event: d.event, id: d.id, rule: d.rule, sink: d.sink, accepted: d.accepted, attempts: slices.Clone(d.attempts), dropped: d.dropped, state: state}
	if state == DeliveryRetry || state == DeliveryLeased {
		h.due = d.due
	}
	return h
}

// concerns tells whether a delivery or dead letter belongs to the story: its event does,
// or it reports of one that does.
func (t *telling) concerns(e bus.Event, rule string) bool {
	if t.nodes[identityOf(e)] != nil || t.asks(e) {
		return true
	}
	if !isReport(rule) {
		return false
	}
	return slices.ContainsFunc(t.order, func(s *Story) bool { return s.ID == e.Get(CauseAttribute) })
}

// keep keeps a delivery that waits. The first place that it is seen at counts: those
// in memory are looked at before their records.
func (t *telling) keep(h *held) {
	if t.waiting[h.id] != nil {
		return
	}
	t.waiting[h.id] = h
	if !isReport(h.rule) {
		t.adopt(h.event)
	}
}

// adopt begins the story of an event that is not in the log any more, but in a
// record of its own.
func (t *telling) adopt(e bus.Event) {
	if t.nodes[identityOf(e)] == nil && t.asks(e) {
		t.node(e).Settled = true
	}
}

// findDeliveries finds what waits before what ended: a delivery that ends meanwhile is
// seen twice, and not missed.
func (t *telling) findDeliveries(ctx context.Context) error {
	t.letters, t.waiting = nil, map[string]*held{}
	for _, s := range t.order {
		s.Settled = true // as it was before the looks: then each delivery that is open has a record of its own
		for _, p := range s.Accepted {
			s.Settled = s.Settled && t.d.events.ended(p.pos)
		}
	}
	if err := t.findWaiting(ctx); err != nil {
		return err
	}
	return t.findLetters(ctx)
}

// findWaiting finds the deliveries that have not ended.
func (t *telling) findWaiting(ctx context.Context) error {
	for _, l := range t.d.allLanes() {
		l.eachHeld(func(d *delivery, state string) {
			if t.concerns(d.event, d.rule) {
				t.keep(hold(d, state))
			}
		})
	}
	t.d.retries.eachHeld(func(d *delivery) {
		if t.concerns(d.event, d.rule) {
			t.keep(hold(d, waitState(d)))
		}
	})
	marked := func(key string, pos bus.Position) bool {
		l := t.d.laneNamed(key)
		return l != nil && l.books.marked(pos)
	}
	if err := t.records(ctx, t.d.backlogStream, 3, marked, func(*delivery) string { return DeliveryBacklog }); err != nil {
		return err
	}
	return t.records(ctx, t.d.retryStream, 2, func(_ string, pos bus.Position) bool { return t.d.retries.books.marked(pos) }, waitState)
}

func waitState(d *delivery) string {
	if d.leaseID() != "" {
		return DeliveryLeased
	}
	return DeliveryRetry
}

// records looks through the records of deliveries in a stream.
func (t *telling) records(ctx context.Context, s bus.Stream, share int, marked func(string, bus.Position) bool, state func(*delivery) string) error {
	ids, until := t.told(), t.within(share)
	return eachPack(ctx, s, 1, func(pack bus.Pack) bool {
		for i, rec := range pack.Records {
			if !holdsAny(rec, ids) || marked(pack.Key, bus.Position{Seq: pack.Seq, Index: i}) {
				continue
			}
			if d, err := decodeDelivery(rec, pack.Key); err == nil && t.concerns(d.event, d.rule) {
				t.keep(hold(d, state(d)))
			}
		}
		return t.goOn(ctx, until, "not every delivery that waits was looked at: there are too many for the time")
	})
}

func (t *telling) goOn(ctx context.Context, until time.Time, otherwise string) bool {
	if time.Now().Before(until) && ctx.Err() == nil {
		return true
	}
	t.note(otherwise)
	t.search.Complete = false
	return false
}

// told are the ids that records are looked through for.
func (t *telling) told() []string {
	ids := []string{t.q.ID}
	for _, s := range t.order {
		if !slices.Contains(ids, s.ID) {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// findLetters finds the dead letters.
func (t *telling) findLetters(ctx context.Context) error {
	ids, until := t.told(), t.within(1)
	return eachPack(ctx, t.d.dead.stream, 1, func(pack bus.Pack) bool {
		for i, rec := range pack.Records {
			pos := bus.Position{Seq: pack.Seq, Index: i}
			if !holdsAny(rec, ids) || t.d.dead.books.marked(pos) || strings.HasPrefix(pack.Key, sourceKey) {
				continue
			}
			if letter, err := decodeDeadLetter(rec, pos, pack.Key); err == nil && t.concerns(letter.Event, letter.Rule) {
				t.letters = append(t.letters, letter)
				if !isReport(letter.Rule) {
					t.adopt(letter.Event)
				}
			}
		}
		return t.goOn(ctx, until, "not every dead letter was looked at: there are too many for the time")
	})
}

// eachHeld visits the deliveries that the lane has in memory, under its lock.
func (l *lane) eachHeld(visit func(*delivery, string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range l.running {
		visit(d, DeliveryInFlight)
	}
	queued := func(d *delivery) bool {
		visit(d, DeliveryQueued)
		return true
	}
	l.queue.ready.each(queued)
	for _, k := range l.queue.keys {
		for _, d := range k.waiting {
			visit(d, DeliveryQueued)
		}
	}
	for _, d := range slices.Concat(l.refused, l.closing) {
		visit(d, DeliveryQueued)
	}
}

// eachHeld visits the retries that are in memory, under the lock.
func (r *retries) eachHeld(visit func(*delivery)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	see := func(all []*retry) {
		for _, w := range all {
			if w.d != nil {
				visit(w.d)
			}
		}
	}
	see(r.heap)
	for _, p := range r.parked {
		see(p.list)
	}
}
