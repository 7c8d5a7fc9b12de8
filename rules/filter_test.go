package rules_test

import (
	"encoding/json"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/rules"
)

// holds tells whether filters let an event through.
func holds(t *testing.T, f rules.Filters, e bus.Event) bool {
	t.Helper()
	set, err := rules.Compile([]rules.Rule{{Name: "f", Pattern: f.Pattern()}})
	if err != nil {
		t.Fatal(err)
	}
	hits, err := set.MatchEvent(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(hits) == 0 {
		return false
	}
	if f.Where() == nil {
		return true
	}
	ok, _ := f.Where().Match(e.CloudEvent()) // an error is no
	return ok
}

func TestFilters(t *testing.T) {
	t.Parallel()
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: "1"}, {Name: "source", Value: "/shop"}, {Name: "type", Value: "order.created"},
		{Name: "subject", Value: "eu/100%_'a'.jpg"}, {Name: "tenant", Value: "acme"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		source  string
		types   []string
		filters string
		want    bool
	}{
		{"", nil, `[]`, true},
		{"/shop", []string{"order.created", "x"}, `[]`, true},
		{"/other", nil, `[]`, false},
		{"", []string{"x"}, `[]`, false},
		{"", nil, `[{"exact": {"type": "order.created", "tenant": "acme"}}]`, true},
		{"", nil, `[{"exact": {"type": "order.created", "tenant": "other"}}]`, false},
		{"", nil, `[{"exact": {"missing": "x"}}]`, false},
		{"", nil, `[{"prefix": {"subject": "eu/"}}, {"suffix": {"subject": ".jpg"}}]`, true},
		{"", nil, `[{"prefix": {"subject": "eu/"}}, {"suffix": {"subject": ".png"}}]`, false},
		{"", []string{"order.created"}, `[{"prefix": {"type": "order."}}]`, true},
		{"", []string{"order.created"}, `[{"prefix": {"type": "invoice."}}]`, false},
		{"", nil, `[{"not": {"exact": {"tenant": "other"}}}]`, true},
		{"", nil, `[{"not": {"exact": {"missing": "other"}}}]`, true},
		{"", nil, `[{"not": {"prefix": {"tenant": "ac"}}}]`, false},
		{"", nil, `[{"any": [{"exact": {"tenant": "x"}}, {"suffix": {"type": "created"}}]}]`, true},
		{"", nil, `[{"any": [{"exact": {"missing": "x"}}, {"suffix": {"type": "created"}}]}]`, true},
		{"", nil, `[{"any": [{"exact": {"tenant": "x"}}]}]`, false},
		{"", nil, `[{"all": [{"exact": {"tenant": "acme"}}, {"not": {"all": [{"prefix": {"type": "x"}}, {"prefix": {"type": "order"}}]}}]}]`, true},
		{"", nil, `[{"sql": "tenant LIKE 'a%' AND EXISTS subject"}]`, true},
		{"", nil, `[{"not": {"sql": "tenant = 'acme'"}}]`, false},
		{"", nil, `[{"any": [{"suffix": {"subject": "100%_'a'.jpg"}}]}]`, true},
		{"", nil, `[{"any": [{"suffix": {"subject": "100x_'a'.jpg"}}]}]`, false},
		{"", nil, `[{"any": [{"suffix": {"subject": "100%x'a'.jpg"}}]}]`, false},
		{"", nil, `[{"any": [{"exact": {"subject": "eu/100%_'a'.jpg"}}]}]`, true},
	} {
		var filters []json.RawMessage
		if err := json.Unmarshal([]byte(c.filters), &filters); err != nil {
			t.Fatal(err)
		}
		f, err := rules.ParseFilters(nil, c.source, c.types, filters)
		if err != nil {
			t.Errorf("%s: %v", c.filters, err)
			continue
		}
		if got := holds(t, f, e); got != c.want {
			t.Errorf("source %q, types %v, %s: %v; the pattern is %s, where %s", c.source, c.types, c.filters, got, f.Pattern(), f.Where())
		}
		// The same beside a pattern, where none of it can be in the pattern.
		for match, matches := range map[string]bool{`{"tenant": [{"prefix": "ac"}]}`: true, `{"tenant": ["other"]}`: false} {
			f, err := rules.ParseFilters([]byte(match), c.source, c.types, filters)
			if err != nil {
				t.Errorf("%s and %s: %v", match, c.filters, err)
				continue
			}
			if got := holds(t, f, e); got != (c.want && matches) {
				t.Errorf("%s and source %q, types %v, %s: %v; where is %s", match, c.source, c.types, c.filters, got, f.Where())
			}
		}
	}
}

