package cli

import (
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
		Long:  "List the rules as the server runs them now, and how often each has matched since its start.",
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
			t := newTable("NAME", "TO", "MATCHES", "LAST MATCH", "PATTERN")
			for _, r := range all.Rules {
				t.add(r.Name, strings.Join(r.To, ","), r.Matches, ago(e.now(), r.LastMatch), string(compact(r.Pattern)))
			}
			return t.print(e.stdout)
		},
	}
}
