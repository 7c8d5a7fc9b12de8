package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

// The exit codes, which scripts rely on.
const (
	exitOK      = 0
	exitFailure = 1 // it was tried and did not work
	exitUsage   = 2 // the command line makes no sense
	exitInvalid = 3 // the config has faults
	exitNoMatch = 4 // no rule matches
)

// env is what every command works with.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	lookupEnv      func(name string) (string, bool)
	now            func() time.Time
	sleep          func(ctx context.Context, d time.Duration) error
	terminal       func(stream any) bool
	kinds          config.Options // the kinds that a config may use
	unprinted      error          // why a part of the result could not be printed

	// The global flags.
	server  string
	token   string
	output  string
	noColor bool
	quiet   bool
}

// Main runs the command line args (without the program's name) and returns the
// exit code. It returns early, with what was done so far said, when ctx ends.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return run(ctx, args, &env{
		stdin: stdin, stdout: stdout, stderr: stderr, lookupEnv: os.LookupEnv,
		now: time.Now, sleep: sleep, terminal: isTerminal,
		kinds: config.Options{Sinks: sinks.Kinds(), Sources: sources.Kinds()},
	})
}

func run(ctx context.Context, args []string, e *env) int {
	root := newRoot(e)
	root.SetArgs(args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	started := markStart(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil && e.unprinted == nil {
		return exitOK
	}
	if err == nil {
		err = fmt.Errorf("the result could not be printed: %w", e.unprinted)
	}
	var exit *exitError
	switch {
	case errors.As(err, &exit):
	case *started:
		exit = &exitError{exitFailure, err}
	default: // cobra's own errors are all about the command line
		exit = usagef("%s%s: see `%s --help`", firstLine(err.Error()), nearestVerb(cmd, err), cmd.CommandPath())
	}
	if exit.err != nil {
		e.complain("%v", exit.err)
	}
	return exit.code
}

// nearestVerb is what somebody may have meant by a verb that there is not.
func nearestVerb(cmd *cobra.Command, err error) string {
	_, rest, ok := strings.Cut(err.Error(), "unknown command \"")
	if !ok {
		return ""
	}
	typed, _, _ := strings.Cut(rest, "\"")
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(typed); len(near) > 0 {
		return fmt.Sprintf(", did you mean %q?", near[0])
	}
	return ""
}

// markStart tells errors of the verbs from errors of the command line: the flag
// it returns is set once a verb has begun.
func markStart(root *cobra.Command) *bool {
	started := new(bool)
	var wrap func(*cobra.Command)
	wrap = func(c *cobra.Command) {
		if inner := c.RunE; inner != nil {
			c.RunE = func(c *cobra.Command, args []string) error {
				*started = true
				return inner(c, args)
			}
		}
		for _, sub := range c.Commands() {
			wrap(sub)
		}
	}
	wrap(root)
	return started
}

// exitError is an error with an exit code of its own. Without err everything has
// been said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// sleep waits for d, or returns the error of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// usagef is an error of the command line: exit code 2.
func usagef(format string, args ...any) *exitError {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// exit ends a verb that has said all there is to say.
func exit(code int) error { return &exitError{code: code} }

// The groups that the help shows the verbs in.
const (
	groupRun    = "run"
	groupFiles  = "files"
	groupServer = "server"
)

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "An event routing bus: CloudEvents in, matched by rules, delivered to functions and queues.",
		Long: `Sluice takes CloudEvents in, matches them against rules and delivers each match to
functions and queues, with retries, dead letters, redrive and replay.

Exit codes: 0 ok, 1 failure, 2 wrong usage, 3 invalid config, 4 no rule matches.`,
		Example: `  sluice dev
  sluice publish --type hello --source me --data '{"a": 1}'`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return e.checkFlags() }
	f := root.PersistentFlags()
	f.StringVar(&e.server, "server", "", "`URL` of the server (default $SLUICE_SERVER, or "+defaultServer+")")
	f.StringVar(&e.token, "token", "", "`reference` to the bearer token, ${env:NAME} or ${file:/path} (default $SLUICE_TOKEN)")
	f.StringVarP(&e.output, "output", "o", formatTable, "`format` of the output: table or json")
	f.BoolVar(&e.noColor, "no-color", false, "print without colours (also when $NO_COLOR is set)")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "print results only, no progress and no notes")
	root.CompletionOptions.DisableDefaultCmd = true // there is one of our own
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run the bus:"},
		&cobra.Group{ID: groupFiles, Title: "Work on files, no server needed:"},
		&cobra.Group{ID: groupServer, Title: "Talk to a server:"},
	)
	addVerbs(root, e)
	return root
}

func addVerbs(root *cobra.Command, e *env) {
	add := func(group string, verbs ...*cobra.Command) {
		for _, verb := range verbs {
			verb.GroupID = group
			root.AddCommand(verb)
		}
	}
	add(groupRun, newDevCommand(e), newServeCommand(e), newBenchCommand(e))
	add(groupFiles, newValidateCommand(e), newTestCommand(e), newMatchCommand(e), newExplainCommand(e), newTransformCommand(e), newKindsCommand(e), newTokenCommand(e),
		newVersionCommand(e), newCompletionCommand(e))
	add(groupServer, newPlanCommand(e), newPublishCommand(e), newTailCommand(e), newEventsCommand(e), newStatusCommand(e), newDoctorCommand(e), newSourcesCommand(e), newSchedulesCommand(e), newSinksCommand(e), newQueueCommand(e), newSubscribeCommand(e), newSubscriptionsCommand(e), newListenCommand(e),
		newRulesCommand(e), newDlqCommand(e), newReplayCommand(e), newJobsCommand(e), newReloadCommand(e))
}

// checkFlags refuses global flags that make no sense together with anything.
func (e *env) checkFlags() error {
	if e.output != formatTable && e.output != formatJSON {
		return usagef("--output %s is unknown: write table or json", e.output)
	}
	return nil
}

// newGroup is a verb that only holds others.
func newGroup(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	var names []string
	for _, sub := range subs {
		names = append(names, sub.Name())
	}
	group := &cobra.Command{
		Use: use, Short: short, Long: short, Example: example,
		// cobra would print the help and call it a success.
		RunE: func(c *cobra.Command, args []string) error {
			known := strings.Join(names, ", ")
			if len(args) > 0 {
				return usagef("%s has no verb %q: there are %s", c.CommandPath(), args[0], known)
			}
			return usagef("%s needs a verb: %s", c.CommandPath(), known)
		},
	}
	group.AddCommand(subs...)
	return group
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
