package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
)

func newEventsCommand(e *env) *cobra.Command {
	var choice choice
	var page page
	var ids []string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List the events that the server keeps.",
		Long: `List the events that the server keeps, oldest first. They stay as long as store.retain says
and can be replayed until then.`,
		Example: `  sluice events --since 1h --pattern '{"source": ["shop"]}'`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			query, err := choice.query(e)
			if err != nil {
				return err
			}
			for _, id := range ids {
				query.Add("id", id)
			}
			api, err := e.client()
			if err != nil {
				return err
			}
			l, err := api.list(c.Context(), "api/v1/events", "events", query, page)
			if err != nil {
				return err
			}
			if e.json() {
				return l.print(e, "events")
			}
			return e.listEvents(l)
		},
	}
	choice.flags(cmd, "was accepted")
	page.flags(cmd)
	cmd.Flags().StringArrayVar(&ids, "id", nil, "only events with this `id`; may be given several times")
	cmd.AddCommand(newEventsShowCommand(e))
	return cmd
}

func (e *env) listEvents(l listing) error {
	t := newTable("POSITION", "ACCEPTED", "ID", "TYPE", "SOURCE", "SUBJECT")
	for _, item := range l.items {
		s, err := decode[storedDoc](item, nil)
		if err != nil {
			return err
		}
		ev := briefOf(s.Event)
		t.add(s.Position, ago(e.now(), s.Accepted), ev.ID, ev.Type, ev.Source, ev.Subject)
	}
	if len(l.items) == 0 {
		e.note("no events")
		return nil
	}
	err := t.print(e.stdout)
	l.more(e)
	return err
}

func newEventsShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show an event as it came in.",
		Long: `Show the events with this id as they came in, as CloudEvents in JSON. There may be several:
only source and id together name one event.`,
		Example: "  sluice events show order-17",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			l, err := api.list(c.Context(), "api/v1/events", "events", url.Values{"id": args}, page{})
			if err != nil {
				return err
			}
			if len(l.items) == 0 {
				return fmt.Errorf("the server keeps no event with the id %q: it may never have come, or was removed as store.retain says", args[0])
			}
			if e.json() {
				return l.print(e, "events")
			}
			for _, item := range l.items {
				s, err := decode[storedDoc](item, nil)
				if err != nil {
					return err
				}
				e.note("at %s, accepted %s (%s)", s.Position, stamp(s.Accepted), ago(e.now(), s.Accepted))
				if err := e.printJSON(s.Event); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
