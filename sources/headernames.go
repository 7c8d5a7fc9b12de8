package sources

import (
	"encoding/base64"
	"slices"
	"strings"

	"sluice/bus"
	"sluice/config/value"
)

// headerNames are the attributes that headers of plain records become, by the names of
// the headers in small letters.
type headerNames map[string]string

// newHeaderNames are those of settings that are valid.
func newHeaderNames(settings map[string]string) headerNames {
	names := make(headerNames, len(settings))
	for header, attribute := range settings {
		names[strings.ToLower(header)] = attribute
	}
	return names
}

// headerFaults is what is wrong with the setting headers.
func headerFaults(settings map[string]string) (faults value.Faults) {
	headers, attributes := map[string]string{}, map[string]string{}
	for _, header := range sorted(settings) {
		key, attribute := "headers."+header, settings[header]
		if !isExtension(attribute) {
			faults.Add(key, "%q cannot be an extension attribute: write 1 to 64 small letters and digits, and none of the names that CloudEvents gives a meaning", attribute)
		} else if other, taken := attributes[attribute]; taken {
			faults.Add(key, "becomes %s, as %s does: two headers cannot be one attribute", attribute, other)
		}
		if other, taken := headers[strings.ToLower(header)]; taken {
			faults.Add(key, "is the same header as %s: capitals do not count", other)
		}
		headers[strings.ToLower(header)], attributes[attribute] = header, header
	}
	return faults
}

// of is the attribute that a header becomes: the one that the settings name, or, where
// they do not and its name and value are those of an extension, the one of its own name.
// It is false for the rest, and for one without a value.
func (h headerNames) of(header string, content []byte) (a bus.Attr, ok bool) {
	if len(h) > 0 { // most sources have none, and there are many headers
		if name, named := h[strings.ToLower(header)]; named {
			return bus.Attr{Name: name, Value: attributeText(content)}, len(content) > 0
		}
	}
	text := string(content)
	return bus.Attr{Name: header, Value: text}, isExtension(header) && isText(text) && !h.gives(header)
}

// appendNew appends an attribute unless there is one of its name.
func appendNew(attrs []bus.Attr, a bus.Attr) []bus.Attr {
	if slices.ContainsFunc(attrs, func(other bus.Attr) bool { return other.Name == a.Name }) {
		return attrs
	}
	return append(attrs, a)
}

// gives tells whether some header becomes the attribute.
func (h headerNames) gives(attribute string) bool {
	for _, name := range h {
		if name == attribute {
			return true
		}
	}
	return false
}

// attributeText is what bytes are as an attribute: as they are where they are a text, else
// in base64.
func attributeText(content []byte) string {
	if text := string(content); isText(text) {
		return text
	}
	return base64.StdEncoding.EncodeToString(content)
}
