package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/bus"
	"sluice/bus/jetstream"
	"sluice/cmd/internal/doctor"
	"sluice/config"
)

// examination is what doctor was asked to look at.
type examination struct {
	dir, config string
	quarantine  string
	repair, yes bool
	noStore     bool
}

func newDoctorCommand(e *env) *cobra.Command {
	var x examination
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong with a bus and its store, and say what to do.",
		Long: `Look for what is wrong. Without --dir and --config a server is asked; with one of them the
store is opened, which no server may use meanwhile.

  conservation   every event and delivery that came in is accounted for, sink by sink
  store          every record can be read; streams are there, whole and without gaps
  sinks          nothing waits for a sink that is paused, failing or not in the config
  dead letters   deliveries that were given up
  room           of the store and of its volume
  settings       dedup, retention and sync go together
  clock          nothing that is stored lies in the future

Each finding is ok, a warning or a fault, with what to do. --repair puts packs that cannot
be read out of the way: their raw bytes are copied to a directory first, and it asks
before. A stream or a file about one that is gone is made anew whenever a store is opened.

Exit code 0 when there are no faults, 1 when there are some.`,
		Example: `  sluice doctor
  sluice doctor --dir ./data
  sluice doctor --config sluice.yaml --repair`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if x.dir == "" && x.config == "" {
				return e.examineServer(c.Context(), x)
			}
			return e.examineStore(c.Context(), x)
		},
	}
	f := cmd.Flags()
	f.StringVar(&x.dir, "dir", "", "the `directory` of a store that no server uses")
	f.StringVarP(&x.config, "config", "c", "", "a config `file` or directory: its store, compared with it")
	f.BoolVar(&x.repair, "repair", false, "put what cannot be read into quarantine (with --dir or --config)")
	f.StringVar(&x.quarantine, "quarantine", "", "`directory` for the raw bytes (default quarantine in that of the store)")
	f.BoolVar(&x.yes, "yes", false, "do not ask before a repair")
	f.BoolVar(&x.noStore, "no-store", false, "do not let a server read its whole store")
	return cmd
}

// examineServer asks a server.
func (e *env) examineServer(ctx context.Context, x examination) error {
	if x.repair {
		return usagef("--repair needs the store for itself: stop the server and write --dir DIR or --config FILE")
	}
	api, err := e.client()
	if err != nil {
		return err
	}
	doc, err := api.get(ctx, "api/v1/doctor", url.Values{"store": {strconv.FormatBool(!x.noStore)}})
	report, err := decode[doctor.Report](doc, err)
	if err != nil {
		return err
	}
	if e.json() {
		if err := e.printJSON(doc); err != nil {
			return err
		}
		return verdictOf(&report)
	}
	return e.showReport(&report)
}

// examineStore opens a store.
func (e *env) examineStore(ctx context.Context, x examination) (err error) {
	var cfg *config.Config
	if x.config != "" {
		if cfg, err = config.Load(x.config, e.kinds); err != nil {
			return &exitError{exitInvalid, err}
		}
		if x.dir == "" {
			x.dir = cfg.Store.Dir
		}
	}
	store, err := openForDoctor(ctx, &x, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	report, err := doctor.Resting{Store: store, Config: cfg, Repair: x.command(), Now: e.now()}.Report(ctx)
	if err != nil {
		return err
	}
	if !x.repair {
		return e.report(report)
	}
	faults := repairable(report)
	if len(faults) == 0 {
		e.note("there is nothing that a repair could do")
		return e.report(report)
	}
	return e.repairStore(ctx, store, x, cfg, faults)
}

// command is how to repair what was found.
func (x examination) command() string {
	if x.config != "" {
		return "`sluice doctor --config " + x.config + " --repair`"
	}
	return "`sluice doctor --dir " + x.dir + " --repair`"
}

// openForDoctor opens the store of a directory that has one.
func openForDoctor(ctx context.Context, x *examination, cfg *config.Config) (*jetstream.Log, error) {
	dir, err := filepath.Abs(x.dir)
	if err != nil {
		return nil, err
	}
	x.dir = dir
	if x.quarantine == "" {
		x.quarantine = filepath.Join(dir, "quarantine")
	}
	if _, err := os.Stat(filepath.Join(dir, "jetstream")); err != nil {
		return nil, fmt.Errorf("there is no store in %s: name the directory that store.dir of the config says", dir)
	}
	// What the log says while it opens is in the findings.
	opts := jetstream.Options{Dir: dir, Inspect: !x.repair, Log: slog.New(slog.DiscardHandler)}
	if cfg != nil {
		opts.MaxBytes = int64(cfg.Store.MaxBytes)
	}
	store, err := jetstream.Open(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("%w (`sluice doctor` without --dir and --config asks a server that runs)", err)
	}
	return store, nil
}

// repairable lists what a repair can do something about.
func repairable(r *doctor.Report) (faults []bus.Fault) {
	for _, f := range r.Findings {
		if f.Fault != nil && f.Fault.Repairable {
			faults = append(faults, *f.Fault)
		}
	}
	return faults
}

// repairStore puts what cannot be read into quarantine, and looks again.
func (e *env) repairStore(ctx context.Context, store *jetstream.Log, x examination, cfg *config.Config, faults []bus.Fault) error {
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = "  " + oneLine(f.String())
	}
	fmt.Fprintln(e.stderr, strings.Join(lines, "\n"))
	question := fmt.Sprintf("Copy the raw bytes to %s, and hide %s from the bus for good?", x.quarantine, plural(len(faults), "fault"))
	if err := e.confirm(ctx, x.yes, question); err != nil {
		return err
	}
	for _, f := range faults {
		files, err := store.Quarantine(ctx, f, x.quarantine)
		if err != nil {
			return err
		}
		e.note("%s: in quarantine: %s", oneLine(f.String()), strings.Join(files, ", "))
	}
	report, err := doctor.Resting{Store: store, Config: cfg, Repair: x.command(), Now: e.now()}.Report(ctx)
	if err != nil {
		return err
	}
	return e.report(report)
}

// report prints a report in the form that was asked for.
func (e *env) report(r *doctor.Report) error {
	if !e.json() {
		return e.showReport(r)
	}
	doc, err := json.Marshal(r)
	if err = e.printOr(doc, err); err != nil {
		return err
	}
	return verdictOf(r)
}

func (e *env) showReport(r *doctor.Report) error {
	p := e.paint(e.stdout)
	for _, f := range r.Findings {
		sign := p.green("ok     ")
		switch f.Severity {
		case doctor.Warning:
			sign = p.yellow("warning")
		case doctor.Bad:
			sign = p.red("fault  ")
		}
		subject := ""
		if f.Subject != "" && f.Fault == nil {
			subject = f.Subject + ": "
		}
		e.printf("%s  %-12s  %s\n", sign, oneLine(f.Check), oneLine(subject+f.Message))
		if f.Action != "" {
			e.printf("%s  %-12s  → %s\n", "       ", "", oneLine(f.Action))
		}
	}
	return verdictOf(r)
}

// verdictOf is the exit code: what is wrong has been said.
func verdictOf(r *doctor.Report) error {
	if r.OK {
		return nil
	}
	return exit(exitFailure)
}
