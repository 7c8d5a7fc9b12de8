package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// exitChanges says that a new config would route events in another way.
const exitChanges = exitNoMatch

func newPlanCommand(e *env) *cobra.Command {
	p := planner{env: e}
	cmd := &cobra.Command{
		Use:   "plan --config NEW [--since 24h | --against OLD [--events FILE]]",
		Short: "Show what a new config would change, also over the events that are kept.",
		Long: `Compare a config with the one that the server runs, or with another file, and run the
events that the server keeps (or a file of events, one a line) through both: which rules
and sinks are added, removed and changed, what waits for sinks that go away, and for each
rule how many events it would match that it did not, and the other way round. Nothing is
changed.

What the server runs is known as far as its API tells: of a changed transform or sink it
tells that it differs and not how, and of unmatched nothing.

Exit code 0 when events go the same ways, 4 when a rule matches or sends otherwise, or a
sink is removed; 3 when the new config is not valid.`,
		Example: `  sluice plan --config new.yaml --since 24h
  sluice plan --config new.yaml --show images
  sluice plan --config new.yaml --against old.yaml --events events.ndjson`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return p.run(c.Context()) },
	}
	f := cmd.Flags()
	f.StringVarP(&p.path, "config", "c", "", "the new config, a `file` or directory")
	f.StringVar(&p.against, "against", "", "compare with this config `file` or directory, not with the server")
	f.StringVar(&p.events, "events", "", "run the events in this `file` through both, one JSON a line; needs --against")
	f.StringVar(&p.since, "since", "", "only events that were accepted since this `time`: 2026-01-02T15:04:05Z, or 24h back from now")
	f.StringVar(&p.show, "show", "", "list the events that this `rule` would lose and gain")
	return cmd
}

// planner holds two configs against each other.
type planner struct {
	*env
	path, against, events, since, show string
}

// side is what is known of one of the two configs.
type side struct {
	name      string
	rules     map[string]ruleSide
	order     []string // the rules
	sinks     map[string]sinkSide
	unmatched []string // nil when that is not known
	routes    []dispatch.Route
}

type ruleSide struct {
	route   dispatch.Route
	version string // of all that the config says of it; "" when that is not known
}

type sinkSide struct {
	version string
	waiting int // deliveries
}

func (p *planner) run(ctx context.Context) error {
	switch {
	case p.events != "" && p.against == "":
		return usagef("--events needs --against: a server has events of its own")
	case p.against != "" && p.since != "":
		return usagef("--since is about the events of a server: leave it out, or leave out --against")
	}
	c, err := p.loadConfig(p.path)
	if err != nil {
		return err
	}
	now := sideOf(p.path, c)
	old, each, err := p.other(ctx, c)
	if err != nil {
		return err
	}
	if p.show != "" && !slices.Contains(slices.Concat(old.order, now.order), p.show) {
		return usagef("--show %s: neither config has such a rule in force", p.show)
	}
	plan := compareSides(old, now, c)
	if each != nil {
		if plan.Events, err = p.replay(old, now, each); err != nil {
			return err
		}
	}
	if p.json() {
		err = p.printJSON(plan)
	} else {
		err = p.print(plan)
	}
	if err == nil && plan.Changes {
		err = exit(exitChanges)
	}
	return err
}

// eachEvent calls do with every event.
type eachEvent func(do func(bus.Event) error) error

// other is the config to compare with, and the events to run through both.
func (p *planner) other(ctx context.Context, c *config.Config) (*side, eachEvent, error) {
	if p.against == "" {
		return p.running(ctx, c)
	}
	old, err := p.loadConfig(p.against)
	if err != nil {
		return nil, nil, err
	}
	if p.events == "" {
		return sideOf(p.against, old), nil, nil
	}
	return sideOf(p.against, old), func(do func(bus.Event) error) error { return p.readEvents(ctx, do) }, nil
}

func (p *planner) readEvents(ctx context.Context, do func(bus.Event) error) error {
	f, err := os.Open(p.events)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	bar := p.progress(info.Size(), "events", true)
	defer bar.end()
	in := newEvents(f)
	for ctx.Err() == nil {
		event, err := in.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %s %d: %w", p.events, in.unit(), in.line, err)
		}
		if err := do(event); err != nil {
			return err
		}
		bar.at(in.bytes, info.Size(), "events")
	}
	return errInterrupted
}

// sideOf is a config that is at hand.
func sideOf(name string, c *config.Config) *side {
	s := &side{name: name, rules: map[string]ruleSide{}, sinks: map[string]sinkSide{}, unmatched: append([]string{}, c.Unmatched...)}
	for _, r := range c.Rules {
		if r.Enabled {
			s.add(r.Route(), c.EntryVersion("rules", r.Name))
		}
	}
	for _, sink := range c.Sinks {
		s.sinks[sink.Name] = sinkSide{version: c.EntryVersion("sinks", sink.Name)}
	}
	return s
}

