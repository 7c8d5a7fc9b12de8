package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// publishNumbers publishes n events over HTTP whose ids begin with prefix.
func (p *program) publishNumbers(prefix string, n int) {
	p.t.Helper()
	for i := range n {
		req, err := http.NewRequest(http.MethodPost, p.base+"/", strings.NewReader(fmt.Sprint(i)))
		if err != nil {
			p.t.Fatal(err)
		}
		for name, v := range map[string]string{
			"ce-specversion": "1.0", "ce-id": fmt.Sprint(prefix, i), "ce-source": "/t", "ce-type": "made",
			"ce-partitionkey": fmt.Sprint("k", i%20), "Content-Type": "application/json",
		} {
			req.Header.Set(name, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			p.t.Fatalf("publish: %v %v", resp, err)
		}
		_ = resp.Body.Close()
	}
}

// ids are the ids of the events in a topic, and how often each is there.
func (k *kafkaServer) ids(topic string) map[string]int {
	k.t.Helper()
	seen := map[string]int{}
	for line := range strings.Lines(string(k.kcat("", "-C", "-t", topic, "-e", "-q", "-f", "%h\n"))) {
		for header := range strings.SplitSeq(strings.TrimSpace(line), ",") {
			if id, ok := strings.CutPrefix(header, "ce_id="); ok {
				seen[id]++
			}
		}
	}
	return seen
}

// TestProcessKafkaSinkLogin shows what a wrong password reads like, and that the
// right one is good for every mechanism, with every compression.
func TestProcessKafkaSinkLogin(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(3, "out")
	for mechanism, compression := range map[string]string{"plain": "snappy", "scram-sha-256": "lz4", "scram-sha-512": "zstd"} {
		file := filepath.Join(t.TempDir(), "password")
		sections := fmt.Sprintf(`sinks:
  log: {kafka: {brokers: [%q], topic: out, compression: %s, sasl: {mechanism: %s, user: %s, password: "${file:%s}"}}, retry: {schedule: [1s, 1s, 1s, 1s]}}
`, k.sasl, compression, mechanism, kafkaUser, file) + fmt.Sprintf(everythingTo, "log")
		for _, password := range []string{kafkaPassword + "x", kafkaPassword} {
			if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
				t.Fatal(err)
			}
			p := newProgram(t, t.TempDir(), "", sections)
			p.start()
			p.publishNumbers(mechanism+"-", 10)
			if password == kafkaPassword {
				p.until(30*time.Second, mechanism+" writes", func() bool { return len(k.ids("out")) >= 10 && k.ids("out")[mechanism+"-9"] > 0 })
				p.settled(30 * time.Second)
			} else {
				p.refused(mechanism)
			}
			p.stop()
			p.keepsSecret()
		}
	}
}

// TestProcessKafkaSinkOutage ends the broker as a crash does while events are
// published, and then Sluice, while they wait and while it writes them: all of them are
// in the topic in the end.
func TestProcessKafkaSinkOutage(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(3, "out")
	sections := fmt.Sprintf("sinks:\n  log: {kafka: {brokers: [%q], topic: out}, batch: {max: 50}, breaker: {probe_max: 2s}, retry: {budget: 10000, schedule: [500ms, 1s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s, 2s]}}\n", k.plain) +
		fmt.Sprintf(everythingTo, "log")
	p := newProgram(t, t.TempDir(), "", sections)
	p.start()
	const each = 500
	p.publishNumbers("before-", each)
	k.kill()
	p.publishNumbers("during-", each)
	p.until(30*time.Second, "the outage shows", func() bool { return strings.Contains(p.log.String(), "connection refused") })
	p.kill() // with all of them in hand
	p.start()
	k.start()
	p.publishNumbers("after-", each)
	p.kill() // under way
	p.start()
	p.settled(2 * time.Minute)
	seen, repeated := k.ids("out"), 0
	for _, n := range seen {
		repeated += n - 1
	}
	t.Logf("%d events published, one crash of Apache Kafka and two of Sluice: %d in the topic, %d of them repeated", 3*each, len(seen), repeated)
	if len(seen) != 3*each {
		t.Errorf("%d events in the topic, want %d", len(seen), 3*each)
	}
	p.stop()
}
