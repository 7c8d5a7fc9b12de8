package bus_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"pgregory.net/rapid"

	"sluice/bus"
)

func TestModeOf(t *testing.T) {
	t.Parallel()
	for ct, want := range map[string]bus.Mode{
		"application/cloudevents+json":                         bus.Structured,
		"Application/CloudEvents+JSON; charset=UTF-8":          bus.Structured,
		"application/cloudevents":                              bus.Structured,
		"application/cloudevents-batch+json":                   bus.Batch,
		"APPLICATION/CLOUDEVENTS-BATCH+JSON;charset=\"utf-8\"": bus.Batch,
		"application/json":                                     bus.Binary,
		"application/cloud":                                    bus.Binary,
	} {
		mode, err := bus.ModeOf(http.Header{"Content-Type": {ct}, "Ce-Specversion": {"1.0"}})
		if err != nil || mode != want {
			t.Errorf("%s: %v, %v", ct, mode, err)
		}
	}
	for name, h := range map[string]http.Header{
		"avro":    {"Content-Type": {"application/cloudevents+avro"}},
		"charset": {"Content-Type": {"application/cloudevents+json; charset=utf-16"}},
		"broken":  {"Content-Type": {"application/cloudevents+json; charset"}},
		"none":    {},
		"json":    {"Content-Type": {"application/json"}, "Cell": {"1"}},
	} {
		var media *bus.MediaTypeError
		if _, err := bus.ModeOf(h); !errors.As(err, &media) {
			t.Errorf("%s: %v, want a *MediaTypeError", name, err)
		}
	}
	var attribute *bus.AttributeError
	if _, err := bus.ModeOf(http.Header{"Content-Type": {"a/b", "c/d"}}); !errors.As(err, &attribute) {
		t.Errorf("two Content-Type headers: %v", err)
	}
	if _, err := bus.ModeOf(http.Header{"Ce-Id": {"1"}}); !errors.As(err, &attribute) || attribute.Name != "specversion" {
		t.Errorf("no ce-specversion: %v", err)
	}
	if _, err := bus.FromHTTP(http.Header{"Content-Type": {bus.TypeBatch}}, []byte("[]")); err == nil {
		t.Error("a batch is one event")
	}
}

func TestAppendHTTPHeader(t *testing.T) {
	t.Parallel()
	e := mustEvent(t, `{}`, attr("subject", "50% \"é\" 🎉~"), bus.Attr{Name: "x1", Value: "5", Kind: bus.Integer})
	h := http.Header{"X-Other": {"1"}}
	e.AppendHTTPHeader(h)
	h.Add("Ce-Id", "2") // must not reach another header
	want := http.Header{
		"X-Other": {"1"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"1", "2"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"},
		"Ce-Subject": {"50%25%20%22%C3%A9%22%20%F0%9F%8E%89~"}, "Ce-X1": {"5"}, "Content-Type": {"application/json"},
	}
	if !maps.EqualFunc(h, want, slices.Equal) {
		t.Errorf("%v", h)
	}
	for key := range h {
		if textproto.CanonicalMIMEHeaderKey(key) != key {
			t.Errorf("%s is not how http.Header spells it", key)
		}
	}
}

func TestHTTPIdentity(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		h := http.Header{}
		e.AppendHTTPHeader(h)
		lines := e.AppendHTTPLines([]byte("X-Before: 1\r\n"))
		read, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(lines, "\r\n"...)))).ReadMIMEHeader()
		if read.Get("X-Before") != "1" {
			t.Fatalf("what was there before is lost: %q", lines)
		}
		if read.Del("X-Before"); err != nil || !maps.EqualFunc(http.Header(read), h, slices.Equal) {
			t.Fatalf("as lines they are %q, %v, want %v", lines, err, h)
		}
		back, err := bus.FromHTTP(h, e.Data())
		if err != nil {
			t.Fatalf("%v in %v", err, h)
		}
		want := plain(t, e)
		if _, declared := e.Lookup("datacontenttype"); !declared && e.DataIsJSON() {
			want, err = want.With(attr("datacontenttype", "application/json"))
			if err != nil {
				t.Fatal(err)
			}
		}
		same(t, want, back)
		// The SDK takes it for an event too.
		sdk, err := cehttp.NewEventFromHTTPRequest(&http.Request{Header: h, Body: io.NopCloser(bytes.NewReader(e.Data()))})
		if err != nil {
			t.Fatalf("the SDK says %v to %v", err, h)
		}
		if !bytes.Equal(sdk.Data(), e.Data()) || len(sdk.Extensions())+countCore(e) != len(e.Attrs()) {
			t.Fatalf("the SDK read %s", sdk)
		}
	})
}

func FuzzFromHTTP(f *testing.F) {
	f.Add("application/json", "Ce-Subject", "caf%C3%A9", "Ce-Myext", `"a \"b\""`, []byte(`{"a":1}`))
	f.Add("text/plain; charset=utf-8", "ce-time", "2026-01-02T03:04:05Z", "CE-X", "100%", []byte("text"))
	f.Add("application/cloudevents+json", "", "", "", "", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t"}`))
	f.Add("", "Ce-Dataschema", "urn:x", "Ce-Datacontenttype", "a/b", []byte{0, 255})
	f.Add("application/cloudevents-batch+json", "Ce-", "%", "Ce-Id", "%zz", []byte("[]"))
	f.Fuzz(func(t *testing.T, contentType, name1, value1, name2, value2 string, body []byte) {
		h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"1"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Content-Type": {contentType}}
		h[name1] = append(h[name1], value1)
		h[name2] = append(h[name2], value2)
		e, err := bus.FromHTTP(h, bytes.Clone(body))
		if err != nil {
			if err.Error() == "" || !e.IsZero() {
				t.Fatal("an error without a text, or with an event")
			}
			return
		}
		if !strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents") && !bytes.Equal(e.Data(), body) {
			t.Fatalf("the data became %q", e.Data())
		}
		out := http.Header{}
		e.AppendHTTPHeader(out)
		for key, values := range out {
			for _, c := range []byte(values[0]) {
				if key != "Content-Type" && (c <= ' ' || c > '~' || c == '"') {
					t.Fatalf("%s: %q is not encoded", key, values[0])
				}
			}
		}
		if lines := e.AppendHTTPLines(nil); bytes.Count(lines, []byte("\n")) != len(out) || bytes.Count(lines, []byte("\r")) != len(out) {
			t.Fatalf("%d headers are the lines %q", len(out), lines)
		}
		back, err := bus.FromHTTP(out, e.Data())
		if err != nil {
			t.Fatalf("not read back: %v in %v", err, out)
		}
		for _, a := range e.Attrs() {
			if got := back.Get(a.Name); got != a.Value {
				t.Fatalf("%s: %q became %q", a.Name, a.Value, got)
			}
		}
	})
}

func BenchmarkFromHTTP(b *testing.B) {
	e := mustEvent(b, `{"k":"`+strings.Repeat("x", 1015)+`"}`, attr("datacontenttype", "application/json"), attr("time", "2026-01-02T03:04:05Z"), attr("subject", "a/b.jpg"))
	h := http.Header{}
	e.AppendHTTPHeader(h)
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := bus.FromHTTP(h, e.Data()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode/sdk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cehttp.NewEventFromHTTPRequest(&http.Request{Header: h, Body: io.NopCloser(bytes.NewReader(e.Data()))}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lines", func(b *testing.B) {
		b.ReportAllocs()
		var lines []byte
		for b.Loop() {
			lines = e.AppendHTTPLines(lines[:0])
		}
	})
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			clear(h)
			e.AppendHTTPHeader(h)
		}
	})
}
