package main

import (
	"fmt"
	"math/bits"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// coldStart is how long a function is not there after its first event.
const coldStart = 3 * time.Second

// publishDuring sends events evenly over a time, from its beginning on. Their data is
// JSON: the functions framework fails on a binary event with a text.
func (p *program) publishDuring(d time.Duration, events int) {
	p.t.Helper()
	tick := time.NewTicker(d / time.Duration(events))
	defer tick.Stop()
	for i := range events {
		p.send("/test", strconv.Itoa(i), "made", "x", `{"n":1}`)
		<-tick.C
	}
}

// wasted is how many attempts failed, given that each event was delivered once.
func (p *program) wasted(events int) int {
	p.t.Helper()
	return int(p.metrics()["sluice_delivery_attempts_total"]) - events
}

// TestProcessColdStart sends to a function that refuses connections for three seconds
// after its first event. Nothing is lost, few attempts are made in vain, and the
// function is not overrun when it is there: its first event comes alone, and their
// number doubles.
func TestProcessColdStart(t *testing.T) {
	t.Parallel()
	events := scale(150, 1500)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", "http://"+address, "")+fmt.Sprintf(everythingTo, "f"))
	p.start()
	p.publishDuring(coldStart, events)
	inVain := p.wasted(0)

	var now atomic.Int64
	var mu sync.Mutex
	var together []int64 // requests under way when each came
	most := 0
	f := newFunction(t, nil)
	f.set(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		attempt, _ := strconv.Atoi(r.Header.Get("Sluice-Attempt"))
		mu.Lock()
		together, most = append(together, n), max(most, attempt)
		mu.Unlock()
		<-time.After(10 * time.Millisecond)
		f.took(r.Header.Get("ce-id"))
	})
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	there := time.Now()
	late := &httptest.Server{Listener: l, Config: f.Config}
	late.Start()
	t.Cleanup(late.Close)
	p.until(time.Minute, "every event arrived", func() bool { return f.distinct() == events })
	took := time.Since(there)
	p.settled(20 * time.Second)
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d events while nobody listens for %s: %d attempts in vain, at most %d attempts at one event; all there %s after the start",
		events, coldStart, inVain, most, took.Round(time.Millisecond))
	if inVain > 50 || p.wasted(events) > inVain+1 || most > 6 || len(together) != events {
		t.Errorf("%d and then %d attempts in vain, %d at one event, %d requests", inVain, p.wasted(events), most, len(together))
	}
	for i, n := range together[:10] {
		if limit := int64(1) << (bits.Len(uint(i+1)) - 1); n > limit {
			t.Errorf("%d requests at once when request %d comes, want %d at most", n, i+1, limit)
		}
	}
}

// TestRuntimeColdStart is the same with a function of the functions framework, whose
// process is started by the first event, as platforms that scale to zero do.
func TestRuntimeColdStart(t *testing.T) {
	t.Parallel()
	runtimes(t)
	const events = 100
	port := freePort(t)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", fmt.Sprintf("http://127.0.0.1:%d", port), "")+fmt.Sprintf(everythingTo, "f"))
	p.start()
	p.publishDuring(coldStart, events)
	f := newNodeFunctionAt(t, port, "simple")
	p.until(time.Minute, "every event arrived", func() bool { return len(f.shownIDs(t)) == events })
	p.settled(20 * time.Second)
	wasted := p.wasted(events)
	t.Logf("%d events while a function of the functions framework starts: %d attempts in vain", events, wasted)
	if calls := len(f.lines()); wasted > 50 || calls != events {
		t.Errorf("%d attempts in vain, the function was called %d times", wasted, calls)
	}
}

