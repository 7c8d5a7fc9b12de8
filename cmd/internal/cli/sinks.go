package cli

import (
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

func newSinksCommand(e *env) *cobra.Command {
	return newGroup("sinks", "List, pause and resume sinks.", "  sluice sinks ls",
		newSinksLsCommand(e), newSinksShowCommand(e), newSinksPauseCommand(e), newSinksResumeCommand(e))
}

func newSinksLsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the sinks and how they are doing.",
		Long: `List the sinks with what waits for each: QUEUED in memory, IN FLIGHT at the sink, BACKLOG
on disk, RETRIES for their next attempt, DEAD given up. OLDEST is the age of the oldest
delivery in QUEUED or BACKLOG; DELIVERED counts since the start of the server. A STATE of
unauthorized means that the sink refuses the credentials, disconnected that its far side
cannot be reached: sluice sinks show tells why.`,
		Example: "  sluice sinks ls",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/sinks", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			all, err := decode[struct{ Sinks []sinkDoc }](doc, nil)
			if err != nil {
				return err
			}
			t := newTable("NAME", "KIND", "STATE", "QUEUED", "IN FLIGHT", "BACKLOG", "OLDEST", "RETRIES", "DEAD", "DELIVERED", "LAST OK")
			for _, s := range all.Sinks {
				t.add(s.Name, s.Kind, s.state(), s.Queued, s.InFlight, s.Backlog, s.oldest(), s.Retries, s.DeadLetters,
					s.Delivered, ago(e.now(), s.LastOK))
			}
			return t.print(e.stdout)
		},
	}
}

func newSinksShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one sink, with its last error.",
		Long:    "Show how one sink is doing, why it is held if it is, and its last error.",
		Example: "  sluice sinks show echo",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/sinks/"+url.PathEscape(args[0]), nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			s, err := decode[sinkDoc](doc, nil)
			if err != nil {
				return err
			}
			return e.showSink(s)
		},
	}
}

func (e *env) showSink(s sinkDoc) error {
	t := newTable()
	t.add("name", s.Name)
	t.add("kind", s.Kind)
	t.add("state", s.State)
	if s.Hold != nil {
		t.add("held", s.Hold.Reason+", "+ago(e.now(), s.Hold.Since))
		if s.Hold.Note != "" {
			t.add("note", s.Hold.Note)
		}
	}
	t.add("concurrency", s.Concurrency)
	t.add("queued", s.Queued)
	t.add("in flight", s.InFlight)
	t.add("backlog", s.Backlog)
	t.add("oldest", s.oldest())
	t.add("retries", s.Retries)
	t.add("dead letters", s.DeadLetters)
	t.add("delivered", strconv.FormatInt(s.Delivered, 10)+" since the start")
	t.add("last ok", ago(e.now(), s.LastOK))
	if c := s.Connection; c != nil {
		t.add("connection", c.State)
		if c.Error != "" {
			t.add("", c.Error)
		}
		if !c.Since.IsZero() {
			t.add("", ago(e.now(), c.Since))
		}
	}
	if s.LastError != "" {
		t.add("last error", s.LastError)
		t.add("", ago(e.now(), s.LastErrorAt))
	}
	return t.print(e.stdout)
}

// state is the state, and that the far side cannot be reached.
func (s sinkDoc) state() string {
	if s.Connection == nil || s.Connection.State != "disconnected" {
		return s.State
	}
	if s.State == "active" {
		return s.Connection.State
	}
	return s.State + ", " + s.Connection.State
}

// oldest is the age of the oldest delivery that waits for its turn.
func (s sinkDoc) oldest() string {
	if s.OldestAgeSeconds <= 0 {
		return "-"
	}
	return span(seconds(s.OldestAgeSeconds))
}

func newSinksPauseCommand(e *env) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   "pause NAME",
		Short: "Stop delivering to a sink; what is for it waits.",
		Long: `Stop delivering to a sink. Its events wait in its backlog until the sink is resumed,
across restarts of the server. Other sinks do not notice.`,
		Example: `  sluice sinks pause echo --note "new version going out"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.holdSink(c, args[0], "pause", "paused", map[string]string{"note": note})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for whoever looks at the sink later")
	return cmd
}

func newSinksResumeCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "resume NAME",
		Short:   "Deliver to a sink again.",
		Long:    "Deliver to a sink again that was paused, or that was disabled because it answered 410.",
		Example: `  sluice sinks resume echo`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.holdSink(c, args[0], "resume", "resumed", nil)
		},
	}
}

func (e *env) holdSink(c *cobra.Command, name, verb, done string, body map[string]string) error {
	s, err := hold[sinkDoc](e, c, "sinks", name, verb, body)
	if err != nil || e.json() {
		return err
	}
	waiting := s.Queued + s.Backlog + s.Retries
	e.printf("%s %s: %d waiting\n", done, name, waiting)
	return nil
}

// hold pauses or resumes a sink or a source, and gives how it is doing then; -o json
// has printed that already.
func hold[T any](e *env, c *cobra.Command, section, name, verb string, body map[string]string) (now T, err error) {
	api, err := e.client()
	if err != nil {
		return now, err
	}
	doc, err := api.post(c.Context(), "api/v1/"+section+"/"+url.PathEscape(name)+"/"+verb, body)
	if err != nil || e.json() {
		return now, e.printOr(doc, err)
	}
	return decode[T](doc, nil)
}
