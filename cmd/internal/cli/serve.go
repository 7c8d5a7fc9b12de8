package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"

	"sluice/cmd/internal/app"
)

// logFlags are the flags of the verbs that run a bus.
type logFlags struct{ format, level string }

func (l *logFlags) add(cmd *cobra.Command, level string) {
	cmd.Flags().StringVar(&l.format, "log-format", "auto", "text, json, or auto for text on a terminal")
	cmd.Flags().StringVar(&l.level, "log-level", level, "debug, info, warn or error")
}

// logger logs on standard error.
func (e *env) logger(l logFlags) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, usagef("--log-level %s is unknown: write debug, info, warn or error", l.level)
	}
	switch l.format {
	case "auto":
		if e.terminal(e.stderr) {
			l.format = "text"
		}
	case "text", "json":
	default:
		return nil, usagef("--log-format %s is unknown: write text, json or auto", l.format)
	}
	if l.format != "text" {
		return slog.New(slog.NewJSONHandler(e.stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: readable})), nil
	}
	return slog.New(tint.NewTextHandler(e.stderr, &tint.Options{
		Level: level, TimeFormat: time.TimeOnly, NoColor: !bool(e.paint(e.stderr)),
	})), nil
}

// readable writes a duration as people do: JSON would have a number of nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

func newServeCommand(e *env) *cobra.Command {
	var path, listen, cpu string
	var logs logFlags
	cmd := &cobra.Command{
		Use:   "serve --config FILE|DIR",
		Short: "Run the bus.",
		Long: `Run the bus with a config: a YAML file, or a directory of them.

The config is read again when its files change and on SIGHUP; one with faults or
failing tests is refused, and the one before runs on. SIGTERM and Ctrl-C take no more
events, let what is under way end for as long as server.drain_timeout says, and exit
with 0; a second one exits at once.`,
		Example: `  sluice serve --config /etc/sluice
  sluice serve --config sluice.yaml --log-format json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("serve needs a config: --config FILE or DIR; `sluice dev` runs without one")
			}
			log, err := e.logger(logs)
			if err != nil {
				return err
			}
			stop, err := profile(cpu)
			if err != nil {
				return err
			}
			err = e.serve(c.Context(), app.Options{Path: path, Listen: listen, Watch: true, Log: log})
			return errors.Join(err, stop())
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the config: a file, or a directory of them")
	cmd.Flags().StringVar(&listen, "listen", "", "address and port to listen on, instead of server.listen")
	cmd.Flags().StringVar(&cpu, "cpuprofile", "", "write a CPU profile of the whole run to this file, for go tool pprof")
	_ = cmd.Flags().MarkHidden("cpuprofile")
	logs.add(cmd, "info")
	return cmd
}

// serve runs a bus until ctx ends.
func (e *env) serve(ctx context.Context, opts app.Options) error {
	a, err := e.newApp(opts)
	if err != nil {
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	// Who reads the standard output may go away: an error of the sink that writes there,
	// and no end of the bus.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	return a.Run(ctx, hup)
}

// newApp reads the config; one that is wrong is exit code 3.
func (e *env) newApp(opts app.Options) (*app.App, error) {
	opts.Kinds, opts.Version = e.kinds, readBuild().Version
	opts.Notify, _ = e.lookupEnv("NOTIFY_SOCKET")
	a, err := app.New(opts)
	var invalid *app.InvalidConfig
	if errors.As(err, &invalid) {
		text := invalid.Error()
		if strings.Contains(text, "\n") {
			text = "the config is not valid:\n" + text
		}
		return nil, &exitError{exitInvalid, fmt.Errorf("%s", text)}
	}
	return a, err
}
