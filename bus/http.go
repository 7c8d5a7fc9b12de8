package bus

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The HTTP form of an event: the CloudEvents HTTP protocol binding 1.0.2.
//
// The SDK's HTTP binding is not used here, although it is the other side in the
// tests: v2.16.2 neither encodes nor decodes percent escapes, takes the first of
// repeated headers, and knows a format by its exact media type only.

// Mode is how an HTTP message carries events.
type Mode byte

// The modes of HTTP protocol binding §3.
const (
	Binary     Mode = iota // attributes in ce- headers, the data as the body
	Structured             // one event in JSON as the body
	Batch                  // an array of events in JSON as the body
)

// The media types of the two JSON modes.
const (
	TypeStructured = "application/cloudevents+json"
	TypeBatch      = "application/cloudevents-batch+json"
)

// MediaTypeError says that a message is no CloudEvent in a form that is
// understood here. It is the 415 of HTTP.
type MediaTypeError struct{ Msg string }

func (e *MediaTypeError) Error() string { return e.Msg }

// ModeOf tells how a message with these headers carries events. A message that is
// no CloudEvent is a *MediaTypeError; one that tries to be is an *AttributeError.
func ModeOf(h http.Header) (Mode, error) {
	types := h["Content-Type"]
	if len(types) > 1 {
		return 0, &AttributeError{"datacontenttype", "the Content-Type header is given twice"}
	}
	ct := ""
	if len(types) == 1 {
		ct = types[0]
	}
	if len(ct) < len(cloudevents) || !strings.EqualFold(ct[:len(cloudevents)], cloudevents) {
		return Binary, checkBinary(h, ct)
	}
	mt, params, err := mime.ParseMediaType(ct)
	if err != nil {
		return 0, &MediaTypeError{"the Content-Type " + quote(ct) + " is not a media type"}
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return 0, &MediaTypeError{"the charset " + quote(cs) + " is not supported: send UTF-8"}
	}
	switch mt {
	case TypeBatch, "application/cloudevents-batch":
		return Batch, nil
	case TypeStructured, cloudevents:
		return Structured, nil
	}
	return 0, &MediaTypeError{"the event format " + quote(mt) + " is not supported: send " + TypeStructured + " or " + TypeBatch}
}

const cloudevents = "application/cloudevents"

// checkBinary makes sure that a message without a CloudEvents media type is meant
// to be an event.
func checkBinary(h http.Header, contentType string) error {
	if len(h["Ce-Specversion"]) > 0 {
		return nil
	}
	for key := range h {
		if isAttribute(key) {
			return &AttributeError{"specversion", "missing: add the header ce-specversion: " + SpecVersion}
		}
	}
	what := "without a Content-Type"
	if contentType != "" {
		what = "of type " + quote(contentType)
	}
	return &MediaTypeError{"a body " + what + " is a CloudEvent only with ce-specversion, ce-id, ce-source and ce-type headers; or send " +
		TypeStructured + " or " + TypeBatch}
}

// FromHTTP reads the one event of a message in binary or structured mode and
// keeps body. Its errors are those of ModeOf, NewEvent and ParseJSON. A batch is
// for ParseBatch.
func FromHTTP(h http.Header, body []byte) (Event, error) {
	mode, err := ModeOf(h)
	switch {
	case err != nil:
		return Event{}, err
	case mode == Structured:
		return ParseJSON(body)
	case mode == Batch:
		return Event{}, errors.New("a batch is not one event")
	}
	attrs := make([]Attr, 0, len(h))
	if ct := h.Get("Content-Type"); ct != "" {
		attrs = append(attrs, Attr{Name: "datacontenttype", Value: ct})
	}
	for key, values := range h {
		if !isAttribute(key) {
			continue
		}
		a, err := fromHeader(key, values)
		if err != nil {
			return Event{}, err
		}
		attrs = append(attrs, a)
	}
	return NewEvent(attrs, body)
}

func isAttribute(key string) bool {
	return len(key) > 3 && key[2] == '-' && strings.EqualFold(key[:2], "ce")
}

// fromHeader is the attribute in a ce- header. Its type is not on the wire, so
// extensions that were integers or booleans are strings from here on.
func fromHeader(key string, values []string) (Attr, error) {
	name := attributeName(key)
	switch {
	case name == "datacontenttype":
		return Attr{}, &AttributeError{name, "goes into the Content-Type header: ce-datacontenttype is forbidden"}
	case len(values) != 1:
		return Attr{}, &AttributeError{name, "the header ce-" + name + " is given twice"}
	}
	value, err := decodeHeader(values[0])
	if err != nil {
		return Attr{}, &AttributeError{name, err.Error()}
	}
	return Attr{Name: name, Value: value}, nil
}