func (s *side) add(r dispatch.Route, version string) {
	s.rules[r.Name] = ruleSide{r, version}
	s.order = append(s.order, r.Name)
	s.routes = append(s.routes, r)
}

// replay runs events through both sides.
func (p *planner) replay(old, now *side, each eachEvent) (*eventPlan, error) {
	before, err := dispatch.NewMatcher(old.routes)
	if err != nil {
		return nil, err
	}
	after, err := dispatch.NewMatcher(now.routes)
	if err != nil {
		return nil, err
	}
	counts := map[string]*ruleCount{}
	for _, name := range slices.Concat(old.order, now.order) {
		counts[name] = &ruleCount{Rule: name}
	}
	plan := &eventPlan{Rules: []ruleCount{}}
	err = each(func(event bus.Event) error {
		from, err := before.Route(event, nil)
		if err != nil {
			return err
		}
		to, err := after.Route(event, nil)
		if err != nil {
			return err
		}
		plan.count(event, from.Rules, to.Rules, counts, p.show)
		return nil
	})
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		plan.Rules = append(plan.Rules, *counts[name])
	}
	return plan, err
}

// eventPlan is what would become of the events.
type eventPlan struct {
	Seen            int         `json:"seen"`
	UnmatchedBefore int         `json:"unmatched_before"`
	UnmatchedAfter  int         `json:"unmatched_after"`
	Rules           []ruleCount `json:"rules"`
	Shown           []shown     `json:"shown,omitempty"`
}

type ruleCount struct {
	Rule   string `json:"rule"`
	Before int    `json:"before"`
	After  int    `json:"after"`
	Lost   int    `json:"lost"`
	Gained int    `json:"gained"`
}

// maxListed is how many events --show lists.
const maxListed = 1000

// shown is an event that --show lists.
type shown struct {
	What   string `json:"what"` // lost or gained
	ID     string `json:"id"`
	Type   string `json:"type"`
	Source string `json:"source"`
}

func (p *eventPlan) count(event bus.Event, from, to []string, counts map[string]*ruleCount, show string) {
	p.Seen++
	if len(from) == 0 {
		p.UnmatchedBefore++
	}
	if len(to) == 0 {
		p.UnmatchedAfter++
	}
	list := func(rule, what string) {
		if rule == show && len(p.Shown) < maxListed {
			p.Shown = append(p.Shown, shown{what, event.ID(), event.Type(), event.Source()})
		}
	}
	for _, rule := range from {
		counts[rule].Before++
		if !slices.Contains(to, rule) {
			counts[rule].Lost++
			list(rule, "lost")
		}
	}
	for _, rule := range to {
		counts[rule].After++
		if !slices.Contains(from, rule) {
			counts[rule].Gained++
			list(rule, "gained")
		}
	}
}

// thousands is a number that can be read: 1,204.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

func (p *planner) print(plan *planDoc) error {
	for _, part := range []struct {
		sign  string
		paint func(string) string
		names []change
	}{
		{"+", p.paint(p.stdout).green, plan.Added},
		{"-", p.paint(p.stdout).red, plan.Removed},
		{"~", p.paint(p.stdout).yellow, plan.Changed},
	} {
		for _, c := range part.names {
			text := part.sign + " " + c.What + " " + c.Name
			if len(c.Details) > 0 {
				text += ": " + strings.Join(c.Details, "; ")
			}
			p.printf("%s\n", part.paint(oneLine(text)))
		}
	}
	if len(plan.Added)+len(plan.Removed)+len(plan.Changed) == 0 {
		p.printf("nothing changes in rules and sinks\n")
	}
	if plan.Events == nil {
		return nil
	}
	return p.printEvents(plan.Events)
}

func (p *planner) printEvents(events *eventPlan) error {
	p.printf("\nevents looked at: %s; unmatched %s → %s\n", thousands(events.Seen), thousands(events.UnmatchedBefore), thousands(events.UnmatchedAfter))
	differ := false
	for _, r := range events.Rules {
		if r.Lost+r.Gained == 0 {
			continue
		}
		differ = true
		p.printf("  %s: matched %s → %s, lost %s, gained %s\n", p.paint(p.stdout).bold(r.Rule),
			thousands(r.Before), thousands(r.After), thousands(r.Lost), thousands(r.Gained))
	}
	switch {
	case !differ:
		p.printf("  every rule matches the same events as before\n")
	case p.show == "":
		p.note("--show RULE lists the events that a rule would lose and gain")
	}
	if len(events.Shown) == 0 {
		return nil
	}
	p.printf("\n")
	t := newTable(strings.ToUpper(p.show), "ID", "TYPE", "SOURCE")
	for _, s := range events.Shown {
		t.add(s.What, s.ID, s.Type, s.Source)
	}
	return t.print(p.stdout)
}
