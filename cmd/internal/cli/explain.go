package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

// nearest is how many rules that do not match are explained unasked.
const nearest = 3

func newExplainCommand(e *env) *cobra.Command {
	var path, rule string
	var all bool
	cmd := &cobra.Command{
		Use:   "explain --config FILE|DIR [--rule RULE] < EVENT",
		Short: "Say key by key why a rule matches an event or not.",
		Long: `Read one CloudEvent in JSON from standard input and say, key by key, what a rule wanted,
what was there, and what was nearly right. Without --rule the rules that match are
explained, and the three that came nearest. No server is needed.

Exit code 4 when the rule, or without --rule any rule, does not match.`,
		Example:               `  echo '{"specversion":"1.0","id":"1","source":"me","type":"hello"}' | sluice explain --config sluice.yaml`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			if rule != "" && all {
				return usagef("--rule explains one rule and --all every rule: choose one")
			}
			return e.explain(c.Context(), path, rule, all)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "config `file` or directory")
	cmd.Flags().StringVar(&rule, "rule", "", "explain only this `rule`")
	cmd.Flags().BoolVar(&all, "all", false, "explain every rule, the nearest first")
	return cmd
}

// explained is what one rule says about an event.
type explained struct {
	Rule    string `json:"rule"`
	Enabled bool   `json:"enabled"`
	dispatch.Explanation
}

func (e *env) explain(ctx context.Context, path, name string, all bool) error {
	c, err := e.loadConfig(path)
	if err != nil {
		return err
	}
	chosen := c.Rules
	if name != "" {
		if chosen = ruleNamed(c, name); chosen == nil {
			return usagef("there is no rule %q in %s: the rules are %s", name, path, join(ruleNames(c), "none"))
		}
	}
	event, err := e.oneEvent(ctx)
	if err != nil {
		return err
	}
	found := explainRules(chosen, event)
	shown := found
	if name == "" && !all {
		shown = nearestOf(found)
	}
	if e.json() {
		err = e.printJSON(map[string]any{"explanations": shown})
	} else {
		e.printExplanations(shown, len(found))
	}
	if err == nil && !slices.ContainsFunc(found, explained.matches) {
		err = exit(exitNoMatch)
	}
	return err
}

// matches tells whether the event goes where the rule says: a disabled rule may be
// asked about, but sends nothing.
func (x explained) matches() bool { return x.Matched && x.Enabled }

func ruleNames(c *config.Config) []string {
	var names []string
	for _, rule := range c.Rules {
		names = append(names, rule.Name)
	}
	return names
}

func ruleNamed(c *config.Config, name string) []config.Rule {
	at := slices.IndexFunc(c.Rules, func(rule config.Rule) bool { return rule.Name == name })
	if at < 0 {
		return nil
	}
	return c.Rules[at : at+1]
}

// oneEvent reads the only event of standard input.
func (e *env) oneEvent(ctx context.Context) (bus.Event, error) {
	in := newEvents(e.input(ctx))
	event, err := in.next()
	if errors.Is(err, io.EOF) {
		return event, errors.New("there is no event on standard input: give one CloudEvent in JSON")
	}
	if err != nil {
		return event, err
	}
	if _, err := in.next(); !errors.Is(err, io.EOF) {
		return event, errors.New("there is more than one event on standard input: explain takes one, match takes many")
	}
	return event, nil
}

// explainRules explains rules: those that match first, then by how near they came.
func explainRules(chosen []config.Rule, event bus.Event) []explained {
	all := make([]explained, 0, len(chosen))
	for _, rule := range chosen {
		all = append(all, explained{rule.Name, rule.Enabled, dispatch.Explain(rule.Route(), event)})
	}
	slices.SortStableFunc(all, func(a, b explained) int { return cmp.Compare(a.distance(), b.distance()) })
	return all
}

// distance orders rules: those that match, those that would if they were enabled,
// and then by the keys that the event missed them by.
func (x explained) distance() int {
	switch {
	case x.matches():
		return -2
	case x.Matched:
		return -1
	}
	return x.Missed
}

// nearestOf are the explanations to show unasked.
func nearestOf(all []explained) []explained {
	matching := slices.IndexFunc(all, func(x explained) bool { return !x.matches() })
	if matching < 0 {
		return all
	}
	return all[:min(matching+nearest, len(all))]
}

func (e *env) printExplanations(shown []explained, of int) {
	for i, x := range shown {
		if i > 0 {
			e.printf("\n")
		}
		off := ""
		if !x.Enabled {
			off = " (disabled: it sends nothing)"
		}
		e.printf("%s%s: %s", e.paint(e.stdout).bold(x.Rule), off, e.colored(x.Explanation, ""))
	}
	if rest := of - len(shown); rest > 0 {
		e.note("%s less near: --all shows them", plural(rest, "rule"))
	}
	if of == 0 {
		e.note("the config has no rules")
	}
}

// colored is an explanation for people; every line but the first begins with
// indent.
func (e *env) colored(x dispatch.Explanation, indent string) string {
	p := e.paint(e.stdout)
	lines := strings.Split(strings.TrimSuffix(x.String(), "\n"), "\n")
	for i, line := range lines {
		switch mark := strings.TrimSpace(line); {
		case strings.HasPrefix(mark, "✗"):
			line = p.red(line)
		case strings.HasPrefix(mark, "✓"):
			line = p.green(line)
		case i > 0:
			line = p.yellow(line)
		}
		if i > 0 {
			line = indent + line
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n") + "\n"
}

// explainMiss tells why a rule did not match the event of a test.
func (e *env) explainMiss(rule config.Rule, event bus.Event) string {
	return fmt.Sprintf("      %s: %s", rule.Name, e.colored(dispatch.Explain(rule.Route(), event), "      "))
}
