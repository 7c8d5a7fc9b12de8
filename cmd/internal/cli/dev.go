package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/app"
	"sluice/config"
)

// devDir is where `sluice dev` keeps its events: beside the project, as other
// tools do, and out of its version control.
const devDir = ".sluice"

// devFlags are the flags of dev.
type devFlags struct {
	config, listen, dir string
	memory              bool
	logs                logFlags
}

func newDevCommand(e *env) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Try it out: a bus, and a function that prints every event.",
		Long: `Run a bus on this machine, with nothing to configure: a function of its own is
subscribed to everything over HTTP and prints each event as it arrives.

With --config it runs that config and prints each event that is accepted. Events are
kept in ` + devDir + ` (or the config's store.dir) until they expire; --memory forgets them at the end.`,
		Example: `  sluice dev
  sluice dev --config sluice.yaml --memory`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.memory && f.dir != "" {
				return usagef("--memory keeps nothing in --dir: give one of the two")
			}
			return e.dev(c.Context(), f, c.Flags().Changed("listen"))
		},
	}
	cmd.Flags().StringVar(&f.config, "config", "", "run this config: a file, or a directory of them")
	cmd.Flags().StringVar(&f.listen, "listen", "127.0.0.1:8484", "address and port of the bus")
	cmd.Flags().StringVar(&f.dir, "dir", "", "where to keep events (default "+devDir+", or the config's store.dir)")
	cmd.Flags().BoolVar(&f.memory, "memory", false, "keep events in memory only")
	f.logs.add(cmd, "warn")
	return cmd
}

func (e *env) dev(ctx context.Context, f devFlags, listenGiven bool) error {
	log, err := e.logger(f.logs)
	if err != nil {
		return err
	}
	opts := app.Options{Path: f.config, Dir: f.dir, Memory: f.memory, Watch: true, Log: log}
	if f.config == "" || listenGiven {
		opts.Listen = f.listen
	}
	show := &eventPrinter{w: e.stdout, paint: e.paint(e.stdout)}
	if f.config == "" {
		echo, err := startEcho(show)
		if err != nil {
			return err
		}
		defer echo.stop()
		if opts.Config, err = e.echoConfig(echo.url()); err != nil {
			return err
		}
		if opts.Dir, err = f.dataDir(); err != nil {
			return err
		}
	}
	return e.runDev(ctx, opts, show)
}

// runDev runs the bus and prints, until ctx ends.
func (e *env) runDev(ctx context.Context, opts app.Options, show *eventPrinter) error {
	a, err := e.newApp(opts)
	if err != nil {
		return err
	}
	if err := a.Start(ctx); err != nil {
		if strings.Contains(err.Error(), "is in use by") {
			err = fmt.Errorf("%w; or run `sluice dev --memory`, which needs none", err)
		}
		return err
	}
	var tail sync.WaitGroup
	defer tail.Wait() // it ends with the bus
	if opts.Path != "" {
		attached := make(chan struct{})
		tail.Go(func() {
			_ = a.Bus().Tail(context.Background(), dispatch.TailFilter{Attached: func() { close(attached) }}, show.notice)
		})
		<-attached
	}
	e.banner(a, opts)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	err = a.Wait(ctx, hup)
	if !e.quiet {
		show.print("\nstopped: %s printed\n", plural(show.count(), "event"))
	}
	return err
}

// echoConfig is the config of a bus that sends everything to one function.
func (e *env) echoConfig(url string) (*config.Config, error) {
	text := fmt.Sprintf(`
sinks:
  echo: {http: {url: %q}, timeout: 10s, retry: {preset: fast}}
rules:
  everything: {match: {type: [{exists: true}]}, to: [echo]}
`, url)
	cfg, err := config.Parse("dev", []byte(text), e.kinds)
	if err != nil {
		return nil, fmt.Errorf("the config of dev: %w", err)
	}
	return cfg, nil
}

// dataDir is where the events are kept. The directory that is made here tells git
// to look away.
func (f devFlags) dataDir() (string, error) {
	if f.dir != "" || f.memory {
		return f.dir, nil
	}
	if err := os.MkdirAll(devDir, 0o700); err != nil {
		return "", fmt.Errorf("cannot make a directory for the events: %w: give one with --dir, or use --memory", err)
	}
	ignore := filepath.Join(devDir, ".gitignore")
	if _, err := os.Stat(ignore); errors.Is(err, os.ErrNotExist) {
		if err := os.WriteFile(ignore, []byte("*\n"), 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Join(devDir, "data"), nil
}

// banner says what runs where, and how to send the first event.
func (e *env) banner(a *app.App, opts app.Options) {
	p := e.paint(e.stdout)
	kept := "in memory, gone at the end"
	if dir := a.Dir(); dir != "" {
		kept = shortPath(dir)
	}
	e.printf("\n  %s is running\n\n", p.bold("Sluice"))
	e.printf("  %s  %s\n", p.dim("bus   "), a.URL())
	e.printf("  %s  %s\n", p.dim("events"), kept)
	if opts.Path != "" {
		e.printf("  %s  %s, %s and %s\n", p.dim("config"), opts.Path, plural(len(a.Config().Rules), "rule"), plural(len(a.Config().Sinks), "sink"))
	}
	e.printf("\n  Send an event:\n\n")
	e.printf("%s\n", p.cyan("curl "+a.URL()+"/ -H 'Content-Type: application/json' -H 'ce-specversion: 1.0' -H 'ce-id: 1'"+
		` -H 'ce-source: /shop' -H 'ce-type: order.created' -d '{"order": 42, "total": 9.90}'`))
	e.printf("\n  %s\n\n", p.dim("Each event appears below. Ctrl-C stops."))
}

// shortPath is a path below the working directory without that.
func shortPath(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
			return "." + string(filepath.Separator) + rel
		}
	}
	return path
}
