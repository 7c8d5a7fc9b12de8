package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice/bus"
	"sluice/cmd/internal/api"
	"sluice/config/value"
)

func newListenCommand(e *env) *cobra.Command {
	l := &listen{e: e, timeout: 30 * time.Second}
	var s wanted
	cmd := &cobra.Command{
		Use:   "listen --forward URL",
		Short: "Forward live events to a function on this machine.",
		Long: `Forward events, from now on, to a function on this machine, and show what it answers: the
server need not reach this machine. The events wait in a queue of their own, by a
subscription that ends with the command, or a minute after it was killed. An event that
the function does not take with a 2xx is forwarded again, five times at most.`,
		Example: `  sluice listen --forward http://127.0.0.1:3000 --type order.created
  sluice listen --forward http://127.0.0.1:3000 --match '{"source": [{"prefix": "shop/"}]}' --show-body`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			doc, err := s.subscription(api.QueueSink)
			if err != nil {
				return err
			}
			if l.to, err = value.ParseURL(l.forward); err != nil {
				return usagef("--forward %w", err)
			}
			if l.api, err = e.client(); err != nil {
				return err
			}
			doc.Expires = value.Duration(time.Minute)
			return l.run(c.Context(), doc)
		},
	}
	s.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&l.forward, "forward", "", "the `URL` of the function")
	f.BoolVar(&l.showBody, "show-body", false, "show the data of the events, and the answers")
	f.IntVarP(&l.count, "count", "n", 0, "end after this `number` of events that were taken")
	f.DurationVar(&l.timeout, "timeout", l.timeout, "how long the function may take")
	return cmd
}

// listen is one listen command.
type listen struct {
	e        *env
	api      *client
	forward  string
	to       value.URL
	showBody bool
	count    int
	timeout  time.Duration
	taken    int
}

func (l *listen) run(ctx context.Context, doc api.Subscription) error {
	answer, err := l.api.post(ctx, "subscriptions", doc)
	if err != nil {
		return err
	}
	made, err := decode[api.Subscription](answer, nil)
	if err != nil {
		return err
	}
	path := "subscriptions/" + url.PathEscape(made.ID)
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, _ = l.api.call(end, http.MethodDelete, path, nil, nil) // or it expires
	}()
	l.e.note("forwarding to %s; Ctrl-C ends it", l.to)
	renewed := time.Now()
	for ctx.Err() == nil && (l.count == 0 || l.taken < l.count) {
		if time.Since(renewed) > 15*time.Second {
			if _, err := l.api.post(ctx, path+"/renew", nil); err != nil {
				return err
			}
			renewed = time.Now()
		}
		if err := l.next(ctx, "sub."+made.ID); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// next forwards what is there, or waits a while for it.
func (l *listen) next(ctx context.Context, queue string) error {
	doc, err := l.api.post(ctx, queueURL(queue, "receive"), map[string]any{"max": 1, "wait": "10s", "visibility": (l.timeout + 10*time.Second).String()})
	if err != nil {
		return err
	}
	got, err := decode[struct{ Messages []messageDoc }](doc, nil)
	if err != nil {
		return err
	}
	for _, m := range got.Messages {
		verb, body := "ack", map[string]any{"receipts": []string{m.Receipt}}
		if !l.deliver(ctx, m) {
			verb = "nack"
			body["delay"] = (time.Duration(m.Receives) * time.Second).String()
		}
		if _, err := l.api.post(context.WithoutCancel(ctx), queueURL(queue, verb), body); err != nil {
			return err
		}
	}
	return nil
}

// deliver sends an event to the function, shows what came of that, and tells whether
// the function took it.
func (l *listen) deliver(ctx context.Context, m messageDoc) bool {
	p := l.e.paint(l.e.stdout)
	ev, err := bus.ParseJSON(m.Event)
	if err != nil {
		l.e.printf("%s %s\n", p.red("not an event:"), err)
		return true // no attempt would mend it
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.to.URL.String(), bytes.NewReader(ev.Data()))
	if err != nil {
		l.e.printf("%s %s\n", p.red("cannot forward:"), err)
		return false
	}
	ev.AppendHTTPHeader(req.Header)
	req.Header.Set("Sluice-Delivery-Id", m.ID)
	req.Header.Set("Sluice-Attempt", strconv.Itoa(m.Receives))
	start := time.Now()
	line := fmt.Sprintf("%s  %s %s  %s", p.dim(start.Format("15:04:05")), ev.Type(), p.dim("id"), oneLine(ev.ID()))
	resp, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).Do(req)
	took := span(time.Since(start))
	if err != nil {
		l.e.printf("%s  %s %s\n", line, p.red("no answer after "+took+":"), oneLine(err.Error()))
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	good := resp.StatusCode/100 == 2
	status := p.green(strconv.Itoa(resp.StatusCode))
	if !good {
		status = p.red(strconv.Itoa(resp.StatusCode))
	}
	l.e.printf("%s  %s %s\n", line, status, p.dim(took))
	if l.showBody {
		l.show("data", ev.Data())
		l.show("answer", body)
	}
	if good {
		l.taken++
	}
	return good
}

func (l *listen) show(what string, body []byte) {
	if len(body) == 0 {
		return
	}
	var indented bytes.Buffer
	if json.Indent(&indented, body, "    ", "  ") == nil {
		body = indented.Bytes()
	}
	l.e.printf("  %s\n    %s\n", l.e.paint(l.e.stdout).dim(what), printable(string(body)))
}

// printable is text without what would steer a terminal.
func printable(text string) string {
	out := make([]rune, 0, len(text))
	for _, r := range text {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}
