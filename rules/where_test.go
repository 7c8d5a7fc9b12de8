package rules

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sqlerrors "github.com/cloudevents/sdk-go/sql/v2/errors"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	"go.yaml.in/yaml/v3"
)

// tckCase is one case of the CESQL technology compatibility kit.
type tckCase struct {
	Name       string         `yaml:"name"`
	Expression string         `yaml:"expression"`
	Result     any            `yaml:"result"`
	Error      string         `yaml:"error"`
	Event      map[string]any `yaml:"event"`
	Overrides  map[string]any `yaml:"eventOverrides"`
}

// tckEvent is the event that a case is about.
func (c tckCase) event(t *testing.T) event.Event {
	t.Helper()
	attributes := c.Event
	if attributes == nil {
		attributes = map[string]any{
			"id": "full-event", "type": "com.example.FullEvent", "source": "http://example.com/source",
			"subject": "topic", "time": "2020-03-21T12:34:56.78Z", "dataschema": "http://example.com/schema",
			"datacontenttype": "text/json", "exbool": true, "exint": 42, "exstring": "exstring",
			"exbinary": "AAECAw==", "exurl": "http://example.com/source", "extime": "2020-03-21T12:34:56.78Z",
		}
	}
	attributes = maps.Clone(attributes)
	maps.Copy(attributes, c.Overrides)
	delete(attributes, "specversion")
	e := event.New(event.CloudEventsVersionV1)
	for name, v := range attributes {
		if at, ok := v.(time.Time); ok {
			v = at.Format(time.RFC3339Nano)
		}
		if n, ok := v.(int); ok {
			v = int32(n)
		}
		if err := spec.V1.SetAttribute(e.Context, name, v); err != nil {
			t.Fatalf("attribute %s: %v", name, err)
		}
	}
	return e
}

func tckErrorIs(kind string, err error) bool {
	switch kind {
	case "math":
		return sqlerrors.IsMathError(err)
	case "cast":
		return sqlerrors.IsCastError(err)
	case "missingAttribute":
		return sqlerrors.IsMissingAttributeError(err)
	case "functionEvaluation":
		return sqlerrors.IsFunctionEvaluationError(err)
	}
	return false
}

