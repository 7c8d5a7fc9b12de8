package rules

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// doc is an event for transforms: the attributes of a JSON object, and its data.
type doc struct {
	names  []string
	values map[string]json.RawMessage
	data   []byte
	isJSON bool
}

func newDoc(t testing.TB, text string) *doc {
	t.Helper()
	d := &doc{}
	if err := json.Unmarshal([]byte(text), &d.values); err != nil {
		t.Fatal(err)
	}
	d.data = d.values["data"]
	delete(d.values, "data")
	d.isJSON = d.data != nil
	d.names = slices.Sorted(maps.Keys(d.values))
	return d
}

func (d *doc) NumAttributes() int { return len(d.names) }

func (d *doc) Attribute(i int) (name, value string, literal bool) {
	raw := string(d.values[d.names[i]])
	if text, err := strconv.Unquote(raw); err == nil {
		return d.names[i], text, false
	}
	return d.names[i], raw, true
}

func (d *doc) Data() []byte { return d.data }

func (d *doc) DataIsJSON() bool { return d.isJSON }

func (d *doc) AppendJSON(dst []byte) []byte {
	all := maps.Clone(d.values)
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	switch {
	case d.isJSON:
		all["data"] = d.data
	case d.data != nil:
		text, _ := json.Marshal(string(d.data))
		all["data"] = text
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return append(dst, text...)
}

// change is an event in the manner of the one that AWS documents the input
// transformer with.
const change = `{"id":"7bf7","source":"cloud.vm","type":"vm.state-change","subject":"a \"b\" \\ <c>","retries":3,"dry":true,
"data":{"instance-id":"i-0123456789","state":"RUNNING","cpus":[{"load":0.5,"user":"ü"},{"load":1e3},7],"tags":{"team":"a\"b","n":1},
"none":null,"empty":"","big":12345678901234567890,"lines":"one\ntwo","a.b":"dotted","up":"../../admin","slash":"a/b c?d#e"}}`

func apply(t *testing.T, spec TransformSpec, event EventDocument) (Transformed, error) {
	t.Helper()
	tr, err := ParseTransform(spec)
	if err != nil {
		t.Fatalf("%+v: %v", spec, err)
	}
	return tr.Apply(TransformInput{Event: event, Rule: "vm", Accepted: time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)})
}

// variables are the paths of the tests.
func variables() map[string]string {
	return map[string]string{
		"instance": "$.data.instance-id", "state": "$.data.state", "cpus": "$.data.cpus", "tags": "$.data.tags", "none": "$.data.none",
		"empty": "$.data.empty", "big": "$.data.big", "lines": "$.data.lines", "missing": "$.data.nothing.here", "subject": "$.subject",
		"retries": "$.retries", "dry": "dry", "first": "$.data.cpus[0].load", "loads": "$.data.cpus[*].load", "all": "$.data.tags.*",
		"dotted": "$.data['a.b']", "whole": "$", "beyond": "$.data.cpus[9]", "wrong": "$.data.state.x", "attr": "$.subject.x",
		"gj": "data.cpus.#(load>1).load", "count": "data.cpus.#", "every": "data.cpus.#.load", "gtype": "type",
		"up": "$.data.up", "slash": "$.data.slash", "payload": "$.data",
	}
}

