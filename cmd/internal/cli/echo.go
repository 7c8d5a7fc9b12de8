package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"sluice/bus"
	"sluice/bus/dispatch"
)

// echo is the function that `sluice dev` brings along: it prints what it gets.
type echo struct {
	server   *http.Server
	listener net.Listener
	done     sync.WaitGroup
}

// maxEcho is more than the largest event in its longest form.
const maxEcho = 64 << 20

func startEcho(show *eventPrinter) (*echo, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cannot start the function that prints events: %w", err)
	}
	e := &echo{listener: listener, server: &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			event, err := bus.FromHTTP(r.Header, body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			show.event(time.Now(), event, "")
			w.WriteHeader(http.StatusNoContent)
		},
	)}}
	e.done.Go(func() { _ = e.server.Serve(listener) }) // it ends with stop
	return e, nil
}

func (e *echo) url() string { return "http://" + e.listener.Addr().String() + "/" }

func (e *echo) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := e.server.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
		_ = e.server.Close()
	}
	e.done.Wait()
}

// eventPrinter prints events for people, one at a time.
type eventPrinter struct {
	mu    sync.Mutex
	w     io.Writer
	paint paint
	shown int
}

func (p *eventPrinter) print(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format, args...)
}

func (p *eventPrinter) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}

// event prints one line with when, what, where from and the id, and the data
// below it.
func (p *eventPrinter) event(at time.Time, e bus.Event, note string) {
	c := p.paint
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s  %s", c.dim(at.Format("15:04:05.000")), c.green(oneLine(e.Type())),
		oneLine(e.Source()), c.dim("id ")+c.bold(oneLine(e.ID())))
	if subject := e.Subject(); subject != "" {
		b.WriteString("  " + c.dim("subject ") + oneLine(subject))
	}
	if note != "" {
		b.WriteString("  " + note)
	}
	b.WriteByte('\n')
	for line := range strings.Lines(dataText(e)) {
		b.WriteString("    " + strings.TrimRight(line, "\r\n") + "\n")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown++
	_, _ = io.WriteString(p.w, b.String()) // there is nobody to tell
}

// maxShown is how much of an event's data is printed.
const maxShown = 16 << 10

// dataText is the data of an event for people.
func dataText(e bus.Event) string {
	return bodyText(e.Data(), e.Get("datacontenttype"), e.DataIsJSON())
}

// bodyText is a body for people: JSON indented, text as it is, and of anything else how
// much there is.
func bodyText(body []byte, mediaType string, isJSON bool) string {
	if len(body) == 0 {
		return ""
	}
	text := string(body)
	if isJSON {
		var b bytes.Buffer
		if json.Indent(&b, body, "", "  ") == nil {
			text = b.String()
		}
	} else if !utf8.Valid(body) || strings.ContainsRune(text, 0) {
		return fmt.Sprintf("(%s of %s)", size(int64(len(body))), oneLine(cmp.Or(mediaType, "binary data")))
	}
	more := ""
	if len(text) > maxShown {
		more = fmt.Sprintf("\n… %s more", size(int64(len(text)-maxShown)))
		text = text[:maxShown]
	}
	return cleanLines(text) + more
}

// cleanLines keeps what moves a cursor out of text of several lines.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = oneLine(lines[i])
	}
	return strings.Join(lines, "\n")
}

// notice prints what happened to an event, for a bus with a config of its own.
func (p *eventPrinter) notice(n dispatch.Notice, _ int64) error {
	c := p.paint
	if n.Stage == dispatch.StageAccepted {
		to := c.yellow("no rule matches")
		if len(n.Rules) > 0 {
			to = c.dim("rules ") + strings.Join(n.Rules, ", ")
		}
		p.event(n.At, n.Event, to)
		return nil
	}
	what := c.green("delivered")
	switch n.Stage {
	case dispatch.StageRetry:
		what = c.yellow("failed") + fmt.Sprintf(", again in %s: %s", n.After.Round(time.Millisecond), oneLine(n.Error))
	case dispatch.StageLeased:
		what = c.dim("has taken a lease of " + n.After.Round(time.Millisecond).String())
	case dispatch.StageDiscarded:
		what = c.yellow("discarded")
	case dispatch.StageDeadLetter:
		what = c.red("given up") + fmt.Sprintf(" (%s): %s", n.Reason, oneLine(n.Error))
	}
	p.print("%s  %s → %s  %s%s  %s\n", c.dim(n.At.Format("15:04:05.000")), n.Rule, n.Sink, c.dim("id "), oneLine(n.Event.ID()), what)
	return nil
}
