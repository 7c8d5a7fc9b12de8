package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
)

func newTailCommand(e *env) *cobra.Command {
	t := &tail{e: e}
	var pattern choice
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Show events and their fate as they happen.",
		Long: `Show what happens to events from now on: each is accepted, and then for every sink
delivered, retried or made a dead letter. When the server goes away, tail waits for it
to come back. Ctrl-C ends it.`,
		Example: `  sluice tail
  sluice tail --sink thumbs --stage retry --stage dead_letter
  sluice tail --pattern '{"type": [{"prefix": "order."}]}' -o json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			query, err := pattern.query(e)
			if err != nil {
				return err
			}
			setText(query, "rule", t.rule)
			setText(query, "sink", t.sink)
			for _, stage := range t.stages {
				query.Add("stage", stage)
			}
			if t.api, err = e.client(); err != nil {
				return err
			}
			t.query, t.paint = query, e.paint(e.stdout)
			return t.run(c.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.rule, "rule", "", "only what this `rule` sends")
	f.StringVar(&t.sink, "sink", "", "only what goes to this `sink`")
	f.StringArrayVar(&t.stages, "stage", nil, "only this `stage`: "+strings.Join(dispatch.Stages(), ", ")+"; may be given several times")
	f.StringVar(&pattern.pattern, "pattern", "", "only events that match this `pattern`, JSON as under match in a rule")
	f.IntVarP(&t.count, "count", "n", 0, "end after this `number` of lines")
	return cmd
}

// tail is one tail command.
type tail struct {
	e          *env
	api        *client
	query      url.Values
	paint      paint
	rule, sink string
	stages     []string
	count      int // lines to show; 0 for no end

	shown  int
	missed int64
	away   bool // the server was lost
}

// errEnough ends a tail that has shown what was asked for.
var errEnough = errors.New("enough")

// maxSilence is when a connection counts as dead: a server with no news sends an
// empty line every 15 s.
const maxSilence = time.Minute

// The waits between attempts to reach a server that was there before.
const (
	firstReconnect = 500 * time.Millisecond
	maxReconnect   = 15 * time.Second
)

// run shows notices until ctx ends. Only a server that never answered is an error:
// one that was there may come back.
func (t *tail) run(ctx context.Context) error {
	wait := firstReconnect
	for attached := false; ; {
		before := t.shown
		ok, err := t.attach(ctx)
		attached = attached || ok
		var lost *connError
		switch {
		case ctx.Err() != nil, errors.Is(err, errEnough):
			return nil //nolint:nilerr // Ctrl-C is how a tail ends
		case !attached, err != nil && !errors.As(err, &lost) && !unavailable(err):
			return err
		case ok || t.shown > before:
			wait = firstReconnect
		}
		t.e.note("the server has gone away; trying again in %s", span(wait))
		if t.e.sleep(ctx, wait) != nil {
			return nil //nolint:nilerr // Ctrl-C is how a tail ends
		}
		wait = min(2*wait, maxReconnect)
		t.missed, t.away = 0, true // a new tail counts from zero
	}
}

// unavailable tells an answer of a server that is ending or starting.
func unavailable(err error) bool {
	var no *apiError
	return errors.As(err, &no) && no.Status >= 500
}

// attach shows what one connection brings; ok means that the server was there.
func (t *tail) attach(ctx context.Context) (ok bool, err error) {
	listening, hangUp := context.WithCancel(ctx)
	defer hangUp()
	resp, err := t.api.send(listening, http.MethodGet, "api/v1/tail", t.query, "", nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	if t.away {
		t.e.note("the server is back")
	} else {
		t.e.note("watching %s; Ctrl-C ends it", t.api.base)
	}
	silence := time.AfterFunc(maxSilence, hangUp)
	defer silence.Stop()
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		switch { // a line without an end was cut off
		case errors.Is(err, io.EOF):
			return true, nil
		case err != nil:
			return true, t.api.unreachable(ctx, err)
		}
		silence.Reset(maxSilence)
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue // only to show that the server is there
		}
		if err := t.show(line); err != nil {
			return true, err
		}
	}
}

func (t *tail) show(line []byte) error {
	n, err := decode[noticeDoc](json.RawMessage(line), nil)
	if err != nil {
		return err
	}
	if n.Missed > t.missed {
		t.e.note("%d left out: they came faster than this tail took them", n.Missed-t.missed)
		t.missed = n.Missed
	}
	text := string(calm(line))
	if !t.e.json() {
		text = t.line(n)
	}
	if _, err := io.WriteString(t.e.stdout, text+"\n"); err != nil {
		return err
	}
	if t.shown++; t.shown == t.count {
		return errEnough
	}
	return nil
}

// line is a notice in words. The id is always in it, to search for.
func (t *tail) line(n noticeDoc) string {
	p, ev := t.paint, briefOf(n.Event)
	parts := []string{p.dim(n.At.Local().Format("15:04:05.000"))}
	add := func(text string) { parts = append(parts, text) }
	id := "id=" + p.bold(oneLine(ev.ID))
	switch n.Stage {
	case dispatch.StageAccepted:
		add(p.cyan("accepted   "))
		add(id)
		add(oneLine(ev.Type))
		add(p.dim("from " + oneLine(ev.Source)))
		if len(n.Rules) == 0 {
			add(p.yellow("no rule matches"))
		} else {
			add("rules=" + oneLine(strings.Join(n.Rules, ",")))
		}
		for _, m := range n.WhereMisses {
			if m.Error == "" {
				add(p.dim("where of " + oneLine(m.Rule) + " is false"))
			} else {
				add(p.yellow("where of " + oneLine(m.Rule) + " has no answer: " + oneLine(m.Error)))
			}
		}
		return strings.Join(parts, " ")
	case dispatch.StageDelivered:
		add(p.green("delivered  "))
	case dispatch.StageRetry:
		add(p.yellow("retry      "))
	case dispatch.StageLeased:
		add(p.dim("leased     "))
	case dispatch.StageDeadLetter:
		add(p.red("dead letter"))
	default:
		add(oneLine(n.Stage))
	}
	add(id)
	add("→ " + oneLine(n.Sink))
	add(p.dim("rule=" + oneLine(n.Rule)))
	if n.Status != 0 {
		add(strconv.Itoa(n.Status))
	}
	if n.Error != "" {
		add(oneLine(n.Error))
	} else if n.Status == 0 && n.Stage != dispatch.StageDelivered {
		add(oneLine(n.Class))
	}
	if n.Attempt > 1 || n.Stage != dispatch.StageDelivered {
		add("attempt=" + strconv.Itoa(n.Attempt))
	}
	add("took=" + span(seconds(n.DurationSeconds)))
	if n.Stage == dispatch.StageRetry {
		add("next in " + span(seconds(n.AfterSeconds)))
	}
	if n.Reason != "" {
		add("reason=" + oneLine(n.Reason))
	}
	return strings.Join(parts, " ")
}
