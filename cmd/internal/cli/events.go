package cli

import (
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
