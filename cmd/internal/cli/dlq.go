package cli

import (
	"encoding/json"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newDlqCommand(e *env) *cobra.Command {
	return newGroup("dlq", "List, show, redrive and purge dead letters.", "  sluice dlq ls",
		newDlqLsCommand(e), newDlqShowCommand(e), newDlqRedriveCommand(e), newDlqPurgeCommand(e))
}

func newDlqLsCommand(e *env) *cobra.Command {
	var choice letterChoice
	var page page
	cmd := &cobra.Command{
		Use:   "ls [ID...]",
		Short: "List dead letters, oldest first.",
		Long: `List dead letters, oldest first: deliveries that were given up, and input of sources that
could not become an event. Flags and ids choose; what is named must all hold.`,
		Example: `  sluice dlq ls
  sluice dlq ls --sink thumbs --since 24h --pattern '{"type": ["order.created"]}'`,
		RunE: func(c *cobra.Command, args []string) error {
			query, err := choice.query(e, args)
			if err != nil {
				return err
			}
			api, err := e.client()
			if err != nil {
				return err
			}
			l, err := api.list(c.Context(), "api/v1/dead-letters", "dead_letters", query, page)
			if err != nil {
				return err
			}
			if e.json() {
				return l.print(e, "dead_letters")
			}
			return e.listLetters(l)
		},
	}
	choice.flags(cmd)
	page.flags(cmd)
	return cmd
}

func (e *env) listLetters(l listing) error {
	t := newTable("ID", "DIED", "SINK", "RULE", "REASON", "ATTEMPTS", "EVENT", "TYPE", "LAST ERROR")
	for _, item := range l.items {
		d, err := decode[deadLetterDoc](item, nil)
		if err != nil {
			return err
		}
		ev := briefOf(d.Event)
		last := ""
		if n := len(d.Attempts); n > 0 {
			last = d.Attempts[n-1].said()
		}
		t.add(d.ID, ago(e.now(), d.Died), d.place(), d.Rule, d.Reason, len(d.Attempts), ev.ID, ev.Type, last)
	}
	if len(l.items) == 0 {
		e.note("no dead letters")
		return nil
	}
	err := t.print(e.stdout)
	l.more(e)
	return err
}

// place is where it was given up: a sink, or a source.
func (d deadLetterDoc) place() string {
	if d.Source != "" {
		return "source " + d.Source
	}
	return d.Sink
}

// said is what an attempt came to, in a few words.
func (a attemptDoc) said() string {
	switch {
	case a.Error != "":
		return a.Error
	case a.Status != 0:
		return strconv.Itoa(a.Status) + " " + a.Class
	}
	return a.Class
}

func newDlqShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a dead letter: every attempt and the event.",
		Long: `Show a dead letter: why it was given up, every attempt with what the sink answered, and
the untouched event.`,
		Example: `  sluice dlq show "$(sluice dlq ls -o json | jq -r '.dead_letters[0].id')"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/dead-letters/"+url.PathEscape(args[0]), nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			d, err := decode[deadLetterDoc](doc, nil)
			if err != nil {
				return err
			}
			return e.showLetter(d)
		},
	}
}

func (e *env) showLetter(d deadLetterDoc) error {
	p := e.paint(e.stdout)
	t := newTable()
	t.add("dead letter", d.ID)
	t.add("reason", d.Reason)
	if d.Source != "" {
		t.add("source", d.Source)
	} else {
		t.add("sink", d.Sink)
		t.add("rule", d.Rule)
	}
	t.add("accepted", stamp(d.Accepted)+" ("+ago(e.now(), d.Accepted)+")")
	t.add("died", stamp(d.Died)+" ("+ago(e.now(), d.Died)+")")
	t.add("delivery", d.DeliveryID)
	t.add("config", d.ConfigVersion)
	if err := t.print(e.stdout); err != nil {
		return err
	}
	e.printf("\n%s\n", p.bold(plural(len(d.Attempts), "attempt")))
	t = newTable()
	for i, a := range d.Attempts {
		t.add(i+1, stamp(a.At), span(seconds(a.DurationSeconds)), status(a.Status), a.Class, a.Error)
	}
	t.indent = "  "
	if err := t.print(e.stdout); err != nil {
		return err
	}
	for i, a := range d.Attempts {
		if answer := a.answer(); answer != "" {
			e.printf("  answer %d: %s\n", i+1, answer)
		}
	}
	e.printf("\n%s\n", p.bold("event"))
	return e.printJSON(d.Event)
}

// answer is what the sink answered, on one line.
func (a attemptDoc) answer() string {
	if a.AnswerBase64 != "" {
		return "base64 " + oneLine(a.AnswerBase64)
	}
	return oneLine(a.Answer)
}

// status is an HTTP status, or "" for none.
func status(code int) string {
	if code == 0 {
		return ""
	}
	return strconv.Itoa(code)
}

func newDlqPurgeCommand(e *env) *cobra.Command {
	var choice letterChoice
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "purge [ID...]",
		Short: "Remove dead letters for good.",
		Long: `Remove dead letters for good: those that the flags and ids choose, or --all of them. It
asks first; where nobody can be asked it needs --yes.`,
		Example: "  sluice dlq purge --sink thumbs --until 7d --yes",
		RunE: func(c *cobra.Command, args []string) error {
			var body struct {
				dispatch.Redrive      // of which only the filter is used
				All              bool `json:"all,omitempty"`
			}
			if err := choice.redrive(e, args, &body.Redrive); err != nil {
				return err
			}
			what, err := json.Marshal(body)
			if err != nil {
				return err
			}
			switch none := string(what) == "{}"; {
			case none && !all:
				return usagef("nothing chosen: name ids or filters, or write --all to remove every dead letter")
			case !none && all:
				return usagef("--all goes without ids and filters")
			}
			if err := e.confirm(c.Context(), yes, "Remove "+chosen(what, all)+" for good?"); err != nil {
				return err
			}
			body.All = all
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.post(c.Context(), "api/v1/dead-letters/purge", body)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			r, err := decode[struct{ Removed int }](doc, nil)
			if err == nil {
				e.printf("removed %s\n", plural(r.Removed, "dead letter"))
			}
			return err
		},
	}
	choice.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "remove every dead letter")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// chosen is a choice of dead letters in words.
func chosen(filter []byte, all bool) string {
	if all {
		return "all dead letters"
	}
	return "the dead letters chosen by " + string(filter)
}
