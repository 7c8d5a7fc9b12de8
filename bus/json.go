package bus

import (
	"encoding/base64"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/tidwall/gjson"
)

// The JSON form of an event: the CloudEvents JSON event format 1.0.2.
//
// The SDK's decoder is not used here, although it is the reference in the tests:
// it lets the last of two members win, truncates fractions and numbers that do not
// fit, refuses data with numbers beyond a float64 (1e400), takes media types with
// +json for text, does not say which attribute was wrong, and its encoder writes
// whatever bytes it is given as "data".
// gjson gives each member with its place in the document, so the data stays the
// bytes that came.

// ErrTooMany is what ParseBatch says about a batch with more events than allowed.
var ErrTooMany = errors.New("more events than a batch may have")

// AppendJSON appends the event in structured form. The data is "data" as it came
// when it is JSON, "data" as a string when it is text in UTF-8, and "data_base64"
// otherwise. JSON data is embedded with the line breaks it has.
func (e Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, '{')
	for i := range e.attrs {
		a := &e.attrs[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = append(dst, a.Name...)
		dst = append(dst, '"', ':')
		if a.Kind == String {
			dst = gjson.AppendJSONString(dst, a.Value)
		} else {
			dst = append(dst, a.Value...)
		}
	}
	return append(e.appendData(dst), '}')
}

