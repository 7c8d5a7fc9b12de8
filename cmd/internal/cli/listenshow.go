package cli

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/bus"
)

// attempt is one event that was given to a function, and what came of it.
type attempt struct {
	at      time.Time
	took    time.Duration
	message messageDoc
	event   bus.Event

	err       error // why there is no answer
	status    int
	mediaType string
	answer    []byte // how it begins
}

// show prints an attempt: a line that says how it went, and below it the attributes and
// the data that were sent, and the answer where that is an error.
func (l *listen) show(a attempt) {
	p := l.e.paint(l.e.stdout)
	var b strings.Builder
	b.WriteString(p.dim(a.at.Format("15:04:05")))
	if !a.event.IsZero() {
		fmt.Fprintf(&b, "  %s %s  %s", oneLine(a.event.Type()), p.dim("id"), oneLine(a.event.ID()))
	}
	failed := a.err != nil || a.status/100 != 2
	switch {
	case a.err != nil:
		fmt.Fprintf(&b, "  %s %s", p.red(oneLine(a.err.Error())), p.dim("after "+span(a.took)))
	case failed:
		fmt.Fprintf(&b, "  %s %s", p.red(strconv.Itoa(a.status)), p.dim(span(a.took)))
	default:
		fmt.Fprintf(&b, "  %s %s", p.green(strconv.Itoa(a.status)), p.dim(span(a.took)))
	}
	if a.message.Receives > 1 {
		b.WriteString(p.yellow("  attempt " + strconv.Itoa(a.message.Receives)))
	}
	b.WriteByte('\n')
	below := func(what, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %s %s\n", p.dim(what), strings.ReplaceAll(text, "\n", "\n    "))
		}
	}
	below("event ", glance(attributesText(a.event)))
	body := glance
	if l.showBody {
		body = func(text string) string { return "\n" + text }
	}
	if data := dataText(a.event); data != "" {
		below("data  ", body(data))
	}
	if answer := bodyText(a.answer, a.mediaType, json.Valid(a.answer)); answer != "" && (failed || l.showBody) {
		below("answer", body(strings.TrimRight(answer, "\n")))
	}
	l.printing.Lock()
	defer l.printing.Unlock()
	l.e.printf("%s", b.String())
}

// attributesText is what an event says besides type, id and data.
func attributesText(e bus.Event) string {
	var parts []string
	for _, attr := range e.Attrs() {
		switch attr.Name {
		case "type", "id", "specversion":
		default:
			if attr.Value != "" {
				parts = append(parts, attr.Name+"="+oneLine(attr.Value))
			}
		}
	}
	return strings.Join(parts, " ")
}

// maxGlance is how many characters are shown of what is only to be recognized.
const maxGlance = 200

// glance is the beginning of a text, on one line.
func glance(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	n := 0
	for i := range text {
		if n++; n > maxGlance {
			return text[:i] + "…"
		}
	}
	return text
}