// TestProcessStartupGrace sends to a gateway that knows nothing of a function for three
// seconds and answers 404: nothing is lost. One that says so for ever is believed when
// startup_grace is over.
func TestProcessStartupGrace(t *testing.T) {
	t.Parallel()
	const events = 50
	var ready atomic.Bool
	var requests atomic.Int64
	f := newFunction(t, nil)
	f.set(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1); !ready.Load() {
			http.NotFound(w, r)
			return
		}
		f.took(r.Header.Get("ce-id"))
	})
	never := newFunction(t, http.NotFound)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+
		sinkYAML("never", never.URL, ", startup_grace: 1s, retry: {initial: 300ms, jitter: none}")+fmt.Sprintf(everythingTo, "f, never"))
	p.start()
	p.publishDuring(coldStart, events)
	early := requests.Load()
	ready.Store(true)
	p.until(time.Minute, "every event arrived", func() bool { return f.distinct() == events })
	p.settled(time.Minute)
	t.Logf("%d events while a gateway answers 404 for %s: %d requests, %d of them before the function was there", events, coldStart, requests.Load(), early)
	if n := requests.Load(); n > 4*events {
		t.Errorf("%d requests for %d events", n, events)
	}
	dead := p.deadLetters()
	for _, l := range dead {
		// At 0, 0.3 and 0.9 s, and the last when the second is over.
		if n := len(l.Attempts); l.Sink != "never" || l.Reason != "rejected" || n < 2 || n > 4 {
			t.Errorf("%s: %s after %d attempts", l.Sink, l.Reason, n)
		}
	}
	if len(dead) != events {
		t.Errorf("%d dead letters for %d events to a function that never is", len(dead), events)
	}
}

// TestProcessLease kills the program while a function holds leases. The one that is
// completed at their end counts, with its reply; the one that is not heard of comes
// again when its time is over, and no sooner. SLUICE_LEASE=2m is how long they are.
func TestProcessLease(t *testing.T) {
	t.Parallel()
	lease := 4 * time.Second
	if text := os.Getenv("SLUICE_LEASE"); text != "" {
		var err error
		if lease, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	type call struct {
		at              time.Time
		callback, token string
	}
	var mu sync.Mutex
	calls := map[string][]call{}
	f := newFunction(t, func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("ce-id")
		mu.Lock()
		defer mu.Unlock()
		calls[id] = append(calls[id], call{time.Now(), r.Header.Get("Sluice-Callback"), r.Header.Get("Sluice-Lease-Token")})
		if r.Header.Get("Sluice-Attempt") == "1" {
			w.Header().Set("Sluice-Lease", lease.String())
			w.WriteHeader(http.StatusAccepted)
		}
	})
	called := func(id string) []call {
		mu.Lock()
		defer mu.Unlock()
		return calls[id]
	}
	last := newCollector(t)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("job", f.URL, ", lease: 10m, retry: {initial: 10ms, jitter: none}")+
		sinkYAML("last", last.URL, "")+`rules:
  jobs: {match: {type: [made]}, to: [job]}
  done: {match: {type: [done]}, to: [last]}
`)
	p.start()
	for _, id := range []string{"good", "silent"} {
		if ok, code := p.publish(http.DefaultClient, id, 10); !ok {
			t.Fatalf("publish answered %d", code)
		}
	}
	p.until(20*time.Second, "both hold a lease", func() bool { return p.status().Balance.Retries == 2 })
	// Each lease is saved by itself; what else is settled waits for the next sweep.
	<-time.After(50 * time.Millisecond)
	p.kill()
	p.start()
	<-time.After(time.Until(called("good")[0].at.Add(lease * 3 / 4)))
	p.kill()
	p.start()
	if n := len(called("good")) + len(called("silent")); n != 2 {
		t.Fatalf("%d calls while both leases hold", n)
	}
	c := called("good")[0]
	req, err := http.NewRequest(http.MethodPost, c.callback+"/complete", strings.NewReader("well done"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"Sluice-Lease-Token": c.token, "Ce-Type": "done", "Content-Type": "text/plain"} {
		req.Header.Set(name, text)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	after := time.Since(c.at)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the job is completed after %s, which is answered with %s", after, resp.Status)
	}
	p.until(lease+20*time.Second, "the other one comes again", func() bool { return len(called("silent")) == 2 })
	p.settled(20 * time.Second)
	again := called("silent")[1].at.Sub(called("silent")[0].at)
	t.Logf("a lease of %s over two kill -9: completed after %s; the other came again after %s", lease, after.Round(time.Millisecond), again.Round(time.Millisecond))
	if again < lease || again > lease+10*time.Second || len(called("good")) != 1 {
		t.Errorf("a lease of %s was over after %s; the job that was done was called %d times", lease, again, len(called("good")))
	}
	if all := last.got(); len(all) != 1 || all[0].body != "well done" || all[0].attributes["causationid"] != "good" {
		t.Errorf("the reply: %+v", all)
	}
}
