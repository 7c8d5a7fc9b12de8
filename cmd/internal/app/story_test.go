package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/app/apptest"
)

// step is a function of a pipeline: it answers each event with another one.
func step(eventType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Ce-Type", eventType)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	}
}

// fails is a function that is broken, and says so in a way that is meant for a terminal.
func fails(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = w.Write([]byte("no room \x1b[2Jleft"))
}

func story(n *apptest.Node, id string) *dispatch.Story {
	n.T.Helper()
	var all dispatch.Stories
	n.Get("/api/v1/story?id="+url.QueryEscape(id)+"&source=/test", &all)
	if len(all.Stories) != 1 || !all.Search.Complete || len(all.Search.Notes) > 0 {
		n.T.Fatalf("stories of %s: %+v", id, all)
	}
	return all.Stories[0]
}

// lines are what happened, in order: the stages, with sink and attempt where they have
// one, and the replies below what they answer.
func lines(s *dispatch.Story, indent string) (all []string) {
	for i := range s.Timeline {
		h := &s.Timeline[i]
		line := indent + h.Stage
		if h.Sink != "" {
			line += " " + h.Sink
		}
		if h.Attempt > 0 {
			line += fmt.Sprintf(" %d", h.Attempt)
		}
		if i > 0 && h.At.Before(s.Timeline[i-1].At) {
			line += " (out of order)"
		}
		all = append(all, line)
	}
	for _, d := range s.Deliveries {
		all = append(all, indent+"= "+d.Sink+" "+d.State)
	}
	for _, r := range s.Replies {
		all = append(all, lines(r, indent+"  ")...)
	}
	return all
}

func wantLines(t *testing.T, when string, s *dispatch.Story, want ...string) {
	t.Helper()
	if got := lines(s, ""); !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(fmt.Sprint(s.Notes), "remembered") {
		t.Errorf("%s: notes: %q", when, s.Notes)
	}
}

// A pipeline of three functions by their replies, of which the second is broken, and
// mended: the story of the first event tells all of it, before and after restarts.
func TestStoryOfAPipeline(t *testing.T) {
	t.Parallel()
	resize, store, notify := apptest.NewFunction(t, step("resized")), apptest.NewFunction(t, fails), apptest.NewFunction(t, nil)
	config := fmt.Sprintf(`
sinks:
  resize: {http: {url: %q}}
  store: {http: {url: %q}, retry: {schedule: [1ms, 1ms]}}
  notify: {http: {url: %q}}
rules:
  uploads: {match: {type: [uploaded]}, to: [resize]}
  images: {match: {type: [resized]}, to: [store]}
  stored: {match: {type: [stored]}, to: [notify]}
`, resize.URL, store.URL, notify.URL)
	dir := t.TempDir()
	var n *apptest.Node
	restart := func() {
		t.Helper()
		if n != nil {
			if err := n.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		n = apptest.Start(t, config, apptest.OnDisk(dir))
	}
	restart()
	const id = "in/a b&c?.jpg"
	n.MustPublish("other", "uploaded", "{}")
	n.MustPublish(id, "uploaded", "{}")
	apptest.Eventually(t, "both are dead letters", func() bool {
		var dead deadLetters
		n.Get("/api/v1/dead-letters", &dead)
		return len(dead.DeadLetters) == 2
	})
	broken := []string{
		"accepted", "replied resize", "delivered resize 1", "= resize delivered",
		"  accepted", "  retry store 1", "  retry store 2", "  dead_letter store 3", "  = store dead_letter",
	}
	wantLines(t, "while it is broken", story(n, id), broken...)
	restart()
	s := story(n, id)
	wantLines(t, "while it is broken, after a restart", s, broken...)
	if s.Replies[0].Cause == nil || s.Replies[0].Cause.ID != id || !strings.Contains(s.Replies[0].Timeline[3].Answer, "no room") {
		t.Errorf("the reply: %+v", s.Replies[0])
	}

	store.Set(step("stored"))
	var job dispatch.Job
	n.Post("/api/v1/dead-letters/redrive", "{}", &job)
	apptest.Eventually(t, "the pipeline ends", func() bool { return len(notify.Delivered()) == 2 && n.Bus().Balance().Open() == 0 })
	mended := []string{
		"accepted", "replied resize", "delivered resize 1", "= resize delivered",
		"  accepted", "  retry store 1", "  retry store 2", "  dead_letter store 3", "  redriven store", "  replied store", "  delivered store 1", "  = store delivered",
		"    accepted", "    delivered notify 1", "    = notify delivered",
	}
	s = story(n, id)
	wantLines(t, "once it is mended", s, mended...)
	if redriven := s.Replies[0].Timeline[4]; redriven.Job != job.ID {
		t.Errorf("redriven: %+v, want job %s", redriven, job.ID)
	}
	for range 2 { // what is remembered is handed on
		restart()
		wantLines(t, "once it is mended, after a restart", story(n, id), mended...)
	}

	// The story of a reply begins with what it answers.
	last := story(n, id).Replies[0].Replies[0]
	var all dispatch.Stories
	n.Get("/api/v1/story?id="+url.QueryEscape(last.ID), &all)
	if len(all.Stories) != 1 || all.Stories[0].Cause == nil || len(all.Stories[0].Cause.Found) != 1 || all.Stories[0].Cause.Correlation != id ||
		all.Stories[0].Cause.Found[0].Type != "resized" {
		text, _ := json.MarshalIndent(all, "", " ")
		t.Errorf("the story of the reply: %s", text)
	}
	if a := n.Do("GET", "/api/v1/story?id="+url.QueryEscape(id)+"&source=/elsewhere", ""); a.Status != http.StatusNotFound {
		t.Errorf("of another source: %d %s", a.Status, a.Body)
	}
}
