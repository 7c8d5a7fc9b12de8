package sinks

import (
	"strings"

	"sluice/config/kafka"
)

// parseTopic reads a topic such as orders or orders-{type}-{data.region}.
func parseTopic(text string) (nameTemplate, error) {
	return nameKind{
		what: "topic",
		part: func(s string) string {
			if strings.Trim(s, kafka.TopicLetters) != "" || len(s) > 249 {
				return "it has up to 249 letters, digits, ., _ and - only"
			}
			return ""
		},
		whole: func(s string) string {
			if !kafka.IsTopic(s) {
				return "it has up to 249 letters, digits, ., _ and -, and is not . or .."
			}
			return ""
		},
	}.parse(text)
}
