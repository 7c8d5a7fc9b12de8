package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func sinkYAML(name, url, options string) string {
	return fmt.Sprintf("  %s: {http: {url: %q}%s}\n", name, url, options)
}

const everythingTo = "rules:\n  all: {match: {type: [{exists: true}]}, to: [%s]}\n"

// kills is how often TestProcessKill kills the program; SLUICE_KILLS says otherwise.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_KILLS")); err == nil {
		return n
	}
	return scale(3, 20)
}

// killUnderLoad starts the program and kills it in the middle of many publishers, that
// many times, and returns the ids of the events that it acknowledged. A publisher has
// its own subject, and sends one event after the other.
func (p *program) killUnderLoad(client *http.Client, rounds, size int) map[string]bool {
	p.t.Helper()
	var mu sync.Mutex
	acked := map[string]bool{}
	for round := range rounds {
		p.start()
		var stop atomic.Bool
		var load sync.WaitGroup
		for w := range 16 {
			load.Go(func() {
				for i := 0; !stop.Load(); i++ {
					id := fmt.Sprintf("r%d.w%d.%d", round, w, i)
					if ok, _ := p.publishTo("/", client, id, size, fmt.Sprint("w", w)); ok {
						mu.Lock()
						acked[id] = true
						mu.Unlock()
					}
				}
			})
		}
		<-time.After(time.Duration(50+rand.IntN(500)) * time.Millisecond)
		p.kill()
		stop.Store(true)
		load.Wait()
		client.CloseIdleConnections()
	}
	return acked
}

