package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// timed is a function that knows how long events took to reach it.
type timed struct {
	*function
	mu   sync.Mutex
	sent map[string]time.Time
	ages []time.Duration
}

func newTimed(t *testing.T) *timed {
	f := &timed{function: newFunction(t, nil), sent: map[string]time.Time{}}
	f.set(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("ce-id")
		f.mu.Lock()
		f.ages = append(f.ages, time.Since(f.sent[id]))
		f.mu.Unlock()
		f.took(id)
		w.WriteHeader(http.StatusNoContent)
	})
	return f
}

// publish sends n events at a steady rate, in a second, and returns how long each
// answer took.
func (f *timed) publish(p *program, rate, n int) (acks []time.Duration) {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	var wg sync.WaitGroup
	for i := range n {
		<-ticker.C
		wg.Go(func() {
			id, start := strconv.Itoa(i), time.Now()
			f.mu.Lock()
			f.sent[id] = start
			f.mu.Unlock()
			if ok, code := p.publish(client, id, 500); !ok {
				p.t.Errorf("publish answered %d", code)
			}
			f.mu.Lock()
			acks = append(acks, time.Since(start))
			f.mu.Unlock()
		})
	}
	wg.Wait()
	return acks
}

// waited are the times from sending to the function.
func (f *timed) waited() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ages)
}

// TestProcessIsolation publishes at a steady rate to a sink that hangs for 5 s on
// every event and to one that does not. The second does not notice the first.
func TestProcessIsolation(t *testing.T) {
	t.Parallel()
	fast, slow := newTimed(t), newFunction(t, nil)
	slow.set(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(5 * time.Second):
		case <-r.Context().Done():
		}
	})
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("fast", fast.URL, "")+sinkYAML("slow", slow.URL, "")+fmt.Sprintf(everythingTo, "fast, slow"))
	p.start()
	const rate = 400
	seconds := scale(2, 20)
	acks := fast.publish(p, rate, rate*seconds)
	p.until(20*time.Second, "the fast sink has everything", func() bool { return fast.distinct() == rate*seconds })
	ages := fast.waited()
	t.Logf("%d events/s for %d s beside a sink that hangs: publish p50 %v p99 %v, delivery to the other p50 %v p99 %v, memory %d MB",
		rate, seconds, at(acks, 50), at(acks, 99), at(ages, 50), at(ages, 99), p.memory()>>20)
	// At full length this test has the machine for itself.
	if limit := time.Duration(scale(2000, 100)) * time.Millisecond; at(ages, 99) > limit {
		t.Errorf("p99 of the fast sink is %v, more than %v", at(ages, 99), limit)
	}
	if s := p.status(); s.Balance.Lost != 0 {
		t.Errorf("the deliveries do not add up: %+v", s.Balance)
	}
	p.stop()
}

func at(all []time.Duration, percent int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)].Round(100 * time.Microsecond)
}

// memory is the resident size of the program in bytes.
func (p *program) memory() int64 {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0 // no Linux
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		p.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// batch is a CloudEvents batch of text events.
func batch(first, n int) []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"specversion":"1.0","id":"%d","source":"/test","type":"made","datacontenttype":"application/json","data":{"n":%d,"text":%q}}`,
			first+i, i, strings.Repeat("y", 400))
	}
	b.WriteByte(']')
	return b.Bytes()
}

// TestProcessPileUp lets events pile up for a dead sink, kills the program, and
// lets the sink return.
func TestProcessPileUp(t *testing.T) {
	t.Parallel()
	f := newFunction(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	options := ", concurrency: 64, breaker: {failures: 5, probe_after: 200ms, probe_max: 1s}, retry: {initial: 200ms, max: 2s}"
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, options)+fmt.Sprintf(everythingTo, "f"))
	p.start()
	total := scale(5_000, 200_000)
	var peak int64
	start := time.Now()
	for i := 0; i < total; i += 500 {
		resp, err := http.Post(p.base+"/", "application/cloudevents-batch+json", bytes.NewReader(batch(i, 500)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("publish answered %s", resp.Status)
		}
		peak = max(peak, p.memory())
	}
	published := time.Since(start)
	p.until(60*time.Second, "everything is in the backlog", func() bool { return p.status().Unsettled == 0 })
	peak = max(peak, p.memory())
	if s := p.status(); s.Balance.Lost != 0 || s.Balance.Open != int64(total) {
		t.Errorf("with the sink down the deliveries do not add up: %+v", s.Balance)
	}
	p.kill()
	p.start()
	ready := p.memory()
	start = time.Now()
	f.set(nil)
	p.until(5*time.Minute, "the backlog has drained", func() bool {
		peak = max(peak, p.memory())
		return f.distinct() == total
	})
	drained := time.Since(start)
	p.settled(30 * time.Second)
	t.Logf("%d events for a dead sink: published in %v, drained in %v (%.0f/s), memory %d MB at the most, %d MB after the restart",
		total, published.Round(time.Millisecond), drained.Round(time.Millisecond), float64(total)/drained.Seconds(), peak>>20, ready>>20)
	if peak > 300<<20 {
		t.Errorf("%d MB of memory for a backlog on disk, want at most 300", peak>>20)
	}
	p.stop()
}

// TestProcessFullDisk fills a small volume: publishers get 507, and when there is
// room again the program goes on by itself with everything it acknowledged.
func TestProcessFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("sluice-test", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("SKIPPED: cannot mount a small volume here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	f := newFunction(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	options := ", retry: {initial: 200ms, max: 1s}, breaker: {failures: 3, probe_after: 200ms, probe_max: 500ms}"
	p := newProgram(t, dir, "", "sinks:\n"+sinkYAML("f", f.URL, options)+fmt.Sprintf(everythingTo, "f"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 24<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	acked := map[string]bool{}
	full := 0
	for i := 0; full < 5 && i < 20_000; i++ {
		id := strconv.Itoa(i)
		ok, code := p.publish(http.DefaultClient, id, 16<<10)
		switch {
		case ok:
			acked[id] = true
		case code == http.StatusInsufficientStorage:
			full++
		default:
			t.Fatalf("publishing to a full volume answered %d\n%s", code, p.tail())
		}
	}
	if full == 0 {
		t.Fatal("the volume never filled up")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	f.set(nil)
	p.until(60*time.Second, "events are taken again", func() bool {
		ok, _ := p.publish(http.DefaultClient, "after", 10)
		return ok
	})
	acked["after"] = true
	p.until(60*time.Second, "everything acknowledged has arrived", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for id := range acked {
			if f.got[id] == 0 {
				return false
			}
		}
		return true
	})
	t.Logf("a volume of 64 MiB: %d events acknowledged, 507 then, all delivered after there was room again", len(acked)-1)
	p.settled(30 * time.Second)
	p.stop()
}
