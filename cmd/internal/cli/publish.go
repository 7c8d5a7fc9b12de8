package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"sluice/bus"
)

func newPublishCommand(e *env) *cobra.Command {
	p := &publish{}
	cmd := &cobra.Command{
		Use:   "publish (--type TYPE --source SOURCE ... | --file FILE | -)",
		Short: "Send events to the bus.",
		Long: `Send one event made of flags, or many from a file or from standard input (-): CloudEvents
in JSON, one a line or as one JSON array. An event is published when the server has it
on disk. When the server has too much to do, the events are sent again after the time
it asks for.

Exit code 1 when an event was not published; each is told with its line.`,
		Example: `  sluice publish --type order.created --source shop --data '{"total": 12.5}'
  sluice publish --file events.ndjson
  seq 3 | jq -c '{specversion: "1.0", id: "n\(.)", source: "seq", type: "number", data: .}' | sluice publish -`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if args[0] != "-" {
					return usagef("%q is not understood: write --file %s for a file, or - for standard input", args[0], args[0])
				}
				p.stdin = true
			}
			return e.publish(c.Context(), p, c.Flags().Changed)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.typ, "type", "", "what happened, such as order.created")
	f.StringVar(&p.source, "source", "", "where it happened, a URI-reference such as shop/web")
	f.StringVar(&p.id, "id", "", "what tells the event from others of its source (default a random UUID)")
	f.StringVar(&p.subject, "subject", "", "what it happened to")
	f.StringVar(&p.data, "data", "", "the payload")
	f.StringVar(&p.dataFile, "data-file", "", "`file` with the payload; - for standard input")
	f.StringVar(&p.contentType, "content-type", "", "media `type` of the payload (default application/json when it is JSON)")
	f.StringArrayVar(&p.extensions, "ext", nil, "an extension attribute, `name=value`; may be given several times")
	f.StringVar(&p.file, "file", "", "`file` with events; - for standard input")
	f.IntVar(&p.batch, "batch", 100, "`number` of events in a request, at most")
	f.IntVar(&p.retries, "retries", 10, "`times` that events are sent again which the server had no room for")
	return cmd
}

// publish are the flags of the verb.
type publish struct {
	typ, source, id, subject string
	data, dataFile           string
	contentType              string
	extensions               []string
	file                     string
	stdin                    bool
	batch, retries           int
}

// single are the flags that make one event.
func (p *publish) single() []string {
	return []string{"type", "source", "id", "subject", "data", "data-file", "content-type", "ext"}
}

func (e *env) publish(ctx context.Context, p *publish, given func(flag string) bool) error {
	if p.batch < 1 || p.retries < 0 {
		return usagef("--batch is at least 1 and --retries at least 0")
	}
	if p.file == "-" {
		p.file, p.stdin = "", true
	}
	flag := slices.IndexFunc(p.single(), given)
	many := p.file != "" || p.stdin
	switch {
	case many && flag >= 0:
		return usagef("--%s makes one event, and --file or - read many: choose one", p.single()[flag])
	case p.file != "" && p.stdin:
		return usagef("--file and - exclude each other")
	case many:
		return e.publishMany(ctx, p)
	case flag < 0:
		return usagef("nothing to publish: write --type and --source, --file FILE, or - to read standard input")
	}
	event, err := e.eventOf(ctx, p, given)
	if err != nil {
		return err
	}
	api, err := e.client()
	if err != nil {
		return err
	}
	s := newSender(e, api, p)
	s.single = event.ID()
	if err := s.add(ctx, event, 1); err != nil {
		return err
	}
	return s.finish(ctx, nil)
}

// eventOf makes the event that the flags describe.
func (e *env) eventOf(ctx context.Context, p *publish, given func(string) bool) (bus.Event, error) {
	if p.typ == "" || p.source == "" {
		return bus.Event{}, usagef("--type and --source are both needed: every CloudEvent has them")
	}
	if !given("id") {
		p.id = uuid.NewString()
	}
	attrs := []bus.Attr{{Name: "id", Value: p.id}, {Name: "source", Value: p.source}, {Name: "type", Value: p.typ}}
	if given("subject") {
		attrs = append(attrs, bus.Attr{Name: "subject", Value: p.subject})
	}
	for _, ext := range p.extensions {
		name, value, ok := strings.Cut(ext, "=")
		if !ok {
			return bus.Event{}, usagef("--ext %q has no =: write name=value", ext)
		}
		attrs = append(attrs, bus.Attr{Name: name, Value: value})
	}
	data, err := e.payload(ctx, p, given)
	if err != nil {
		return bus.Event{}, err
	}
	switch {
	case p.contentType != "":
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: p.contentType})
	case len(data) > 0 && bus.ValidJSON(data):
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: "application/json"})
	case len(data) > 0:
		return bus.Event{}, usagef("the data is not JSON: say what it is with --content-type, such as text/plain")
	}
	event, err := bus.NewEvent(attrs, data)
	if err != nil {
		return event, usagef("the event is not valid: %w", err)
	}
	return event, nil
}

func (e *env) payload(ctx context.Context, p *publish, given func(string) bool) ([]byte, error) {
	switch {
	case given("data") && given("data-file"):
		return nil, usagef("--data and --data-file exclude each other")
	case p.dataFile == "-":
		return io.ReadAll(e.input(ctx))
	case p.dataFile != "":
		return os.ReadFile(p.dataFile)
	}
	return []byte(p.data), nil
}

// publishMany sends the events of a file or of standard input.
func (e *env) publishMany(ctx context.Context, p *publish) error {
	in, total := e.input(ctx), int64(0)
	if p.file != "" {
		f, err := os.Open(p.file)
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // it was only read
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			total = info.Size()
		}
		in = f
	}
	api, err := e.client()
	if err != nil {
		return err
	}
	s := newSender(e, api, p)
	s.events = newEvents(in)
	s.bar, s.total = e.progress(total, "published 0", total > 0), total
	defer s.bar.end()
	return s.finish(ctx, s.all(ctx))
}

// all sends every event of the input. What cannot be read is told and counted.
func (s *sender) all(ctx context.Context) error {
	for {
		event, err := s.events.next()
		if done, fatal := ended(err); done {
			return fatal
		}
		if err != nil {
			s.taken++
			s.reject(failure{Line: s.events.line, Error: err.Error()})
			continue
		}
		if err := s.add(ctx, event, s.events.line); err != nil {
			return err
		}
		if s.events.idle() {
			if err := s.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// where names the line that an event came from, for messages.
func (s *sender) where(line int) string {
	if s.events == nil {
		return "the event"
	}
	return fmt.Sprintf("%s %d", s.events.unit(), line)
}
