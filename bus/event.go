package bus

import (
	"fmt"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// SpecVersion is the only CloudEvents version there is a wire form for here.
const SpecVersion = "1.0"

// Kind is the CloudEvents type of an attribute value, as far as it changes how
// the value is written in JSON.
type Kind byte

// The kinds of attribute value.
const (
	String  Kind = iota // also URI, URI-reference, timestamp and binary: all of them JSON strings
	Integer             // 32 bit signed, a JSON number
	Boolean             // a JSON boolean
)

// Attr is one context attribute. Value is the canonical text of the value
// (CloudEvents 1.0.2 §3.1), whatever its kind.
type Attr struct {
	Name  string
	Value string
	Kind  Kind
}

// Event is one CloudEvent, parsed once at the door and immutable from then on:
// its context attributes and its data bytes exactly as they came. The zero
// Event is not a valid event; make one with NewEvent.
type Event struct {
	// attrs starts with specversion, id, source and type, then everything else
	// by name, so that the four that every step needs are found without a search.
	attrs []Attr
	data  []byte
	json  bool
}

// The places of the required attributes in Event.attrs.
const (
	atSpecVersion = iota
	atID
	atSource
	atType
	required
)

// AttributeError says which part of an event is wrong and how. Name is the
// attribute's name, or "data".
type AttributeError struct {
	Name string
	Msg  string
}

func (e *AttributeError) Error() string { return e.Name + ": " + e.Msg }

// NewEvent makes an event of attributes in any order and data, which may be nil
// for an event without data. It keeps data and sorts attrs in place: the caller
// gives both away. A missing specversion is filled in; everything else that
// CloudEvents 1.0.2 asks for is checked and answered with an *AttributeError.
func NewEvent(attrs []Attr, data []byte) (Event, error) {
	return newEvent(attrs, data, false)
}

// newEvent is NewEvent; valid means that data is known to be JSON and need not
// be checked again.
func newEvent(attrs []Attr, data []byte, valid bool) (Event, error) {
	attrs, err := arrange(attrs)
	if err != nil {
		return Event{}, err
	}
	for i := range attrs {
		if err := attrs[i].check(); err != nil {
			return Event{}, err
		}
	}
	if len(data) == 0 {
		return Event{attrs: attrs}, nil
	}
	e := Event{attrs: attrs, data: data, json: valid}
	if !valid {
		if e.json, err = e.holdsJSON(); err != nil {
			return Event{}, err
		}
	}
	return e, nil
}

// arrange brings the attributes into the order that Event keeps and checks that
// the required ones are there, once each.
func arrange(attrs []Attr) ([]Attr, error) {
	if !slices.ContainsFunc(attrs, func(a Attr) bool { return a.Name == "specversion" }) {
		attrs = append(attrs, Attr{Name: "specversion", Value: SpecVersion})
	}
	slices.SortFunc(attrs, func(a, b Attr) int {
		if ra, rb := rank(a.Name), rank(b.Name); ra != rb {
			return ra - rb
		}
		return strings.Compare(a.Name, b.Name)
	})
	for i := 1; i < len(attrs); i++ {
		if attrs[i].Name == attrs[i-1].Name {
			return nil, &AttributeError{attrs[i].Name, "given twice"}
		}
	}
	for i, name := range [required]string{"specversion", "id", "source", "type"} {
		if i >= len(attrs) || attrs[i].Name != name {
			return nil, &AttributeError{name, "missing: every CloudEvent needs one"}
		}
	}
	return attrs, nil
}

func rank(name string) int {
	switch name {
	case "specversion":
		return atSpecVersion
	case "id":
		return atID
	case "source":
		return atSource
	case "type":
		return atType
	}
	return required
}

func (a *Attr) check() error {
	if err := checkName(a.Name); err != nil {
		return err
	}
	if err := checkText(a.Name, a.Value); err != nil {
		return err
	}
	if err := a.checkKind(); err != nil {
		return err
	}
	fail := func(msg string) error { return &AttributeError{a.Name, msg} }
	if a.Kind != String && isCore(a.Name) {
		return fail("is a text, not a number or a boolean: put it in quotes")
	}
	switch a.Name {
	case "specversion":
		if a.Value != SpecVersion {
			return fail(fmt.Sprintf("%q is not supported: send %q", a.Value, SpecVersion))
		}
	case "id", "type", "subject":
		if a.Value == "" {
			return fail("must not be empty")
		}
	case "source":
		if a.Value == "" {
			return fail("must not be empty")
		}
		if !isReference(a.Value) {
			return fail("is not a URI-reference: " + a.Value)
		}
	case "dataschema":
		if u, err := url.Parse(a.Value); err != nil || !u.IsAbs() {
			return fail("is not an absolute URI: " + a.Value)
		}
	case "time":
		// Parse takes an hour of one digit and a comma for the point; RFC 3339 does not.
		if _, err := time.Parse(time.RFC3339Nano, a.Value); err != nil || a.Value[13] != ':' || strings.Contains(a.Value, ",") {
			return fail("is not an RFC 3339 timestamp such as 2026-01-02T15:04:05Z: " + a.Value)
		}
	case "datacontenttype":
		if !isMediaType(a.Value) {
			return fail("is not a media type such as application/json: " + a.Value)
		}
	}
	return nil
}

// isReference tells whether a text is a URI-reference. Most sources are no more than
// a path of characters that stand for themselves, and need no parser.
func isReference(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && c != '/' && c != '-' && c != '.' && c != '_' {
			_, err := url.Parse(s)
			return err == nil
		}
	}
	return true
}

