package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newMatchCommand(e *env) *cobra.Command {
	var path string
	var sinks bool
	cmd := &cobra.Command{
		Use:   "match --config FILE|DIR < EVENTS",
		Short: "Print which rules match each event.",
		Long: `Read CloudEvents in JSON from standard input, one a line or as one JSON array, and print
for each a JSON array of the names of the rules that match, on one line. Events that
cannot be read are told on standard error with their line, and have no line in the
output. No server is needed.

Exit code 1 when an event could not be read, 4 when no rule matched any event.`,
		Example:               `  echo '{"specversion":"1.0","id":"1","source":"me","type":"hello"}' | sluice match --config sluice.yaml`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.match(c.Context(), path, sinks)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "config `file` or directory")
	cmd.Flags().BoolVar(&sinks, "sinks", false, "print the sinks that get the event, not the rules")
	return cmd
}

func (e *env) match(ctx context.Context, path string, sinks bool) error {
	c, err := e.loadConfig(path)
	if err != nil {
		return err
	}
	routing, err := newRouting(c)
	if err != nil {
		return err
	}
	in := newEvents(e.input(ctx))
	buffer := bufio.NewWriter(e.stdout)
	out := json.NewEncoder(buffer)
	out.SetEscapeHTML(false)
	bad, matched := 0, false
	for {
		event, err := in.next()
		var fatal *readError
		switch {
		case errors.Is(err, io.EOF):
			return errors.Join(buffer.Flush(), matchResult(bad, matched))
		case errors.As(err, &fatal):
			return errors.Join(err, buffer.Flush())
		}
		var to dispatch.Routed
		if err == nil {
			to, err = routing.route(event)
		}
		if err != nil {
			bad++
			e.complain("%s %d: %v", in.unit(), in.line, err)
			continue
		}
		for _, miss := range to.Misses {
			if miss.Err != nil {
				e.complain("%s %d: where of rule %s has no answer: %v", in.unit(), in.line, miss.Rule, miss.Err)
			}
		}
		matched = matched || len(to.Rules) > 0
		names := to.Rules
		if sinks {
			names = to.Sinks
		}
		err = out.Encode(names)
		if err == nil && in.idle() { // somebody may be waiting for the answer
			err = buffer.Flush()
		}
		if err != nil {
			return err
		}
	}
}

func matchResult(bad int, matched bool) error {
	switch {
	case bad > 0:
		return &exitError{exitFailure, errors.New(plural(bad, "event") + " could not be read")}
	case !matched:
		return exit(exitNoMatch)
	}
	return nil
}
