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
// many times, and returns the ids of the events that it acknowledged.
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
					if ok, _ := p.publish(client, id, size); ok {
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

// TestProcessKill kills the program at random moments under load. Every event
// that was acknowledged is at the function in the end.
func TestProcessKill(t *testing.T) {
	t.Parallel()
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: 10 * time.Second}
	rounds := kills()
	acked := p.killUnderLoad(client, rounds, 200)
	p.start()
	p.settled(60 * time.Second)
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, twice, most := 0, 0, 0
	for id := range acked {
		if f.got[id] == 0 {
			lost++
		}
	}
	for _, n := range f.got {
		if n > 1 {
			twice += n - 1
			most = max(most, n)
		}
	}
	t.Logf("%d rounds of kill -9: %d events acknowledged, %d lost, %d delivered more than once (%d times at most)", rounds, len(acked), lost, twice, most)
	if lost > 0 {
		t.Errorf("%d acknowledged events are missing at the function", lost)
	}
	if len(acked) < 20*rounds {
		t.Errorf("only %d events were acknowledged in %d rounds: that is no load", len(acked), rounds)
	}
	// What a crash may repeat: what was settled since the last commit, about 50 ms,
	// and what was under way.
	if limit := len(acked)/2 + 200*rounds; twice > limit {
		t.Errorf("%d duplicates, at most %d were expected", twice, limit)
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
