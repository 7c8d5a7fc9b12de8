package cli

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func newStatusCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the server is doing.",
		Long: `Show the version, the config, the store and the balance of a server: every delivery that
came into being was delivered, is a dead letter, was discarded or is open. The server
checks all the time that this comes out even; what it cannot account for is shown in red,
and ` + "`sluice doctor`" + ` explains it.`,
		Example: "  sluice status",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/status", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			s, err := decode[statusDoc](doc, nil)
			if err != nil {
				return err
			}
			return e.showStatus(s)
		},
	}
}

func (e *env) showStatus(s statusDoc) error {
	p := e.paint(e.stdout)
	t := newTable()
	t.add("server", "sluice "+s.Version+" on "+s.Listen+", up "+span(seconds(s.UptimeSeconds)))
	if s.Draining {
		t.add("draining", "it takes no events any more and ends soon")
	}
	t.add("config", cmp.Or(s.Config.Path, "built in")+" ("+s.ConfigVersion+")")
	if s.Config.LastReloadOK || s.Config.LastReload.IsZero() {
		t.add("reload", ago(e.now(), s.Config.LastReload))
	} else {
		t.add("reload", "failed "+ago(e.now(), s.Config.LastReload)+", the old config runs on: "+s.Config.Error)
	}
	if len(s.Config.NeedRestart) > 0 {
		t.add("restart", "needed for changes of "+join(s.Config.NeedRestart, ""))
	}
	t.add("store", s.store())
	t.add("events", s.events(e))
	b := s.Balance
	t.add("deliveries", b.sum())
	t.add("open", fmt.Sprintf("%d queued, %d running, %d spilling, %d backlog, %d retries",
		b.Queued, b.Running, b.Spilling, b.Backlog, b.Retries))
	if err := t.print(e.stdout); err != nil {
		return err
	}
	if c := s.Conservation; c.Deliveries != 0 || c.Events != 0 {
		e.printf("%s\n", p.red(fmt.Sprintf("%d deliveries and %d events are not accounted for, since %s: `sluice doctor` explains it",
			c.Deliveries, c.Events, ago(e.now(), c.Since))))
	}
	return nil
}

// sum is the sum that has to come out even; what is rare is left out when it is 0.
func (b balanceDoc) sum() string {
	text := fmt.Sprintf("%d = %d delivered + %d dead", b.Entered, b.Delivered, b.Dead)
	if b.Discarded > 0 {
		text += fmt.Sprintf(" + %d discarded", b.Discarded)
	}
	if b.Damaged > 0 {
		text += fmt.Sprintf(" + %d damaged", b.Damaged)
	}
	return text + fmt.Sprintf(" + %d open", b.Open)
}

func (s statusDoc) store() string {
	text := s.Store.Dir + ": " + size(s.Store.Bytes)
	if s.Store.Dir == "" {
		text = "in memory: " + size(s.Store.Bytes)
	}
	if s.Store.LimitBytes > 0 {
		text += " of " + size(s.Store.LimitBytes)
	}
	if s.Store.FreeBytes > 0 {
		text += ", " + size(s.Store.FreeBytes) + " free on the volume"
	}
	return text
}

func (s statusDoc) events(e *env) string {
	text := strconv.FormatInt(s.Unsettled, 10) + " unsettled"
	if !s.Store.Events.Oldest.IsZero() {
		text = "kept since " + ago(e.now(), s.Store.Events.Oldest) + ", " + text
	}
	return text
}
