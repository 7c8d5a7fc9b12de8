package bus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// The reader is held to a plain one that goes over the document three times, with
// gjson: is it valid, where are its elements, where are their members.

func plainJSON(doc []byte) (Event, error) {
	if err := plainCheck(doc); err != nil {
		return Event{}, err
	}
	e, _, err := plainEvent(gjson.ParseBytes(doc))
	return e, err
}

func plainBatch(doc []byte, limit int, each func(i int, e Event, err error)) error {
	if err := plainCheck(doc); err != nil {
		return err
	}
	batch := gjson.ParseBytes(doc)
	if !batch.IsArray() {
		return errors.New("a batch is a JSON array of CloudEvents")
	}
	elements := batch.Array()
	if len(elements) > limit {
		return fmt.Errorf("%w: the limit is %d", ErrTooMany, limit)
	}
	for i, v := range elements {
		e, id, err := plainEvent(v)
		if err != nil {
			e, err = Event{}, &BadEvent{ID: id, Err: err}
		}
		each(i, e, err)
	}
	return nil
}

// plainCheck takes the words of the reader for what is not JSON.
func plainCheck(doc []byte) error {
	if utf8.Valid(doc) && plainValid(doc) {
		return nil
	}
	return checkJSON(doc)
}

// plainValid lets gjson only at what does not overflow its stack.
func plainValid(doc []byte) bool { return !tooDeep(doc) && gjson.ValidBytes(doc) }

func plainEvent(obj gjson.Result) (Event, string, error) {
	if !obj.IsObject() {
		return Event{}, "", errors.New("a CloudEvent in JSON is an object")
	}
	var m members
	obj.ForEach(func(key, v gjson.Result) bool {
		m.take(key.Str, token{[]byte(v.Raw), v.Type == gjson.String && strings.Contains(v.Raw, `\`)})
		return true
	})
	return m.event()
}

// outcome is an event, or what is wrong with it, as a text that shows every difference.
func outcome(e Event, err error) string {
	if err == nil {
		return fmt.Sprintf("%q %q %v %v", e.attrs, e.data, e.data == nil, e.json)
	}
	at, id := "", ""
	if a := new(AttributeError); errors.As(err, &a) {
		at = a.Name
	}
	if b := new(BadEvent); errors.As(err, &b) {
		id = b.ID
	}
	return fmt.Sprintf("%T %v; %q %q %v %v", err, err, at, id, errors.Is(err, ErrTooMany), e.IsZero())
}

// agree holds the two readers together on one document.
func agree(t *testing.T, doc []byte) {
	t.Helper()
	if got, want := ValidJSON(doc), plainValid(doc); got != want {
		t.Fatalf("ValidJSON(%q) is %v", doc, got)
	}
	if got, want := outcome(ParseJSON(doc)), outcome(plainJSON(doc)); got != want {
		t.Fatalf("%q\ngot  %s\nwant %s", doc, got, want)
	}
	for _, limit := range []int{1, 4} {
		var got, want []string
		into := func(list *[]string) func(int, Event, error) {
			return func(i int, e Event, err error) { *list = append(*list, fmt.Sprint(i, outcome(e, err))) }
		}
		gotErr, wantErr := ParseBatch(doc, limit, into(&got)), plainBatch(doc, limit, into(&want))
		if got, want := outcome(Event{}, gotErr), outcome(Event{}, wantErr); got != want {
			t.Fatalf("%q, at most %d\ngot  %s\nwant %s", doc, limit, got, want)
		}
		if wantErr == nil && !slices.Equal(got, want) {
			t.Fatalf("%q\ngot  %s\nwant %s", doc, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
		}
	}
}

// oddMembers are members that a reader may stumble over, with what ends the event.
func oddMembers() []string {
	deep := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	return []string{
		`}`, `,"id":"2"}`, `,"x":1,"x":null}`, `,"x":null,"x":null}`, `,"x":{}}`, `,"x":[1]}`, `,"x":1.5}`, `,"x":-0}`, `,"x":2147483648}`, `,"x":true}`,
		`,"x_y":"1"}`, `,"":"1"}`, `,"x":"\u0000"}`, `,"x":"\ud83c\udf89"}`, `,"x":"\ud800"}`, `,"\ud800\u0041":1}`, `,"\ud800":null,"\udc00":null}`, `,"s\u0075bject":"\u0078"}`,
		`,"da\u0074a":1,"data":2}`, `,"data":null,"data":2}`, `,"data" : {"a" :[1.0, {"b":"\u00e9]}"},null ]}` + "\n}", `,"data":1,"data_base64":"AA=="}`,
		`,"data_base64":"A\u0041=="}`, `,"data_base64":"A"}`, `,"data_base64":5}`, `,"data_base64":null}`, `,"data_base64":"e30=","datacontenttype":"application/json"}`,
		`,"data":{},"datacontenttype":"text/plain"}`, `,"data":"\ud800","datacontenttype":"text/plain"}`, `,"data":"a\n","datacontenttype":"text/plain"}`,
		`,"data":null,"datacontenttype":"text/plain"}`, `,"datacontenttype":true,"data":"x"}`, `,"datacontenttype":"a/b+json ;c=d","data":-1.5e+3}`,
		`,"time":"2026-01-02T03:04:05Z","dataschema":"urn:x","subject":"é"}`, `,"x":"` + "\xff" + `"}`, `,"` + "\xff" + `":1}`, `,"x":"` + "\n" + `"}`,
		``, `}}`, `,}`, `,"x"}`, `,"x" "y"}`, `,"x":}`, `,"x":"}`, `,"x":"\x"}`, `,"x":"\u12"}`, `,x:1}`, `,"x":01}`, `,"x":truex}`, `,"x":1 "y":2}`, `,"x":[}`, `,"x":[1,]}`,
		`,"data":` + deep(MaxDepth-2) + `}`, `,"data":` + deep(MaxDepth-1) + `}`, `,"data":` + deep(MaxDepth) + `}`,
	}
}

// documents are events with odd members, alone and in batches, and what is no event.
func documents() []string {
	const start = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
	docs := []string{``, ` `, `7`, `null`, `{}`, `[]`, ` [ ] `, `[1,]`, `[,1]`, `[1 2]`, `[{]}`, `[[]]`, "[1]\x00", "\ufeff[]", `"`, `["a\"b"]`, strings.Repeat("[", 3*MaxDepth)}
	for _, odd := range oddMembers() {
		e := start + odd
		docs = append(docs, e, "["+e+"]", "[ "+start+"} , "+e+"\n]", "["+e+","+e+","+e+"]")
	}
	return docs
}

func TestReaderAgreesWithPlainReader(t *testing.T) {
	t.Parallel()
	for _, doc := range documents() {
		agree(t, []byte(doc))
	}
	// Cut off, and one byte too few, too many, or another one, everywhere.
	const doc = `[{"specversion":"1.0","id":"1","source":"/s","type":"t","n":-1,"b":true,"z":null,"data":{"a":[1,{"b":"\u00e9"}]}} ,{"id":"2","data_base64":"AA=="}, 7]`
	for i := range len(doc) {
		agree(t, []byte(doc[:i]))
		agree(t, []byte(doc[1:i+1]))
		agree(t, []byte(doc[:i]+doc[i+1:]))
		for _, c := range []byte("\x00 \"\\,:[]{}0.-eunx\x80") {
			agree(t, []byte(doc[:i]+string(rune(c))+doc[i:]))
			agree(t, []byte(doc[:i]+string([]byte{c})+doc[i+1:]))
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, doc := range documents() {
		f.Add([]byte(doc))
	}
	f.Fuzz(agree)
}
