package cli

import (
	"slices"

	"github.com/spf13/cobra"
)

func newTestCommand(e *env) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "test --config FILE|DIR",
		Short: "Run the tests of a config.",
		Long: `Run the tests of a config: each sends an event through the rules and says which sinks it
has to reach. For a test that fails, print what was expected and what came, and why the
rules of the missing sinks did not match. No server is needed.

Exit code 1 when a test fails.`,
		Example: "  sluice test --config sluice.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return e.test(path) },
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "config `file` or directory")
	return cmd
}

func (e *env) test(path string) error {
	c, err := e.loadConfig(path)
	if err != nil {
		return err
	}
	r, err := newRouting(c)
	if err != nil {
		return err
	}
	outcomes := r.runTests(c)
	failed := failures(outcomes)
	if e.json() {
		err = e.printJSON(map[string]any{"ok": failed == 0, "tests": outcomes})
	} else {
		e.printTests(r, outcomes)
	}
	if err == nil && failed > 0 {
		err = exit(exitFailure)
	}
	return err
}

func (e *env) printTests(r *routing, outcomes []outcome) {
	p := e.paint(e.stdout)
	for _, o := range outcomes {
		if o.OK {
			if !e.quiet {
				e.printf("%s  %s\n", p.green("pass"), o.Name)
			}
			continue
		}
		e.printf("%s  %s (%s)\n", p.red("FAIL"), o.Name, o.Place)
		if o.Error != "" {
			e.printf("      %s\n", o.Error)
			continue
		}
		for _, sink := range o.Expect {
			if slices.Contains(o.Missing, sink) {
				e.printf("    %s\n", p.red("- "+sink+": expected, and not reached"))
			} else {
				e.printf("      %s\n", sink)
			}
		}
		for _, sink := range o.Unexpected {
			e.printf("    %s\n", p.green("+ "+sink+": reached "+r.by(o, sink)+", and not expected"))
		}
		e.printMisses(r, o)
	}
	switch failed := failures(outcomes); {
	case failed > 0:
		e.printf("%d of %s failed\n", failed, plural(len(outcomes), "test"))
	case !e.quiet:
		e.printf("ok: %s\n", plural(len(outcomes), "test"))
	}
}

// by says which of the rules that matched sent an event to a sink.
func (r *routing) by(o outcome, sink string) string {
	var names []string
	for _, rule := range r.rules {
		if slices.Contains(o.Rules, rule.Name) && slices.Contains(rule.To, sink) {
			names = append(names, rule.Name)
		}
	}
	if len(names) == 0 {
		return "because no rule matches (unmatched)"
	}
	return "by " + join(names, "")
}

// printMisses tells why the rules that lead to the missing sinks did not match.
func (e *env) printMisses(r *routing, o outcome) {
	told := false
	for _, rule := range r.rules {
		if !slices.ContainsFunc(rule.To, func(sink string) bool { return slices.Contains(o.Missing, sink) }) {
			continue
		}
		told = true
		e.printf("%s", e.explainMiss(rule, o.event))
	}
	if !told && len(o.Missing) > 0 {
		e.printf("      no enabled rule leads to %s\n", join(o.Missing, ""))
	}
}