// TestProcessKill kills the program at random moments under load. In the end every
// event that was acknowledged is at each function: the one that is well, the one that
// gets its events in order and fails some, the one that fails all of them in every
// other life of the program, the one that takes batches, and the one that was paused.
func TestProcessKill(t *testing.T) {
	t.Parallel()
	well, failing, paused := newFunction(t, nil), newFunction(t, nil), newFunction(t, nil)
	failing.set(func(w http.ResponseWriter, r *http.Request) {
		if life(r)%2 == 0 {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		failing.took(r.Header.Get("ce-id"))
	})
	ordered, batched := newOrdered(t), newBatched(t)
	const soon, at = ", retry: {initial: 50ms, max: 300ms}, breaker: {probe_after: 100ms, probe_max: 300ms}", "/?life=${env:SLUICE_TEST_LIFE}"
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("well", well.URL, "")+sinkYAML("ordered", ordered.URL+at, ", order_by: subject"+soon)+
		sinkYAML("failing", failing.URL+at, soon)+sinkYAML("batched", batched.URL, ", batch: {max: 20, wait: 5ms}"+soon)+sinkYAML("paused", paused.URL, "")+
		fmt.Sprintf(everythingTo, "well, ordered, failing, batched, paused"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
	p.start()
	p.mustCLI("sinks", "pause", "paused")
	p.kill()
	rounds := kills()
	acked := p.killUnderLoad(client, rounds, 200)
	failing.set(nil)
	if n := paused.distinct(); n > 0 {
		t.Errorf("%d events came to a sink that is paused", n)
	}
	p.start()
	p.mustCLI("sinks", "resume", "paused")
	p.settled(60 * time.Second)
	ordered.mu.Lock()
	batched.mu.Lock()
	defer ordered.mu.Unlock()
	defer batched.mu.Unlock()
	lost, repeated := map[string]int{}, map[string]int{}
	for name, f := range map[string]*function{"well": well, "ordered": ordered.function, "failing": failing, "batched": batched.function, "paused": paused} {
		for id := range acked {
			if f.times(id) == 0 {
				lost[name]++
			}
		}
		repeated[name] = f.total() - f.distinct()
	}
	t.Logf("%d rounds of kill -9: %d events acknowledged, lost: %v, delivered more than once: %v; %d batches, of up to %d",
		rounds, len(acked), lost, repeated, batched.batches, batched.most)
	if len(lost) > 0 {
		t.Errorf("acknowledged events are missing at functions: %v", lost)
	}
	if len(acked) < 20*rounds {
		t.Errorf("only %d events were acknowledged in %d rounds: that is no load", len(acked), rounds)
	}
	// What a crash may repeat: what was settled since the last commit, about 50 ms,
	// and what was under way.
	if limit := len(acked)/2 + 200*rounds; repeated["well"] > limit {
		t.Errorf("%d duplicates, at most %d were expected", repeated["well"], limit)
	}
	for _, fault := range ordered.faults[:min(5, len(ordered.faults))] {
		t.Errorf("%s (%d such)", fault, len(ordered.faults))
	}
	if batched.most < 2 || ordered.failed == 0 {
		t.Errorf("batches of up to %d, and %d failures in order: that tests nothing", batched.most, ordered.failed)
	}
}

// TestProcessRetriesSurviveKill follows one event through failures, a kill -9, its
// dead letter and the redrive.
func TestProcessRetriesSurviveKill(t *testing.T) {
	t.Parallel()
	f := newFunction(t, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "out of order", http.StatusInternalServerError)
	})
	options := ", retry: {schedule: [200ms, 2s, 200ms, 200ms]}"
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, options)+fmt.Sprintf(everythingTo, "f"))
	p.start()
	if ok, code := p.publish(http.DefaultClient, "e", 10); !ok {
		t.Fatalf("publish answered %d", code)
	}
	p.until(10*time.Second, "two attempts", func() bool { return len(f.tries("e")) == 2 })
	p.until(10*time.Second, "the second retry is stored", func() bool { return p.status().Balance.Retries == 1 })
	// What is settled is saved every 50 ms or so; a crash before that repeats it.
	<-time.After(time.Second)
	p.kill()
	p.start()
	p.until(20*time.Second, "a dead letter", func() bool { return len(p.deadLetters()) == 1 })
	if got := strings.Join(f.tries("e"), " "); got != "1 2 3 4 5" {
		t.Errorf("the attempts were numbered %s, want 1 2 3 4 5", got)
	}
	letter := p.deadLetters()[0]
	if letter.Reason != "attempts_exhausted" || len(letter.Attempts) != 5 || letter.Attempts[0].Status != 500 ||
		!strings.Contains(letter.Attempts[4].Answer, "out of order") {
		t.Errorf("the dead letter is %+v", letter)
	}
	f.set(nil)
	out := p.mustCLI("dlq", "redrive", "--sink", "f")
	p.until(10*time.Second, "the redelivery", func() bool { return f.distinct() == 1 })
	p.until(10*time.Second, "the dead letter to go", func() bool { return len(p.deadLetters()) == 0 })
	t.Logf("dlq redrive: %s", strings.TrimSpace(out))
	p.settled(10 * time.Second)
	p.stop()
}

type deadLetter struct {
	ID, Reason, Sink, Rule string
	Attempts               []struct {
		Status int
		Class  string
		Answer string
	}
	Event json.RawMessage
}

func (p *program) deadLetters() []deadLetter {
	p.t.Helper()
	var list struct {
		DeadLetters []deadLetter `json:"dead_letters"`
	}
	p.get("/api/v1/dead-letters", &list)
	return list.DeadLetters
}

// TestProcessOwnsItsData checks that a second process on the same data is refused.
func TestProcessOwnsItsData(t *testing.T) {
	t.Parallel()
	f := newFunction(t, nil)
	sections := "sinks:\n" + sinkYAML("f", f.URL, "") + fmt.Sprintf(everythingTo, "f")
	dir := t.TempDir()
	p := newProgram(t, dir, "", sections)
	p.start()
	second := newProgram(t, dir, "", sections)
	out, err := second.command("serve", "--config", second.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "data") || !strings.Contains(string(out), fmt.Sprint(p.cmd.Process.Pid)) {
		t.Errorf("the second process ended with %v and said %s", err, out)
	}
	if ok, _ := p.publish(http.DefaultClient, "after", 1); !ok {
		t.Error("the first process does not take events any more")
	}
	p.settled(10 * time.Second)
	p.stop()
}
