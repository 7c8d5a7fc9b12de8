package sinks

import (
	"fmt"
	"strings"

	"sluice/bus"
)

// nameTemplate is the name of a topic, a subject or the like, with parts that come
// from the event.
type nameTemplate struct {
	kind  nameKind
	text  []string // before, between and after the parts
	names []string
	parts []func(bus.Event) string
}

// nameKind is what a nameTemplate names.
type nameKind struct {
	what  string              // such as topic
	part  func(string) string // what is wrong with a part of a name, or ""
	whole func(string) string // the same of a whole one
}

// parse reads a name such as orders or orders-{type}-{data.region}.
func (k nameKind) parse(text string) (nameTemplate, error) {
	t := nameTemplate{kind: k}
	for {
		before, rest, opened := strings.Cut(text, "{")
		if msg := k.part(before); msg != "" {
			return t, fmt.Errorf("%q cannot be in the name of a %s: %s", before, k.what, msg)
		}
		t.text = append(t.text, before)
		if !opened {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed || name == "" || strings.Contains(name, "{") {
			return t, fmt.Errorf("{%s is not {name} of an attribute or {data.path}", rest)
		}
		t.names = append(t.names, name)
		t.parts = append(t.parts, lookUp(name))
		text = after
	}
	if len(t.parts) == 0 {
		if msg := k.whole(t.text[0]); msg != "" {
			return t, fmt.Errorf("%q cannot be the name of a %s: %s", t.text[0], k.what, msg)
		}
	}
	return t, nil
}

// of is the name for an event.
func (t *nameTemplate) of(e bus.Event) (string, error) {
	if len(t.parts) == 0 {
		return t.text[0], nil
	}
	var name strings.Builder
	for i, part := range t.parts {
		got := part(e)
		if got == "" {
			return "", fmt.Errorf("the event has no %s, which the %s is named after", t.names[i], t.kind.what)
		}
		if msg := t.kind.part(got); msg != "" {
			return "", fmt.Errorf("%s is %.100q, which cannot be in the name of a %s: %s", t.names[i], got, t.kind.what, msg)
		}
		name.WriteString(t.text[i])
		name.WriteString(got)
	}
	name.WriteString(t.text[len(t.parts)])
	if msg := t.kind.whole(name.String()); msg != "" {
		return "", fmt.Errorf("%.100q cannot be the name of a %s: %s", name.String(), t.kind.what, msg)
	}
	return name.String(), nil
}
