package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/bench"
	"sluice/config/value"
)

// benchFlags are the flags of bench.
type benchFlags struct {
	bench.Settings
	size, dir, profile string
}

func newBenchCommand(e *env) *cobra.Command {
	f := benchFlags{Settings: bench.DefaultSettings()}
	var docs strings.Builder
	for _, s := range bench.Scenarios() {
		fmt.Fprintf(&docs, "\n  %-10s %s", s.Name, s.Doc)
	}
	cmd := &cobra.Command{
		Use:   "bench [SCENARIO]",
		Short: "Measure the bus on this machine, and check that it loses nothing.",
		Long: `Measure the bus on this machine: start one as a process of its own, on a store of its
own with store.sync: always, load it, and receive what it delivers. Each event is
counted at each sink. Without a scenario, all of them run, kafka only with --brokers:
` + docs.String() + `

--baseline runs a bare proxy in turns with the bus: it has no store and no rules,
forwards each event to its sinks and answers when they have. Ratios of such pairs say
more than rates, which depend on the machine and on what else runs there.

The data goes to a temporary directory, which has to be on a real disk: choose one
with --dir. Exit code 1 when an acknowledged event was lost.`,
		Example: `  sluice bench fanout --baseline
  sluice bench kill9 --rounds 100 --duration 1s
  sluice bench backlog --events 1000000 --rounds 1 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return e.bench(c.Context(), f, args) },
	}
	f.add(cmd)
	cmd.AddCommand(newBenchProxyCommand(e), newBenchDoorCommand(e))
	return cmd
}

func (f *benchFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.BoolVar(&f.Baseline, "baseline", false, "measure a bare proxy too, in turns (fanout, latency)")
	s.IntVar(&f.Rounds, "rounds", f.Rounds, "how often to measure everything; kill9: how often to kill")
	s.DurationVar(&f.Duration, "duration", f.Duration, "how long each measurement takes")
	s.DurationVar(&f.Warmup, "warmup", f.Warmup, "how long the load runs before each")
	s.IntVar(&f.Connections, "connections", f.Connections, "connections that publish")
	s.IntVar(&f.Outstanding, "outstanding", f.Outstanding, "fanout: events on their way at a time; 0 for any number, which piles up a backlog")
	s.StringVar(&f.size, "size", value.Bytes(f.Size).String(), "size of an event's data")
	s.IntVar(&f.Sinks, "sinks", f.Sinks, "fanout: sinks in the config of its largest part")
	s.Float64Var(&f.Rate, "rate", f.Rate, "latency: events/s; isolation: twice as many")
	s.IntVar(&f.Events, "events", f.Events, "backlog: how many deliveries pile up; kafka: how many records")
	s.DurationVar(&f.Hang, "hang", f.Hang, "isolation: how long the sink hangs")
	s.IntVar(&f.Consumers, "consumers", f.Consumers, "queue: consumers, each of which receives and acknowledges ten messages at a time")
	s.StringSliceVar(&f.Brokers, "brokers", nil, "kafka: brokers to read from, each as host:port; the topic that is made there is removed again")
	s.StringVar(&f.dir, "dir", "", "where to put the temporary data (default $TMPDIR)")
	s.StringVar(&f.profile, "cpuprofile", "", "write a CPU profile of each server under each load into this `directory`")
}

// check completes the settings and refuses those that make no sense.
func (f *benchFlags) check() error {
	size, err := value.ParseBytes(f.size)
	if err != nil {
		return usagef("--size: %v", err)
	}
	f.Size = int(size)
	for _, n := range []struct {
		flag         string
		value, limit int
	}{
		{"rounds", f.Rounds, 10_000}, {"connections", f.Connections, 10_000}, {"sinks", f.Sinks, 100_000}, {"consumers", f.Consumers, 10_000},
		{"events", f.Events, 100_000_000}, {"size", f.Size, 8 << 20}, {"rate", int(f.Rate), 1_000_000},
		{"duration", int(f.Duration / time.Millisecond), 3_600_000},
	} {
		if n.value < 1 || n.value > n.limit {
			return usagef("--%s is out of range", n.flag)
		}
	}
	return nil
}

func (e *env) bench(ctx context.Context, f benchFlags, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	chosen := bench.Scenarios()
	if len(args) > 0 {
		chosen = slices.DeleteFunc(chosen, func(s bench.Scenario) bool { return s.Name != args[0] })
	}
	if len(args) == 0 && len(f.Brokers) == 0 {
		chosen = slices.DeleteFunc(chosen, func(s bench.Scenario) bool { return s.Name == "kafka" })
	}
	if len(chosen) == 0 {
		return usagef("there is no scenario %q: see `sluice bench --help`", args[0])
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	var reports []*bench.Report
	var lost int64
	for _, s := range chosen {
		bar := e.progress(1, s.Name, false)
		report, err := bench.Run(ctx, s, bench.Options{
			Settings: f.Settings, Program: bench.Program{Path: program}, Dir: f.dir, Profile: f.profile,
			Progress: func(done, total int, what string) { bar.at(int64(done), int64(total), s.Name+": "+what) },
		})
		bar.end()
		if err != nil {
			if errors.Is(err, context.Canceled) {
				err = errInterrupted
			}
			return fmt.Errorf("bench %s: %w", s.Name, err)
		}
		lost += report.Lost()
		reports = append(reports, report)
		if !e.json() {
			if err := e.printBench(report); err != nil {
				return err
			}
		}
	}
	if e.json() {
		if err := e.printJSON(map[string]any{"reports": reports}); err != nil {
			return err
		}
	}
	if lost > 0 {
		return errors.New("acknowledged events were lost")
	}
	return nil
}

// newBenchProxyCommand and newBenchDoorCommand are the servers that a run starts
// beside the bus.
func newBenchProxyCommand(e *env) *cobra.Command {
	var to []string
	var cpu string
	cmd := &cobra.Command{
		Use: "proxy --to HOST:PORT,...", Short: "What --baseline compares with.", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(to) == 0 {
				return usagef("proxy needs sinks: --to HOST:PORT,...")
			}
			return e.profiled(cpu, func(log *slog.Logger) error { return bench.ServeProxy(c.Context(), to, e.stdin, log) })
		},
	}
	cmd.Flags().StringVar(&cpu, "cpuprofile", "", "write a CPU profile to this file")
	cmd.Flags().StringSliceVar(&to, "to", nil, "addresses of the sinks")
	return cmd
}

func newBenchDoorCommand(e *env) *cobra.Command {
	var cpu string
	cmd := &cobra.Command{
		Use: "door", Short: "What ingest compares with.", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.profiled(cpu, func(log *slog.Logger) error { return bench.ServeDoor(c.Context(), e.stdin, log) })
		},
	}
	cmd.Flags().StringVar(&cpu, "cpuprofile", "", "write a CPU profile to this file")
	return cmd
}

// profiled runs a server with a log in the format of the bus.
func (e *env) profiled(cpu string, serve func(*slog.Logger) error) error {
	stop, err := profile(cpu)
	if err != nil {
		return err
	}
	return errors.Join(serve(slog.New(slog.NewJSONHandler(e.stderr, nil))), stop())
}
