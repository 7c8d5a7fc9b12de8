package cli

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
	"sluice/rules"
)

// pageSize is the most that the API gives at once.
const pageSize = 1000

// page is which part of a list is asked for.
type page struct {
	limit int
	from  string
}

func (p *page) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&p.limit, "limit", 100, "`number` of entries to show; 0 for all")
	cmd.Flags().StringVar(&p.from, "from", "", "`place` to go on from, as an earlier list said")
}

// listing is a part of a list, and where it goes on: "" at the end.
type listing struct {
	items []json.RawMessage
	next  string
}

// list asks for the pages of a list until there are enough. One page may hold
// fewer entries than were asked for, or none, and yet not be the last.
func (c *client) list(ctx context.Context, path, name string, query url.Values, p page) (listing, error) {
	l := listing{items: []json.RawMessage{}, next: p.from}
	for {
		want := pageSize
		if p.limit > 0 {
			want = min(want, p.limit-len(l.items))
		}
		query.Set("limit", strconv.Itoa(want))
		if l.next != "" {
			query.Set("from", l.next)
		}
		doc, err := decode[map[string]json.RawMessage](c.get(ctx, path, query))
		if err != nil {
			return l, err
		}
		items, err := decode[[]json.RawMessage](doc[name], nil)
		if err != nil {
			return l, err
		}
		l.items, l.next = append(l.items, items...), ""
		if doc["next"] != nil {
			if l.next, err = decode[string](doc["next"], nil); err != nil {
				return l, err
			}
		}
		if l.next == "" || p.limit > 0 && len(l.items) >= p.limit {
			return l, nil
		}
	}
}

// print shows a list as JSON in the form of the API.
func (l listing) print(e *env, name string) error {
	doc := map[string]any{name: l.items}
	if l.next != "" {
		doc["next"] = l.next
	}
	return e.printJSON(doc)
}

// more tells that a list goes on.
func (l listing) more(e *env) {
	if l.next != "" {
		e.note("there are more: go on with --from %s, or ask for more with --limit", l.next)
	}
}

// choice are the flags that choose events.
type choice struct {
	since, until, pattern string
}

func (c *choice) flags(cmd *cobra.Command, what string) {
	cmd.Flags().StringVar(&c.since, "since", "", "only what "+what+" at or after this `time`: 2026-01-02T15:04:05Z, or 24h back from now")
	cmd.Flags().StringVar(&c.until, "until", "", "only what "+what+" at or before this `time`")
	cmd.Flags().StringVar(&c.pattern, "pattern", "", "only events that match this `pattern`, JSON as under match in a rule")
}

func (c *choice) empty() bool { return *c == choice{} }

// check reads the flags.
func (c *choice) check(e *env) (since, until time.Time, pattern json.RawMessage, err error) {
	if since, err = when(e.now(), "since", c.since); err != nil {
		return since, until, nil, err
	}
	if until, err = when(e.now(), "until", c.until); err != nil {
		return since, until, nil, err
	}
	if c.pattern == "" {
		return since, until, nil, nil
	}
	if _, err := rules.ParsePattern([]byte(c.pattern)); err != nil {
		return since, until, nil, usagef("--pattern: %w", err)
	}
	return since, until, json.RawMessage(c.pattern), nil
}

// query is the choice as parameters of a URL.
func (c *choice) query(e *env) (url.Values, error) {
	since, until, pattern, err := c.check(e)
	v := url.Values{}
	setTime(v, "since", since)
	setTime(v, "until", until)
	setText(v, "pattern", string(pattern))
	return v, err
}

func setText(v url.Values, name, text string) {
	if text != "" {
		v.Set(name, text)
	}
}

func setTime(v url.Values, name string, t time.Time) {
	if !t.IsZero() {
		v.Set(name, t.UTC().Format(time.RFC3339Nano))
	}
}

// letterChoice are the flags that choose dead letters.
type letterChoice struct {
	choice
	source, sink, rule, reason string
}

func (c *letterChoice) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.source, "source", "", "only input that this `source` rejected")
	cmd.Flags().StringVar(&c.sink, "sink", "", "only those of this `sink`")
	cmd.Flags().StringVar(&c.rule, "rule", "", "only those of this `rule`")
	cmd.Flags().StringVar(&c.reason, "reason", "", "only those with this `reason`: "+join(dispatch.DeadLetterReasons(), ""))
	c.choice.flags(cmd, "died")
}

// query is the choice as parameters of a URL.
func (c *letterChoice) query(e *env, ids []string) (url.Values, error) {
	v, err := c.choice.query(e)
	setText(v, "source", c.source)
	setText(v, "sink", c.sink)
	setText(v, "rule", c.rule)
	setText(v, "reason", c.reason)
	for _, id := range ids {
		v.Add("id", id)
	}
	return v, err
}

// redrive puts the choice into a redrive, whose JSON is what the API takes.
func (c *letterChoice) redrive(e *env, ids []string, r *dispatch.Redrive) (err error) {
	r.Source, r.Sink, r.Rule, r.Reason, r.IDs = c.source, c.sink, c.rule, c.reason, ids
	r.Since, r.Until, r.Pattern, err = c.check(e)
	return err
}