func TestTransformTemplates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ template, contentType, want string }{
		// The examples of AWS's documentation, in the words of this event.
		{`"instance <instance> is in <state>"`, "", `instance i-0123456789 is in RUNNING`},
		{`"instance \"<instance>\" is in <state>"`, "", `instance "i-0123456789" is in RUNNING`},
		{`"instance <instance> is in <state>"`, "application/json", `"instance i-0123456789 is in RUNNING"`},
		{`{"instance": <instance>, "state": <state>}`, "", `{"instance": "i-0123456789", "state": "RUNNING"}`},
		{`{"instance": <instance>, "state": "<state>", "text": "instance \"<instance>\" is in <state>"}`, "",
			`{"instance": "i-0123456789", "state": "RUNNING", "text": "instance \"i-0123456789\" is in RUNNING"}`},
		{`{"instance": <instance>, "state": [9, <state>, true], "Transformed": "Yes"}`, "",
			`{"instance": "i-0123456789", "state": [9, "RUNNING", true], "Transformed": "Yes"}`},
		{`"<sluice.rule> triggered"`, "", `vm triggered`},
		{`{"rule": <sluice.rule>, "at": <sluice.time>}`, "", `{"rule": "vm", "at": "2026-01-02T03:04:05.0000006Z"}`},
		{"\"one <state>\"\n  \"two \\u0041\\n\"\n\n\"\"\n\"three\"", "", "one RUNNING\ntwo A\n\n\nthree"},
		{`"tags are <tags>"`, "", `tags are {team:a\b,n:1}`},

		// A value outside of quotes stays what it is.
		{`[<cpus>, <tags>, <big>, <none>, <retries>, <dry>]`, "",
			`[[{"load":0.5,"user":"ü"},{"load":1e3},7], {"team":"a\"b","n":1}, 12345678901234567890, null, 3, true]`},
		{`{"a": <missing>, "b": "<missing>", "c": <beyond>, "d": <wrong>, "e": <attr>}`, "", `{"a": null, "b": "", "c": null, "d": null, "e": null}`},
		{`{"a": "<none>|<empty>|<big>|<dry>"}`, "", `{"a": "||12345678901234567890|true"}`},

		// What a text does inside of quotes.
		{`{"a": "<subject>"}`, "", `{"a": "a \"b\" \\ <c>"}`},
		{`{"a": "<lines>"}`, "", `{"a": "one\ntwo"}`},
		{`{"a": "<tags>"}`, "", `{"a": "{team:a\\b,n:1}"}`},
		{`"<subject>"`, "", `a "b" \ <c>`},
		{`{"a": "\<state> \\<state>"}`, "", `{"a": "<state> \\RUNNING"}`},
		{`{"a": "\u003cb\u003e > <state>"}`, "", `{"a": "\u003cb\u003e > RUNNING"}`},

		// Texts without quotes.
		{"<instance>: <state>, <tags>, <missing>.\n\\<b> \\n \"x\"", "", "i-0123456789: RUNNING, {\"team\":\"a\\\"b\",\"n\":1}, .\n<b> \\n \"x\""},
		{`{"a": <state>}`, "text/plain", `{"a": RUNNING}`},
		{`<payload>`, "application/json", `DATA`},
		{`<sluice.data>`, "application/vnd.x+json; charset=utf-8", `DATA`},
		{`<tags>`, "", `{"team":"a\"b","n":1}`},

		// Paths.
		{`[<first>, <loads>, <all>, <dotted>, <gj>, <count>, <every>, <gtype>]`, "",
			`[0.5, [0.5,1e3], ["a\"b",1], "dotted", 1e3, 3, [0.5,1e3], "vm.state-change"]`},
		{`[<whole>, <sluice.event>]`, "", `[EVENT, EVENT]`},
		{`[<sluice.attributes>]`, "", `[{"dry":true,"id":"7bf7","retries":3,"source":"cloud.vm","subject":"a \"b\" \\ <c>","type":"vm.state-change"}]`},
	} {
		e := newDoc(t, change)
		want := strings.NewReplacer("EVENT", string(e.AppendJSON(nil)), "DATA", string(e.data)).Replace(c.want)
		out, err := apply(t, TransformSpec{Paths: variables(), Template: c.template, ContentType: c.contentType}, e)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if string(out.Body) != want {
			t.Errorf("%s\ngives %s\nwant  %s", c.template, out.Body, want)
		}
		if isJSONType(out.ContentType) && !json.Valid(out.Body) {
			t.Errorf("%s\ngives %s, which is no JSON", c.template, out.Body)
		}
	}
}

func TestTransformContentType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		spec       TransformSpec
		body, want string
	}{
		{TransformSpec{Template: `{"a": 1}`}, `{"a": 1}`, "application/json"},
		{TransformSpec{Template: "\n [1] \n"}, "[1]", "application/json"},
		{TransformSpec{Template: `"text"`}, "text", "text/plain; charset=utf-8"},
		{TransformSpec{Template: "a b"}, "a b", "text/plain; charset=utf-8"},
		{TransformSpec{Template: "<a/>", ContentType: "text/xml"}, "", ""},
		{TransformSpec{Template: `\<a/>`, ContentType: "text/xml"}, "<a/>", "text/xml"},
		{TransformSpec{Input: json.RawMessage(`{"a":[1]}`)}, `{"a":[1]}`, "application/json"},
		{TransformSpec{Input: json.RawMessage(`"a\nb"`)}, `"a\nb"`, "application/json"},
		{TransformSpec{Input: json.RawMessage(`"a\nb"`), ContentType: "text/plain"}, "a\nb", "text/plain"},
		{TransformSpec{Input: json.RawMessage(`""`), ContentType: "text/plain"}, "", "text/plain"},
		{TransformSpec{HTTP: TransformHTTP{Path: "/x"}}, "NIL", ""},
	} {
		tr, err := ParseTransform(c.spec)
		if c.want == "" && c.body == "" {
			if err == nil {
				t.Errorf("%+v has no fault", c.spec)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.spec, err)
			continue
		}
		out, err := tr.Apply(TransformInput{Event: newDoc(t, change)})
		if err != nil || out.ContentType != c.want || (out.Body == nil) != (c.body == "NIL") || c.body != "NIL" && string(out.Body) != c.body {
			t.Errorf("%+v gives %q of %q, error %v", c.spec, out.Body, out.ContentType, err)
		}
	}
}

