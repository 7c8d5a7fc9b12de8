package cli

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestClientExplainsItself(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"a problem": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 409, map[string]any{"title": "Conflict", "detail": "it is paused"})
		}, "sluice: the server says no (409): it is paused\n"},
		"a problem of few words": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 500, map[string]any{"title": "Internal Server Error"})
		}, "sluice: the server says no (500): Internal Server Error\n"},
		"no rights": {func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 403, map[string]any{"detail": "the scope admin is needed"})
		}, "the scope admin is needed: name a token that may do this"},
		"another server": {http.NotFound, "is no Sluice server, or an older one (404 Not Found): name the right one with --server\n"},
		"another answer": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "is no Sluice server"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example", http.StatusFound)
		}, "is no Sluice server, or an older one (302 Found)"},
		"another version":     {func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{"sinks": 5}) }, "is it another version?"},
		"an end in the midst": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "cannot reach the server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(serve(t, c.answer).URL)
			r.run(t, exitFailure, "sinks", "ls")
			contains(t, r.err, c.want)
			if strings.Count(r.err.String(), "\n") != 1 || r.out.String() != "" {
				t.Errorf("more than one line: %s%s", r.err, r.out)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 3 ": 3 * time.Second, "-3": 0, "x": 0, "999999": 24 * time.Hour,
		noon().Add(time.Minute).Format(http.TimeFormat):  time.Minute,
		noon().Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(text, noon()); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

// A page may be short, or empty, and still not be the last.
func TestListGoesOnToTheEnd(t *testing.T) {
	t.Parallel()
	pages := map[string]string{
		"":    `{"events":[{"position":"1.0","event":{"id":"a"}}],"next":"2.0"}`,
		"2.0": `{"events":[],"next":"3.0"}`,
		"3.0": `{"events":[{"position":"3.0","event":{"id":"b"}}],"next":"4.0"}`,
		"4.0": `{"events":[{"position":"4.0","event":{"id":"c"}}]}`,
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(pages[r.URL.Query().Get("from")]))
	})
	r := newRig(s.URL)
	r.run(t, exitOK, "events", "--limit", "2")
	contains(t, r.out, "\n1.0 ", "\n3.0 ")
	contains(t, r.err, "go on with --from 4.0")
	r = newRig(s.URL)
	r.run(t, exitOK, "events", "--limit", "0", "-o", "json")
	contains(t, r.out, `"id": "a"`, `"id": "b"`, `"id": "c"`)
	r = newRig(s.URL)
	r.run(t, exitOK, "events", "--from", "4.0")
	if strings.Contains(r.out.String(), "1.0") || r.err.String() != "" {
		t.Errorf("got %s%s", r.out, r.err)
	}
}

func TestPurgeAsks(t *testing.T) {
	t.Parallel()
	removed := 0
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		removed++
		answer(w, 200, map[string]any{"removed": 3})
	})
	for typed, want := range map[string]int{"y\n": exitOK, "YES": exitOK, "n\n": exitFailure, "\n": exitFailure, "": exitFailure} {
		r := newRig(s.URL)
		r.stdin = strings.NewReader(typed)
		r.terminal = func(stream any) bool { return stream == r.stdin }
		r.run(t, want, "dlq", "purge", "--sink", "fn")
		contains(t, r.err, `Remove the dead letters chosen by {"sink":"fn"} for good? [y/N] `)
	}
	if removed != 2 {
		t.Errorf("removed %d times, want 2", removed)
	}
}

func TestValidateShowsTheLine(t *testing.T) {
	t.Parallel()
	r := newRig("")
	r.terminal = func(any) bool { return true }
	r.run(t, exitInvalid, "validate", "--no-color", "testdata/excerpt.yaml")
	want := `testdata/excerpt.yaml:2:16: sinks.fn.http.urk: unknown key, did you mean "url"?
  2 |   fn: {	http: {urk: "http://127.0.0.1/"}}
    |        	       ^
invalid: testdata/excerpt.yaml: 1 fault
`
	if r.out.String() != want {
		t.Errorf("got\n%s", r.out)
	}
}
