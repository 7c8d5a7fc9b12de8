package bus_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/bus"
)

func attr(name, value string) bus.Attr { return bus.Attr{Name: name, Value: value} }

// minimal are the attributes that every event needs, and more.
func minimal(more ...bus.Attr) []bus.Attr {
	return append([]bus.Attr{attr("id", "1"), attr("source", "/s"), attr("type", "t")}, more...)
}

func mustEvent(t testing.TB, data string, more ...bus.Attr) bus.Event {
	t.Helper()
	e, err := bus.NewEvent(minimal(more...), []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestNewEvent(t *testing.T) {
	t.Parallel()
	e := mustEvent(t, `{"a":1}`, attr("zz", "last"), attr("subject", "s"), attr("aa", "first"), attr("time", "2026-01-02T03:04:05+01:00"))
	var names []string
	for _, a := range e.Attrs() {
		names = append(names, a.Name)
	}
	if got, want := strings.Join(names, " "), "specversion id source type aa subject time zz"; got != want {
		t.Errorf("attributes are %s, want %s", got, want)
	}
	if e.ID() != "1" || e.Source() != "/s" || e.Type() != "t" || e.Subject() != "s" || e.Get("specversion") != "1.0" || e.Get("none") != "" {
		t.Errorf("%+v", e.Attrs())
	}
	if !e.Time().Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) || !e.DataIsJSON() || e.IsZero() || !(bus.Event{}).IsZero() {
		t.Errorf("time %v, JSON %v", e.Time(), e.DataIsJSON())
	}
	if e := mustEvent(t, ""); e.Data() != nil || e.DataIsJSON() {
		t.Error("no data is not nil")
	}
}

func TestNewEventFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		attrs []bus.Attr
		data  string
		at    string // the attribute that the error names; "" for no error
	}{
		"fine":               {minimal(), "", ""},
		"no id":              {minimal()[1:], "", "id"},
		"no source":          {[]bus.Attr{attr("id", "1"), attr("type", "t")}, "", "source"},
		"no type":            {minimal()[:2], "", "type"},
		"nothing":            {nil, "", "id"},
		"empty id":           {append(minimal()[1:], attr("id", "")), "", "id"},
		"empty source":       {[]bus.Attr{attr("id", "1"), attr("source", ""), attr("type", "t")}, "", "source"},
		"bad source":         {[]bus.Attr{attr("id", "1"), attr("source", "http://[::1"), attr("type", "t")}, "", "source"},
		"odd source":         {[]bus.Attr{attr("id", "1"), attr("source", "#"), attr("type", "t")}, "", ""},
		"twice":              {minimal(attr("a", "1"), attr("a", "2")), "", "a"},
		"type twice":         {minimal(attr("type", "2")), "", "type"},
		"old version":        {minimal(attr("specversion", "0.3")), "", "specversion"},
		"upper case":         {minimal(attr("Abc", "1")), "", "Abc"},
		"empty name":         {minimal(attr("", "1")), "", `""`},
		"data":               {minimal(attr("data", "1")), "", "data"},
		"data_base64":        {minimal(attr("data_base64", "1")), "", "data_base64"},
		"empty subject":      {minimal(attr("subject", "")), "", "subject"},
		"empty extension":    {minimal(attr("x", "")), "", ""},
		"control":            {minimal(attr("x", "a\nb")), "", "x"},
		"C1 control":         {minimal(attr("x", "a\u0085b")), "", "x"},
		"noncharacter":       {minimal(attr("x", "\ufdd0")), "", "x"},
		"noncharacter above": {minimal(attr("x", "\U0001ffff")), "", "x"},
		"invalid UTF-8":      {minimal(attr("x", "\xff")), "", "x"},
		"emoji":              {minimal(attr("x", "🎉")), "", ""},
		"integer":            {minimal(bus.Attr{Name: "x", Value: "-2147483648", Kind: bus.Integer}), "", ""},
		"large integer":      {minimal(bus.Attr{Name: "x", Value: "2147483648", Kind: bus.Integer}), "", "x"},
		"odd integer":        {minimal(bus.Attr{Name: "x", Value: "+1", Kind: bus.Integer}), "", "x"},
		"padded integer":     {minimal(bus.Attr{Name: "x", Value: "01", Kind: bus.Integer}), "", "x"},
		"boolean":            {minimal(bus.Attr{Name: "x", Value: "TRUE", Kind: bus.Boolean}), "", "x"},
		"unknown kind":       {minimal(bus.Attr{Name: "x", Value: "1", Kind: 9}), "", "x"},
		"integer subject":    {minimal(bus.Attr{Name: "subject", Value: "1", Kind: bus.Integer}), "", "subject"},
		"time":               {minimal(attr("time", "2026-01-02T03:04:05.123456789-07:00")), "", ""},
		"time without zone":  {minimal(attr("time", "2026-01-02T03:04:05")), "", "time"},
		"time with a comma":  {minimal(attr("time", "2026-01-02T03:04:05,5Z")), "", "time"},
		"short hour":         {minimal(attr("time", "2026-01-02T3:04:05Z")), "", "time"},
		"31 February":        {minimal(attr("time", "2026-02-31T03:04:05Z")), "", "time"},
		"media type":         {minimal(attr("datacontenttype", "json")), "", ""},
		"bad media type":     {minimal(attr("datacontenttype", "a/b/c")), "", "datacontenttype"},
		"relative schema":    {minimal(attr("dataschema", "/schema")), "", "dataschema"},
		"bad JSON":           {minimal(attr("datacontenttype", "application/x+json")), "{", "data"},
		"deep JSON":          {minimal(attr("datacontenttype", "application/json")), strings.Repeat("[", 1001) + strings.Repeat("]", 1001), "data"},
		"no JSON declared":   {minimal(), "{", ""},
		"JSON and more":      {minimal(attr("datacontenttype", "text/json")), "{} {}", "data"},
	} {
		_, err := bus.NewEvent(c.attrs, []byte(c.data))
		var e *bus.AttributeError
		switch {
		case c.at == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.at != "" && (!errors.As(err, &e) || e.Name != c.at):
			t.Errorf("%s: %v, want a fault of %s", name, err, c.at)
		}
	}
}