// TestTransformOtherData is about data that is no JSON.
func TestTransformOtherData(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ data, want string }{
		{"plain \"text\"", `{"a": "plain \"text\"", "b": null}`},
		{"\xff\x00", `{"a": "/wA=", "b": null}`},
		{"", `{"a": null, "b": null}`},
	} {
		e := newDoc(t, `{"id":"1"}`)
		e.data = []byte(c.data)
		out, err := apply(t, TransformSpec{Paths: map[string]string{"x": "$.data.x"}, Template: `{"a": <sluice.data>, "b": <x>}`}, e)
		if err != nil || string(out.Body) != c.want {
			t.Errorf("%q gives %s, error %v", c.data, out.Body, err)
		}
	}
}

func TestTransformHTTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		http TransformHTTP
		want Transformed
		err  string
	}{
		{http: TransformHTTP{Path: "/vms/{instance}/<state>"}, want: Transformed{Path: "/vms/i-0123456789/RUNNING"}},
		{http: TransformHTTP{Path: "/x/<slash>"}, want: Transformed{Path: "/x/a%2Fb%20c%3Fd%23e"}},
		{http: TransformHTTP{Path: "/%41/<state>"}, want: Transformed{Path: "/%41/RUNNING"}},
		{http: TransformHTTP{Path: "/x/<up>"}, err: "would leave"},
		{http: TransformHTTP{Path: "/x/.<dot>"}, err: "would leave"},
		{http: TransformHTTP{Path: "/x/<enc>"}, err: "would leave"},
		{http: TransformHTTP{Path: "/x/<back>"}, err: "would leave"},
		{http: TransformHTTP{Path: "/x/<param>"}, err: "would leave"},
		{http: TransformHTTP{Path: "/x/<missing>"}, err: "needs <missing>"},
		{http: TransformHTTP{Path: "/x/<empty>/y"}, err: "needs <empty>"},
		{http: TransformHTTP{Query: map[string]string{"q": "<slash>&", "no": "<missing>", "part": "<missing>.", "fix": "1"}},
			want: Transformed{Query: map[string]string{"q": "a/b c?d#e&", "fix": "1"}}},
		{http: TransformHTTP{Headers: map[string]string{"X-A": "<lines>", "X-B": "id <big>", "X-C": "<missing>", "X-D": "<u>"}},
			want: Transformed{Header: map[string]string{"X-A": "one%0Atwo", "X-B": "id 12345678901234567890", "X-D": "%C3%BC 5%25"}}},
	} {
		paths := variables()
		maps.Copy(paths, map[string]string{"dot": "$.data.d.dot", "enc": "$.data.d.enc", "back": "$.data.d.back", "param": "$.data.d.param", "u": "$.data.d.u"})
		e := newDoc(t, strings.Replace(change, `"data":{`, `"data":{"d":{"dot":".","enc":"%2e%2e","back":"a\\..","param":"..;x","u":"ü 5%"},`, 1))
		out, err := apply(t, TransformSpec{Paths: paths, HTTP: c.http}, e)
		if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: error %v, want %q", c.http, err, c.err)
		}
		if out.Path != c.want.Path || !maps.Equal(out.Query, c.want.Query) || !maps.Equal(out.Header, c.want.Header) {
			t.Errorf("%+v\ngives %+v\nwant  %+v", c.http, out, c.want)
		}
	}
}

