package bus_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"pgregory.net/rapid"

	"sluice/bus"
)

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	const start = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
	for name, c := range map[string]struct {
		data  string
		attrs []bus.Attr
		want  string
	}{
		"nothing":       {"", nil, ``},
		"JSON as is":    {"{\"a\" :\n1.0}", []bus.Attr{attr("datacontenttype", "application/json")}, `,"datacontenttype":"application/json","data":{"a" :` + "\n1.0}"},
		"undeclared":    {"[1]", nil, `,"data":[1]`},
		"text":          {"a\n\"é\"", []bus.Attr{attr("datacontenttype", "text/csv")}, `,"datacontenttype":"text/csv","data":"a\n\"é\""`},
		"svg":           {"<a/>", []bus.Attr{attr("datacontenttype", "image/svg+xml")}, `,"datacontenttype":"image/svg+xml","data":"\u003ca/\u003e"`},
		"JSON as text":  {"[1]", []bus.Attr{attr("datacontenttype", "text/plain")}, `,"datacontenttype":"text/plain","data":"[1]"`},
		"not UTF-8":     {"\xff", []bus.Attr{attr("datacontenttype", "text/plain")}, `,"datacontenttype":"text/plain","data_base64":"/w=="`},
		"latin 1":       {"a", []bus.Attr{attr("datacontenttype", "text/plain;charset=latin1")}, `,"datacontenttype":"text/plain;charset=latin1","data_base64":"YQ=="`},
		"bytes":         {"ab", []bus.Attr{attr("datacontenttype", "a/b")}, `,"datacontenttype":"a/b","data_base64":"YWI="`},
		"unknown":       {"ab", nil, `,"data_base64":"YWI="`},
		"bad JSON text": {"\"\xff\"", []bus.Attr{attr("datacontenttype", "application/json")}, `,"datacontenttype":"application/json","data_base64":"Iv8i"`},
		"kinds":         {"", []bus.Attr{{Name: "a", Value: "-5", Kind: bus.Integer}, {Name: "b", Value: "true", Kind: bus.Boolean}, attr("c", "5")}, `,"a":-5,"b":true,"c":"5"`},
	} {
		e := mustEvent(t, c.data, c.attrs...)
		if got := string(e.AppendJSON([]byte("x"))); got != "x"+start+c.want+"}" {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, "x"+start+c.want+"}")
		}
	}
	if _, err := json.Marshal(bus.Event{}); err == nil {
		t.Error("the zero Event has a JSON form")
	}
	e := mustEvent(t, "[ 1 ]")
	if got, err := json.Marshal(map[string]any{"e": e}); err != nil || string(got) != `{"e":`+start+`,"data":[1]}}` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestParseJSON(t *testing.T) {
	t.Parallel()
	const start = `"specversion":"1.0","id":"1","source":"/s","type":"t"`
	for name, c := range map[string]struct {
		rest  string
		data  string
		json  bool
		attrs []bus.Attr
	}{
		"nothing":        {``, "", false, nil},
		"data as is":     {`,"data": { "b" : 1.0e0 ,` + "\n" + `"a":[ ] , "a":"\u00e9" } `, `{ "b" : 1.0e0 ,` + "\n" + `"a":[ ] , "a":"\u00e9" }`, true, nil},
		"before":         {`,"data":"x","datacontenttype":"text/plain"`, "x", false, []bus.Attr{attr("datacontenttype", "text/plain")}},
		"JSON string":    {`,"data":"x"`, `"x"`, true, nil},
		"JSON null":      {`,"data":null`, `null`, true, nil},
		"text null":      {`,"data":null,"datacontenttype":"text/plain"`, ``, false, []bus.Attr{attr("datacontenttype", "text/plain")}},
		"escapes":        {`,"datacontenttype":"text/plain","data":"\u0000\n\"\\\/é\ud83c\udf89"`, "\x00\n\"\\/é🎉", false, []bus.Attr{attr("datacontenttype", "text/plain")}},
		"base64":         {`,"data_base64":"AP8="`, "\x00\xff", false, nil},
		"base64 escaped": {`,"data_base64":"AP8\u003d"`, "\x00\xff", false, nil},
		"base64 of JSON": {`,"data_base64":"WzFd","datacontenttype":"application/json"`, "[1]", true, []bus.Attr{attr("datacontenttype", "application/json")}},
		"null is absent": {`,"subject":null,"time":null,"x":null,"data_base64":null`, "", false, nil},
		"null beside":    {`,"data":null,"data_base64":"AA=="`, "\x00", false, nil},
		"kinds":          {`,"a":-0,"b":2147483647,"c":false,"d":"1"`, "", false, []bus.Attr{{Name: "a", Value: "0", Kind: bus.Integer}, {Name: "b", Value: "2147483647", Kind: bus.Integer}, {Name: "c", Value: "false", Kind: bus.Boolean}, attr("d", "1")}},
		"escaped name":   {`,"s\u0075bject":"x"`, "", false, []bus.Attr{attr("subject", "x")}},
	} {
		want, err := bus.NewEvent(minimal(c.attrs...), []byte(c.data))
		if err != nil {
			t.Fatal(err)
		}
		doc := []byte(" \n{" + start + c.rest + "} ")
		e, err := bus.ParseJSON(doc)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		same(t, want, e)
		if e.DataIsJSON() != c.json {
			t.Errorf("%s: JSON is %v", name, e.DataIsJSON())
		}
		before := bytes.Clone(doc)
		if _ = append(e.Data(), '!'); !bytes.Equal(doc, before) {
			t.Errorf("%s: the data has room to grow into the document", name)
		}
		clear(doc)
		if e.ID() != "1" || e.Attrs()[len(e.Attrs())-1].Name == "\x00" {
			t.Errorf("%s: the attributes are part of the document", name)
		}
	}
}

