package bus

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"sluice/bus/jsonscan"
)

// ErrTooMany is what ParseBatch says about a batch with more events than allowed.
var ErrTooMany = errors.New("more events than a batch may have")

// ParseJSON reads an event in structured form and keeps doc, which the event's
// data is a part of. What is wrong with one attribute or the data is an
// *AttributeError; any other error is about the document as a whole.
func ParseJSON(doc []byte) (Event, error) {
	r := reader{doc: doc, usual: 8}
	if e, end, bad := r.event(jsonscan.Space(doc, 0), MaxDepth); r.ends(end) {
		if bad != nil {
			return Event{}, bad.Err
		}
		return e, nil
	}
	return Event{}, checkJSON(doc)
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
	r := reader{doc: doc, usual: 8}
	n, end := r.batch(limit, each)
	if r.ends(end) {
		return nil
	}
	if err := checkJSON(doc); err != nil {
		return err
	}
	if n > limit {
		return fmt.Errorf("%w: the limit is %d", ErrTooMany, limit)
	}
	return errors.New("a batch is a JSON array of CloudEvents")
}

// reader goes through the JSON of events once: it checks the grammar and finds the
// members of each event on the same way. Where its methods give a position, that is
// the one behind what they read, and -1 for what is not JSON: checkJSON, which reads
// the document once more, has the words for that.
type reader struct {
	doc  []byte
	open jsonscan.Nesting

	usual int // attributes that an event is expected to have
}

// ends tells whether the document ends where its value does, and is in UTF-8.
func (r *reader) ends(end int) bool {
	return end >= 0 && jsonscan.Space(r.doc, end) == len(r.doc) && utf8.Valid(r.doc)
}

// batch reads an array, of which it gives the number of elements; one more than
// limit stands for any number above.
func (r *reader) batch(limit int, each func(i int, e Event, err error)) (n, end int) {
	i, more := jsonscan.Open(r.doc, jsonscan.Space(r.doc, 0), '[')
	for more {
		if n == limit {
			return n + 1, -1
		}
		e, end, bad := r.event(i, MaxDepth-1)
		if end < 0 {
			return n, -1
		}
		if bad != nil {
			each(n, Event{}, bad)
		} else {
			each(n, e, nil)
		}
		n++
		i, more = jsonscan.Next(r.doc, end, ']')
	}
	return n, i
}

// event reads the event at i, which may be nested left levels deep.
func (r *reader) event(i, left int) (e Event, end int, bad *BadEvent) {
	if i >= len(r.doc) || r.doc[i] != '{' {
		return Event{}, jsonscan.Value(r.doc, i, &r.open, left), &BadEvent{Err: errors.New("a CloudEvent in JSON is an object")}
	}
	m := members{attrs: make([]Attr, 0, r.usual)}
	if end = r.object(i, left-1, &m); end < 0 {
		return Event{}, -1, nil
	}
	r.usual = min(len(m.attrs), 16) // events of a batch are alike; a huge one does not make the others so
	e, id, err := m.event()
	if err != nil {
		return Event{}, end, &BadEvent{ID: id, Err: err}
	}
	return e, end, nil
}

// object takes the members of the object at i.
func (r *reader) object(i, left int, m *members) int {
	d := r.doc
	i, more := jsonscan.Open(d, i, '{')
	for more {
		if d[i] != '"' {
			return -1
		}
		end, escaped := jsonscan.String(d, i+1)
		if end < 0 {
			return -1
		}
		name := token{d[i : end+1], escaped}
		from := jsonscan.Colon(d, end+1)
		switch {
		case from < 0 || from == len(d):
			return -1
		case d[from] == '"':
			end, escaped = jsonscan.String(d, from+1)
			if end >= 0 {
				end++
			}
		default:
			end, escaped = jsonscan.Value(d, from, &r.open, left), false
		}
		if end < 0 {
			return -1
		}
		m.take(name.text(), token{d[from:end:end], escaped})
		i, more = jsonscan.Next(d, end, '}')
	}
	return i
}

// token is a value as it stands in the document, or none.
type token struct {
	raw     []byte
	escaped bool // it is a string with escapes
}

func (t token) given() bool { return len(t.raw) > 0 }

func (t token) isNull() bool { return t.given() && t.raw[0] == 'n' }

func (t token) isString() bool { return t.given() && t.raw[0] == '"' }

// text is the text of a string. It may be a part of the document.
func (t token) text() string {
	if t.escaped {
		return gjson.ParseBytes(t.raw).Str
	}
	return view(t.raw[1 : len(t.raw)-1])
}

// halved tells whether it is a string with half of a surrogate pair.
func (t token) halved() bool { return t.escaped && loneSurrogate(view(t.raw)) }

// members are the members of one event in JSON.
type members struct {
	attrs  []Attr
	nulls  []string
	data   token
	base64 token
	err    error // the first fault
}

// take sorts one member into its place.
func (m *members) take(name string, v token) {
	fail := func(msg string) {
		if m.err == nil {
			m.err = &AttributeError{strings.Clone(name), msg}
		}
	}
	switch {
	case name == "data" && m.data.given(), name == "data_base64" && m.base64.given():
		fail("given twice")
		return
	case name == "data":
		m.data = v
		return
	case name == "data_base64":
		m.base64 = v
		return
	}
	switch v.raw[0] {
	case 'n':
		m.nulls = append(m.nulls, name)
	case '"':
		if v.halved() {
			fail(`holds half of a surrogate pair (\ud800 to \udfff), which is no character`)
		}
		m.attrs = append(m.attrs, Attr{Name: name, Value: v.text()})
	case 't', 'f':
		m.attrs = append(m.attrs, Attr{Name: name, Value: view(v.raw), Kind: Boolean})
	case '{', '[':
		fail("is an object or an array: an attribute is a string, an integer or a boolean")
	default:
		n, err := strconv.ParseInt(view(v.raw), 10, 32)
		if err != nil {
			fail("is not a 32-bit integer: " + string(v.raw))
		}
		m.attrs = append(m.attrs, Attr{Name: name, Value: strconv.FormatInt(n, 10), Kind: Integer})
	}
}

// event makes the event. The id comes back even with an error, when there was one.
func (m *members) event() (e Event, id string, err error) {
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
	data, valid, err := m.payload()
	if err != nil {
		return Event{}, id, err
	}
	e, err = newEvent(m.attrs, data, valid)
	return e, id, err
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
func (m *members) payload() (data []byte, valid bool, err error) {
	if m.base64.given() && !m.base64.isNull() {
		if m.data.given() && !m.data.isNull() {
			return nil, false, &AttributeError{"data", "given as data and as data_base64: send one of them"}
		}
		if m.base64.isString() {
			data, err = base64.StdEncoding.DecodeString(m.base64.text())
		}
		if !m.base64.isString() || err != nil {
			return nil, false, &AttributeError{"data_base64", "is not a string in standard base64"}
		}
		return data, false, nil
	}
	if !m.data.given() {
		return nil, false, nil
	}
	declared := slices.IndexFunc(m.attrs, func(a Attr) bool { return a.Name == "datacontenttype" })
	switch {
	case declared < 0 || IsJSON(m.attrs[declared].Value):
		return m.data.raw, true, nil
	case m.data.isNull():
		return nil, false, nil
	case !m.data.isString():
		return nil, false, &AttributeError{"data", "is JSON although datacontenttype says " +
			m.attrs[declared].Value + ": send a string or data_base64"}
	case m.data.halved():
		return nil, false, &AttributeError{"data", "holds half of a surrogate pair, which is no character: send data_base64"}
	}
	return []byte(m.data.text()), false, nil
}