func TestTransformFaults(t *testing.T) {
	t.Parallel()
	paths := map[string]string{"a": "$.data.a"}
	for _, c := range []struct {
		name   string
		spec   TransformSpec
		field  string
		offset int
		want   string
	}{
		{"nothing", TransformSpec{}, "", 0, "changes nothing"},
		{"both", TransformSpec{Input: json.RawMessage("1"), Template: "[]"}, "input", 0, "beside template"},
		{"type alone", TransformSpec{ContentType: "a/b", HTTP: TransformHTTP{Path: "/x"}}, "content_type", 0, "is for input or template"},
		{"type", TransformSpec{Template: "x", ContentType: "nonsense/"}, "content_type", 0, "not a media type"},
		{"unknown", TransformSpec{Template: "  a <b>"}, "template", 4, "there is no variable <b>: name it under paths"},
		{"aws", TransformSpec{Template: "<aws.events.event.json>"}, "template", 0, "here it is <sluice.event>"},
		{"dotted", TransformSpec{Template: "<sluice.nope>"}, "template", 0, "those that need no path"},
		{"open", TransformSpec{Paths: paths, Template: "a <a"}, "template", 2, "has no >"},
		{"open in JSON", TransformSpec{Paths: paths, Template: `{"x": "1 < 2", "y": "<a>"}`}, "template", 9, "has no >"},
		{"spaces", TransformSpec{Paths: paths, Template: "< a >"}, "template", 0, "is not the name of a variable"},
		{"empty", TransformSpec{Template: "<>"}, "template", 0, "is not the name of a variable"},
		{"no JSON", TransformSpec{Paths: paths, Template: `{"x": <a>,}`}, "template", 10, "is not JSON once"},
		{"two values", TransformSpec{Paths: paths, Template: `[<a><a>]`}, "template", 4, "is not JSON once"},
		{"half a number", TransformSpec{Paths: paths, Template: `[1<a>]`}, "template", 2, "is not JSON once"},
		{"half an escape", TransformSpec{Paths: paths, Template: `["\u00<a>"]`}, "template", 6, "is not JSON once"},
		{"open quotes", TransformSpec{Paths: paths, Template: `["<a>]`}, "template", 5, "is not JSON once"},
		{"key", TransformSpec{Paths: paths, Template: `{<a>: 1}`}, "template", 1, "is not JSON once"},
		{"key in quotes", TransformSpec{Paths: paths, Template: `{"x": 1, "x<a>" : 1}`}, "template", 11, "cannot be part of a key"},
		{"line", TransformSpec{Paths: paths, Template: "\"x\"\n y"}, "template", 5, "not in quotes"},
		{"quote in line", TransformSpec{Paths: paths, Template: `"x"y"`}, "template", 2, "needs a backslash"},
		{"escape in line", TransformSpec{Paths: paths, Template: `"x\y"`}, "template", 0, "not written as in JSON"},
		{"path name", TransformSpec{Paths: map[string]string{"a.b": "$"}, Template: "x"}, "paths.a.b", 0, "not the name of a variable"},
		{"path", TransformSpec{Paths: map[string]string{"b": ""}, Template: "x <b>"}, "paths.b", 0, "is empty"},
		{"deep scan", TransformSpec{Paths: map[string]string{"b": "$..x"}, Template: "x <b>"}, "paths.b", 1, "no step that is known"},
		{"filter", TransformSpec{Paths: map[string]string{"b": "$.x[?(@.a)]"}, Template: "x"}, "paths.b", 3, "is no index"},
		{"bracket", TransformSpec{Paths: map[string]string{"b": "$.x['a"}, Template: "x"}, "paths.b", 3, "not closed"},
		{"sign", TransformSpec{Paths: map[string]string{"b": "$.x y"}, Template: "x"}, "paths.b", 1, "no step that is known"},
		{"no slash", TransformSpec{HTTP: TransformHTTP{Path: "x"}}, "http.path", 0, "must begin with /"},
		{"query in path", TransformSpec{HTTP: TransformHTTP{Path: "/x?y=1"}}, "http.path", 2, "cannot stand in a path"},
		{"up", TransformSpec{HTTP: TransformHTTP{Path: "/x/../y"}}, "http.path", 0, "has . or .."},
		{"encoded up", TransformSpec{HTTP: TransformHTTP{Path: "/x/%2e%2E/y"}}, "http.path", 0, "has . or .."},
		{"percent", TransformSpec{HTTP: TransformHTTP{Path: "/5%"}}, "http.path", 0, "has a % that"},
		{"header name", TransformSpec{HTTP: TransformHTTP{Headers: map[string]string{"a b": "x"}}}, "http.headers.a b", 0, "not the name of a header"},
		{"header", TransformSpec{HTTP: TransformHTTP{Headers: map[string]string{"A": "x\r\nB: c"}}}, "http.headers.A", 1, "no header can have"},
		{"in query", TransformSpec{HTTP: TransformHTTP{Query: map[string]string{"k": "a<b>"}}}, "http.query.k", 1, "no variable <b>"},
	} {
		_, err := ParseTransform(c.spec)
		var faults TransformErrors
		if !errors.As(err, &faults) {
			t.Errorf("%s: no fault", c.name)
			continue
		}
		if f := faults[0]; len(faults) != 1 || f.Field != c.field || f.Offset != c.offset || !strings.Contains(f.Msg, c.want) {
			t.Errorf("%s: %v\nwant %s: at byte %d: %s", c.name, faults, c.field, c.offset, c.want)
		}
	}
}

