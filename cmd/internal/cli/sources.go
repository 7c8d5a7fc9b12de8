package cli

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sluice/cmd/internal/api"
)

func newSourcesCommand(e *env) *cobra.Command {
	return newGroup("sources", "List, pause and resume sources.", "  sluice sources ls",
		newSourcesLsCommand(e), newSourcesShowCommand(e), newSourcesPauseCommand(e), newSourcesResumeCommand(e))
}

func newSourcesLsCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the sources and how they are doing.",
		Long: `List the sources. ACCEPTED and REFUSED count events since the start of the server, DEAD is
input that could not become an event (sluice dlq ls --source NAME), LAG is what upstream
has and the bus does not, where the source can know.`,
		Example: "  sluice sources ls",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			doc, err := client.get(c.Context(), "api/v1/sources", nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			all, err := decode[struct{ Sources []api.Source }](doc, nil)
			if err != nil {
				return err
			}
			if len(all.Sources) == 0 {
				e.note("no sources: events come in at POST /events")
				return nil
			}
			t := newTable("NAME", "KIND", "STATE", "ACCEPTED", "REFUSED", "DEAD", "LAG", "LAST EVENT", "LAST ERROR")
			for _, s := range all.Sources {
				refused := int64(0)
				for _, n := range s.Refused {
					refused += n
				}
				t.add(s.Name, s.Kind, s.State, s.Accepted, refused, s.DeadLetters, lag(s.Lag), ago(e.now(), s.LastEvent), oneLine(s.LastError))
			}
			return t.print(e.stdout)
		},
	}
}

// lag is how far a source is behind, in what it knows.
func lag(l *api.SourceLag) string {
	if l == nil {
		return "-"
	}
	var parts []string
	if l.Records > 0 {
		parts = append(parts, plural(int(l.Records), "record"))
	}
	if l.Bytes > 0 {
		parts = append(parts, plural(int(l.Bytes), "byte"))
	}
	if l.AgeSeconds > 0 {
		parts = append(parts, span(seconds(l.AgeSeconds)))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func newSourcesShowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one source, with its last error.",
		Long:    "Show how one source is doing, why it is paused if it is, what it refused, and its last error.",
		Example: "  sluice sources show uploads",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := e.client()
			if err != nil {
				return err
			}
			doc, err := client.get(c.Context(), "api/v1/sources/"+url.PathEscape(args[0]), nil)
			if err != nil || e.json() {
				return e.printOr(doc, err)
			}
			s, err := decode[api.Source](doc, nil)
			if err != nil {
				return err
			}
			return e.showSource(s)
		},
	}
}

func (e *env) showSource(s api.Source) error {
	t := newTable()
	t.add("name", s.Name)
	t.add("kind", s.Kind)
	t.add("state", s.State+", "+ago(e.now(), s.Since))
	if !s.NextStart.IsZero() {
		t.add("next start", stamp(s.NextStart))
	}
	if s.Hold != nil && s.Hold.Note != "" {
		t.add("note", s.Hold.Note)
	}
	for _, path := range s.Paths {
		t.add("path", path)
	}
	t.add("accepted", strconv.FormatInt(s.Accepted, 10)+" since the start")
	for _, outcome := range slices.Sorted(maps.Keys(s.Refused)) {
		t.add(outcome, s.Refused[outcome])
	}
	t.add("dead letters", s.DeadLetters)
	t.add("lag", lag(s.Lag))
	t.add("restarts", s.Restarts)
	t.add("last event", ago(e.now(), s.LastEvent))
	if s.LastError != "" {
		t.add("last error", s.LastError)
		t.add("", ago(e.now(), s.LastErrorAt))
	}
	return t.print(e.stdout)
}

func newSourcesPauseCommand(e *env) *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   "pause NAME",
		Short: "Let a source rest: it takes nothing until it is resumed.",
		Long: `Let a source rest: it ends what is in flight and takes nothing more, across restarts of
the server. A path answers 503; a stream is not read, and goes on later where it was. A
reload that takes the source out of the config ends the pause too.`,
		Example: `  sluice sources pause clicks --note "topic is being rebuilt"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.holdSource(c, args[0], "pause", "paused", map[string]string{"note": note})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for whoever looks at the source later")
	return cmd
}

func newSourcesResumeCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "resume NAME",
		Short:   "Let a paused source go on.",
		Long:    "Let a paused source go on. One that failed, and waits for its next start, is started at once.",
		Example: `  sluice sources resume clicks`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.holdSource(c, args[0], "resume", "resumed", nil)
		},
	}
}

func (e *env) holdSource(c *cobra.Command, name, verb, done string, body map[string]string) error {
	s, err := hold[api.Source](e, c, "sources", name, verb, body)
	if err != nil || e.json() {
		return err
	}
	e.printf("%s %s: it is %s\n", done, name, s.State)
	return nil
}
