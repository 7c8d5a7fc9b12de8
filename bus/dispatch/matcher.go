package dispatch

import (
	"slices"

	"github.com/cloudevents/sdk-go/v2/event"

	"sluice/bus"
	"sluice/rules"
)

// Matcher decides which of some rules an event goes by: those whose pattern
// matches and whose where, if there is one, is true. It is immutable and may be
// used from many goroutines.
type Matcher struct {
	set    *rules.Set
	routes []Route
	wheres bool // some rule has one
}

// NewMatcher makes a matcher of rules.
func NewMatcher(routes []Route) (*Matcher, error) {
	m := &Matcher{routes: routes}
	patterns := make([]rules.Rule, len(routes))
	for i, r := range routes {
		patterns[i] = rules.Rule{Name: r.Name, Pattern: r.Pattern}
		m.wheres = m.wheres || r.Where != nil
	}
	var err error
	m.set, err = rules.Compile(patterns)
	return m, err
}

// Miss is a rule whose pattern matched and whose where did not.
type Miss struct {
	Rule string
	Err  error // why where has no answer, which counts as no; nil if it was false

	index int
}

// match appends the indexes of the rules that an event goes by to hits, and what
// where took out to misses.
func (m *Matcher) match(e bus.Event, hits []int, misses []Miss) ([]int, []Miss, error) {
	from := len(hits)
	hits, err := m.set.MatchEvent(e, hits)
	if err != nil || !m.wheres {
		return hits, misses, err
	}
	var ce event.Event // made for the first rule that needs it
	kept := hits[:from]
	for _, hit := range hits[from:] {
		where := m.routes[hit].Where
		if where == nil {
			kept = append(kept, hit)
			continue
		}
		if ce.Context == nil {
			ce = e.CloudEvent()
		}
		if ok, err := where.Match(ce); ok {
			kept = append(kept, hit)
		} else {
			misses = append(misses, Miss{m.routes[hit].Name, err, hit})
		}
	}
	return kept, misses, nil
}

// Routed is where an event goes.
type Routed struct {
	Rules  []string // those it goes by
	Sinks  []string // each once, in the order of the rules
	Misses []Miss
}

// Route tells where an event goes; unmatched are the sinks of events that go by no
// rule.
func (m *Matcher) Route(e bus.Event, unmatched []string) (Routed, error) {
	hits, misses, err := m.match(e, nil, nil)
	if err != nil {
		return Routed{}, err
	}
	to := Routed{Rules: []string{}, Sinks: []string{}, Misses: misses}
	for _, hit := range hits {
		to.Rules = append(to.Rules, m.routes[hit].Name)
		for _, sink := range m.routes[hit].To {
			if !slices.Contains(to.Sinks, sink) {
				to.Sinks = append(to.Sinks, sink)
			}
		}
	}
	if len(hits) == 0 {
		to.Sinks = append(to.Sinks, unmatched...)
	}
	return to, nil
}
