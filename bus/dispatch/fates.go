package dispatch

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bus"
	"sluice/rules"
)

// Notice is one thing that happened to an event, as Tail tells it.
type Notice struct {
	At    time.Time
	Stage string // one of the Stage constants
	Event bus.Event

	Position bus.Position // accepted: where the event is
	Rules    []string     // accepted: the rules that matched
	Misses   []Miss       // accepted: the rules whose pattern matched, but whose where did not

	DeliveryID string // the others: which delivery
	Rule, Sink string
	Attempt    int
	Status     int
	Class      string
	Error      string
	Duration   time.Duration
	After      time.Duration // retry: until the next attempt; leased: how long the sink has
	Reason     string        // dead letter: why
}

// The stages of a Notice.
const (
	StageAccepted   = "accepted"
	StageDelivered  = "delivered"
	StageRetry      = "retry"
	StageDeadLetter = "dead_letter"
	StageDiscarded  = "discarded"
	StageLeased     = "leased" // the sink has begun, and will say how it ended
)

// Stages lists every stage.
func Stages() []string {
	return []string{StageAccepted, StageDelivered, StageRetry, StageLeased, StageDeadLetter, StageDiscarded}
}

// fates tells those who watch what becomes of events. With nobody watching it
// costs one atomic load.
type fates struct {
	watched atomic.Int32
	mu      sync.Mutex
	all     map[*watcher]struct{}
}

type watcher struct {
	notices chan Notice
	missed  atomic.Int64
}

// watchAhead is how many notices wait for a watcher; a slower one misses some.
const watchAhead = 4096

func newFates() *fates { return &fates{all: map[*watcher]struct{}{}} }

func (f *fates) watch() (w *watcher, stop func()) {
	w = &watcher{notices: make(chan Notice, watchAhead)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all[w] = struct{}{}
	f.watched.Add(1)
	return w, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if _, ok := f.all[w]; ok {
			delete(f.all, w)
			f.watched.Add(-1)
		}
	}
}

func (f *fates) tell(n Notice) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.all {
		select {
		case w.notices <- n:
		default:
			w.missed.Add(1)
		}
	}
}

func (f *fates) accepted(e bus.Event, pos bus.Position, at time.Time, table *routing, hits []int, misses []Miss) {
	if f.watched.Load() == 0 {
		return
	}
	n := Notice{At: at, Stage: StageAccepted, Event: e, Position: pos, Rules: []string{}, Misses: slices.Clone(misses)}
	for _, hit := range hits {
		n.Rules = append(n.Rules, table.routes[hit].Name)
	}
	f.tell(n)
}

func (f *fates) outcome(d *delivery, a Attempt, v Verdict, after time.Duration, attempt int) {
	if f.watched.Load() == 0 {
		return
	}
	n := Notice{
		At: a.At.Add(a.Duration), Event: d.event, DeliveryID: d.id, Rule: d.rule, Sink: d.sink,
		Attempt: attempt, Status: a.Status, Class: a.Class, Error: a.Error, Duration: a.Duration,
	}
	switch v {
	case Delivered:
		n.Stage = StageDelivered
	case Again:
		n.Stage, n.After = StageRetry, after
	case Leased:
		n.Stage, n.After = StageLeased, after
	case Discarded:
		n.Stage = StageDiscarded
	default:
		n.Stage, n.Reason = StageDeadLetter, v.String()
	}
	f.tell(n)
}

// TailFilter chooses notices; the zero filter chooses all.
type TailFilter struct {
	Rule, Sink string
	Stages     []string
	Pattern    *rules.Set
	// Attached is called once nothing that happens from then on is missed; nil for
	// nobody who has to know.
	Attached func()
}

func (f *TailFilter) accepts(n *Notice) bool {
	if len(f.Stages) > 0 && !slices.Contains(f.Stages, n.Stage) {
		return false
	}
	if f.Sink != "" && n.Sink != f.Sink {
		return false
	}
	if f.Rule != "" && n.Rule != f.Rule && !slices.Contains(n.Rules, f.Rule) {
		return false
	}
	return f.Pattern == nil || matches(f.Pattern, n.Event)
}

// Tail calls show with what happens from now on until ctx ends or show fails.
// missed counts the notices that came faster than show took them, so far.
func (d *Dispatcher) Tail(ctx context.Context, f TailFilter, show func(n Notice, missed int64) error) error {
	w, stop := d.fates.watch()
	defer stop()
	if f.Attached != nil {
		f.Attached()
	}
	for {
		select {
		case n := <-w.notices:
			if !f.accepts(&n) {
				continue
			}
			if err := show(n, w.missed.Load()); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		case <-d.intake.Done():
			return bus.ErrClosed
		}
	}
}
