package dispatch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// weaver makes one timeline of what several places say of an event. What two of them
// say of the same attempt becomes one line.
type weaver struct {
	t     *telling
	s     *Story
	is    identity
	lines []Happening
	at    map[lineKey]int // the lines of attempts
	known map[string]*StoryDelivery
	order []string // the keys of known
	to    map[string]bool
}

// lineKey is what makes an attempt one: its delivery, and when it ended.
type lineKey struct {
	delivery string
	at       int64
}

func newWeaver(t *telling, s *Story) *weaver {
	return &weaver{t: t, s: s, is: identityOf(s.event), at: map[lineKey]int{}, known: map[string]*StoryDelivery{}, to: map[string]bool{}}
}

// attempted tells whether a stage is what an attempt came to.
func attempted(stage string) bool {
	return slices.Contains([]string{StageDelivered, StageRetry, StageDeadLetter, StageDiscarded, StageLeased}, stage)
}

// add adds a line, or adds to the one that tells of the same attempt already.
func (w *weaver) add(h Happening) {
	if h.Delivery != "" && w.known[h.Delivery] == nil {
		w.know(StoryDelivery{ID: h.Delivery, Rule: h.Rule, Sink: h.Sink, Replay: h.Replay})
	}
	if !attempted(h.Stage) {
		w.lines = append(w.lines, h)
		return
	}
	key := lineKey{h.Delivery, h.At.UnixNano()}
	i, there := w.at[key]
	if !there {
		w.at[key] = len(w.lines)
		w.lines = append(w.lines, h)
		return
	}
	old := &w.lines[i]
	old.Letter, old.Reason = cmp.Or(old.Letter, h.Letter), cmp.Or(old.Reason, h.Reason)
	if len(h.Answer) > len(old.Answer) {
		old.Answer = h.Answer
	}
}

func (w *weaver) know(d StoryDelivery) {
	if w.known[d.ID] == nil {
		w.known[d.ID] = &d
		w.order = append(w.order, d.ID)
	}
}

// places tells when the event came.
func (w *weaver) places() {
	for _, p := range w.s.Accepted {
		w.lines = append(w.lines, Happening{At: p.At, Stage: StageAccepted, Known: KnownLog, Position: p.Position})
	}
}

// history adds what is remembered of the event, and then of the reports of its
// deliveries: their ids are made of those.
func (w *weaver) history() {
	for _, e := range w.t.d.history.find(map[uint64]bool{historyKey(w.is.id): true}) {
		if e.stage == codeAccepted {
			w.accepted(&e)
		} else if e.isOf(w.is) {
			w.remembered(&e)
		}
	}
	reports := map[uint64]bool{}
	var are []identity
	for _, id := range w.order {
		for _, kind := range []report{succeeded, failed} {
			is := reportIdentity(w.known[id].Sink, id, kind)
			are = append(are, is)
			reports[historyKey(is.id)] = true
		}
	}
	if len(are) == 0 {
		return
	}
	for _, e := range w.t.d.history.find(reports) {
		if e.stage != codeAccepted && slices.ContainsFunc(are, e.isOf) {
			w.remembered(&e)
		}
	}
}

// isOf tells whether an entry is of a delivery of an event: the hash of the id may be
// that of another one's.
func (e *entry) isOf(is identity) bool {
	if e.ref == is.delivery(e.rule, e.sink, "") {
		return true
	}
	return e.more != nil && e.more.Replay != "" && e.ref == is.delivery(e.rule, e.sink, e.more.Replay)
}

// accepted adds to the line of the place that the entry is of.
func (w *weaver) accepted(e *entry) {
	for i := range w.lines {
		h := &w.lines[i]
		if h.Stage != StageAccepted || h.Position != e.pos.String() {
			continue
		}
		h.Config, h.Rules = e.ref, []string{}
		if e.rule != "" {
			h.Rules = append(h.Rules, e.rule)
		}
		if e.more != nil {
			h.Rules, h.Misses = append(h.Rules, e.more.Rules...), e.more.Misses
		}
	}
}

