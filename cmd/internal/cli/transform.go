package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"sluice/bus/dispatch"
	"sluice/rules"
)

func newTransformCommand(e *env) *cobra.Command {
	var path, rule string
	cmd := &cobra.Command{
		Use:   "transform --config FILE|DIR --rule RULE < EVENT",
		Short: "Show what a rule's transform makes of an event.",
		Long: `Read one CloudEvent in JSON from standard input and print what the transform of a rule
makes of it: the path, the query and the headers of the HTTP request as far as they
follow from the event, its content type, and the payload. Nothing is sent, and no server
is needed. It is done whether the event matches the rule or not.

Exit code 1 when the transform has no result for the event.`,
		Example: `  echo '{"specversion":"1.0","id":"1","source":"me","type":"order.placed","data":{"id":7}}' |
    sluice transform --config sluice.yaml --rule orders`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if rule == "" {
				return usagef("--rule is missing: name the rule whose transform to show")
			}
			return e.transform(c.Context(), path, rule)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "config `file` or directory")
	cmd.Flags().StringVar(&rule, "rule", "", "the `rule`")
	return cmd
}

// transformDoc is what a transform makes of an event, with -o json.
type transformDoc struct {
	Rule        string            `json:"rule"`
	Matched     bool              `json:"matched"` // the rule matches the event
	ContentType string            `json:"content_type"`
	Path        string            `json:"path,omitempty"`
	Query       map[string]string `json:"query,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	Body        string            `json:"body"`
}

func (e *env) transform(ctx context.Context, path, name string) error {
	c, err := e.loadConfig(path)
	if err != nil {
		return err
	}
	chosen := ruleNamed(c, name)
	if chosen == nil {
		return usagef("there is no rule %q in %s: the rules are %s", name, path, join(ruleNames(c), "none"))
	}
	route := chosen[0].Route()
	if route.Transform == nil {
		return fmt.Errorf("rule %q has no transform: it sends the event itself", name)
	}
	event, err := e.oneEvent(ctx)
	if err != nil {
		return err
	}
	out, err := route.Transform.Apply(rules.TransformInput{Event: event, Rule: name, Accepted: e.now()})
	if err != nil {
		return err
	}
	if out.Body == nil {
		out.Body, out.ContentType = event.Data(), event.Get("datacontenttype")
	}
	doc := transformDoc{
		Rule: name, Matched: dispatch.Explain(route, event).Matched, ContentType: out.ContentType,
		Path: out.Path, Query: out.Query, Headers: out.Header, Body: string(out.Body),
	}
	if e.json() {
		return e.printJSON(doc)
	}
	if !doc.Matched {
		e.note("the event does not match the rule: `sluice explain` says why")
	}
	e.printTransformed(doc)
	return nil
}

// printTransformed shows a result in the manner of a request.
func (e *env) printTransformed(doc transformDoc) {
	p := e.paint(e.stdout)
	target := doc.Path
	if len(doc.Query) > 0 {
		values := url.Values{}
		for name, text := range doc.Query {
			values.Set(name, text)
		}
		target += "?" + values.Encode()
	}
	if target != "" {
		e.printf("%s\n", p.bold("POST …"+target))
	}
	e.printf("%s\n", p.dim("Content-Type: "+cmp.Or(doc.ContentType, "none")))
	for _, name := range slices.Sorted(maps.Keys(doc.Headers)) {
		e.printf("%s\n", p.dim(name+": "+doc.Headers[name]))
	}
	e.printf("\n%s\n", doc.Body)
}