func isMediaType(s string) bool {
	if s == "application/json" { // as most data is
		return true
	}
	_, _, err := mime.ParseMediaType(s)
	return err == nil
}

// isCore tells whether CloudEvents itself defines the attribute: all of those are
// strings.
func isCore(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema":
		return true
	}
	return false
}

func checkName(name string) error {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return &AttributeError{name, "attribute names are lower-case letters and digits only"}
		}
	}
	switch name {
	case "":
		return &AttributeError{`""`, "an attribute needs a name"}
	case "data", "data_base64":
		return &AttributeError{name, "is the payload's name and cannot be an attribute"}
	}
	return nil
}

// plain tells whether a text is printable ASCII, as nearly every one is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

// checkText applies the character rules of CloudEvents 1.0.2 §3.1 for String.
func checkText(name, value string) error {
	if plain(value) {
		return nil
	}
	if !utf8.ValidString(value) {
		return &AttributeError{name, "is not valid UTF-8"}
	}
	for _, r := range value {
		control := r < 0x20 || r >= 0x7f && r <= 0x9f
		if control || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return &AttributeError{name, fmt.Sprintf("holds the character %U, which CloudEvents forbids", r)}
		}
	}
	return nil
}

func (a *Attr) checkKind() error {
	switch a.Kind {
	case String:
		return nil
	case Integer:
		// Canonical, because the text goes into JSON as it is: no +1, no 007.
		n, err := strconv.ParseInt(a.Value, 10, 32)
		if err == nil && strconv.FormatInt(n, 10) == a.Value {
			return nil
		}
		return &AttributeError{a.Name, "is not a 32-bit integer: " + a.Value}
	case Boolean:
		if a.Value == "true" || a.Value == "false" {
			return nil
		}
		return &AttributeError{a.Name, "is not true or false: " + a.Value}
	}
	return &AttributeError{a.Name, fmt.Sprintf("has the unknown kind %d", a.Kind)}
}