// remembered adds an entry of the history.
func (w *weaver) remembered(e *entry) {
	h := Happening{
		At: time.Unix(0, e.at), Stage: stageOf(e.stage), Known: KnownHistory, Delivery: e.ref, Rule: e.rule, Sink: e.sink,
		Attempt: int(e.try), Status: int(e.status), Seconds: e.took.Seconds(),
	}
	m := e.more
	if m == nil {
		w.add(h)
		return
	}
	h.Class, h.Error, h.After, h.Reason, h.Replay = m.Class, m.Error, time.Duration(m.After).Seconds(), m.Reason, m.Replay
	h.Answer, h.Replies, h.Job, h.Letter, h.To = words(m.Answer), m.Replies, m.Job, m.Letter, m.To
	if e.stage == codeRedriven || e.stage == codePurged {
		w.died(h, m.Attempts, m.Dropped, m.Died, KnownHistory)
		h.Reason = ""
	}
	w.add(h)
	for _, to := range m.To {
		w.to[to.Delivery] = true
		w.know(StoryDelivery{ID: to.Delivery, Rule: to.Rule, Sink: to.Sink})
	}
}

// words is what a sink answered, as text.
func words(answer []byte) string { return strings.ToValidUTF8(string(answer), "\ufffd") }

// died adds the attempts of a dead letter, of which h says whose they are.
func (w *weaver) died(h Happening, attempts []Attempt, dropped int, died time.Time, known string) {
	h.Known, h.Job, h.To = known, "", nil
	for i, a := range attempts {
		last := i == len(attempts)-1
		w.attempt(h, a, i+1+dropped, last)
	}
	if len(attempts) == 0 {
		h.Stage, h.At = StageDeadLetter, died
		w.add(h)
	}
}

// attempt adds an attempt that failed; with dead it was the last one.
func (w *weaver) attempt(h Happening, a Attempt, n int, dead bool) {
	h.At, h.Stage, h.Attempt, h.Status, h.Class, h.Error = a.At.Add(a.Duration), StageRetry, n, a.Status, a.Class, a.Error
	h.Answer, h.Seconds = words(a.Answer), a.Duration.Seconds()
	if dead {
		h.Stage = StageDeadLetter
	} else {
		h.Letter, h.Reason = "", ""
	}
	w.add(h)
}

// owns tells whether a record is of the event, or of a report of one of its deliveries.
func (w *weaver) owns(of identity, rule, cause string) bool {
	return of == w.is || isReport(rule) && cause == w.is.id
}

// letters adds the dead letters.
func (w *weaver) letters() {
	for _, l := range w.t.letters {
		if !w.owns(identityOf(l.Event), l.Rule, l.Event.Get(CauseAttribute)) {
			continue
		}
		h := Happening{Delivery: l.DeliveryID, Rule: l.Rule, Sink: l.Sink, Reason: l.Reason, Letter: l.ID, Replay: l.Event.Get(ReplayAttribute)}
		w.died(h, l.Attempts, l.dropped, l.Died, KnownLetter)
		w.known[l.DeliveryID].Letter = l.ID
	}
}

// waits adds the deliveries that have not ended.
func (w *weaver) waits() {
	ids := make([]string, 0, len(w.t.waiting))
	for id := range w.t.waiting {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		d := w.t.waiting[id]
		if !w.owns(identityOf(d.event), d.rule, d.event.Get(CauseAttribute)) {
			continue
		}
		replay := d.event.Get(ReplayAttribute)
		w.know(StoryDelivery{ID: id, Rule: d.rule, Sink: d.sink, Replay: replay})
		for i, a := range d.attempts {
			w.attempt(Happening{Known: KnownWaiting, Delivery: id, Rule: d.rule, Sink: d.sink, Replay: replay}, a, i+1+d.dropped, false)
		}
	}
}

// sorted is the timeline. The deliveries follow its order.
func (w *weaver) sorted() []Happening {
	slices.SortStableFunc(w.lines, byTime)
	first := map[string]int{}
	for i := range w.lines {
		if id := w.lines[i].Delivery; id != "" && first[id] == 0 {
			first[id] = i - len(w.lines) // those without a line come last
		}
	}
	slices.SortStableFunc(w.order, func(a, b string) int { return first[a] - first[b] })
	return slices.Clip(append([]Happening{}, w.lines...))
}

// deliveries says how each delivery stands: those that something is known of, and
// those that the rules say there must have been.
func (w *weaver) deliveries(now []target) []StoryDelivery {
	all := []StoryDelivery{}
	for _, id := range w.order {
		d := w.known[id]
		w.stand(d)
		all = append(all, *d)
	}
	then, sure := w.rulesThen()
	for _, t := range now {
		id := w.is.delivery(t.rule, t.lane.name, "")
		if w.known[id] != nil || len(w.s.Accepted) == 0 || sure && t.rule != UnmatchedRule && !slices.Contains(then, t.rule) || sure && t.rule == UnmatchedRule && len(then) > 0 {
			continue
		}
		d := StoryDelivery{ID: id, Rule: t.rule, Sink: t.lane.name, State: DeliveryUnknown}
		switch {
		case !w.s.Settled:
			d.State = DeliveryOnItsWay
		case sure:
			d.State = DeliveryEnded
		}
		all = append(all, d)
	}
	return all
}

