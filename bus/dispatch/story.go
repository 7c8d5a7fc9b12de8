package dispatch

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"sluice/bus"
)

// A story is what is known of one event: from the log, from the deliveries that wait,
// from the dead letters, and from the history, which remembers for a while. It says
// where each part is from, and what cannot be known any more. It guesses nothing.

// The stages of a story beside those of a Notice.
const (
	StageReplied  = "replied"  // the sink answered with events
	StageRedriven = "redriven" // its dead letter was delivered again
	StagePurged   = "purged"   // its dead letter was removed by hand
)

// StoryQuery says whose story is told.
type StoryQuery struct {
	ID       string
	Source   string        // "": of every source that has an event with this id
	Since    time.Time     // how far the log is looked through
	Patience time.Duration // how long that may take
}

// Stories are the events that a query names, oldest first, and how they were looked for.
type Stories struct {
	Stories []*Story `json:"stories"`
	Search  Search   `json:"search"`
	History []Span   `json:"history"`
}

// Search is how far the log was looked through.
type Search struct {
	From     time.Time `json:"from"`     // events that were accepted since then were looked at
	Since    time.Time `json:"since"`    // what was asked for
	Complete bool      `json:"complete"` // everything was looked at that was asked for
	Notes    []string  `json:"notes,omitempty"`
}

// Story is what is known of one event.
type Story struct {
	ID       string          `json:"id"`
	Source   string          `json:"source"`
	Event    json.RawMessage `json:"event,omitempty"` // left out when nothing holds it any more
	Accepted []StoryPlace    `json:"accepted"`        // where it is in the log; several when it was published again
	Settled  bool            `json:"settled"`         // nothing of it is on its way without a record of its own

	Rules      []StoryRule     `json:"rules"` // as they are now
	Timeline   []Happening     `json:"timeline"`
	Deliveries []StoryDelivery `json:"deliveries"`
	Cause      *StoryCause     `json:"cause,omitempty"`
	Replies    []*Story        `json:"replies"` // the events that it caused
	Notes      []string        `json:"notes,omitempty"`

	event bus.Event
}

// StoryPlace is one place in the log.
type StoryPlace struct {
	Position string    `json:"position"`
	At       time.Time `json:"at"`

	pos bus.Position
}

// StoryRule is a rule that an event goes by.
type StoryRule struct {
	Name string   `json:"name"`
	To   []string `json:"to"`
}

// StoryMiss is a rule whose pattern matched, and whose where did not.
type StoryMiss struct {
	Rule  string `json:"rule"`
	Error string `json:"error,omitempty"` // why where has no answer
}

// StoryCause is the event that an event answers.
type StoryCause struct {
	ID          string     `json:"id"`
	Correlation string     `json:"correlation,omitempty"` // the id of the event that began it all
	Found       []EventRef `json:"found"`                 // the events in the log that have the id; ids of two sources may be the same
}

// EventRef names an event.
type EventRef struct {
	ID       string    `json:"id"`
	Source   string    `json:"source"`
	Type     string    `json:"type"`
	Accepted time.Time `json:"accepted,omitzero"`
}

// StoryHop is where a dead letter was delivered again.
type StoryHop struct {
	Delivery string `json:"delivery_id"`
	Rule     string `json:"rule"`
	Sink     string `json:"sink"`
}