func TestParseJSONFaults(t *testing.T) {
	t.Parallel()
	const start = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
	for doc, at := range map[string]string{ // the attribute that the error names, or "" for the document
		`{"specversion":"1.0","id":"1","source":"/s"}`:             "type",
		`{"id":"1","source":"/s","type":"t"}`:                      "specversion",
		`{"specversion":"0.3","id":"1","source":"/s","type":"t"}`:  "specversion",
		`{"specversion":1.0,"id":"1","source":"/s","type":"t"}`:    "specversion",
		`{"specversion":"1.0","id":7,"source":"/s","type":"t"}`:    "id",
		`{"specversion":"1.0","id":null,"source":"/s","type":"t"}`: "id",
		`{"specversion":"1.0","id":"","source":"/s","type":"t"}`:   "id",
		start + `,"id":"2"}`:                                  "id",
		start + `,"x":1,"x":null}`:                            "x",
		start + `,"x":null,"x":null}`:                         "x",
		start + `,"x":{}}`:                                    "x",
		start + `,"x":[1]}`:                                   "x",
		start + `,"x":1.5}`:                                   "x",
		start + `,"x":1e3}`:                                   "x",
		start + `,"x":2147483648}`:                            "x",
		start + `,"x_y":"1"}`:                                 "x_y",
		start + `,"traceParent":"1"}`:                         "traceParent",
		start + `,"":"1"}`:                                    `""`,
		start + `,"x":"\u0000"}`:                              "x",
		start + `,"x":"\ud800"}`:                              "x",
		start + `,"x":"a\udc00b"}`:                            "x",
		start + `,"x":"\ud800\u0041"}`:                        "x",
		start + `,"x":"\ud800\n"}`:                            "x",
		start + `,"data":1,"data":2}`:                         "data",
		start + `,"data":null,"data":2}`:                      "data",
		start + `,"data":1,"data_base64":"AA=="}`:             "data",
		start + `,"data_base64":"AA==","data_base64":"AA=="}`: "data_base64",
		start + `,"data_base64":"A"}`:                         "data_base64",
		start + `,"data_base64":"_-=="}`:                      "data_base64",
		start + `,"data_base64":5}`:                           "data_base64",
		start + `,"data_base64":"e30","datacontenttype":"application/json"}`:  "data_base64",
		start + `,"data_base64":"AA==","datacontenttype":"application/json"}`: "data",
		start + `,"data":{},"datacontenttype":"text/plain"}`:                  "data",
		start + `,"data":"\ud800","datacontenttype":"text/plain"}`:            "data",
		start + `,"time":"now"}`: "time",
		start:                    "", start + `}}`: "", ``: "", `7`: "", `null`: "", `[]`: "", "{\"a\":\"\xff\"}": "", `{"a":1,}`: "", `{"a":"` + "\n" + `"}`: "",
		strings.Repeat(`{"a":`, 2000): "",
	} {
		_, err := bus.ParseJSON([]byte(doc))
		var e *bus.AttributeError
		switch {
		case err == nil:
			t.Errorf("%.80s is taken", doc)
		case errors.As(err, &e) != (at != ""), at != "" && e.Name != at:
			t.Errorf("%.80s: %v, want a fault of %q", doc, err, at)
		}
	}
}

