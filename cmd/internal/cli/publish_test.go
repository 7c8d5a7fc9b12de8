package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// door takes batches as the ingest of a server does, and answers as it is told.
type door struct {
	mu      sync.Mutex
	batches [][]string // the ids of each request
	answers []func(w http.ResponseWriter, ids []string)
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.URL.Path != "/events" || r.Header.Get("Content-Type") != "application/cloudevents-batch+json" {
		answer(w, 415, map[string]any{"status": 415, "detail": r.URL.Path + " " + r.Header.Get("Content-Type")})
		return
	}
	var events []struct{ ID string }
	body, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(body, &events)
	var ids []string
	for _, e := range events {
		ids = append(ids, e.ID)
	}
	d.batches = append(d.batches, ids)
	how := accept
	if len(d.answers) > 0 {
		how, d.answers = d.answers[0], d.answers[1:]
	}
	how(w, ids)
}

func (d *door) got() string { return fmt.Sprint(d.batches) }

type doc map[string]any

func accept(w http.ResponseWriter, ids []string) {
	var items []doc
	for i, id := range ids {
		items = append(items, doc{"index": i, "id": id, "ok": true, "position": fmt.Sprintf("9.%d", i)})
	}
	answer(w, 202, doc{"accepted": len(ids), "rejected": 0, "events": items})
}

// refuse answers about the whole request.
func refuse(status int, after string) func(http.ResponseWriter, []string) {
	return func(w http.ResponseWriter, _ []string) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		answer(w, status, doc{"type": "about:blank", "status": status, "title": http.StatusText(status), "detail": "no room"})
	}
}