func (e Event) appendData(dst []byte) []byte {
	switch {
	case len(e.data) == 0:
		return dst
	case !e.isText():
		dst = append(dst, `,"data_base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, e.data)
		return append(dst, '"')
	}
	dst = append(dst, `,"data":`...)
	if e.json {
		return append(dst, e.data...)
	}
	return gjson.AppendJSONString(dst, view(e.data))
}

// isText tells whether "data" carries the data without loss: it is JSON or declared
// to be text, and in UTF-8.
func (e Event) isText() bool {
	if !utf8.Valid(e.data) {
		return false
	}
	if e.json {
		return true
	}
	ct, ok := e.Lookup("datacontenttype")
	if !ok {
		return false
	}
	mt, params, err := mime.ParseMediaType(ct)
	if err != nil {
		return false
	}
	if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") && !strings.EqualFold(cs, "us-ascii") {
		return false
	}
	switch mt {
	case "application/xml", "application/yaml", "application/x-ndjson", "application/javascript",
		"application/x-www-form-urlencoded", "application/sql", "application/graphql":
		return true
	}
	return strings.HasPrefix(mt, "text/") || strings.HasSuffix(mt, "+xml") || strings.HasSuffix(mt, "+yaml")
}

// MarshalJSON is AppendJSON for encoding/json, which compacts the data.
func (e Event) MarshalJSON() ([]byte, error) {
	if e.IsZero() {
		return nil, errors.New("bus: the zero Event has no JSON form")
	}
	return e.AppendJSON(make([]byte, 0, e.Size()+64)), nil
}

// ParseJSON reads an event in structured form and keeps doc, which the event's
// data is a part of. What is wrong with one attribute or the data is an
// *AttributeError; any other error is about the document as a whole.
func ParseJSON(doc []byte) (Event, error) {
	if err := checkJSON(doc); err != nil {
		return Event{}, err
	}
	e, _, err := parseObject(gjson.Parse(view(doc)), doc)
	return e, err
}

// BadEvent is one event of a batch that cannot be taken.
type BadEvent struct {
	ID  string // its id, as far as it could be read
	Err error
}

func (b *BadEvent) Error() string { return b.Err.Error() }

func (b *BadEvent) Unwrap() error { return b.Err }

// ParseBatch reads an array of events in structured form (the JSON batch format)
// and keeps doc. It calls each for every element in order, with the event or a
// *BadEvent, so that one bad event does not take its neighbours along. An error
// of ParseBatch itself is about the batch as a whole, and what each was given by
// then counts for nothing: the array is broken, or longer than limit (ErrTooMany).
func ParseBatch(doc []byte, limit int, each func(i int, e Event, err error)) error {
	if err := checkJSON(doc); err != nil {
		return err
	}
	batch := gjson.Parse(view(doc))
	if !batch.IsArray() {
		return errors.New("a batch is a JSON array of CloudEvents")
	}
	i := 0
	batch.ForEach(func(_, v gjson.Result) bool {
		if i == limit {
			i++
			return false
		}
		e, id, err := parseObject(v, doc)
		if err != nil {
			e, err = Event{}, &BadEvent{ID: id, Err: err}
		}
		each(i, e, err)
		i++
		return true
	})
	if i > limit {
		return fmt.Errorf("%w: the limit is %d", ErrTooMany, limit)
	}
	return nil
}

// members are the members of one event in JSON.
type members struct {
	attrs  []Attr
	nulls  []string
	data   gjson.Result
	base64 gjson.Result
	err    error // the first fault
}

// parseObject reads the event at obj, which lies in doc. The id comes back even
// with an error, when there was one.
func parseObject(obj gjson.Result, doc []byte) (e Event, id string, err error) {
	if !obj.IsObject() {
		return Event{}, "", errors.New("a CloudEvent in JSON is an object")
	}
	m := members{attrs: make([]Attr, 0, 10)}
	obj.ForEach(func(key, v gjson.Result) bool {
		m.take(key.Str, v)
		return true
	})
	id = m.own()
	if m.err == nil {
		m.err = m.checkNulls()
	}
	if m.err != nil {
		return Event{}, id, m.err
	}
	if !slices.ContainsFunc(m.attrs, func(a Attr) bool { return a.Name == "specversion" }) {
		return Event{}, id, &AttributeError{"specversion", `missing: add "specversion": "1.0"`}
	}
	data, valid, err := m.payload(doc)
	if err != nil {
		return Event{}, id, err
	}
	e, err = newEvent(m.attrs, data, valid)
	return e, id, err
}

// take sorts one member into its place.
func (m *members) take(name string, v gjson.Result) {
	fail := func(msg string) {
		if m.err == nil {
			m.err = &AttributeError{strings.Clone(name), msg}
		}
	}
	switch {
	case name == "data" && m.data.Exists(), name == "data_base64" && m.base64.Exists():
		fail("given twice")
	case name == "data":
		m.data = v
	case name == "data_base64":
		m.base64 = v
	case v.Type == gjson.Null:
		m.nulls = append(m.nulls, name)
	case v.Type == gjson.String:
		if loneSurrogate(v.Raw) {
			fail(`holds half of a surrogate pair (\ud800 to \udfff), which is no character`)
		}
		m.attrs = append(m.attrs, Attr{Name: name, Value: v.Str})
	case v.Type == gjson.True || v.Type == gjson.False:
		m.attrs = append(m.attrs, Attr{Name: name, Value: v.Raw, Kind: Boolean})
	case v.Type == gjson.Number:
		n, err := strconv.ParseInt(v.Raw, 10, 32)
		if err != nil {
			fail("is not a 32-bit integer: " + strings.Clone(v.Raw))
		}
		m.attrs = append(m.attrs, Attr{Name: name, Value: strconv.FormatInt(n, 10), Kind: Integer})
	default:
		fail("is an object or an array: an attribute is a string, an integer or a boolean")
	}
}

// checkNulls finds members that are given twice when one of them is null, which
// otherwise means the same as a member that is not there.
func (m *members) checkNulls() error {
	if len(m.nulls) == 0 {
		return nil
	}
	names := m.nulls
	for _, a := range m.attrs {
		names = append(names, a.Name)
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return &AttributeError{strings.Clone(names[i]), "given twice"}
		}
	}
	return nil
}

// own makes the attributes independent of the document by one copy of their
// texts, and finds the id.
func (m *members) own() (id string) {
	size := 0
	for i := range m.attrs {
		size += len(m.attrs[i].Name) + len(m.attrs[i].Value)
	}
	var text strings.Builder
	text.Grow(size)
	keep := func(s string) string {
		text.WriteString(s)
		return text.String()[text.Len()-len(s):]
	}
	for i := range m.attrs {
		a := &m.attrs[i]
		a.Name, a.Value = keep(a.Name), keep(a.Value)
		if a.Name == "id" && a.Kind == String {
			id = a.Value
		}
	}
	return id
}

// payload is the data of the event; valid means that it is JSON for certain.
func (m *members) payload(doc []byte) (data []byte, valid bool, err error) {
	has64 := m.base64.Exists() && m.base64.Type != gjson.Null
	if has64 {
		if m.data.Exists() && m.data.Type != gjson.Null {
			return nil, false, &AttributeError{"data", "given as data and as data_base64: send one of them"}
		}
		data, err = base64.StdEncoding.DecodeString(m.base64.Str)
		if m.base64.Type != gjson.String || err != nil {
			return nil, false, &AttributeError{"data_base64", "is not a string in standard base64"}
		}
		return data, false, nil
	}
	if !m.data.Exists() {
		return nil, false, nil
	}
	declared := slices.IndexFunc(m.attrs, func(a Attr) bool { return a.Name == "datacontenttype" })
	switch {
	case declared < 0 || IsJSON(m.attrs[declared].Value):
		from := m.data.Index
		to := from + len(m.data.Raw)
		return doc[from:to:to], true, nil
	case m.data.Type == gjson.Null:
		return nil, false, nil
	case m.data.Type != gjson.String:
		return nil, false, &AttributeError{"data", "is JSON although datacontenttype says " +
			m.attrs[declared].Value + ": send a string or data_base64"}
	case loneSurrogate(m.data.Raw):
		return nil, false, &AttributeError{"data", "holds half of a surrogate pair, which is no character: send data_base64"}
	}
	return []byte(m.data.Str), false, nil
}

// view lets gjson read b without a copy, which may be a megabyte. Nothing that
// outlives the parse keeps the string: own copies the attributes.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