// Happening is one line of a story.
type Happening struct {
	At    time.Time `json:"at"`
	Stage string    `json:"stage"`
	Known string    `json:"known_from"` // one of the Known constants

	Position string      `json:"position,omitempty"` // accepted
	Config   string      `json:"config_version,omitempty"`
	Rules    []string    `json:"rules,omitzero"` // accepted: that matched then; left out when that is not known
	Misses   []StoryMiss `json:"where_misses,omitempty"`

	Delivery string     `json:"delivery_id,omitempty"`
	Rule     string     `json:"rule,omitempty"`
	Sink     string     `json:"sink,omitempty"`
	Replay   string     `json:"replay,omitempty"` // the job that replayed the event
	Attempt  int        `json:"attempt,omitempty"`
	Status   int        `json:"status,omitempty"`
	Class    string     `json:"class,omitempty"`
	Error    string     `json:"error,omitempty"`
	Answer   string     `json:"answer,omitempty"`
	Seconds  float64    `json:"duration_seconds,omitempty"`
	After    float64    `json:"after_seconds,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Letter   string     `json:"dead_letter,omitempty"` // its id
	Job      string     `json:"job,omitempty"`
	To       []StoryHop `json:"to,omitempty"`
	Replies  []EventRef `json:"replies,omitempty"`
}

// Where a line of a story is from.
const (
	KnownLog     = "log"
	KnownHistory = "history"
	KnownWaiting = "waiting"     // from the record of a delivery that has not ended
	KnownLetter  = "dead_letter" // from a dead letter
)

// StoryDelivery is how one delivery stands.
type StoryDelivery struct {
	ID       string    `json:"id"`
	Rule     string    `json:"rule"`
	Sink     string    `json:"sink"`
	Replay   string    `json:"replay,omitempty"`
	State    string    `json:"state"`              // one of the Delivery constants
	Attempts int       `json:"attempts,omitempty"` // since it came into being or was redriven, as far as is known
	Due      time.Time `json:"due,omitzero"`       // the next attempt, or the end of the lease
	Letter   string    `json:"dead_letter,omitempty"`
}

// How a delivery stands.
const (
	DeliveryDelivered = "delivered"
	DeliveryDead      = "dead_letter"
	DeliveryDiscarded = "discarded"
	DeliveryPurged    = "purged"
	DeliveryRedriven  = "redriven" // as another delivery, to where its dead letter was sent
	DeliveryQueued    = "queued"
	DeliveryInFlight  = "in_flight"
	DeliveryBacklog   = "backlog"
	DeliveryRetry     = "retry"
	DeliveryLeased    = "leased"
	DeliveryOnItsWay  = "on_its_way" // it has not ended, and was between two places
	DeliveryEnded     = "ended"      // it was delivered, discarded, or its dead letter is gone: which is not known any more
	DeliveryUnknown   = "unknown"    // nothing is known of it
)

// Story puts together what is known of an event.
func (d *Dispatcher) Story(ctx context.Context, q StoryQuery) (Stories, error) {
	asked := d.now()
	t := &telling{d: d, q: q, asked: asked, deadline: time.Now().Add(q.Patience), nodes: map[identity]*Story{}, said: map[string]bool{}, ids: []string{q.ID}}
	t.search.Since = q.Since
	if err := t.findEvents(ctx); err != nil {
		return Stories{}, err
	}
	inLog := len(t.order) > 0
	err := t.findDeliveries(ctx)
	if err == nil && !inLog && len(t.order) > 0 { // a delivery outlives its event in the log
		if err = t.follow(ctx); err == nil {
			err = t.findDeliveries(ctx)
		}
	}
	if err == nil {
		err = t.tellAll()
	}
	if err == nil && t.doubtful() { // a delivery may have changed its place between two looks
		if err = t.findDeliveries(ctx); err == nil {
			err = t.tellAll()
		}
	}
	if err != nil {
		return Stories{}, err
	}
	out := Stories{Stories: []*Story{}, History: d.history.covers()}
	for _, s := range t.order {
		t.reply(s)
	}
	for _, s := range t.order {
		if s.ID == q.ID && (q.Source == "" || q.Source == s.Source) {
			out.Stories = append(out.Stories, s)
		}
	}
	t.cut(out.Stories)
	out.Search = t.search
	return out, nil
}

// telling is one story, or several, in the making.
type telling struct {
	d        *Dispatcher
	q        StoryQuery
	asked    time.Time
	deadline time.Time
	search   Search
	said     map[string]bool // the notes of search

	nodes   map[identity]*Story
	order   []*Story // nodes in the order of the log
	causes  []EventRef
	wanted  []string         // the ids of the events that those answer that were asked for
	ids     []string         // those to look for
	waiting map[string]*held // by delivery id
	letters []*DeadLetter
}

// note says something of the search, once.
func (t *telling) note(text string) {
	if !t.said[text] {
		t.said[text] = true
		t.search.Notes = append(t.search.Notes, text)
	}
}

// node is the story of an event, begun when it is new.
func (t *telling) node(e bus.Event) *Story {
	s := t.nodes[identityOf(e)]
	if s == nil {
		s = &Story{
			ID: e.ID(), Source: e.Source(), event: e, Accepted: []StoryPlace{}, Timeline: []Happening{},
			Deliveries: []StoryDelivery{}, Replies: []*Story{},
		}
		s.Event = e.AppendJSON(make([]byte, 0, e.Size()+64))
		t.nodes[identityOf(e)] = s
		t.order = append(t.order, s)
		if cause := e.Get(CauseAttribute); cause != "" && t.asks(e) && !slices.Contains(t.wanted, cause) {
			t.wanted = append(t.wanted, cause)
			t.ids = append(t.ids, cause)
		}
	}
	return s
}

// maxCopies is how many places of one event are listed.
const maxCopies = 20

func (s *Story) stored(pos bus.Position, at time.Time) {
	for i := range s.Accepted {
		if s.Accepted[i].pos == pos {
			return
		}
	}
	if len(s.Accepted) < maxCopies {
		s.Accepted = append(s.Accepted, StoryPlace{Position: pos.String(), At: at, pos: pos})
	}
}

func (t *telling) tellAll() error {
	for _, s := range t.order {
		if err := t.tell(s); err != nil {
			return err
		}
	}
	return nil
}

// doubtful tells whether there is a delivery of which nobody knows how it ended.
func (t *telling) doubtful() bool {
	return slices.ContainsFunc(t.order, func(s *Story) bool {
		return slices.ContainsFunc(s.Deliveries, func(d StoryDelivery) bool { return d.State == DeliveryEnded || d.State == DeliveryUnknown })
	})
}

// tell fills in what is known of one event.
func (t *telling) tell(s *Story) error {
	s.Rules, s.Notes = []StoryRule{}, nil
	table := t.d.routing.Load()
	hits, _, err := table.match(s.event, nil, nil)
	if err != nil {
		return err
	}
	for _, hit := range hits {
		s.Rules = append(s.Rules, StoryRule{table.routes[hit].Name, table.routes[hit].To})
	}
	slices.SortFunc(s.Accepted, func(a, b StoryPlace) int { return a.At.Compare(b.At) })
	w := newWeaver(t, s)
	w.places()
	w.history()
	w.letters()
	w.waits()
	s.Timeline = w.sorted()
	s.Deliveries = w.deliveries(table.targets(s.event, hits, nil))
	t.notes(s, w)
	if cause := s.event.Get(CauseAttribute); cause != "" {
		s.Cause = &StoryCause{ID: cause, Correlation: s.event.Get(CorrelationAttribute), Found: []EventRef{}}
		for _, ref := range t.causes {
			if ref.ID == cause {
				s.Cause.Found = append(s.Cause.Found, ref)
			}
		}
	}
	return nil
}

// ended tells whether nothing of a record of an ordered ledger is open: it is below the
// floor, or marked. One that has not been routed yet is not.
func (l *ledger) ended(pos bus.Position) bool { return pos.Seq < l.floor() || l.marked(pos) }

// reply hangs an event below those that caused it.
func (t *telling) reply(s *Story) {
	cause := s.event.Get(CauseAttribute)
	if cause == "" || len(s.Accepted) == 0 {
		return
	}
	for _, of := range t.order {
		if of.ID == cause && of != s && (len(of.Accepted) == 0 || !s.Accepted[len(s.Accepted)-1].At.Before(of.Accepted[0].At)) {
			of.Replies = append(of.Replies, s)
		}
	}
}

// cut makes a tree of what may be a graph: an event is told once on each way, and no
// deeper than replies go.
func (t *telling) cut(roots []*Story) {
	seen := map[*Story]bool{}
	var walk func(s *Story, depth int)
	walk = func(s *Story, depth int) {
		seen[s] = true
		s.Replies = slices.DeleteFunc(s.Replies, func(r *Story) bool {
			if depth == MaxHops {
				s.Notes = append(s.Notes, "its replies are not shown: that is deep enough")
			}
			if seen[r] || depth >= MaxHops {
				return true
			}
			seen[r] = true
			return false
		})
		for _, r := range s.Replies {
			walk(r, depth+1)
		}
	}
	for _, s := range roots {
		seen[s] = true
	}
	for _, s := range roots {
		walk(s, 0)
	}
}

func refOf(e bus.Event) EventRef { return EventRef{ID: e.ID(), Source: e.Source(), Type: e.Type()} }

func storyMisses(misses []Miss) (out []StoryMiss) {
	for _, m := range misses {
		one := StoryMiss{Rule: m.Rule}
		if m.Err != nil {
			one.Error = m.Err.Error()
		}
		one.Error = one.Error[:min(len(one.Error), maxError)]
		out = append(out, one)
	}
	return out
}

// byTime orders the lines of a story.
func byTime(a, b Happening) int {
	return cmp.Or(a.At.Compare(b.At), cmp.Compare(stageRank(a.Stage), stageRank(b.Stage)), cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Rule, b.Rule))
}

// stageRank orders what happened at the same moment.
func stageRank(stage string) int {
	return slices.Index([]string{StageAccepted, StageLeased, StageRetry, StageDelivered, StageReplied, StageDeadLetter}, stage)
}
