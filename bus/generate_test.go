package bus_test

import (
	"bytes"
	"slices"

	"pgregory.net/rapid"

	"sluice/bus"
)

// anyEvent generates events of every form, for properties that hold for all.
func anyEvent() *rapid.Generator[bus.Event] {
	return rapid.Custom(func(t *rapid.T) bus.Event {
		attrs := []bus.Attr{
			attr("id", text().Draw(t, "id")),
			attr("source", rapid.SampledFrom([]string{"/s", "urn:x:y", "https://e.example/a%2Fb?c=d#e", "a b", "HTTP://Upper.Example", "#", "é"}).Draw(t, "source")),
			attr("type", text().Draw(t, "type")),
		}
		maybe := func(name string, values *rapid.Generator[string]) {
			if rapid.Bool().Draw(t, "has "+name) {
				attrs = append(attrs, attr(name, values.Draw(t, name)))
			}
		}
		maybe("subject", text())
		maybe("time", rapid.SampledFrom([]string{"2026-01-02T03:04:05Z", "1999-12-31T23:59:59.5Z", "2026-01-02T03:04:05.123456789Z"}))
		maybe("dataschema", rapid.SampledFrom([]string{"https://e.example/schema", "urn:a:b"}))
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "x1", "traceparent", "a", "zz9"}), 0, 3, rapid.ID).Draw(t, "extensions") {
			attrs = append(attrs, anyExtension(t, name))
		}
		data := anyData(t)
		types := []string{"text/plain", "text/plain; charset=iso-8859-1", "application/octet-stream", "image/png", "application/xml"}
		if bus.ValidJSON(data) {
			types = append(types, "application/json", "application/vnd.x+json; charset=utf-8")
		}
		maybe("datacontenttype", rapid.SampledFrom(types))
		e, err := bus.NewEvent(attrs, data)
		if err != nil {
			t.Fatalf("the generator made an invalid event: %v", err)
		}
		return e
	})
}

func anyExtension(t *rapid.T, name string) bus.Attr {
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		return bus.Attr{Name: name, Kind: bus.Integer, Value: rapid.SampledFrom([]string{"0", "-1", "2147483647", "-2147483648"}).Draw(t, name)}
	case 1:
		return bus.Attr{Name: name, Kind: bus.Boolean, Value: rapid.SampledFrom([]string{"true", "false"}).Draw(t, name)}
	}
	return attr(name, text().Draw(t, name))
}

// text is what a CloudEvents string may be, not empty.
func text() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.RuneFrom([]rune("aZ09 /%\"\\<&é€日🎉\u2028\ufffd~%")), 1, 12, -1)
}

func anyData(t *rapid.T) []byte {
	return rapid.OneOf(
		rapid.Just[[]byte](nil),
		rapid.SliceOfN(rapid.Byte(), 0, 40),
		rapid.SampledFrom([][]byte{
			[]byte(`{"a" : [1.0, 1e300, 12345678901234567890],` + "\n" + `"a":"\u00e9\ud83c\udf89\ud800"}`),
			[]byte("null"), []byte(`"text"`), []byte("0"), []byte("[\r\n]"), []byte("\"\xff\""), []byte("line\nline\x00"), []byte("é"),
		}),
	).Draw(t, "data")
}

type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

// same fails the test when two events differ in anything.
func same(t fatal, want, got bus.Event) {
	t.Helper()
	if !slices.Equal(want.Attrs(), got.Attrs()) || !bytes.Equal(want.Data(), got.Data()) || want.DataIsJSON() != got.DataIsJSON() {
		t.Fatalf("events differ:\nwant %v %q JSON %v\ngot  %v %q JSON %v", want.Attrs(), want.Data(), want.DataIsJSON(),
			got.Attrs(), got.Data(), got.DataIsJSON())
	}
}

// plain is the event with all its attributes as strings, which is what binary mode
// leaves of it.
func plain(t fatal, e bus.Event) bus.Event {
	t.Helper()
	attrs := slices.Clone(e.Attrs())
	for i := range attrs {
		attrs[i].Kind = bus.String
	}
	p, err := bus.NewEvent(attrs, e.Data())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// trimmed is the event without the space around JSON data, which structured mode
// does not carry.
func trimmed(t fatal, e bus.Event) bus.Event {
	t.Helper()
	if !e.DataIsJSON() {
		return e
	}
	p, err := bus.NewEvent(slices.Clone(e.Attrs()), bytes.Trim(e.Data(), " \t\r\n"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}
