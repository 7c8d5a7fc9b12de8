package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// reloaded is a sluice with a kafka, a cron and an http source, of which one setting
// each is a number that changes.
type reloaded struct {
	*program
	head    string // of the config, up to the sources
	tail    string // from the sinks on
	kafka   string
	numbers map[string]int // by source
}

// write writes the config with the numbers of now.
func (r *reloaded) write() {
	r.t.Helper()
	text := r.head + "sources:\n" + fmt.Sprintf(
		"  clicks: {kafka: {brokers: [%q], topics: [clicks], group: sluice, session_timeout: 6s, max_bytes: %dKiB}}\n"+
			"  pulse: {cron: {schedule: rate(1 second), catch_up: all, data: {n: %d}}}\n"+
			"  door: {http: {path: /in/door, limits: {event: %dKiB}}}\n",
		r.kafka, 64+r.numbers["clicks"], r.numbers["pulse"], 64+r.numbers["door"]) + r.tail
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// changeOf changes a setting of one source and brings it into force.
func (r *reloaded) changeOf(source string) {
	r.t.Helper()
	r.numbers[source]++
	r.write()
	resp, err := http.Post(r.base+"/api/v1/reload", "application/json", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"ok":true`)) {
		r.t.Fatalf("the reload: %s %s", resp.Status, answer)
	}
}

// running is how a source is doing.
type running struct {
	Name, State string
	Since       time.Time
	Restarts    int
	Accepted    int64
}

func (r *reloaded) sources() map[string]running {
	r.t.Helper()
	var list struct{ Sources []running }
	r.get("/api/v1/sources", &list)
	all := map[string]running{}
	for _, s := range list.Sources {
		all[s.Name] = s
	}
	return all
}

// TestProcessReloadSources changes one source again and again while three are under
// load. None loses what it was sent, and the two others go on as if nothing had
// happened.
func TestProcessReloadSources(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(6, "clicks")
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "")
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	r := &reloaded{
		program: p, head: string(text), tail: "sinks:\n" + sinkYAML("f", f.URL, "") + fmt.Sprintf(everythingTo, "f"),
		kafka: k.plain, numbers: map[string]int{},
	}
	r.write()
	p.start()
	w, l := newKafkaWriter(k, 200), startLoadTo(p, "/in/door", 2, "h")
	var writing sync.WaitGroup
	stop := make(chan struct{})
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				w.write(t.Context(), 120)
			}
		}
	})
	p.until(time.Minute, "all three take events", func() bool {
		all := r.sources()
		return all["clicks"].Accepted > 0 && all["pulse"].Accepted > 0 && all["door"].Accepted > 0
	})
	const each = 8
	for source := range r.sources() {
		before := r.sources()
		for range each {
			r.changeOf(source)
			<-time.After(200 * time.Millisecond)
		}
		p.until(20*time.Second, "all three take events after the change of "+source, func() bool {
			for name, now := range r.sources() {
				if now.Accepted == 0 || name != source && now.Accepted <= before[name].Accepted {
					return false
				}
			}
			return true
		})
		for name, after := range r.sources() {
			same := after.Since.Equal(before[name].Since)
			if same == (name == source) || after.Restarts != 0 || after.State != "running" {
				t.Errorf("%s changed, and %s was %+v and is %+v", source, name, before[name], after)
			}
		}
	}
	close(stop)
	writing.Wait()
	l.stop()
	p.until(time.Minute, "every record at the function", func() bool { return f.distinct() >= len(w.acked)+len(l.acked) })
	p.mustCLI("sources", "pause", "pulse")
	p.settled(time.Minute)
	checkPulse(p, f, fmt.Sprintf("%d reloads", 3*each), each)
	missing, twice := l.arrived(f)
	lost := 0
	for _, id := range w.acked {
		if f.times(id) == 0 {
			lost++
		}
	}
	t.Logf("%d reloads of one of three sources: %d of %d records of Kafka missing, %d of %d events over HTTP, %d refused; %d came twice",
		3*each, lost, len(w.acked), missing, len(l.acked), len(l.refused), twice)
	if lost+missing > 0 || len(l.refused) > 0 || len(w.acked) < 120*each || len(l.acked) < 100 {
		t.Errorf("%d and %d are missing; refused %v", lost, missing, l.refused)
	}
	// A kafka source that ends commits what it has taken.
	if twice > each*2000 {
		t.Errorf("%d came twice", twice)
	}
	p.stop()
}
