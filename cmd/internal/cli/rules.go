package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func newRulesCommand(e *env) *cobra.Command {
	return newGroup("rules", "List the rules.", "  sluice rules ls", newRulesLsCommand(e))
}

func newRulesLsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the rules and how often each matched.",
		Long: `List the rules as the server runs them now, and how often each has matched since its start.
REJECTED and ERRORS are the events that matched the pattern of a rule and for which its
where was false or had no answer.`,
		Example: `  sluice rules ls
  sluice rules ls -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/rules", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			all, err := decode[struct{ Rules []ruleDoc }](doc, nil)
			if err != nil {
				return err
			}
			t := newTable("NAME", "TO", "MATCHES", "LAST MATCH", "REJECTED", "ERRORS", "PATTERN")
			for _, r := range all.Rules {
				what := string(compact(r.Pattern))
				rejected, failed := "", ""
				if r.Where != "" {
					what += " where " + oneLine(r.Where)
					rejected, failed = strconv.FormatInt(r.WhereRejections, 10), strconv.FormatInt(r.WhereErrors, 10)
				}
				t.add(r.Name, strings.Join(r.To, ","), r.Matches, ago(e.now(), r.LastMatch), rejected, failed, what)
			}
			if err := t.print(e.stdout); err != nil {
				return err
			}
			for _, r := range all.Rules {
				if r.LastWhereError != "" {
					e.note("rule %s: where had no answer %d times, the last time: %s", r.Name, r.WhereErrors, oneLine(r.LastWhereError))
				}
			}
			return nil
		},
	}
}
