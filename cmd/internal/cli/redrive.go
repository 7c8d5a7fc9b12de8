package cli

import (
	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newDlqRedriveCommand(e *env) *cobra.Command {
	var choice letterChoice
	var r dispatch.Redrive
	var detach bool
	cmd := &cobra.Command{
		Use:   "redrive [ID...]",
		Short: "Deliver dead letters again.",
		Long: `Deliver dead letters again: all of them, or those that the flags and ids choose. They go
to the sink they failed at, to another with --to, or to wherever the rules send the
event now with --reroute. A dead letter is removed once its new delivery is durable.
The work is done by the server and goes on without this command, which only watches.

Exit code 1 when the canary stopped it, it failed or was cancelled.`,
		Example: `  sluice dlq redrive --dry-run
  sluice dlq redrive --sink thumbs --canary 5 --rate 50`,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case r.To != "" && r.Reroute:
				return usagef("--to and --reroute exclude each other: a dead letter goes to one sink or to where the rules say")
			case r.Rate < 0 || r.Limit < 0 || r.Canary < 0:
				return usagef("--rate, --limit and --canary cannot be negative: leave out what does not matter")
			}
			if err := choice.redrive(e, args, &r); err != nil {
				return err
			}
			return e.startJob(c.Context(), "api/v1/dead-letters/redrive", r, detach)
		},
	}
	choice.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.To, "to", "", "deliver to this `sink` instead")
	f.BoolVar(&r.Reroute, "reroute", false, "deliver to where the rules send the event now")
	f.Float64Var(&r.Rate, "rate", 0, "deliveries a `second` at most")
	f.IntVar(&r.Limit, "limit", 0, "`number` of dead letters at most")
	f.IntVar(&r.Canary, "canary", 0, "stop unless the first `number` are delivered")
	f.BoolVar(&r.DryRun, "dry-run", false, "only count")
	f.BoolVar(&detach, "detach", false, "print the id of the job and do not watch")
	return cmd
}
