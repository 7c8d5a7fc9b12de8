package app_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/cmd/internal/app/apptest"
)

// A function that takes a lease calls back where it was told to: for more time, and
// with its reply, after a restart of the bus too.
func TestLease(t *testing.T) {
	t.Parallel()
	last := apptest.NewFunction(t, nil)
	var mu sync.Mutex
	headers := map[string]http.Header{}
	job := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		headers[r.Header.Get("Ce-Id")] = r.Header.Clone()
		w.Header().Set("Sluice-Lease", "30m")
		w.WriteHeader(http.StatusAccepted)
	})
	yaml := fmt.Sprintf(`
sinks:
  job: {http: {url: %q}, lease: 1h}
  last: {http: {url: %q}}
rules:
  begin: {match: {type: [begin]}, to: [job]}
  end: {match: {type: [done]}, to: [last]}
`, job.URL, last.URL)
	dir := t.TempDir()
	n := apptest.Start(t, yaml, apptest.OnDisk(dir))
	n.MustPublish("1", "begin", "{}")
	n.MustPublish("2", "begin", "{}")
	apptest.Eventually(t, "both wait", func() bool { b := n.Bus().Balance(); return b.Retries == 2 })
	call := func(event, verb, body string, more ...string) apptest.Answer {
		mu.Lock()
		h := headers[event]
		mu.Unlock()
		_, path, ok := strings.Cut(h.Get("Sluice-Callback"), "/api/")
		if !ok || !strings.HasPrefix(h.Get("Sluice-Callback"), "http://127.0.0.1:") {
			t.Fatalf("the callback is %q", h.Get("Sluice-Callback"))
		}
		return n.Do("POST", "/api/"+path+"/"+verb, body, append(more, "Sluice-Lease-Token", h.Get("Sluice-Lease-Token"))...)
	}
	if a := call("1", "extend", `{"for": "2h"}`); a.Status != http.StatusOK || string(a.Body) != `{"seconds":3600}`+"\n" {
		t.Errorf("extend: %d %s", a.Status, a.Body)
	}
	if a := call("1", "extend", `{"for": "soon"}`); a.Status != http.StatusBadRequest {
		t.Errorf("extend: %d %s", a.Status, a.Body)
	}
	if a := call("1", "complete", `{"specversion":"1.0"}`, "Content-Type", "application/cloudevents+json"); a.Status != http.StatusBadRequest {
		t.Errorf("a reply that is none: %d %s", a.Status, a.Body)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	n = apptest.Start(t, yaml, apptest.OnDisk(dir))
	apptest.Eventually(t, "both wait", func() bool { b := n.Bus().Balance(); return b.Retries == 2 })
	if a := call("1", "complete", "all is well", "Ce-Type", "done", "Content-Type", "text/plain"); a.Status != http.StatusOK {
		t.Errorf("complete: %d %s", a.Status, a.Body)
	}
	if a := call("1", "complete", ""); a.Status != http.StatusNotFound {
		t.Errorf("complete again: %d %s", a.Status, a.Body)
	}
	id := headers["2"].Get("Sluice-Delivery-Id")
	if a := n.Do("POST", "/api/v1/leases/"+id+"/fail", "", "Sluice-Lease-Token", headers["1"].Get("Sluice-Lease-Token")); a.Status != http.StatusUnauthorized {
		t.Errorf("with the token of another: %d %s", a.Status, a.Body)
	}
	for _, after := range []string{"13h", "-1s", "soon"} {
		if a := call("2", "fail", `{"retry_after": "`+after+`"}`); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "12h") {
			t.Errorf("fail, to be tried again after %s: %d %s", after, a.Status, a.Body)
		}
	}
	if a := call("2", "fail", `{"error": "no disk`+strings.Repeat("!", 100<<10)+`", "retry": false}`); a.Status != http.StatusOK {
		t.Errorf("fail: %d %s", a.Status, a.Body)
	}
	apptest.Eventually(t, "the reply arrives", func() bool { return len(last.Delivered()) == 1 })
	var dead deadLetters
	apptest.Eventually(t, "the failure is a dead letter", func() bool {
		n.Get("/api/v1/dead-letters", &dead)
		return len(dead.DeadLetters) == 1 && dead.DeadLetters[0].Event.ID == "2"
	})
	if log := n.Logs.String(); !strings.Contains(log, "no disk!") || len(log) > 50<<10 {
		t.Errorf("%d bytes are logged", len(log))
	}
	if source := last.Requests()[0].Header.Get("Ce-Source"); source != "/sinks/job" {
		t.Errorf("the reply comes from %q", source)
	}
	if len(job.Requests()) != 2 {
		t.Errorf("the function was called %d times", len(job.Requests()))
	}
	apptest.Eventually(t, "all is settled", func() bool { b := n.Bus().Balance(); return b.Open() == 0 && b.Lost() == 0 })
}

// The answer that takes a lease may be an event, and so may be the end of the job:
// those are two, also where the function gives them no ids.
func TestLeaseReplies(t *testing.T) {
	t.Parallel()
	last := apptest.NewFunction(t, nil)
	headers := make(chan http.Header, 1)
	job := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		headers <- r.Header.Clone()
		w.Header().Set("Ce-Type", "begun")
		w.Header().Set("Sluice-Lease", "30m")
		w.WriteHeader(http.StatusAccepted)
	})
	n := apptest.Start(t, fmt.Sprintf(`
dedup: {window: 1h}
sinks:
  job: {http: {url: %q}, lease: 1h}
  last: {http: {url: %q}}
rules:
  begin: {match: {type: [begin]}, to: [job]}
  end: {match: {source: [/sinks/job]}, to: [last]}
`, job.URL, last.URL))
	n.MustPublish("1", "begin", "{}")
	h := <-headers
	apptest.Eventually(t, "the lease is taken", func() bool { b := n.Bus().Balance(); return b.Retries == 1 })
	if a := n.Do("POST", "/api/v1/leases/"+h.Get("Sluice-Delivery-Id")+"/complete", "", "Ce-Type", "done",
		"Sluice-Lease-Token", h.Get("Sluice-Lease-Token")); a.Status != http.StatusOK {
		t.Fatalf("complete: %d %s", a.Status, a.Body)
	}
	apptest.Eventually(t, "all is settled", func() bool { b := n.Bus().Balance(); return b.Open() == 0 })
	var types []string
	apptest.Eventually(t, "both replies arrive", func() bool {
		types = nil
		for _, r := range last.Requests() {
			types = append(types, r.Header.Get("Ce-Type"))
		}
		return len(last.Delivered()) == 2
	})
	if slices.Sort(types); !slices.Equal(types, []string{"begun", "done"}) {
		t.Errorf("the replies are %q", types)
	}
}
