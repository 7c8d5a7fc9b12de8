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
	"testing"
	"time"

	"sluice/bus"
)

// damages are what a disk may do to a block of the store.
func damages() map[string]func(t *testing.T, block string) {
	return map[string]func(t *testing.T, block string){
		"a flipped byte": func(t *testing.T, block string) {
			text, err := os.ReadFile(block)
			if err != nil {
				t.Fatal(err)
			}
			at := len(text)/2 + bytes.Index(text[len(text)/2:], []byte("xxxxxxxx"))
			text[at] ^= 1
			if err := os.WriteFile(block, text, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a truncated block": func(t *testing.T, block string) {
			info, err := os.Stat(block)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(block, info.Size()*3/4); err != nil {
				t.Fatal(err)
			}
		},
		"a block that is gone": func(t *testing.T, block string) {
			if err := os.Remove(block); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// TestProcessDamagedStore kills the program over what waits for a dead function, and
// damages a block of the store: once the function is back, it has every event that
// was acknowledged, and the one beside it, which was well, gets nothing again.
func TestProcessDamagedStore(t *testing.T) {
	t.Parallel()
	options := map[string]string{ // of the dead function's sink, by where its deliveries then wait
		bus.Backlog: "",
		bus.Retries: ", breaker: {failures: 0}, retry: {schedule: [5s, 5s, 5s, 5s]}",
		bus.Events:  "",
	}
	for stream, options := range options {
		for name, damage := range damages() {
			t.Run(stream+"/"+name, func(t *testing.T) {
				t.Parallel()
				f, well := newFunction(t, nil), newFunction(t, nil)
				f.set(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "dead", http.StatusServiceUnavailable) })
				p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, options)+sinkYAML("well", well.URL, "")+fmt.Sprintf(everythingTo, "f, well"))
				p.start()
				const events = 200
				for i := range events {
					if ok, code := p.publish(http.DefaultClient, strconv.Itoa(i), 300); !ok {
						t.Fatalf("publish answered %d", code)
					}
				}
				p.until(20*time.Second, "everything has a record of its own", func() bool {
					s := p.status()
					return s.Unsettled == 0 && (stream != bus.Retries || s.Balance.Retries == events)
				})
				<-time.After(500 * time.Millisecond) // until that is saved: that record alone covers them
				p.kill()
				damage(t, p.block(stream))
				f.set(nil)
				p.start()
				p.until(60*time.Second, "every acknowledged event has arrived", func() bool { return f.distinct() == events })
				p.settledAfterDamage(stream)
				twice := 0
				for i := range events {
					twice += f.times(strconv.Itoa(i)) - 1
				}
				m := p.metrics()
				offered, gone := m["sluice_lost_deliveries_total"], strings.Count(p.log.String(), "their events are no longer retained")
				t.Logf("%s in %s of %d deliveries: all have arrived, %v offered again from the events, %d twice; %v counted as damaged",
					name, stream, events, offered, twice, m["sluice_records_damaged_total"])
				if again := well.total() - events; again > 0 || gone > 0 {
					t.Errorf("the function that was well got %d deliveries again; %d lines say that events are gone", again, gone)
				}
				if stream != bus.Events {
					p.saysLost(int(offered))
				}
				if ok, _ := p.publish(http.DefaultClient, "after", 10); !ok {
					t.Error("no event is taken any more")
				}
				p.until(20*time.Second, "new events are delivered", func() bool { return f.times("after") == 1 })
				p.stop()
			})
		}
	}
}

// block is the first block of a stream.
func (p *program) block(stream string) string {
	p.t.Helper()
	blocks, err := filepath.Glob(filepath.Join(p.dir, "data", "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		p.t.Fatalf("no block of %s: %v", stream, err)
	}
	return slices.Min(blocks)
}

func (p *program) settledAfterDamage(stream string) {
	p.t.Helper()
	if stream != bus.Events {
		p.settled(20 * time.Second)
		return
	}
	p.until(20*time.Second, "nothing waits any more", func() bool { return p.status().Balance.Open == 0 })
}

// saysLost checks that the log, the list of jobs and doctor tell of what was lost.
func (p *program) saysLost(offered int) {
	p.t.Helper()
	if offered == 0 || !strings.Contains(p.log.String(), "deliveries are lost in the store: they are offered again") {
		p.t.Errorf("%d offered again, and the log says\n%s", offered, p.tail())
	}
	says := fmt.Sprintf("offered again: %d", offered)
	p.until(10*time.Second, "the job tells how it ended", func() bool { return strings.Contains(p.mustCLI("jobs", "ls"), says) })
	if out, _ := p.cli("doctor"); !strings.Contains(out, says) {
		p.t.Errorf("doctor does not say %q:\n%s", says, out)
	}
}

// total is how many deliveries a function has taken.
func (f *function) total() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, times := range f.got {
		n += times
	}
	return n
}

// TestProcessDamagedPile kills the program over a pile of events for a dead function,
// and cuts a block in the middle of it: what was in there comes again, beside a pile
// that is on disk, in as much memory as that takes.
func TestProcessDamagedPile(t *testing.T) {
	t.Parallel()
	f := newFunction(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "dead", http.StatusServiceUnavailable) })
	options := ", concurrency: 64, breaker: {failures: 5, probe_after: 200ms, probe_max: 1s}, retry: {initial: 200ms, max: 2s}"
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, options)+fmt.Sprintf(everythingTo, "f"))
	p.start()
	total := scale(20_000, 1_000_000)
	var peak int64
	for i := 0; i < total; i += 500 {
		resp, err := http.Post(p.base+"/", "application/cloudevents-batch+json", bytes.NewReader(batch(i, 500)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("publish answered %s", resp.Status)
		}
		peak = max(peak, p.memory())
	}
	p.until(time.Minute, "everything is in the backlog", func() bool { return p.status().Unsettled == 0 })
	<-time.After(500 * time.Millisecond) // until that is saved
	p.kill()
	blocks, err := filepath.Glob(filepath.Join(p.dir, "data", "jetstream", "*", "streams", "BACKLOG", "msgs", "*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no block of BACKLOG: %v", err)
	}
	slices.Sort(blocks)
	damages()["a truncated block"](t, blocks[len(blocks)/2])
	start := time.Now()
	p.start()
	ready := time.Since(start)
	p.until(5*time.Minute, "what is lost is offered again", func() bool { return strings.Contains(p.mustCLI("jobs", "ls"), "offered again: ") })
	again := time.Since(start)
	offered := p.metrics()["sluice_lost_deliveries_total"]
	f.set(nil)
	p.until(5*time.Minute, "everything has arrived", func() bool {
		peak = max(peak, p.memory())
		return f.distinct() == total
	})
	p.settled(30 * time.Second)
	t.Logf("a cut block of %d in a backlog of %d: ready after %v, %v offered again after %v, %d twice, memory %d MB at the most",
		len(blocks), total, ready.Round(time.Millisecond), offered, again.Round(time.Millisecond), f.total()-total, peak>>20)
	if ready > 3*time.Second {
		t.Errorf("ready after %v with %d events in the store, want at most 3s", ready, total)
	}
	if peak > 300<<20 {
		t.Errorf("%d MB of memory, want at most 300", peak>>20)
	}
	p.stop()
}
