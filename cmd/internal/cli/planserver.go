package cli

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
	"sluice/rules"
)

// planDoc is what a new config would change.
type planDoc struct {
	Against string     `json:"against"`
	Changes bool       `json:"changes"` // events would go other ways
	Added   []change   `json:"added"`
	Removed []change   `json:"removed"`
	Changed []change   `json:"changed"`
	Events  *eventPlan `json:"events,omitempty"`
}

// change is one rule or sink that differs.
type change struct {
	What    string   `json:"what"` // rule, sink or section
	Name    string   `json:"name"`
	Details []string `json:"details,omitempty"`
}

func compareSides(old, now *side, c *config.Config) *planDoc {
	p := &planDoc{Against: old.name, Added: []change{}, Removed: []change{}, Changed: []change{}}
	for _, name := range now.order {
		was, had := old.rules[name]
		r := now.rules[name]
		if !had {
			p.Added, p.Changes = append(p.Added, change{"rule", name, []string{"to " + join(r.route.To, "no sink")}}), true
			continue
		}
		details, routing := compareRules(was, r)
		if len(details) > 0 {
			p.Changed = append(p.Changed, change{"rule", name, details})
		}
		p.Changes = p.Changes || routing
	}
	for _, name := range old.order {
		if _, kept := now.rules[name]; !kept {
			p.Removed, p.Changes = append(p.Removed, change{"rule", name, nil}), true
		}
	}
	p.sinks(old, now, c)
	if old.unmatched != nil && !slices.Equal(old.unmatched, now.unmatched) {
		p.Changed = append(p.Changed, change{"section", "unmatched", []string{join(old.unmatched, "no sink") + " → " + join(now.unmatched, "no sink")}})
		p.Changes = true
	}
	return p
}

// compareRules says what differs, and whether events go other ways for it.
func compareRules(a, b ruleSide) (details []string, routing bool) {
	if !rules.Equal(a.route.Pattern, b.route.Pattern) {
		details = append(details, "match")
	}
	if a.route.Where.String() != b.route.Where.String() {
		details = append(details, "where")
	}
	if to := slices.Sorted(slices.Values(b.route.To)); !slices.Equal(slices.Sorted(slices.Values(a.route.To)), to) {
		details = append(details, "to "+join(a.route.To, "no sink")+" → "+join(b.route.To, "no sink"))
	}
	routing = len(details) > 0
	if !routing && a.version != b.version && a.version != "" {
		details = append(details, "what it sends or how it is written, not where events go")
	}
	return details, routing
}

// sinks compares the sinks, and tells of what waits for those that go away.
func (p *planDoc) sinks(old, now *side, c *config.Config) {
	for _, s := range c.Sinks {
		was, had := old.sinks[s.Name]
		switch {
		case !had:
			p.Added = append(p.Added, change{"sink", s.Name, nil})
		case was.version == "":
			p.Changed = append(p.Changed, change{"sink", s.Name, []string{"the server does not tell whether its settings differ"}})
		case was.version != now.sinks[s.Name].version:
			p.Changed = append(p.Changed, change{"sink", s.Name, []string{"settings"}})
		}
	}
	for _, name := range sortedKeys(old.sinks) {
		if _, kept := now.sinks[name]; kept {
			continue
		}
		gone := change{What: "sink", Name: name}
		if n := old.sinks[name].waiting; n > 0 {
			gone.Details = append(gone.Details, waitsFor(n, c.RemovedSinks[name]))
		}
		p.Removed, p.Changes = append(p.Removed, gone), true
	}
}

func waitsFor(n int, choice string) string {
	what := map[string]string{
		dispatch.RemovedKeep:       "removed_sinks keeps them until the sink is back",
		dispatch.RemovedDeadLetter: "removed_sinks makes them dead letters",
		dispatch.RemovedDrop:       "removed_sinks discards them",
		"":                         "the server will refuse this config until removed_sinks says keep, dead_letter or drop",
	}[choice]
	verb := " wait"
	if n == 1 {
		verb = " waits"
	}
	return thousands(n) + map[bool]string{true: " delivery", false: " deliveries"}[n == 1] + verb + " for it: " + what
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// running is the config that the server runs, as far as its API tells, and the
// events that it keeps.
func (p *planner) running(ctx context.Context, c *config.Config) (*side, eachEvent, error) {
	since, err := when(p.now(), "since", p.since)
	if err != nil {
		return nil, nil, err
	}
	api, err := p.client()
	if err != nil {
		return nil, nil, err
	}
	status, err := decode[statusDoc](api.get(ctx, "api/v1/status", nil))
	if err != nil {
		return nil, nil, err
	}
	old := &side{name: api.base.String(), rules: map[string]ruleSide{}, sinks: map[string]sinkSide{}}
	if err := old.fetch(ctx, api); err != nil {
		return nil, nil, err
	}
	if status.ConfigVersion == c.Version() {
		p.note("the server runs this very config: version %s", c.Version())
	}
	query := url.Values{}
	setTime(query, "since", since)
	return old, func(do func(bus.Event) error) error { return p.fetchEvents(ctx, api, query, status, do) }, nil
}

// fetch reads the rules and sinks of a server.
func (s *side) fetch(ctx context.Context, api *client) error {
	all, err := decode[struct {
		Rules []struct {
			Name          string
			To            []string
			Pattern       rules.Pattern
			Where         string
			ConfigVersion string `json:"config_version"`
		}
	}](api.get(ctx, "api/v1/rules", nil))
	if err != nil {
		return err
	}
	for _, r := range all.Rules {
		route := dispatch.Route{Name: r.Name, Pattern: r.Pattern, To: r.To}
		if r.Where != "" {
			if route.Where, err = rules.ParseWhere(r.Where); err != nil {
				return fmt.Errorf("rule %s of the server: where: %w", r.Name, err)
			}
		}
		s.add(route, r.ConfigVersion)
	}
	sinks, err := decode[struct{ Sinks []sinkDoc }](api.get(ctx, "api/v1/sinks", nil))
	for _, sink := range sinks.Sinks {
		if sink.State != dispatch.StateRemoved {
			s.sinks[sink.Name] = sinkSide{sink.ConfigVersion, sink.Queued + sink.Backlog + sink.Retries}
		}
	}
	return err
}

// fetchEvents reads the events of a server page by page, and no further than those
// that are there now.
func (p *planner) fetchEvents(ctx context.Context, api *client, query url.Values, status statusDoc, do func(bus.Event) error) error {
	kept := status.Store.Events
	bar := p.progress(int64(kept.Last-kept.First)+1, "events", false)
	defer bar.end()
	query.Set("limit", strconv.Itoa(pageSize))
	for {
		answer, err := decode[struct {
			Events []storedDoc
			Next   string
		}](api.get(ctx, "api/v1/events", query))
		if err != nil {
			return err
		}
		for _, s := range answer.Events {
			pos, err := bus.ParsePosition(s.Position)
			if err != nil {
				return err
			}
			if pos.Seq > kept.Last {
				return nil
			}
			event, err := bus.ParseJSON(s.Event)
			if err == nil {
				err = do(event)
			}
			if err != nil {
				return fmt.Errorf("event at %s: %w", s.Position, err)
			}
			bar.at(int64(pos.Seq-kept.First)+1, int64(kept.Last-kept.First)+1, "events")
		}
		if answer.Next == "" {
			return nil
		}
		query.Set("from", answer.Next)
	}
}
