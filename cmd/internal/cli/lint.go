package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"sluice/bus"
	"sluice/config"
	"sluice/rules"
	"sluice/sources"
)

// lint warns of what is valid and yet hardly meant: rules that can never match or
// that others make needless, sinks that nothing can reach, schedules that are over.
func lint(c *config.Config, now time.Time) config.Faults {
	l := linter{never: map[string]bool{}}
	for _, r := range c.Rules {
		if r.Enabled {
			l.rules = append(l.rules, r)
		}
	}
	l.contradictions()
	l.redundancies()
	l.unreachable(c)
	l.odd(c, now)
	return l.faults
}

// odd is what the kinds of the sources know of.
func (l *linter) odd(c *config.Config, now time.Time) {
	for _, s := range c.Sources {
		if w, ok := s.Settings.(sources.Warner); ok {
			for _, f := range w.Warnings(now) {
				l.warn(s.Pos, "sources."+s.Name+"."+s.Kind+"."+f.Key, "%s", f.Msg)
			}
		}
	}
}

type linter struct {
	rules  []config.Rule   // the enabled ones
	never  map[string]bool // those that can never match
	faults config.Faults
}

func (l *linter) warn(at config.Pos, path, format string, args ...any) {
	l.faults = append(l.faults, config.Fault{
		File: at.File, Line: at.Line, Col: at.Col, Path: path, Msg: fmt.Sprintf(format, args...), Severity: config.SeverityWarning,
	})
}

func (l *linter) contradictions() {
	for _, r := range l.rules {
		if why, never := rules.EventContradiction(r.Match); never {
			l.never[r.Name] = true
			l.warn(r.Pos, "rules."+r.Name+".match", "no event can ever match: %s", why)
		}
	}
}

func (l *linter) redundancies() {
	compiled := make([]rules.Rule, len(l.rules))
	for i, r := range l.rules {
		compiled[i] = rules.Rule{Name: r.Name, Pattern: r.Match}
	}
	found, all := rules.Redundancies(compiled, l.comparable)
	for _, f := range found {
		r, by := l.rules[f.Rule], l.rules[f.By]
		again := "which sends it to " + join(r.To, "") + " too: each is delivered twice"
		if f.Equal {
			l.warn(r.Pos, "rules."+r.Name, "matches the same events as %s (%s), %s", by.Name, by.Pos, again)
		} else {
			l.warn(r.Pos, "rules."+r.Name, "every event that it matches also matches %s (%s), %s", by.Name, by.Pos, again)
		}
	}
	if !all {
		l.warn(config.Pos{File: l.rules[0].Pos.File}, "rules", "are too many alike to look at all pairs for needless ones")
	}
}

// comparable tells that a rule may be needless beside another: the other sends the
// same to the same sinks, under no further condition.
func (l *linter) comparable(rule, by int) bool {
	r, other := l.rules[rule], l.rules[by]
	return !l.never[r.Name] && len(without(r.To, other.To)) == 0 && reflect.DeepEqual(r.Transform, other.Transform) &&
		(other.Where == nil || r.Where != nil && r.Where.String() == other.Where.String())
}

// unreachable finds sinks that only rules name which send nothing, and that get no
// reports of other sinks. Loading has told those that nothing names at all.
func (l *linter) unreachable(c *config.Config) {
	for _, s := range c.Sinks {
		named := func(r config.Rule) bool { return slices.Contains(r.To, s.Name) }
		told := slices.ContainsFunc(c.Warnings, func(f config.Fault) bool { return f.Path == "sinks."+s.Name })
		reports := func(other config.Sink) bool {
			return other.Options.OnSuccess == s.Name || other.Options.OnFailure == s.Name
		}
		switch {
		case told, slices.Contains(c.Unmatched, s.Name), slices.ContainsFunc(c.Sinks, reports):
		case slices.ContainsFunc(l.rules, func(r config.Rule) bool { return named(r) && !l.never[r.Name] }):
		case slices.ContainsFunc(l.rules, named):
			l.warn(s.Pos, "sinks."+s.Name, "no event can get here: the rules that name it can never match")
		case slices.ContainsFunc(c.Rules, named):
			l.warn(s.Pos, "sinks."+s.Name, "no event can get here: the rules that name it are not enabled")
		default:
			l.warn(s.Pos, "sinks."+s.Name, "no rule sends events here, only a test expects it")
		}
	}
}

// sampleSize is how many of the newest events show which fields there are.
const sampleSize = 1000

// lintFields warns of fields that none of some real events has.
func lintFields(c *config.Config, sample []bus.Event, from string) (config.Faults, error) {
	var l linter
	var probes []rules.Rule // one for each path: whether it is there
	byPath := map[string]bool{}
	for _, r := range c.Rules {
		for _, path := range rules.Paths(r.Match) {
			if !r.Enabled || byPath[path] {
				continue
			}
			byPath[path] = true
			src, err := json.Marshal(map[string]any{path: []any{map[string]bool{"exists": true}}})
			if err != nil {
				return nil, err
			}
			p, err := rules.ParsePattern(src)
			if err != nil {
				return nil, err
			}
			probes = append(probes, rules.Rule{Name: path, Pattern: p})
		}
	}
	set, err := rules.Compile(probes)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, event := range sample {
		hits, err := set.MatchEvent(event, nil)
		if err != nil {
			return nil, err
		}
		for _, hit := range hits {
			seen[probes[hit].Name] = true
		}
	}
	for _, r := range c.Rules {
		var missing []string
		for _, path := range rules.Paths(r.Match) {
			if !seen[path] {
				missing = append(missing, path)
			}
		}
		if r.Enabled && len(missing) > 0 {
			l.warn(r.Pos, "rules."+r.Name+".match", "none of the last %s that %s keeps has %s", plural(len(sample), "event"), from, strings.Join(missing, " or "))
		}
	}
	return l.faults, nil
}

// sample fetches the newest events that the server keeps. Lists begin with the
// oldest, and a pack holds any number of events, so it looks back further and
// further.
func (e *env) sample(ctx context.Context) ([]bus.Event, error) {
	api, err := e.client()
	if err != nil {
		return nil, err
	}
	status, err := decode[statusDoc](api.get(ctx, "api/v1/status", nil))
	if err != nil {
		return nil, err
	}
	kept := status.Store.Events
	for packs := uint64(64); ; packs *= 4 {
		start := max(kept.First, 1)
		if kept.Last > packs {
			start = max(start, kept.Last-packs)
		}
		l, err := api.list(ctx, "api/v1/events", "events", url.Values{}, page{from: bus.Position{Seq: start}.String()})
		if err != nil {
			return nil, err
		}
		if len(l.items) < sampleSize && start > max(kept.First, 1) {
			continue
		}
		var events []bus.Event
		for _, item := range l.items[max(0, len(l.items)-sampleSize):] {
			event, err := storedEvent(item)
			if err != nil {
				return nil, err
			}
			events = append(events, event)
		}
		return events, nil
	}
}

// storedEvent reads one event of a list.
func storedEvent(item json.RawMessage) (bus.Event, error) {
	s, err := decode[storedDoc](item, nil)
	if err != nil {
		return bus.Event{}, err
	}
	return bus.ParseJSON(s.Event)
}

// sortFaults puts warnings of different origin into the order of the files.
func sortFaults(list config.Faults) {
	slices.SortStableFunc(list, func(a, b config.Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
}
