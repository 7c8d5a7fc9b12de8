package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/cmd/internal/app/apptest"
)

// A function's answer becomes an event: in each of the forms of a CloudEvent, to
// whoever waits for it, and to the function that the rules send it to.
func TestReplies(t *testing.T) {
	t.Parallel()
	last := apptest.NewFunction(t, nil)
	first := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Ce-Id") {
		case "short":
			w.Header().Set("Ce-Type", "done")
			w.Header().Set("Content-Type", "text/plain")
			_, _ = w.Write([]byte("short is done"))
		case "structured":
			w.Header().Set("Content-Type", "application/cloudevents+json; charset=utf-8")
			_, _ = w.Write([]byte(`{"specversion":"1.0","id":"s1","source":"/fn","type":"done","data":{"ok":true}}`))
		case "batch":
			w.Header().Set("Content-Type", "application/cloudevents-batch+json")
			_, _ = w.Write([]byte(`[{"specversion":"1.0","id":"b1","source":"/fn","type":"done"},{"specversion":"1.0","id":"b2","source":"/fn","type":"done"}]`))
		case "broken":
			w.Header().Set("Content-Type", "application/cloudevents+json")
			_, _ = w.Write([]byte(`{"specversion":"1.0"}`))
		case "plain":
			_, _ = w.Write([]byte(`{"specversion":"1.0","id":"p1","source":"/fn","type":"done"}`))
		}
	})
	n := apptest.Start(t, fmt.Sprintf(`
sinks:
  first: {http: {url: %q}}
  last: {http: {url: %q}}
rules:
  begin: {match: {type: [begin]}, to: [first]}
  end: {match: {type: [done]}, to: [last]}
`, first.URL, last.URL))
	a := n.Do("POST", "/events", "{}", "Ce-Specversion", "1.0", "Ce-Id", "short", "Ce-Source", "/test", "Ce-Type", "begin",
		"Content-Type", "application/json", "Prefer", "wait=20")
	if a.Status != http.StatusOK || string(a.Body) != "short is done" || a.Header.Get("Ce-Type") != "done" ||
		a.Header.Get("Ce-Causationid") != "short" || a.Header.Get("Preference-Applied") != "wait=20" {
		t.Errorf("the reply: %d %v %s", a.Status, a.Header, a.Body)
	}
	if id := a.Header.Get("Ce-Id"); !strings.HasSuffix(id, "-reply") || a.Header.Get("Ce-Source") != "/sinks/first" {
		t.Errorf("its id is %q", id)
	}
	for _, id := range []string{"structured", "batch", "broken", "plain"} {
		n.MustPublish(id, "begin", "{}")
	}
	apptest.Eventually(t, "all replies arrive", func() bool {
		got := last.Delivered()
		return len(got) == 4 && got["s1"] == 1 && got["b1"] == 1 && got["b2"] == 1
	})
	var dead deadLetters
	apptest.Eventually(t, "the broken answer is a dead letter", func() bool {
		n.Get("/api/v1/dead-letters", &dead)
		return len(dead.DeadLetters) > 0
	})
	if len(dead.DeadLetters) != 1 || dead.DeadLetters[0].Event.ID != "broken" || !strings.Contains(n.Logs.String(), "answered with an event that is not valid") {
		t.Errorf("dead letters: %+v", dead)
	}
	// Nobody answers: the request is told what it would be told at once.
	a = n.Do("POST", "/events", "{}", "Ce-Specversion", "1.0", "Ce-Id", "silent", "Ce-Source", "/test", "Ce-Type", "none",
		"Content-Type", "application/json", "Prefer", "wait=1")
	if a.Status != http.StatusAccepted {
		t.Errorf("without a reply: %d %s", a.Status, a.Body)
	}
}