func TestValidJSON(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for doc, want := range map[string]bool{
		"{}": true, " [1] ": true, "": false, "{": false, "nul": false, "1 2": false,
		nested(bus.MaxDepth): true, nested(bus.MaxDepth + 1): false,
		`"` + strings.Repeat("[", 5000) + `"`:                           true, // in a string
		`"\"` + strings.Repeat("{", 5000) + `"`:                         true,
		"[" + strings.Repeat("[],", 5000) + "[]]":                       true, // wide, not deep
		strings.Repeat(`{"a":`, 1001) + "1" + strings.Repeat("}", 1001): false,
	} {
		if got := bus.ValidJSON([]byte(doc)); got != want {
			t.Errorf("ValidJSON(%.40s) = %v", doc, got)
		}
	}
	// This would overflow the stack of a recursive parser and end the process.
	if bus.ValidJSON([]byte(strings.Repeat("[", 16<<20))) {
		t.Error("16 MiB of [ are JSON")
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	e := mustEvent(t, "x", attr("a", "1"), attr("b", "2"))
	changed, err := e.With(attr("a", "9"), attr("b", ""), attr("c", "3"))
	if err != nil {
		t.Fatal(err)
	}
	if changed.Get("a") != "9" || changed.Get("c") != "3" || string(changed.Data()) != "x" {
		t.Errorf("%v", changed.Attrs())
	}
	if _, ok := changed.Lookup("b"); ok || e.Get("a") != "1" || e.Get("b") != "2" {
		t.Errorf("%v from %v", changed.Attrs(), e.Attrs())
	}
	if _, err := e.With(attr("id", "")); err == nil {
		t.Error("the id can be removed")
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600))
	for _, more := range [][]bus.Attr{nil, {attr("a", "1")}, {attr("zz", "1")}, {attr("a", "1"), attr("zz", "2")}} {
		e := mustEvent(t, "x", more...)
		stamped := bus.Stamp(e, now)
		want, err := e.With(attr("time", "2026-01-02T02:04:05.0000006Z"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, want, stamped)
		if _, ok := e.Lookup("time"); ok {
			t.Error("Stamp changed the event it was given")
		}
		same(t, stamped, bus.Stamp(stamped, now.Add(time.Hour)))
	}
}

func TestIsJSON(t *testing.T) {
	t.Parallel()
	for mt, want := range map[string]bool{
		"application/json": true, "Application/JSON; charset=utf-8": true, "text/json": true, "application/vnd.x+json": true,
		"application/x+JSON ;a=b": true, "application/jsonl": false, "json": false, "a/+json": false, "text/plain": false, "": false,
	} {
		if got := bus.IsJSON(mt); got != want {
			t.Errorf("IsJSON(%q) = %v", mt, got)
		}
	}
}
