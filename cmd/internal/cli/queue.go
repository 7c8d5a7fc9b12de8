package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newQueueCommand(e *env) *cobra.Command {
	return newGroup("queue", "List queues; receive, acknowledge, peek at and purge messages.", "  sluice queue receive jobs --ack",
		newQueueLsCommand(e), newQueueReceiveCommand(e), newQueueAckCommand(e), newQueueNackCommand(e), newQueuePeekCommand(e), newQueuePurgeCommand(e))
}

// queueURL is the path of a queue's verb.
func queueURL(name, verb string) string { return "api/v1/queues/" + url.PathEscape(name) + "/" + verb }

func newQueueLsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the queues and what waits in them.",
		Long: `List the queues: READY waits in memory or on disk, TAKEN is with consumers or not to be
seen yet, DEAD was received too often. ACKED counts since the start of the server.`,
		Example: "  sluice queue ls",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), "api/v1/queues", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			all, err := decode[struct{ Queues []sinkDoc }](doc, nil)
			if err != nil {
				return err
			}
			if len(all.Queues) == 0 {
				e.note("no queues: write a sink such as jobs: {queue: {}} into the config")
				return nil
			}
			t := newTable("NAME", "STATE", "READY", "OLDEST", "TAKEN", "DEAD", "ACKED")
			for _, s := range all.Queues {
				t.add(s.Name, s.State, s.Queued+s.Backlog, s.oldest(), s.Retries, s.DeadLetters, s.Delivered)
			}
			return t.print(e.stdout)
		},
	}
}

// messageDoc is a message as the API gives it.
type messageDoc struct {
	ID       string          `json:"id"`
	Receipt  string          `json:"receipt,omitempty"`
	Receives int             `json:"receives"`
	Rule     string          `json:"rule"`
	Accepted time.Time       `json:"accepted"`
	Event    json.RawMessage `json:"event"`
	Error    string          `json:"error,omitempty"`
}

func newQueueReceiveCommand(e *env) *cobra.Command {
	var body struct {
		Max        int    `json:"max"`
		Wait       string `json:"wait"`
		Visibility string `json:"visibility,omitempty"`
	}
	var ack bool
	cmd := &cobra.Command{
		Use:   "receive NAME",
		Short: "Receive messages: nobody else sees them for a while.",
		Long: `Receive messages of a queue and print each as one line of JSON. Nobody else sees them until
--visibility is over, or they are acknowledged (sluice queue ack), or given back (sluice
queue nack). With --ack they are acknowledged once they are printed.

Exit code 4 when there was no message within --wait.`,
		Example: `  sluice queue receive jobs --max 10 --wait 20s
  sluice queue receive jobs --ack | jq .event.data`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.post(c.Context(), queueURL(args[0], "receive"), body)
			if err != nil {
				return err
			}
			got, err := decode[struct{ Messages []messageDoc }](doc, nil)
			if err != nil {
				return err
			}
			if len(got.Messages) == 0 {
				e.note("no message")
				return exit(exitNoMatch)
			}
			var receipts []string
			for _, m := range got.Messages {
				if err := e.printLine(m); err != nil {
					return err
				}
				receipts = append(receipts, m.Receipt)
			}
			if !ack {
				return nil
			}
			return e.endMessages(c, args[0], "ack", map[string]any{"receipts": receipts})
		},
	}
	f := cmd.Flags()
	f.IntVar(&body.Max, "max", 1, "`number` of messages at most, up to "+strconv.Itoa(dispatch.MaxReceive))
	f.StringVar(&body.Wait, "wait", "20s", "how long to wait for a message")
	f.StringVar(&body.Visibility, "visibility", "", "how long nobody else sees them (default what the queue says)")
	f.BoolVar(&ack, "ack", false, "acknowledge them once they are printed")
	return cmd
}

// printLine prints a document as one line.
func (e *env) printLine(doc any) error {
	line, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s\n", calm(line))
	return err
}

// endMessages acknowledges messages or gives them back.
func (e *env) endMessages(c *cobra.Command, queue, verb string, body map[string]any) error {
	api, err := e.client()
	if err != nil {
		return err
	}
	doc, err := api.post(c.Context(), queueURL(queue, verb), body)
	if err != nil {
		return err
	}
	got, err := decode[struct {
		Failed []struct{ Receipt, Error string }
	}](doc, nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range got.Failed {
		errs = append(errs, fmt.Errorf("%s: %s", f.Receipt, f.Error))
	}
	return errors.Join(errs...)
}

func newQueueAckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "ack NAME RECEIPT...",
		Short:   "Acknowledge messages: nobody sees them again.",
		Long:    "Acknowledge messages by the receipts that receive gave: nobody sees them again.",
		Example: `  sluice queue ack jobs "$(sluice queue receive jobs | jq -r .receipt)"`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return e.endMessages(c, args[0], "ack", map[string]any{"receipts": args[1:]})
		},
	}
}

func newQueueNackCommand(e *env) *cobra.Command {
	var delay string
	cmd := &cobra.Command{
		Use:   "nack NAME RECEIPT...",
		Short: "Give messages back: others see them again.",
		Long: `Give messages back by the receipts that receive gave: others see them at once, or after
--delay. One that is given back as often as the queue's max_receives becomes a dead letter.`,
		Example: `  sluice queue nack jobs "$RECEIPT" --delay 10s`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{"receipts": args[1:]}
			if delay != "" {
				body["delay"] = delay
			}
			return e.endMessages(c, args[0], "nack", body)
		},
	}
	cmd.Flags().StringVar(&delay, "delay", "", "how long until others see them, at most 12h")
	return cmd
}

func newQueuePeekCommand(e *env) *cobra.Command {
	limit := dispatch.MaxReceive
	cmd := &cobra.Command{
		Use:   "peek NAME",
		Short: "Show messages without taking them.",
		Long: `Show messages that are ready, one line of JSON each, without taking them. Of a long queue
only the first messages, which are in memory, can be seen.`,
		Example: "  sluice queue peek jobs",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.get(c.Context(), queueURL(args[0], "peek"), url.Values{"limit": {strconv.Itoa(limit)}})
			if err != nil {
				return err
			}
			got, err := decode[struct{ Messages []messageDoc }](doc, nil)
			if err != nil {
				return err
			}
			for _, m := range got.Messages {
				if err := e.printLine(m); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "`number` of messages at most, up to 100")
	return cmd
}

func newQueuePurgeCommand(e *env) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "purge NAME",
		Short: "Discard every message that is ready, for good.",
		Long: `Discard every message that is ready in a queue, for good. What consumers have stays. It
asks first; where nobody can be asked it needs --yes.`,
		Example: "  sluice queue purge jobs --yes",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := e.confirm(c.Context(), yes, "Discard every message that is ready in "+args[0]+", for good?"); err != nil {
				return err
			}
			api, err := e.client()
			if err != nil {
				return err
			}
			doc, err := api.post(c.Context(), queueURL(args[0], "purge"), nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			got, err := decode[struct{ Discarded int }](doc, nil)
			if err != nil {
				return err
			}
			e.printf("discarded %s\n", plural(got.Discarded, "message"))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
