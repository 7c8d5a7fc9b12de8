package rules_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/rules"
)

// plainly evaluates a filter as the specification words it, without sql.
func plainly(raw json.RawMessage, attrs map[string]string) (holds, known bool) {
	var filter map[string]json.RawMessage
	if json.Unmarshal(raw, &filter) != nil || len(filter) != 1 {
		return false, false
	}
	for name, body := range filter {
		switch name {
		case "exact", "prefix", "suffix":
			var want map[string]string
			if json.Unmarshal(body, &want) != nil {
				return false, false
			}
			for attr, value := range want {
				got, has := attrs[attr]
				if !has || name == "exact" && got != value || name == "prefix" && !strings.HasPrefix(got, value) || name == "suffix" && !strings.HasSuffix(got, value) {
					return false, true
				}
			}
			return true, true
		case "not":
			holds, known := plainly(body, attrs)
			return !holds, known
		case "all", "any":
			var parts []json.RawMessage
			if json.Unmarshal(body, &parts) != nil {
				return false, false
			}
			found := 0
			for _, part := range parts {
				holds, known := plainly(part, attrs)
				if !known {
					return false, false
				}
				if holds {
					found++
				}
			}
			return name == "all" && found == len(parts) || name == "any" && found > 0, true
		}
	}
	return false, false
}

// FuzzFilters compares what filters let through with what the specification says,
// for an event with one attribute that the fuzzer chooses.
func FuzzFilters(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"exact": {"type": "order.created", "tenant": "5"}}`, "5"},
		{`{"any": [{"prefix": {"subject": "eu/"}}, {"suffix": {"tenant": "%_'"}}]}`, "a%_'"},
		{`{"not": {"all": [{"exact": {"missing": "x"}}, {"prefix": {"tenant": "tr"}}]}}`, "true"},
		{`{"all": [{"not": {"not": {"suffix": {"type": "d"}}}}, {"exact": {"tenant": "é"}}]}`, "é"},
		{`{"sql": "tenant = '5' AND EXISTS subject"}`, "5"},
		{`{"prefix": {"time": "2026-"}}`, "007"},
		{`{"any": [{"suffix": {"tenant": "\\' OR TRUE OR '\\"}}, {"exact": {"tenant": "a\\"}}]}`, `a\`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, tenant string) {
		raw := json.RawMessage(text)
		filters, err := rules.ParseFilters(nil, "", nil, []json.RawMessage{raw})
		if err != nil {
			var fault *rules.FilterError
			if !errors.As(err, &fault) || !strings.HasPrefix(fault.Path, "filters") {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		attrs := map[string]string{
			"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.created", "subject": "eu/1.jpg", "time": "2026-01-02T03:04:05Z", "tenant": tenant,
		}
		var list []bus.Attr
		for name, value := range attrs {
			if name != "specversion" {
				list = append(list, bus.Attr{Name: name, Value: value})
			}
		}
		e, err := bus.NewEvent(list, nil)
		if err != nil {
			return // no attribute has such a value
		}
		want, known := plainly(raw, attrs)
		if got := holds(t, filters, e); known && got != want {
			t.Fatalf("%s lets an event with tenant %q through: %v, want %v", text, tenant, got, want)
		}
	})
}