// holdsJSON tells whether the data is JSON. Data that is declared to be JSON and
// is not is refused here, so that nothing behind the door has to expect it.
func (e *Event) holdsJSON() (bool, error) {
	ct, declared := e.Lookup("datacontenttype")
	if declared && !IsJSON(ct) {
		return false, nil
	}
	if ValidJSON(e.data) {
		return true, nil
	}
	if !declared {
		return false, nil
	}
	return false, &AttributeError{"data", "is not valid JSON although datacontenttype says " + ct + ": " + jsonFault(e.data)}
}

// IsJSON tells whether a media type is JSON: application/json, text/json or any
// type with the suffix +json (CloudEvents JSON format §3.1).
func IsJSON(mediaType string) bool {
	mt, _, _ := strings.Cut(mediaType, ";")
	mt = strings.TrimSpace(mt)
	_, sub, ok := strings.Cut(mt, "/")
	return ok && (strings.EqualFold(sub, "json") || len(sub) > 5 && strings.EqualFold(sub[len(sub)-5:], "+json"))
}

// ID is the id attribute. With Source it identifies the event.
func (e Event) ID() string { return e.attrs[atID].Value }

// Source is the source attribute.
func (e Event) Source() string { return e.attrs[atSource].Value }

// Type is the type attribute.
func (e Event) Type() string { return e.attrs[atType].Value }

// Subject is the subject attribute, or "".
func (e Event) Subject() string { return e.Get("subject") }

// Time is the time attribute, or the zero time.
func (e Event) Time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, e.Get("time"))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Get is the text of an attribute, or "" when there is none.
func (e Event) Get(name string) string {
	v, _ := e.Lookup(name)
	return v
}

// Lookup finds an attribute by name.
func (e Event) Lookup(name string) (value string, ok bool) {
	for i := range e.attrs {
		if e.attrs[i].Name == name {
			return e.attrs[i].Value, true
		}
	}
	return "", false
}

// Attrs are the attributes: specversion, id, source, type, then the others by
// name. The slice is shared: read only.
func (e Event) Attrs() []Attr { return e.attrs }

// IsZero tells the zero Event from a valid one.
func (e Event) IsZero() bool { return e.attrs == nil }

// Data is the payload as it came. It is shared: read only.
func (e Event) Data() []byte { return e.data }

// DataIsJSON tells whether Data is one valid JSON document.
func (e Event) DataIsJSON() bool { return e.json }

// NumAttributes and Attribute let the rule engine see the attributes without a copy.
func (e Event) NumAttributes() int { return len(e.attrs) }

// Attribute is attribute i; literal means that value is a JSON literal (an
// integer or a boolean) and not a string.
func (e Event) Attribute(i int) (name, value string, literal bool) {
	a := &e.attrs[i]
	return a.Name, a.Value, a.Kind != String
}

// With returns a copy of the event with the given attributes set; an attribute
// with an empty value is removed.
func (e Event) With(set ...Attr) (Event, error) {
	attrs := slices.Clone(e.attrs)
	for _, a := range set {
		attrs = slices.DeleteFunc(attrs, func(old Attr) bool { return old.Name == a.Name })
		if a.Value != "" {
			attrs = append(attrs, a)
		}
	}
	return NewEvent(attrs, e.data)
}

// WithData returns a copy of the event with other data of that media type. It keeps
// data. A dataschema goes: it is that of the data before.
func (e Event) WithData(contentType string, data []byte) (Event, error) {
	attrs := make([]Attr, 0, len(e.attrs)+1)
	for _, a := range e.attrs {
		if a.Name != "datacontenttype" && a.Name != "dataschema" {
			attrs = append(attrs, a)
		}
	}
	if contentType != "" {
		attrs = append(attrs, Attr{Name: "datacontenttype", Value: contentType})
	}
	return NewEvent(attrs, data)
}

// Size is about how many bytes the event takes in the log and in memory.
func (e Event) Size() int {
	n := len(e.data) + 16
	for i := range e.attrs {
		n += len(e.attrs[i].Name) + len(e.attrs[i].Value) + 4
	}
	return n
}