func TestTransformLimits(t *testing.T) {
	t.Parallel()
	many := map[string]string{}
	for i := range maxTransformPaths + 1 {
		many["v"+strconv.Itoa(i)] = "$.id"
	}
	if _, err := ParseTransform(TransformSpec{Paths: many, Template: "x"}); err == nil {
		t.Error("too many variables are no fault")
	}
	if _, err := ParseTransform(TransformSpec{Template: strings.Repeat("x", maxTransformTemplate+1)}); err == nil {
		t.Error("a template that is too long is no fault")
	}
	e := newDoc(t, `{"id":"1"}`)
	e.data = []byte(strings.Repeat("x", 1<<20))
	if _, err := apply(t, TransformSpec{Template: strings.Repeat("<sluice.data>", 20)}, e); !errors.Is(err, errTooLarge) {
		t.Errorf("a payload of 20 MiB: error %v", err)
	}
}

// FuzzTransform holds that a JSON template never makes anything but JSON, and that
// nothing gets out of a path or a header.
func FuzzTransform(f *testing.F) {
	for _, template := range []string{
		`{"a": <a>, "b": "<b> \"<sluice.data>\""}`, `[<a>, <b>, "\<a>"]`, "\"line <a>\"\n\"<b>\"", `{"x": "\\<a>"}`, `["<sluice.event>"]`,
	} {
		f.Add(template, "$.data.a[0]", "data.b", `{"a":["x\"\\",null],"b":{"c":"\u0000é"}}`, true)
		f.Add(template, "$.subject", "data.#", `../x`, false)
	}
	f.Fuzz(func(t *testing.T, text, a, b, data string, asJSON bool) {
		spec := TransformSpec{
			Paths: map[string]string{"a": a, "b": b}, Template: text,
			HTTP: TransformHTTP{Path: "/in/<a>", Headers: map[string]string{"X": "<b>"}},
		}
		if asJSON {
			spec.ContentType = "application/json"
		}
		tr, err := ParseTransform(spec)
		if err != nil {
			return
		}
		e := newDoc(t, `{"id":"1","subject":"s"}`)
		if data != "" {
			e.data, e.isJSON = []byte(data), json.Valid([]byte(data))
		}
		out, err := tr.Apply(TransformInput{Event: e, Rule: "r"})
		if err != nil {
			return
		}
		if isJSONType(out.ContentType) && !json.Valid(out.Body) {
			t.Fatalf("%q of %q gives %q", text, data, out.Body)
		}
		if !strings.HasPrefix(out.Path, "/in/") || strings.Count(out.Path, "/") != 2 || strings.HasSuffix(out.Path, "/..") {
			t.Fatalf("the path is %q", out.Path)
		}
		if strings.ContainsFunc(out.Header["X"], unsafeInHeader) {
			t.Fatalf("the header is %q", out.Header["X"])
		}
	})
}

func BenchmarkTransform(b *testing.B) {
	tr, err := ParseTransform(TransformSpec{
		Paths:    map[string]string{"instance": "$.data.instance-id", "state": "$.data.state", "tags": "$.data.tags"},
		Template: `{"instance": <instance>, "text": "instance <instance> is in <state>", "tags": <tags>}`,
		HTTP:     TransformHTTP{Path: "/vms/{instance}"},
	})
	if err != nil {
		b.Fatal(err)
	}
	in := TransformInput{Event: newDoc(b, change), Rule: "vm"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tr.Apply(in); err != nil {
			b.Fatal(err)
		}
	}
}
