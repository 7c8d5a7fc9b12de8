package dispatch

import (
	"slices"
	"sync"
	"time"

	"sluice/bus"
)

// history remembers what became of events, for a while and in memory: Story reads it.
// It has two rings. The calm one holds what is as it should be: an event was accepted,
// a delivery made at once. The other holds every trouble, and all that comes after it
// to the same event. So a busy day does not wash away the failures within a second.
//
// Everything passes here, so noting something costs about what a mutex costs. There
// is no index to keep: the hash of the id is beside each entry, and a look through
// both rings takes less than a millisecond.
type history struct {
	now   func() time.Time
	began time.Time

	mu       sync.Mutex
	calm     ring
	troubled ring
	names    map[uint64]int // by key: the entries in troubled
	earlier  []entry        // of earlier processes
	spans    []Span         // of which earlier tells
}

const (
	historyEntries = 65536   // of each ring
	historyBytes   = 8 << 20 // of each ring
)

// entry is one thing that happened. It holds no event: that would keep its data.
type entry struct {
	key    uint64 // of the event's id
	at     int64  // when it ended, in ns since 1970
	took   time.Duration
	pos    bus.Position // accepted: where the event is
	ref    string       // the delivery; accepted: the version of the config
	rule   string       // accepted: the only rule that matched
	sink   string
	status int32
	try    int32
	stage  stageCode
	more   *more // what there is seldom; nil for none
}

// more is the part of an entry that most do not have.
type more struct {
	Rules    []string    `json:"rules,omitempty"` // accepted: those that matched, when they are several
	Misses   []StoryMiss `json:"misses,omitempty"`
	Class    string      `json:"class,omitempty"`
	Error    string      `json:"error,omitempty"`
	Answer   []byte      `json:"answer,omitempty"`
	After    int64       `json:"after,omitempty"`
	Reason   string      `json:"reason,omitempty"`
	Replay   string      `json:"replay,omitempty"`  // the job whose replay the delivery is
	Replies  []EventRef  `json:"replies,omitempty"` // replied
	Job      string      `json:"job,omitempty"`     // redriven
	Letter   string      `json:"letter,omitempty"`  // redriven, purged: the id that the dead letter had
	Died     time.Time   `json:"died,omitzero"`     // the same: when it died
	Dropped  int         `json:"dropped,omitempty"` // the same: attempts that are not in Attempts
	Attempts []Attempt   `json:"attempts,omitempty"`
	To       []StoryHop  `json:"to,omitempty"` // redriven: the deliveries that follow
}

// stageCode is a stage in one byte.
type stageCode byte

const (
	codeAccepted stageCode = iota
	codeDelivered
	codeRetry
	codeDeadLetter
	codeDiscarded
	codeLeased
	codeReplied
	codeRedriven
	codePurged
)

// stageOf names the codes.
func stageOf(c stageCode) string {
	names := [...]string{
		codeAccepted: StageAccepted, codeDelivered: StageDelivered, codeRetry: StageRetry, codeDeadLetter: StageDeadLetter,
		codeDiscarded: StageDiscarded, codeLeased: StageLeased, codeReplied: StageReplied, codeRedriven: StageRedriven, codePurged: StagePurged,
	}
	if int(c) >= len(names) {
		return ""
	}
	return names[c]
}

// codeOf is the code of what a verdict makes of a delivery.
func codeOf(v Verdict) stageCode {
	switch v {
	case Delivered:
		return codeDelivered
	case Again:
		return codeRetry
	case Leased:
		return codeLeased
	case Discarded:
		return codeDiscarded
	}
	return codeDeadLetter
}

// historyKey is the FNV-1a hash of an id: who looks for it verifies what it finds.
func historyKey(id string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return h
}

func newHistory(now func() time.Time) *history {
	h := &history{now: now, began: now(), names: map[uint64]int{}}
	h.calm.limit(historyEntries, historyBytes)
	h.troubled.limit(historyEntries, historyBytes)
	h.troubled.forgot = func(e *entry) {
		if h.names[e.key]--; h.names[e.key] == 0 {
			delete(h.names, e.key)
		}
	}
	return h
}

// note adds an entry to the ring that it belongs to.
func (h *history) note(e entry, trouble bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !trouble && (len(h.names) == 0 || h.names[e.key] == 0) {
		h.calm.add(e)
		return
	}
	h.names[e.key]++
	h.troubled.add(e)
}

// accepted notes how the router found an event.
func (h *history) accepted(e bus.Event, pos bus.Position, at time.Time, table *routing, hits []int, misses []Miss) {
	one := entry{key: historyKey(e.ID()), at: at.UnixNano(), pos: pos, ref: table.version, stage: codeAccepted}
	if len(hits) == 1 {
		one.rule = table.routes[hits[0]].Name
	}
	if len(hits) > 1 || len(misses) > 0 {
		one.more = &more{Misses: storyMisses(misses)}
		if len(hits) > 1 {
			for _, hit := range hits {
				one.more.Rules = append(one.more.Rules, table.routes[hit].Name)
			}
		}
	}
	h.note(one, false)
}

// outcome notes what an attempt came to.
func (h *history) outcome(d *delivery, a Attempt, v Verdict, after time.Duration, try int) {
	one := entry{
		key: historyKey(d.event.ID()), at: a.At.Add(a.Duration).UnixNano(), took: a.Duration, ref: d.id, rule: d.rule, sink: d.sink,
		status: int32(a.Status), try: int32(try), stage: codeOf(v),
	}
	replay := d.event.Get(ReplayAttribute)
	calm := v == Delivered && try == 1
	if !calm || replay != "" {
		one.more = &more{Class: a.Class, Error: a.Error, Answer: slices.Clone(a.Answer[:min(len(a.Answer), historyAnswer)]), After: int64(after), Replay: replay}
	}
	if one.stage == codeDeadLetter {
		one.more.Reason = v.String()
	}
	h.note(one, !calm)
}