// lines is n events, one a line.
func lines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"specversion":"1.0","id":"%d","source":"s","type":"a"}`+"\n", i+1)
	}
	return b.String()
}

func publishTo(t *testing.T, d *door) *rig {
	return newRig(serve(t, d.ServeHTTP).URL)
}

func TestPublishBatches(t *testing.T) {
	t.Parallel()
	d := &door{}
	r := publishTo(t, d)
	r.stdin = strings.NewReader(lines(5))
	r.run(t, exitOK, "publish", "-", "--batch", "2")
	if want := "[[1 2] [3 4] [5]]"; d.got() != want {
		t.Errorf("got %s, want %s", d.got(), want)
	}
	contains(t, r.out, "published 5, rejected 0\n")
}

func TestPublishObeysRetryAfter(t *testing.T) {
	t.Parallel()
	d := &door{answers: []func(http.ResponseWriter, []string){
		refuse(429, "7"), refuse(503, noon().Add(90*time.Second).Format(http.TimeFormat)), refuse(503, ""),
		func(w http.ResponseWriter, ids []string) { // some of them
			answer(w, 207, doc{"accepted": 1, "rejected": 2, "events": []doc{
				{"index": 0, "id": ids[0], "ok": false, "status": 503, "error": "no room"},
				{"index": 1, "id": ids[1], "ok": true, "position": "9.0"},
				{"index": 2, "id": ids[2], "ok": false, "status": 400, "error": "bad"},
			}})
		},
	}}
	r := publishTo(t, d)
	r.stdin = strings.NewReader(lines(3))
	r.run(t, exitFailure, "publish", "-")
	if want := "[[1 2 3] [1 2 3] [1 2 3] [1 2 3] [1]]"; d.got() != want {
		t.Errorf("got %s, want %s", d.got(), want)
	}
	if len(r.slept) != 4 || r.slept[0] != 7*time.Second || r.slept[1] != 90*time.Second || r.slept[2] < time.Second || r.slept[2] > 2*time.Second {
		t.Errorf("slept %v", r.slept)
	}
	contains(t, r.out, "published 2, rejected 1\n")
	contains(t, r.err, "sluice: line 3 (3): bad\n")
}

func TestPublishGivesUp(t *testing.T) {
	t.Parallel()
	d := &door{}
	for range 3 {
		d.answers = append(d.answers, refuse(503, ""))
	}
	r := publishTo(t, d)
	r.run(t, exitFailure, "publish", "--type", "a", "--source", "b", "--id", "x", "--retries", "2")
	contains(t, r.out, "published 0, rejected 1\n")
	contains(t, r.err, "sluice: the event: no room (sent 3 times)\n")
}

func TestPublishHalvesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	d := &door{answers: []func(http.ResponseWriter, []string){
		refuse(413, ""), accept, refuse(413, ""), refuse(413, ""), accept,
	}}
	r := publishTo(t, d)
	r.stdin = strings.NewReader(lines(4))
	r.run(t, exitFailure, "publish", "-", "-o", "json")
	if want := "[[1 2 3 4] [1 2] [3 4] [3] [4]]"; d.got() != want {
		t.Errorf("got %s, want %s", d.got(), want)
	}
	contains(t, r.out, `"published": 3`, `"rejected": 1`, `"unknown": 0`, `"line": 3`, `"status": 413`)
}

func TestPublishServerLost(t *testing.T) {
	t.Parallel()
	d := &door{answers: []func(http.ResponseWriter, []string){
		accept, func(http.ResponseWriter, []string) { panic(http.ErrAbortHandler) },
	}}
	r := publishTo(t, d)
	r.stdin = strings.NewReader(lines(6))
	r.run(t, exitFailure, "publish", "-", "--batch", "2")
	contains(t, r.out, "published 2, rejected 0, unknown 2: send those again with the same ids\n")
	contains(t, r.err, "sluice: cannot reach the server at http://127.0.0.1:")
}

func TestPublishForgetfulServer(t *testing.T) {
	t.Parallel()
	d := &door{answers: []func(http.ResponseWriter, []string){func(w http.ResponseWriter, _ []string) {
		answer(w, 202, doc{"events": []doc{{"index": 1, "ok": true}, {"index": 7, "ok": true}}})
	}}}
	r := publishTo(t, d)
	r.stdin = strings.NewReader(lines(2))
	r.run(t, exitFailure, "publish", "-")
	contains(t, r.out, "published 1, rejected 1\n")
	contains(t, r.err, "line 1 (1): the server did not say")
}

func TestPublishToken(t *testing.T) {
	t.Parallel()
	const secret = "marker-5ecret"
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+secret {
			answer(w, 401, doc{"status": 401, "title": "Unauthorized", "detail": "a token is needed"})
			return
		}
		accept(w, []string{"1"})
	})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	event := []string{"publish", "--type", "a", "--source", "b"}
	r := newRig(s.URL)
	r.run(t, exitFailure, event...)
	contains(t, r.err, "(401): a token is needed: name a token that may do this with --token or SLUICE_TOKEN")
	r.vars["MINE"] = secret
	r.run(t, exitOK, append(event, "--token", "${env:MINE}")...)
	r.run(t, exitOK, append(event, "--token", "${file:"+file+"}")...)
	r.run(t, exitUsage, append(event, "--token", "${env:OTHER}")...)
	r.run(t, exitUsage, append(event, "--token", secret)...)
	r.token = "" // what the flag of the runs before left
	r.vars["SLUICE_TOKEN"] = secret
	r.run(t, exitOK, event...)
	if strings.Contains(r.out.String()+r.err.String(), secret) {
		t.Error("the token is in the output")
	}
}

func TestPublishProgress(t *testing.T) {
	t.Parallel()
	d := &door{}
	r := publishTo(t, d)
	r.terminal = func(stream any) bool { return stream == r.err }
	file := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(file, []byte(lines(4)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.run(t, exitOK, "publish", "--file", file, "--batch", "2")
	contains(t, r.err, "published 2", "published 4")
	contains(t, r.out, "published 4, rejected 0\n")
	r.err.text.Reset()
	r.run(t, exitOK, "publish", "--file", file, "--quiet")
	if r.err.String() != "" {
		t.Errorf("quiet, and yet: %s", r.err)
	}
}
