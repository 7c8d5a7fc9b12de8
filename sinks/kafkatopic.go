package sinks

import (
	"fmt"
	"strings"

	"sluice/bus"
	"sluice/config/kafka"
)

// topicTemplate is the name of a topic with parts that come from the event.
type topicTemplate struct {
	text  []string // before, between and after the parts
	names []string
	parts []func(bus.Event) string
}

// parseTopic reads a topic such as orders or orders-{type}-{data.region}.
func parseTopic(text string) (topicTemplate, error) {
	var t topicTemplate
	for {
		before, rest, opened := strings.Cut(text, "{")
		if !isTopicText(before) {
			return t, fmt.Errorf("%q cannot be in the name of a topic: it has letters, digits, ., _ and - only", before)
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
	if len(t.parts) == 0 && !kafka.IsTopic(t.text[0]) {
		return t, fmt.Errorf("%q cannot be the name of a topic: up to 249 characters, and not . or ..", t.text[0])
	}
	return t, nil
}

// of is the topic of an event.
func (t *topicTemplate) of(e bus.Event) (string, error) {
	if len(t.parts) == 0 {
		return t.text[0], nil
	}
	var name strings.Builder
	for i, part := range t.parts {
		got := part(e)
		if got == "" {
			return "", fmt.Errorf("the event has no %s, which the topic is named after", t.names[i])
		}
		if !isTopicText(got) || len(got) > 249 {
			return "", fmt.Errorf("%s is %.100q, which cannot be in the name of a topic", t.names[i], got)
		}
		name.WriteString(t.text[i])
		name.WriteString(got)
	}
	name.WriteString(t.text[len(t.parts)])
	if topic := name.String(); kafka.IsTopic(topic) {
		return topic, nil
	}
	return "", fmt.Errorf("%.100q cannot be the name of a topic", name.String())
}

func isTopicText(s string) bool { return strings.Trim(s, kafka.TopicLetters) == "" }
