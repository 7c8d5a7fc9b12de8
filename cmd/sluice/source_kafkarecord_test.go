package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProcessKafkaClients has other clients beside a bus at a real Apache Kafka.
func TestProcessKafkaClients(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	t.Run("records of kcat", func(t *testing.T) { testKafkaRecords(t, k) })
	t.Run("bench", func(t *testing.T) { testKafkaBench(t, k) })
}

// testKafkaRecords writes each kind of record with kcat: what is an event comes out of
// the bus as one, and what claims to be one and is none is a dead letter that tells where
// it stood and all that the record held.
func testKafkaRecords(t *testing.T, k *kafkaServer) {
	k.create(1, "clicks")
	write := func(line string, args ...string) {
		k.kcat(line, append([]string{"-P", "-t", "clicks", "-Z"}, args...)...)
	}
	write(`{"a": 1}`, "-k", "plain", "-H", "tenant=acme", "-H", "X-Odd=left out")
	write("gone:\n", "-K", ":")
	write("\x00\xff:bytes\n", "-K", ":")
	write(`{"specversion":"1.0","id":"s","source":"/kcat","type":"structured","data":[1]}`, "-H", "content-type=application/cloudevents+json; charset=utf-8")
	write("text", "-H", "ce_specversion=1.0", "-H", "ce_id=b", "-H", "ce_source=/kcat", "-H", "ce_type=binary", "-H", "ce_tenant=50% é", "-H", "content-type=text/plain")
	write("[]", "-k", "batch", "-H", "content-type=application/cloudevents-batch+json")
	write("no id", "-k", "headless", "-H", "ce_specversion=1.0", "-H", "ce_source=/kcat", "-H", "other=\xff")
	write("last")

	dir := t.TempDir()
	p := newProgram(t, dir, "", fmt.Sprintf(kafkaSource, k.plain, "")+"sinks:\n  out: {stdout: {}}\n"+fmt.Sprintf(everythingTo, "out"))
	out, err := os.Create(filepath.Join(dir, "out.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.out = out
	p.start()
	p.until(time.Minute, "the last record", func() bool { return len(p.printed()) >= 6 })
	p.settled(20 * time.Second)
	events := p.printedEvents()
	for place, want := range map[string]string{
		"0/0/": `type=kafka.record subject=plain partitionkey=plain tenant=acme datacontenttype=application/json`,
		"0/1/": `type=kafka.record.tombstone subject=gone partitionkey=gone`,
		"0/2/": `type=kafka.record subject=AP8= partitionkey=AP8= datacontenttype=application/octet-stream`,
		"s":    `type=structured source=/kcat`,
		"b":    `type=binary source=/kcat tenant=50% é datacontenttype=text/plain`,
		"0/7/": `type=kafka.record datacontenttype=application/octet-stream`,
	} {
		e := eventAt(events, place)
		for pair := range strings.SplitSeq(strings.ReplaceAll(want, "% é", "%_é"), " ") {
			name, value, _ := strings.Cut(strings.ReplaceAll(pair, "%_é", "% é"), "=")
			if e[name] != value {
				t.Errorf("%s: %s is %v, want %q; the event is %v", place, name, e[name], value, e)
			}
		}
	}
	letters := p.rejectedBy("clicks")
	for place, want := range map[string][]string{
		"clicks/0/5": {`"originalkey": "batch"`, `cloudevents-batch+json`, "a batch is not one event"},
		"clicks/0/6": {`"originalkey": "headless"`, `ce_specversion`, `/w==`, `bm8gaWQ=`, "id: missing"},
	} {
		for _, text := range want {
			if !strings.Contains(letters[place], text) {
				t.Errorf("the dead letter of %s does not say %s:\n%s", place, text, letters[place])
			}
		}
	}
	t.Logf("8 records of kcat on a real Apache Kafka: %d events, %d dead letters that name topic, partition and offset", len(events), len(letters))
	if len(events) != 6 || len(letters) != 2 {
		t.Errorf("%d events, want 6: %v; %d dead letters, want 2: %v", len(events), events, len(letters), letters)
	}
	p.stop()
}

// printedEvents are the events on the standard output of a program.
func (p *program) printedEvents() (events []map[string]any) {
	p.t.Helper()
	text, err := os.ReadFile(p.out.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			p.t.Fatalf("%v in %s", err, line)
		}
		events = append(events, e)
	}
	return events
}

// eventAt is the first event whose id begins like that.
func eventAt(events []map[string]any, id string) map[string]any {
	for _, e := range events {
		if text, _ := e["id"].(string); strings.HasPrefix(text, id) {
			return e
		}
	}
	return nil
}

// rejectedBy is what the program shows of the dead letters of a source, by the place
// where each stood.
func (p *program) rejectedBy(source string) map[string]string {
	p.t.Helper()
	var list struct {
		DeadLetters []struct {
			ID    string
			Event struct{ Subject string }
		} `json:"dead_letters"`
	}
	text := p.mustCLI("dlq", "ls", "--source", source, "-o", "json")
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		p.t.Fatalf("%v in %s", err, text)
	}
	letters := map[string]string{}
	for _, d := range list.DeadLetters {
		letters[d.Event.Subject] = p.mustCLI("dlq", "show", d.ID)
	}
	return letters
}

// testKafkaBench measures how fast a bus takes what Kafka has, beside a bare reader. How
// fast is for benchmarks to say: here nothing may be missing.
func testKafkaBench(t *testing.T, k *kafkaServer) {
	const records = 50_000
	p := newProgram(t, t.TempDir(), "", "")
	text := p.mustCLI("bench", "kafka", "--brokers", k.plain, "--events", fmt.Sprint(records), "--rounds", "1", "-o", "json")
	var doc struct {
		Reports []struct {
			Measures []struct {
				System                     string
				Accepted, Lost, Duplicates int64
				Rate                       float64 `json:"events_per_second"`
			}
			Comparisons []struct{ Median float64 }
		}
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if len(doc.Reports) != 1 || len(doc.Reports[0].Measures) != 2 || len(doc.Reports[0].Comparisons) != 1 {
		t.Fatalf("it reports %s", text)
	}
	r := doc.Reports[0]
	for _, m := range r.Measures {
		if m.Accepted != records || m.Lost != 0 || m.Duplicates != 0 || m.Rate <= 0 {
			t.Errorf("%s took %d of %d records, lost %d, has %d twice, at %.0f/s", m.System, m.Accepted, records, m.Lost, m.Duplicates, m.Rate)
		}
	}
	if r.Comparisons[0].Median <= 0 {
		t.Errorf("the ratio is %v", r.Comparisons[0].Median)
	}
	t.Logf("%d records of 1 KiB: %s took %.0f/s durably, %s %.0f/s, a ratio of %.2f, with the other tests beside them",
		records, r.Measures[0].System, r.Measures[0].Rate, r.Measures[1].System, r.Measures[1].Rate, r.Comparisons[0].Median)
}