// replied notes the events that a sink answered with.
func (h *history) replied(d *delivery, replies []bus.Event) {
	one := entry{
		key: historyKey(d.event.ID()), at: h.now().UnixNano(), ref: d.id, rule: d.rule, sink: d.sink, stage: codeReplied,
		more: &more{Replay: d.event.Get(ReplayAttribute)},
	}
	for _, e := range replies[:min(len(replies), historyReplies)] {
		one.more.Replies = append(one.more.Replies, refOf(e))
	}
	h.note(one, false)
}

const (
	historyAnswer  = 512 // bytes of an answer
	historyReplies = 16
	// historyAttempts is how many attempts of a dead letter are remembered once it is gone.
	historyAttempts = 16
)

// redriven notes that a dead letter was delivered again, with what is lost with it.
func (h *history) redriven(letter *DeadLetter, job string, out []outgoing, at time.Time) {
	m := &more{Job: job}
	for _, o := range out {
		m.To = append(m.To, StoryHop{Delivery: o.d.id, Rule: o.d.rule, Sink: o.d.sink})
	}
	h.gone(letter, codeRedriven, m, at)
}

// purged notes that a dead letter was removed for good.
func (h *history) purged(letter *DeadLetter) { h.gone(letter, codePurged, &more{}, h.now()) }

func (h *history) gone(letter *DeadLetter, stage stageCode, m *more, at time.Time) {
	m.Letter, m.Died, m.Reason, m.Replay = letter.ID, letter.Died, letter.Reason, letter.Event.Get(ReplayAttribute)
	skip := max(0, len(letter.Attempts)-historyAttempts)
	m.Dropped = skip + letter.dropped
	for _, a := range letter.Attempts[skip:] {
		a.Answer = slices.Clone(a.Answer[:min(len(a.Answer), historyAnswer)])
		m.Attempts = append(m.Attempts, a)
	}
	h.note(entry{
		key: historyKey(letter.Event.ID()), at: at.UnixNano(), ref: letter.DeliveryID, rule: letter.Rule, sink: letter.Sink,
		stage: stage, more: m,
	}, true)
}

// find gives the entries with one of some keys, oldest first.
func (h *history) find(keys map[uint64]bool) (found []entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	take := func(e *entry) {
		if keys[e.key] {
			found = append(found, *e)
		}
	}
	for i := range h.earlier {
		take(&h.earlier[i])
	}
	h.calm.each(take)
	h.troubled.each(take)
	slices.SortStableFunc(found, func(a, b entry) int { return int(max(-1, min(1, a.at-b.at))) })
	return found
}

// covers lists the times that the history tells of, oldest first.
func (h *history) covers() []Span {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(slices.Clone(h.spans), h.span())
}

// span is that of this process, without an end. The caller holds the lock.
func (h *history) span() Span {
	return Span{From: h.began, Calm: later(h.began, h.calm.lost), Trouble: later(h.began, h.troubled.lost), Clean: true}
}

// later is the later one of a time and one in ns since 1970.
func later(t time.Time, ns int64) time.Time {
	if ns > t.UnixNano() {
		return time.Unix(0, ns)
	}
	return t
}

// ring holds the newest entries within two limits.
type ring struct {
	entries, bytes int
	forgot         func(*entry) // hears of what has to go; may be nil

	all  []entry // a circle that begins at head
	head int
	n    int
	size int
	lost int64 // when the newest of those happened that had to go
}

func (r *ring) limit(entries, bytes int) { r.entries, r.bytes = entries, bytes }

// entrySize is about what an entry takes, without the texts.
const entrySize = 120

// weight is about how many bytes an entry takes.
func (e *entry) weight() int {
	n := entrySize + len(e.ref)
	if m := e.more; m != nil {
		n += 320 + len(m.Error) + len(m.Answer) + 32*len(m.Rules) + 64*len(m.Misses)
		for i := range m.Misses {
			n += len(m.Misses[i].Error)
		}
		for i := range m.Replies {
			n += 48 + len(m.Replies[i].ID) + len(m.Replies[i].Source) + len(m.Replies[i].Type)
		}
		for i := range m.Attempts {
			n += 120 + len(m.Attempts[i].Error) + len(m.Attempts[i].Answer)
		}
		n += 80 * len(m.To)
	}
	return n
}

// add adds an entry; the oldest go while there is no room.
func (r *ring) add(e entry) {
	w := e.weight()
	for r.n > 0 && (r.n >= r.entries || r.size+w > r.bytes) {
		r.drop()
	}
	if r.n == len(r.all) {
		r.grow()
	}
	r.all[(r.head+r.n)%len(r.all)] = e
	r.n++
	r.size += w
}

func (r *ring) drop() {
	old := &r.all[r.head]
	r.lost = max(r.lost, old.at)
	r.size -= old.weight()
	if r.forgot != nil {
		r.forgot(old)
	}
	*old = entry{}
	r.head = (r.head + 1) % len(r.all)
	r.n--
}

// grow makes room, up to the limit: a quiet bus keeps little.
func (r *ring) grow() {
	bigger := make([]entry, min(max(64, 2*len(r.all)), r.entries))
	n := copy(bigger, r.all[r.head:])
	copy(bigger[n:], r.all[:r.head])
	r.all, r.head = bigger, 0
}

// each calls visit with the entries, oldest first.
func (r *ring) each(visit func(*entry)) {
	for i := range r.n {
		visit(&r.all[(r.head+i)%len(r.all)])
	}
}