// attributeName spares the usual headers the allocation of ToLower.
func attributeName(key string) string {
	switch key[3:] {
	case "Specversion":
		return "specversion"
	case "Id":
		return "id"
	case "Source":
		return "source"
	case "Type":
		return "type"
	case "Subject":
		return "subject"
	case "Time":
		return "time"
	case "Dataschema":
		return "dataschema"
	}
	return strings.ToLower(key[3:])
}

// decodeHeader undoes the quotes of RFC 9110 §5.6.4 and then one round of percent
// encoding (HTTP protocol binding §3.1.3.2). UTF-8 that came unencoded and a % that
// starts no escape are kept: widespread senders, this SDK among them, do not encode.
func decodeHeader(v string) (string, error) {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = unquote(v[1 : len(v)-1])
	}
	if strings.IndexByte(v, '%') >= 0 {
		v = unescape(v)
	}
	if !utf8.ValidString(v) {
		return "", errors.New("is not valid UTF-8 after percent-decoding")
	}
	return v, nil
}

func unquote(v string) string {
	if strings.IndexByte(v, '\\') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			i++
		}
		out = append(out, v[i])
	}
	return string(out)
}

func unescape(v string) string {
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			if c, err := strconv.ParseUint(v[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, v[i])
	}
	return string(out)
}

// AppendHTTPHeader sets the headers of the event in binary mode; the body is
// Data. JSON data without a datacontenttype is sent as application/json, which is
// what its absence means in the JSON format (CloudEvents 1.0.2, datacontenttype).
func (e Event) AppendHTTPHeader(h http.Header) {
	// One allocation for all the values, and none for the usual names.
	values := make([]string, 0, len(e.attrs)+1)
	e.httpHeaders(func(key, value string) {
		values = append(values, value)
		n := len(values)
		h[key] = values[n-1 : n : n] // no room behind: an Add must not reach the next value
	})
}

// AppendHTTPLines appends the headers of AppendHTTPHeader as the lines of a request,
// each with its CR LF. No value can break out of its line: attributes have no control
// characters.
func (e Event) AppendHTTPLines(b []byte) []byte {
	e.httpHeaders(func(key, value string) {
		b = append(append(b, key...), ": "...)
		b = append(append(b, value...), "\r\n"...)
	})
	return b
}

// httpHeaders are the headers of the event in binary mode, with their keys as
// http.Header spells them.
func (e Event) httpHeaders(set func(key, value string)) {
	typed := false
	for i := range e.attrs {
		a := &e.attrs[i]
		if a.Name == "datacontenttype" {
			set("Content-Type", a.Value)
			typed = true
			continue
		}
		set(headerName(a.Name), encodeHeader(a.Value))
	}
	if !typed && e.json {
		set("Content-Type", "application/json")
	}
}

// headerName is the ce- header of an attribute, as http.Header spells it.
func headerName(name string) string {
	switch name {
	case "specversion":
		return "Ce-Specversion"
	case "id":
		return "Ce-Id"
	case "source":
		return "Ce-Source"
	case "type":
		return "Ce-Type"
	case "subject":
		return "Ce-Subject"
	case "time":
		return "Ce-Time"
	case "dataschema":
		return "Ce-Dataschema"
	}
	return "Ce-" + strings.ToUpper(name[:1]) + name[1:]
}

// encodeHeader percent-encodes what a header must not hold as it is: space, ", %
// and everything outside U+0021 to U+007E.
func encodeHeader(v string) string {
	plain := true
	for i := range len(v) {
		if mustEncode(v[i]) {
			plain = false
			break
		}
	}
	if plain {
		return v
	}
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(v)+16)
	for i := range len(v) {
		if c := v[i]; mustEncode(c) {
			out = append(out, '%', hex[c>>4], hex[c&15])
		} else {
			out = append(out, c)
		}
	}
	return string(out)
}

func mustEncode(c byte) bool { return c <= ' ' || c == '"' || c == '%' || c > '~' }

// quote is s in quotes, cut to a length that fits a message.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}

// Stamp is the event with its time set to now when it has none.
func Stamp(e Event, now time.Time) Event {
	if _, ok := e.Lookup("time"); ok {
		return e
	}
	at := required
	for at < len(e.attrs) && e.attrs[at].Name < "time" {
		at++
	}
	attrs := make([]Attr, 0, len(e.attrs)+1)
	attrs = append(attrs, e.attrs[:at]...)
	attrs = append(attrs, Attr{Name: "time", Value: now.UTC().Format(time.RFC3339Nano)})
	e.attrs = append(attrs, e.attrs[at:]...)
	return e
}
