package cli

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/api"
	"sluice/cmd/internal/doctor"
)

// steering is text that does something to a terminal: sets its title, colours it, goes
// up a line. U+009B begins a sequence as ESC [ does.
const steering = "a\x1b]0;title\x07b\u009b31mc\x7fd\re"

// steeringEvent is an event in JSON as the server gives it out: there the characters
// below the space are escaped, and others are not.
const steeringEvent = `{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"a\u001b]0;b` + "\u009b31mc\x7f" + `"}`

// fill puts steering text wherever a document of the API has a text.
func fill(v reflect.Value, depth int) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(noon()))
		return
	case json.RawMessage:
		v.SetBytes([]byte(steeringEvent))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(steering)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(3)
	case reflect.Float64:
		v.SetFloat(3)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), depth)
			}
		}
	case reflect.Pointer:
		if depth < 3 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if depth < 2 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0), depth+1)
			fill(v.Index(1), depth+1)
		}
	}
}

// filled is a document of the API full of steering text; change may be nil.
func filled[T any](change func(*T)) []byte {
	var doc T
	fill(reflect.ValueOf(&doc).Elem(), 0)
	if change != nil {
		change(&doc)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err)
	}
	return text
}

// serverVerbs are verbs that show what a server says.
func serverVerbs() []string {
	return []string{
		"status", "doctor", "sinks ls", "sinks show a", "sinks pause a", "sources ls", "sources show a", "rules ls", "schedules ls",
		"dlq ls", "dlq show a", "events ls", "events show 1", "events show 1 --event", "queue ls", "queue receive a", "queue peek a",
		"jobs ls", "jobs show a", "subscriptions ls", "reload", "tail -n 7", "sinks resume nobody", "subscriptions rm a",
	}
}

// steeringServer answers each of them with steering text.
func steeringServer(t *testing.T) *httptest.Server {
	t.Helper()
	stage := func(stage string) func(*noticeDoc) { return func(n *noticeDoc) { n.Stage = stage } }
	answers := map[string][]byte{
		"/api/v1/status":        filled[statusDoc](nil),
		"/api/v1/doctor":        filled[doctor.Report](nil),
		"/api/v1/sinks":         filled[struct{ Sinks []sinkDoc }](nil),
		"/api/v1/sinks/a":       filled[sinkDoc](nil),
		"/api/v1/sinks/a/pause": filled[sinkDoc](nil),
		"/api/v1/sources":       filled[struct{ Sources []api.Source }](nil),
		"/api/v1/sources/a":     filled[api.Source](nil),
		"/api/v1/rules":         filled[struct{ Rules []ruleDoc }](nil),
		"/api/v1/schedules":     filled[struct{ Schedules []api.Schedule }](nil),
		"/api/v1/dead-letters": filled[struct {
			DeadLetters []deadLetterDoc `json:"dead_letters"`
		}](nil),
		"/api/v1/dead-letters/a":   filled[deadLetterDoc](nil),
		"/api/v1/events":           filled[struct{ Events []storedDoc }](nil),
		"/api/v1/queues":           filled[struct{ Queues []sinkDoc }](nil),
		"/api/v1/queues/a/receive": filled[struct{ Messages []messageDoc }](nil),
		"/api/v1/queues/a/peek":    filled[struct{ Messages []messageDoc }](nil),
		"/api/v1/jobs":             filled[struct{ Jobs []dispatch.Job }](nil),
		"/api/v1/jobs/a":           filled[dispatch.Job](nil),
		"/subscriptions":           filled[[]api.Subscription](nil),
		"/api/v1/reload":           []byte(`{"ok":true}`),
		"/api/v1/story":            filled[dispatch.Stories](nil),
	}
	var tail []byte
	for _, s := range slices.Concat(dispatch.Stages(), []string{steering}) {
		tail = append(append(tail, filled(stage(s))...), '\n')
	}
	answers["/api/v1/tail"] = tail
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		doc, ok := answers[r.URL.Path]
		if !ok {
			answer(w, http.StatusTeapot, map[string]any{"status": http.StatusTeapot, "title": "no", "detail": steering})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(doc)
	})
}

// Whatever events hold and functions answer, nothing of it steers the terminal of who
// looks at it.
func TestNothingSteersTheTerminal(t *testing.T) {
	t.Parallel()
	srv := steeringServer(t)
	for _, line := range serverVerbs() {
		for _, format := range []string{"table", "json"} {
			r := newRig(srv.URL)
			run(t.Context(), append(strings.Fields(line), "-o", format), r.env)
			text := r.out.String() + r.err.String()
			if len(text) == 0 {
				t.Errorf("%s as %s prints nothing", line, format)
			}
			if at := strings.IndexFunc(text, func(c rune) bool { return c != '\n' && unicode.IsControl(c) }); at >= 0 {
				t.Errorf("%s as %s prints %q", line, format, text[max(0, at-60):min(len(text), at+20)])
			}
		}
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

var errFullDisk = errors.New("no space left on device")

func (fullDisk) Write([]byte) (int, error) { return 0, errFullDisk }

// A result that could not be printed is no success, whatever the verb.
func TestUnprintedResultFails(t *testing.T) {
	t.Parallel()
	srv := steeringServer(t)
	for _, line := range serverVerbs() {
		for _, format := range []string{"table", "json"} {
			r := newRig(srv.URL)
			r.stdout = fullDisk{}
			if code := run(t.Context(), append(strings.Fields(line), "-o", format), r.env); code == exitOK {
				t.Errorf("%s as %s: exit code 0", line, format)
			}
		}
	}
}