func TestFilterErrors(t *testing.T) {
	t.Parallel()
	for filters, want := range map[string]string{
		`[{}]`:                                  "filters[0]: is not an object with one dialect",
		`["x"]`:                                 "filters[0]: is not an object with one dialect",
		`[{"exact": {}}, {"any": 1}]`:           "filters[0].exact: is not an object of attributes",
		`[{"any": []}]`:                         "filters[0].any: is not a list",
		`[{"any": [{"like": {"type": "x"}}]}]`:  "filters[0].any[0].like: is not a dialect: there are exact",
		`[{"sql": "foo("}]`:                     "filters[0].sql: at byte",
		`[{"exact": {"Type": "x"}}]`:            `"Type" is not the name of an attribute`,
		`[{"all": [{"exact": {"type": ""}}]}]`:  "filters[0].all[0].exact.type: is empty",
		`[{"not": [{"exact": {"type": "x"}}]}]`: "filters[0].not: is not an object",
		strings.Repeat(`[{"any": `, 1) + `[` + strings.Repeat(`{"not": `, 20) + `{"exact": {"type": "x"}}` + strings.Repeat(`}`, 20) + `]}]`: "is nested deeper",
	} {
		var raw []json.RawMessage
		if err := json.Unmarshal([]byte(filters), &raw); err != nil {
			t.Fatalf("%s: %v", filters, err)
		}
		if _, err := rules.ParseFilters(nil, "", nil, raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", filters, err, want)
		}
	}
}

// A filter compares as texts do, whatever stands in them, by itself as within others.
func TestFilterValues(t *testing.T) {
	t.Parallel()
	event := func(kind, subject string) bus.Event {
		e, err := bus.NewEvent([]bus.Attr{
			{Name: "id", Value: "1"}, {Name: "source", Value: "/s"}, {Name: "type", Value: kind}, {Name: "subject", Value: subject},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	subject := func(text string) bus.Event { return event("t", text) }
	for _, v := range []string{
		"5", "007", "1e3", "true", "TRUE", "null", "'", "''", `"`, "a'b", "%", "_", "a%", "%20a", "*", "?", "ä", "日本", "😀", "' OR TRUE OR '", "--", " a ",
		`\`, `\\`, `\\\`, `a\b`, `C:\in\`, `\a`, `\'`, `\\'`, `'\`, `\"`, `a\' OR TRUE OR \'b\`, `\n`, `\%`, `\*\`,
	} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		// Beside a pattern the types are compared by an expression too.
		f, err := rules.ParseFilters([]byte(`{"id": ["1"]}`), "", []string{v + "x", v}, nil)
		if err != nil {
			t.Errorf("%q as a type: %v", v, err)
		} else if !holds(t, f, event(v, "s")) || holds(t, f, event(v+"y", "s")) {
			t.Errorf("%q as a type does not hold for just that; where is %s", v, f.Where())
		}
		for dialect, also := range map[string]string{"exact": v, "prefix": v + "%20x_y", "suffix": "%20x_y" + v} {
			one := `{"` + dialect + `":{"subject":` + string(text) + `}}`
			for _, filter := range []string{one, `{"any":[` + one + `]}`, `{"not":{"not":` + one + `}}`} {
				f, err := rules.ParseFilters(nil, "", nil, []json.RawMessage{json.RawMessage(filter)})
				if err != nil {
					t.Errorf("%s: %v", filter, err)
					continue
				}
				if !holds(t, f, subject(v)) || !holds(t, f, subject(also)) || holds(t, f, subject("!"+v+"!")) {
					t.Errorf("%s: %v for itself, %v for %q, %v for another", filter, holds(t, f, subject(v)), holds(t, f, subject(also)), also,
						holds(t, f, subject("!"+v+"!")))
				}
			}
		}
	}
}

// Filters that are nested without end are refused, and that takes no time to speak of.
func TestFilterDepth(t *testing.T) {
	t.Parallel()
	for _, nest := range [][2]string{{`{"all":[`, `]}`}, {`{"any":[`, `]}`}, {`{"not":`, `}`}, {`{"all":[{"not":`, `}]}`}} {
		text := strings.Repeat(nest[0], 2000) + `{"exact":{"type":"a"}}` + strings.Repeat(nest[1], 2000)
		_, err := rules.ParseFilters(nil, "", nil, []json.RawMessage{json.RawMessage(text)})
		if err == nil || !strings.Contains(err.Error(), "deeper") || len(err.Error()) > 300 {
			t.Errorf("%s: %.300v", nest[0], err)
		}
	}
}