// rulesThen are the rules that the event went by when it was routed last; sure is
// false when that is not known any more.
func (w *weaver) rulesThen() (names []string, sure bool) {
	for i := range w.lines {
		if h := &w.lines[i]; h.Stage == StageAccepted {
			names, sure = h.Rules, h.Rules != nil
		}
	}
	return names, sure
}

// stand says how a delivery stands by the last that is known of it.
func (w *weaver) stand(d *StoryDelivery) {
	var last *Happening
	for i := range w.lines {
		h := &w.lines[i]
		if h.Delivery != d.ID || h.Stage == StageReplied {
			continue
		}
		last = h
		switch {
		case h.Stage == StageRedriven:
			d.Attempts = 0
		case attempted(h.Stage):
			d.Attempts = max(d.Attempts, h.Attempt)
		}
	}
	over := last != nil && slices.Contains([]string{StageDelivered, StageDeadLetter, StageDiscarded}, last.Stage)
	wait := w.t.waiting[d.ID]
	switch {
	case wait != nil && !(over && (wait.state == DeliveryInFlight || !last.At.Before(w.t.asked))):
		d.State, d.Due = wait.state, wait.due
		return
	case d.Letter != "":
		d.State = DeliveryDead
		return
	}
	since := w.t.asked
	switch {
	case last == nil && w.to[d.ID]:
		since = w.redriven()
	case last == nil:
	case last.Stage == StageDelivered:
		d.State = DeliveryDelivered
	case last.Stage == StageDiscarded:
		d.State = DeliveryDiscarded
	case last.Stage == StagePurged:
		d.State = DeliveryPurged
	case last.Stage == StageRedriven && !w.to[d.ID]:
		d.State = DeliveryRedriven
	default:
		since = last.At
	}
	if d.State != "" {
		return
	}
	if d.State = DeliveryOnItsWay; !remembered(w.t.d.history.covers(), since) {
		d.State = DeliveryEnded
	}
}

// redriven is when the last dead letter was delivered again.
func (w *weaver) redriven() (at time.Time) {
	for i := range w.lines {
		if h := &w.lines[i]; h.Stage == StageRedriven {
			at = h.At
		}
	}
	return at
}

// remembered tells whether the history has everything since a time.
func remembered(spans []Span, since time.Time) bool {
	for _, s := range slices.Backward(spans) {
		switch {
		case !s.To.IsZero() && !s.To.After(since):
			return true
		case !s.Clean:
			return false
		case !s.Calm.After(since):
			return true
		case s.Calm.After(s.From):
			return false
		}
	}
	return false
}

// notes says what is not known, and why.
func (t *telling) notes(s *Story, w *weaver) {
	say := func(format string, args ...any) { s.Notes = append(s.Notes, fmt.Sprintf(format, args...)) }
	if len(s.Accepted) == 0 {
		say("the event itself was not found in the log: it was removed as store.retain says, or lies further back; it is known from a delivery of it")
	}
	then, sure := w.rulesThen()
	switch {
	case len(s.Accepted) > 0 && !sure && s.Settled:
		say("which rules it went by when it came is not remembered: the rules named here are those of the config as it is now")
	case sure:
		for _, name := range then {
			if !slices.ContainsFunc(s.Rules, func(r StoryRule) bool { return r.Name == name }) {
				say("rule %s matched when it came, and does not any more: the config has changed since", name)
			}
		}
	}
	if len(s.Accepted) == 0 || remembered(t.d.history.covers(), s.Accepted[0].At) {
		return
	}
	at := s.Accepted[0].At
	for _, span := range t.d.history.covers() {
		switch end := span.To; {
		case !end.IsZero() && !end.After(at):
		case !span.Clean:
			say("the process that began at %s ended without saving what it remembered: of its time there is only what the store holds", when(span.From))
		case span.Calm.After(span.From) && span.Calm.After(at):
			say("deliveries that were made at once are remembered since %s", when(span.Calm))
			if span.Trouble.After(span.From) && span.Trouble.After(at) {
				say("failures are remembered since %s: of earlier ones there are only dead letters and retries", when(span.Trouble))
			}
		}
	}
	if first := t.d.history.covers()[0].From; first.After(at) {
		say("nothing is remembered from before %s: of earlier attempts there are only those of dead letters and retries", when(first))
	}
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
