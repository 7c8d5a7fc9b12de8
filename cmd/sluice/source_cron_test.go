package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"testing"
	"time"
)

// TestProcessCron kills a bus that ticks every second at random moments. Every
// second from the first to the last has one event, by its id; with dedup it is
// stored once, without it may be stored again after a kill, with the same id.
func TestProcessCron(t *testing.T) {
	t.Parallel()
	for name, dedup := range map[string]string{"dedup": "dedup: {window: 1h}\n", "no dedup": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFunction(t, nil)
			p := newProgram(t, t.TempDir(), "", dedup+
				"sources:\n  pulse: {cron: {schedule: rate(1 second), catch_up: all, data: {n: 1}}}\nsinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
			kills := scale(4, 25)
			for range kills {
				p.start()
				had := f.distinct()
				p.until(10*time.Second, "a tick", func() bool { return f.distinct() > had })
				// A tick takes a few ms, so some of the kills should hit one.
				now := time.Now()
				<-time.After(now.Truncate(time.Second).Add(time.Second + time.Duration(rand.IntN(40))*time.Millisecond).Sub(now))
				p.kill()
				<-time.After(time.Duration(rand.IntN(1500)) * time.Millisecond)
			}
			p.start()
			had := f.distinct()
			p.until(10*time.Second, "two more ticks", func() bool { return f.distinct() > had+1 })
			p.stop()
			p.start()
			p.mustCLI("sources", "pause", "pulse")
			p.settled(20 * time.Second)
			most := kills // of the ticks may be stored twice
			if dedup != "" {
				most = 0
			}
			checkPulse(p, f, fmt.Sprintf("%d kills", kills), most)
			p.stop()
		})
	}
}

// checkPulse holds the stored ticks against the seconds there were. After what has
// happened, so many at most may be stored twice.
func checkPulse(p *program, f *function, what string, most int) {
	p.t.Helper()
	ids, stored := map[time.Time]string{}, 0
	caughtUp := 0
	for _, e := range p.ticks() {
		stored++
		scheduled := e.Data.Scheduled
		if id, known := ids[scheduled]; known && id != e.ID {
			p.t.Errorf("the tick of %s has the ids %s and %s", scheduled, id, e.ID)
		}
		ids[scheduled] = e.ID
		if e.Data.Trigger == "catch_up" || e.Data.Actual.Sub(scheduled) > 500*time.Millisecond {
			caughtUp++
		}
	}
	var first, last time.Time
	for at := range ids {
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	seconds := int(last.Sub(first)/time.Second) + 1
	missing := 0
	for at := first; !at.After(last); at = at.Add(time.Second) {
		if ids[at] == "" {
			missing++
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	undelivered := 0
	for _, id := range ids {
		if f.got[id] == 0 {
			undelivered++
		}
	}
	p.t.Logf("%s: %d seconds, %d ticks stored (%d late), %d missing, %d twice, %d not delivered",
		what, seconds, stored, caughtUp, missing, stored-len(ids), undelivered)
	if missing > 0 || undelivered > 0 || len(ids) != seconds {
		p.t.Errorf("%d of %d ticks are missing, %d were not delivered", missing, seconds, undelivered)
	}
	if twice := stored - len(ids); twice > most {
		p.t.Errorf("%d ticks are stored twice, after %s at most %d were expected", twice, what, most)
	}
}

// tickEvent is the event of a tick.
type tickEvent struct {
	ID   string
	Data struct {
		Scheduled, Actual time.Time
		Trigger           string
	}
}

// ticks are all ticks that the log keeps.
func (p *program) ticks() (all []tickEvent) {
	p.t.Helper()
	from := ""
	for {
		var page struct {
			Events []struct{ Event json.RawMessage }
			Next   string
		}
		p.get("/api/v1/events?limit=1000&pattern="+url.QueryEscape(`{"type": ["sluice.cron.tick"]}`)+"&from="+url.QueryEscape(from), &page)
		for _, stored := range page.Events {
			var e tickEvent
			if err := json.Unmarshal(stored.Event, &e); err != nil {
				p.t.Fatal(err)
			}
			all = append(all, e)
		}
		if page.Next == "" {
			return all
		}
		from = page.Next
	}
}

// TestProcessCronNodes has two buses with one schedule, each of which hands its ticks on
// to a third that drops what it has already, and kills the two in turn: the third has
// each second once.
func TestProcessCronNodes(t *testing.T) {
	t.Parallel()
	f := newFunction(t, nil)
	third := newProgram(t, t.TempDir(), "", "dedup: {window: 1h}\nsinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	third.start()
	var nodes []*program
	for range 2 {
		p := newProgram(t, t.TempDir(), "", fmt.Sprintf(
			"sources:\n  pulse: {cron: {schedule: rate(1 second), catch_up: all}}\nsinks:\n  third: {sluice: {url: %q}, retry: {schedule: [100ms, 100ms, 100ms]}}\n"+everythingTo, third.base, "third"))
		p.start()
		nodes = append(nodes, p)
	}
	kills := scale(2, 6)
	for i := range kills {
		had := f.distinct()
		third.until(10*time.Second, "a tick", func() bool { return f.distinct() > had })
		p := nodes[i%len(nodes)]
		p.kill()
		<-time.After(time.Duration(rand.IntN(1500)) * time.Millisecond)
		p.start()
	}
	had := f.distinct()
	third.until(10*time.Second, "two more ticks", func() bool { return f.distinct() > had+1 })
	fired := 0
	for _, p := range nodes {
		p.mustCLI("sources", "pause", "pulse")
		p.settled(20 * time.Second)
		fired += len(p.ticks())
	}
	third.settled(20 * time.Second)
	checkPulse(third, f, fmt.Sprintf("two nodes, %d kills", kills), 0)
	if got := len(third.ticks()); fired <= got {
		t.Errorf("the nodes fired %d ticks and the third has %d: each of them has to fire all", fired, got)
	}
	t.Logf("the two fired %d ticks", fired)
}
