package cli

import (
	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newReplayCommand(e *env) *cobra.Command {
	var choice choice
	var r dispatch.Replay
	var detach, all bool
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Deliver events again that the server still keeps.",
		Long: `Deliver events again that the server still keeps: to the sinks named, or to wherever the
rules send them now. Replayed events carry the attribute sluicereplay. The work is done
by the server, survives its restart, and goes on without this command, which only watches.

Exit code 1 when it failed or was cancelled.`,
		Example: `  sluice replay --since 1h --dry-run
  sluice replay --since 2026-01-02T15:00:00Z --until 2026-01-02T16:00:00Z --sink audit --rate 100`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			r.Since, r.Until, r.Pattern, err = choice.check(e)
			switch {
			case err != nil:
				return err
			case r.Rate < 0:
				return usagef("--rate cannot be negative: leave it out for as fast as it goes")
			case choice.empty() != all:
				return usagef("name --since, --until or --pattern, or write --all alone for every event that is kept")
			}
			return e.startJob(c.Context(), "api/v1/replays", r, detach)
		},
	}
	choice.flags(cmd, "was accepted")
	f := cmd.Flags()
	f.StringArrayVar(&r.Sinks, "sink", nil, "deliver to this `sink`; may be given several times")
	f.Float64Var(&r.Rate, "rate", 0, "deliveries a `second` at most")
	f.BoolVar(&r.DryRun, "dry-run", false, "only count")
	f.BoolVar(&all, "all", false, "replay every event that is kept")
	f.BoolVar(&detach, "detach", false, "print the id of the job and do not watch")
	cmd.AddCommand(
		newJobsLsCommand(e, "List the replays, newest first.", "  sluice replay ls", isReplay),
		newJobsCancelCommand(e, "Stop a replay; what it has sent stays sent.", "  sluice replay cancel 3f9c2a10be"),
	)
	return cmd
}

func isReplay(job dispatch.Job) bool { return job.Replay != nil }