func TestParseBatch(t *testing.T) {
	t.Parallel()
	const good = `{"specversion":"1.0","id":"%d","source":"/s","type":"t","data": {"n" : %[1]d}}`
	one := fmt.Sprintf(good, 0)
	doc := "[ " + one + ", 7 , " + fmt.Sprintf(good, 2) + `,{"specversion":"1.0","id":"three","source":"/s"}, ` + fmt.Sprintf(good, 4) + "]"
	var got []string
	err := bus.ParseBatch([]byte(doc), 5, func(i int, e bus.Event, err error) {
		var bad *bus.BadEvent
		if errors.As(err, &bad) {
			got = append(got, fmt.Sprintf("%d bad %s %v", i, bad.ID, e.IsZero()))
			return
		}
		got = append(got, fmt.Sprint(i, " ", e.ID(), " ", string(e.Data())))
	})
	want := `0 0 {"n" : 0}|1 bad  true|2 2 {"n" : 2}|3 bad three true|4 4 {"n" : 4}`
	if strings.Join(got, "|") != want || err != nil {
		t.Errorf("got  %s, %v\nwant %s", strings.Join(got, "|"), err, want)
	}
	ignore := func(int, bus.Event, error) {}
	if err := bus.ParseBatch([]byte(doc), 4, ignore); !errors.Is(err, bus.ErrTooMany) {
		t.Errorf("5 events of at most 4: %v", err)
	}
	for _, doc := range []string{"", "{}", "[" + one, "[" + one + ",]", "1", "[]]", strings.Repeat("[", 9<<20)} {
		if err := bus.ParseBatch([]byte(doc), 5, ignore); err == nil || errors.Is(err, bus.ErrTooMany) {
			t.Errorf("%.20s: %v", doc, err)
		}
	}
	if err := bus.ParseBatch([]byte(" []"), 5, func(int, bus.Event, error) { t.Error("called for nothing") }); err != nil {
		t.Error(err)
	}
}

func TestJSONIdentity(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		doc := e.AppendJSON(nil)
		if !json.Valid(doc) {
			t.Fatalf("not JSON: %s", doc)
		}
		back, err := bus.ParseJSON(doc)
		if err != nil {
			t.Fatalf("%v in %s", err, doc)
		}
		same(t, trimmed(t, e), back)
	})
}

// The SDK is the oracle: what is taken here, it reads in the same way.
func FuzzParseJSON(f *testing.F) {
	for _, seed := range []string{
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":[1,2,{"b":null}]},"count":5,"flag":true}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"\u00e9\n"}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"AP8=","subject":null}`,
		`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-02T03:04:05Z","dataschema":"urn:x"}`,
		`{"data":"\ud83c\udf89","id":"1"}`, `[]`, `{`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		e, err := bus.ParseJSON(doc)
		if err != nil {
			if err.Error() == "" || !e.IsZero() {
				t.Fatal("an error without a text, or with an event")
			}
			return
		}
		back, err := bus.ParseJSON(e.AppendJSON(nil))
		if err != nil {
			t.Fatalf("not read back: %v in %s", err, e.AppendJSON(nil))
		}
		same(t, trimmed(t, e), back)
		if !sdkReads(e) {
			return
		}
		var sdk event.Event
		if err := json.Unmarshal(e.AppendJSON(nil), &sdk); err != nil {
			if strings.Contains(err.Error(), "invalid number") {
				return // it cannot skip numbers beyond a float64, though they are JSON
			}
			t.Fatalf("the SDK says %v to %s", err, e.AppendJSON(nil))
		}
		if sdk.ID() != e.ID() || sdk.Type() != e.Type() || len(sdk.Extensions())+countCore(e) != len(e.Attrs()) {
			t.Fatalf("the SDK read %s from %s", sdk, e.AppendJSON(nil))
		}
	})
}

func countCore(e bus.Event) int {
	n := 0
	for _, a := range e.Attrs() {
		switch a.Name {
		case "specversion", "id", "source", "type", "subject", "time", "dataschema", "datacontenttype":
			n++
		}
	}
	return n
}

func BenchmarkJSON(b *testing.B) {
	e := mustEvent(b, `{"k":"`+strings.Repeat("x", 1015)+`"}`, attr("datacontenttype", "application/json"), attr("time", "2026-01-02T03:04:05Z"), attr("subject", "a/b.jpg"))
	doc := e.AppendJSON(nil)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bus.ParseJSON(doc); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("batch100", func(b *testing.B) {
		batch := []byte("[" + strings.Repeat(string(doc)+",", 99) + string(doc) + "]")
		b.ReportAllocs()
		for b.Loop() {
			if err := bus.ParseBatch(batch, 100, func(int, bus.Event, error) {}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parse/sdk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var sdk event.Event
			if err := json.Unmarshal(doc, &sdk); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			doc = e.AppendJSON(doc[:0])
		}
	})
}