// TestWhereTCK runs the whole compatibility kit of CESQL, as it comes with the
// library's module. What it calls a missing function at evaluation is an error of
// ParseWhere here, which is stricter.
func TestWhereTCK(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/cloudevents/sdk-go/sql/v2").Output()
	if err != nil {
		t.Fatalf("find the module of the kit: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "test", "tck", "*.yaml"))
	if err != nil || len(files) != 18 {
		t.Fatalf("the kit has %d files, want 18 (error %v)", len(files), err)
	}
	ran := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var kit struct{ Tests []tckCase }
		if err := yaml.Unmarshal(text, &kit); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range kit.Tests {
			ran++
			t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml")+"/"+c.Name, func(t *testing.T) { runTCK(t, c) })
		}
	}
	if ran < 200 {
		t.Errorf("only %d cases ran", ran)
	}
}

func runTCK(t *testing.T, c tckCase) {
	t.Parallel()
	w, err := ParseWhere(c.Expression)
	if c.Error == "parse" || c.Error == "missingFunction" {
		var fault *WhereError
		if !errors.As(err, &fault) {
			t.Fatalf("%s: error %v, want one of parsing", c.Expression, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", c.Expression, err)
	}
	e := c.event(t)
	got, err := w.evaluate(e)
	if (err != nil) != (c.Error != "") || c.Error != "" && !tckErrorIs(c.Error, err) {
		t.Fatalf("%s: error %v, want %q", c.Expression, err, c.Error)
	}
	if fmt.Sprintf("%T %v", got, got) != fmt.Sprintf("%T %v", tckResult(c.Result), tckResult(c.Result)) {
		t.Errorf("%s is %T %v, want %T %v", c.Expression, got, got, c.Result, c.Result)
	}
	// Whatever the value, a rule sees a boolean, and never true with an error.
	if yes, failed := w.Match(e); yes && (err != nil || failed != nil) {
		t.Errorf("%s matches in spite of the error %v", c.Expression, err)
	}
}

func tckResult(v any) any {
	switch v := v.(type) {
	case int:
		return int32(v)
	case float64:
		return int32(v)
	case time.Time: // what YAML takes a timestamp without quotes for
		return v.Format(time.RFC3339Nano)
	}
	return v
}

func TestWhereFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, want string
		offset     int
	}{
		{"", "is empty", 0},
		{"  \n ", "is empty", 0},
		{"type = ", "ends too early", 7},
		{"ABC(", "ends too early", 4},
		{"type == 'a'", "'=' cannot stand here", 6},
		{"type = 'a' ; id = 'b'", "';' cannot stand here", 11},
		{"source = 'ü' AND § = 1", "'§' cannot stand here", 18},
		{"type = 'a'\nAND AND id", "'AND' cannot stand here", 15},
		{"type LIKE id", "'id' cannot stand here", 10},
		{"id = 99999999999", "99999999999 is no integer of 32 bits", 0},
		{"NOSUCH(id)", "there is no function NOSUCH that takes 1 arguments", 0},
		{"LENGTH(id, (type)) > 1", "there is no function LENGTH that takes 2 arguments", 0},
		{"id = '" + strings.Repeat("a", maxWhereBytes) + "'", "has 4103 bytes: 4096 are the most", maxWhereBytes},
		{strings.Repeat("(", 100) + "id" + strings.Repeat(")", 100), "nested too deeply", 64},
		{strings.Repeat("NOT ", 100) + "TRUE", "nested too deeply", 256},
		{strings.Repeat("-", 100) + "1", "nested too deeply", 64},
		{"1" + strings.Repeat(" + 1", 300), "words and signs", 1024},
		{"id = '\xff'", "not valid UTF-8", 0},
	} {
		_, err := ParseWhere(c.text)
		var fault *WhereError
		if !errors.As(err, &fault) {
			t.Errorf("%.60q: no error", c.text)
			continue
		}
		if !strings.Contains(fault.Msg, c.want) || fault.Offset != c.offset {
			t.Errorf("%.60q: at %d: %s\nwant at %d: %s", c.text, fault.Offset, fault.Msg, c.offset, c.want)
		}
	}
}

// TestWhereIsParsedSoon holds the worst expressions within the limits to a time.
func TestWhereIsParsedSoon(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"TRUE" + strings.Repeat(" AND TRUE", 250),
		"1" + strings.Repeat(" + 1", 250),
		"TRUE" + strings.Repeat(" OR NOT TRUE", 160),
		strings.Repeat("(", 60) + "1" + strings.Repeat(" + 1)", 60) + " = 1",
		strings.Repeat("ABS(", 60) + "1" + strings.Repeat(")", 60) + " = 1",
		"id IN (" + strings.Repeat("'a',", 240) + "'b')",
	} {
		start := time.Now()
		w, err := ParseWhere(text)
		if err != nil {
			t.Errorf("%.40s…: %v", text, err)
			continue
		}
		if _, err := w.Match(tckCase{}.event(t)); err != nil {
			t.Errorf("%.40s…: %v", text, err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%.40s… took %v", text, took)
		}
	}
}

func TestWhereMatch(t *testing.T) {
	t.Parallel()
	e := tckCase{}.event(t)
	for _, c := range []struct {
		text string
		want bool
		err  string
	}{
		{"exint > 40", true, ""},
		{"exint", true, ""},
		{"exint - 42", false, ""},
		{"exbool", true, ""},
		{"subject", false, "cannot cast String to Boolean"},
		{"'true'", true, ""},
		{"absent = 1", false, "missing attribute error: absent"},
		{"EXISTS absent AND absent = 1", false, ""},
		{"1 / 0 = 1", false, "math error"},
		// The library cuts the string out of its range and panics.
		{"SUBSTRING(subject, 2, -5) = ''", false, "cannot be worked out"},
	} {
		w, err := ParseWhere(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		got, err := w.Match(e)
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s is %v, error %v; want %v, %q", c.text, got, err, c.want, c.err)
		}
	}
}

func FuzzWhere(f *testing.F) {
	for _, text := range []string{"type = 'a'", "LENGTH(id) > 3 OR NOT EXISTS subject", "id IN ('a', \"b\")", "-1 % 0 <> 'x'", "ABC(", "subject NOT LIKE '%\\_é_'"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		w, err := ParseWhere(text)
		if err != nil {
			var fault *WhereError
			if !errors.As(err, &fault) || fault.Offset < 0 || fault.Offset > len(text) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if yes, err := w.Match(tckCase{}.event(t)); yes && err != nil {
			t.Fatalf("%q matches in spite of %v", text, err)
		}
	})
}
