package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const kafkaSource = "sources:\n  clicks: {kafka: {brokers: [%q], topics: [clicks], group: sluice, session_timeout: 6s%s}}\n"

// kafkaWriter writes numbered records to the partitions of clicks in turn, and
// notes those that the broker acknowledged.
type kafkaWriter struct {
	client *kgo.Client
	size   int
	mu     sync.Mutex
	acked  []string // ids, as the source makes them
	failed atomic.Int64
}

func newKafkaWriter(k *kafkaServer, size int) *kafkaWriter {
	return &kafkaWriter{size: size, client: k.client(
		kgo.DefaultProduceTopic("clicks"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.RetryTimeout(2*time.Minute),
	)}
}

// write writes n records and waits until the broker has them, or for so long that
// it never will.
func (w *kafkaWriter) write(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for i := range n {
		p := int32(i % 6)
		value := fmt.Appendf(nil, `{"n": %d, "fill": %q}`, i, strings.Repeat("x", w.size))
		record := &kgo.Record{Partition: p, Key: fmt.Appendf(nil, "p%d", p), Value: value}
		w.client.Produce(ctx, record, func(r *kgo.Record, err error) {
			if err != nil {
				w.failed.Add(1)
				return
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.acked = append(w.acked, fmt.Sprintf("%d/%d/%d", r.Partition, r.Offset, r.Timestamp.UnixMilli()))
		})
	}
	_ = w.client.Flush(ctx) // what it leaves was not acknowledged
}

// TestProcessKafkaKill kills sluice and the broker while records come. Every record
// that the broker acknowledged is at the function in the end.
func TestProcessKafkaKill(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(6, "clicks")
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf(kafkaSource, k.plain, "")+"sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.start()
	w := newKafkaWriter(k, 200)
	const rounds, each = 8, 4000
	for round := range rounds {
		var writing sync.WaitGroup
		writing.Go(func() { w.write(t.Context(), each) })
		goal := f.distinct() + each/4
		p.until(time.Minute, "records come", func() bool { return f.distinct() >= goal })
		if round%4 == 3 {
			k.kill()
			k.start()
		} else {
			p.kill()
			p.start()
		}
		writing.Wait()
	}
	p.until(2*time.Minute, "every record at the function", func() bool { return f.distinct() >= len(w.acked) })
	p.settled(time.Minute)
	lost, twice, most := 0, 0, 0
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range w.acked {
		if f.got[id] == 0 {
			lost++
		}
	}
	for _, n := range f.got {
		twice += n - 1
		most = max(most, n)
	}
	again := p.logged() - len(f.got)
	t.Logf("6 kill -9 of sluice, 2 of Apache Kafka: %d records acknowledged by Kafka, %d refused, %d missing at the function, %d ids there in all; %d published again, %d delivered again (%d times at most)",
		len(w.acked), w.failed.Load(), lost, len(f.got), again, twice, most)
	if lost > 0 || len(w.acked) < rounds*each*9/10 {
		t.Errorf("%d of %d records are missing", lost, len(w.acked))
	}
	// A kill repeats one batch, whose offsets were not committed, under the same ids.
	if again > 6*2000 || len(f.got) != len(w.acked) {
		t.Errorf("%d records were published again; %d ids for %d records", again, len(f.got), len(w.acked))
	}
	p.stop()
}

// TestProcessKafkaMembers has two processes that join and leave while 100,000
// records come in 6 partitions: none is missing, and each process stores the
// records of a partition in their order.
func TestProcessKafkaMembers(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(6, "clicks")
	const total = 100_000
	sections := fmt.Sprintf(kafkaSource, k.plain, "") + "sinks:\n  out: {stdout: {}, order_by: partitionkey}\n" + fmt.Sprintf(everythingTo, "out")
	var processes []*program
	for range 2 {
		dir := t.TempDir()
		p := newProgram(t, dir, "", sections)
		out, err := os.Create(filepath.Join(dir, "out.ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = out.Close() })
		p.out = out
		processes = append(processes, p)
	}
	w := newKafkaWriter(k, 100)
	var writing sync.WaitGroup
	writing.Go(func() {
		for range 20 {
			w.write(t.Context(), total/20)
			<-time.After(500 * time.Millisecond)
		}
	})
	a, b := processes[0], processes[1]
	joins := 0
	join := func(p *program) func() { return func() { joins++; p.start() } }
	for _, step := range []func(){join(a), join(b), a.stop, join(a), b.kill, join(b), a.stop, join(a), b.stop, join(b)} {
		step()
		<-time.After(2 * time.Second)
	}
	writing.Wait()
	seen := map[string]int{}
	limit := time.After(2 * time.Minute)
	for len(seen) < len(w.acked) {
		select {
		case <-limit:
			t.Fatalf("%d of %d records are stored\n%s", len(seen), len(w.acked), processes[0].tail())
		case <-time.After(500 * time.Millisecond):
		}
		clear(seen)
		for _, p := range processes {
			for _, id := range p.printed() {
				seen[id]++
			}
		}
	}
	for _, p := range processes {
		p.settled(time.Minute)
	}
	lost, repeated, disorder := 0, 0, 0
	for _, id := range w.acked {
		if seen[id] == 0 {
			lost++
		}
		repeated += max(0, seen[id]-1)
	}
	for _, p := range processes {
		disorder += outOfOrder(p.printed())
		p.stop()
	}
	t.Logf("%d records in 6 partitions, 2 processes, %d joins: %d missing, %d repeated, %d out of the order of their partition", len(w.acked), joins, lost, repeated, disorder)
	if lost > 0 || disorder > 0 || len(w.acked) != total {
		t.Errorf("%d acknowledged, %d missing, %d out of order", len(w.acked), lost, disorder)
	}
}

// printed are the ids on the standard output of a program.
func (p *program) printed() (ids []string) {
	p.t.Helper()
	text, err := os.ReadFile(p.out.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var e struct{ ID string }
		if json.Unmarshal(line, &e) == nil { // the last line may be half written
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// outOfOrder counts ids that come for the first time behind a later one of their
// partition.
func outOfOrder(ids []string) (n int) {
	seen, last := map[string]bool{}, map[int]int64{}
	for _, id := range ids {
		var partition int
		var offset int64
		if _, err := fmt.Sscanf(id, "%d/%d/", &partition, &offset); err != nil || seen[id] {
			continue
		}
		seen[id] = true
		if at, there := last[partition]; there && offset < at {
			n++
		}
		last[partition] = max(last[partition], offset)
	}
	return n
}

// TestProcessKafkaLogin shows what a wrong password reads like, and that the right
// one is good for every mechanism, and through TLS.
func TestProcessKafkaLogin(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(6, "clicks")
	w := newKafkaWriter(k, 10)
	w.write(t.Context(), 60)
	f := newFunction(t, nil)
	for _, way := range []struct{ mechanism, tls string }{{"plain", ""}, {"scram-sha-256", ""}, {"scram-sha-512", ""}, {"scram-sha-512", fmt.Sprintf(", tls: {ca: %q}", k.ca)}} {
		mechanism, brokers := way.mechanism, k.sasl
		if way.tls != "" {
			brokers = k.secure
		}
		for _, password := range []string{kafkaPassword + "x", kafkaPassword} {
			file := filepath.Join(t.TempDir(), "password")
			if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
				t.Fatal(err)
			}
			login := fmt.Sprintf(`, sasl: {mechanism: %s, user: %s, password: "${file:%s}"}`, mechanism, kafkaUser, file)
			sections := strings.Replace(fmt.Sprintf(kafkaSource, brokers, login+way.tls), "group: sluice", fmt.Sprintf("group: %s-%t", mechanism, way.tls != ""), 1)
			p := newProgram(t, t.TempDir(), "", sections+"sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
			before := f.deliveries()
			p.start()
			if password == kafkaPassword {
				p.until(30*time.Second, mechanism+" logs in", func() bool { return f.deliveries() == before+60 })
			} else {
				p.refused(mechanism)
			}
			p.stop()
			p.keepsSecret()
		}
	}
}

func (f *function) deliveries() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, times := range f.got {
		n += times
	}
	return n
}

// TestProcessKafkaTopics deletes a topic and creates it again, and writes in
// transactions: whatever is in it now is read, and control markers are no events.
func TestProcessKafkaTopics(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(6, "clicks")
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf(kafkaSource, k.plain, ", start: last, isolation: read_committed")+"sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.start()
	// Until it has its partitions, what comes is before the place to start from.
	p.until(time.Minute, "the first record", func() bool {
		newKafkaWriter(k, 10).write(t.Context(), 6)
		return f.distinct() > 0
	})
	<-time.After(time.Second)
	before := f.distinct()
	newKafkaWriter(k, 10).write(t.Context(), 600)
	p.until(time.Minute, "the old topic", func() bool { return f.distinct() == before+600 })
	k.remove("clicks")
	<-time.After(time.Second)
	k.create(6, "clicks")
	newKafkaWriter(k, 10).write(t.Context(), 300)
	p.until(2*time.Minute, "the topic that was created again", func() bool { return f.distinct() >= before+900 })
	tx := k.client(kgo.DefaultProduceTopic("clicks"), kgo.TransactionalID("t"), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	for i := range 20 {
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), kgo.StringRecord("1"), kgo.StringRecord("2"), kgo.StringRecord("3")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := tx.EndTransaction(t.Context(), kgo.TransactionEndTry(i%2 == 0)); err != nil {
			t.Fatal(err)
		}
	}
	p.until(time.Minute, "what was committed", func() bool { return f.distinct() >= before+930 })
	<-time.After(2 * time.Second)
	t.Logf("600 records, the topic created again, 300 records, 30 committed and 30 aborted in 20 transactions: %d events", f.distinct()-before)
	if got := f.distinct() - before; got != 930 {
		t.Errorf("%d events, want 930", got)
	}
	p.settled(10 * time.Second)
	p.stop()
}

// TestProcessKafkaSink publishes over HTTP and reads what the sink wrote with kcat: what
// is in order by the subject has it for its key, though no key is written.
func TestProcessKafkaSink(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(3, "orders-made")
	sections := fmt.Sprintf("sinks:\n  log: {kafka: {brokers: [%q], topic: \"orders-{type}\"}, order_by: subject, batch: {max: 100}}\n", k.plain) + fmt.Sprintf(everythingTo, "log")
	p := newProgram(t, t.TempDir(), "", sections)
	p.start()
	const keys, each = 20, 100
	var publishing sync.WaitGroup
	for key := range keys {
		publishing.Go(func() {
			for i := range each {
				req, err := http.NewRequest(http.MethodPost, p.base+"/", strings.NewReader(fmt.Sprint(i)))
				if err != nil {
					t.Error(err)
					return
				}
				for name, v := range map[string]string{
					"ce-specversion": "1.0", "ce-id": fmt.Sprintf("%d.%d", key, i), "ce-source": "/t", "ce-type": "made",
					"ce-subject": fmt.Sprint("k", key), "Content-Type": "application/json",
				} {
					req.Header.Set(name, v)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil || resp.StatusCode != http.StatusAccepted {
					t.Errorf("publish: %v %v", resp, err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	publishing.Wait()
	p.settled(time.Minute)
	next, records, repeated := map[string]int{}, 0, 0
	for line := range strings.Lines(string(k.kcat("", "-C", "-t", "orders-made", "-e", "-q", "-f", "%k %s %h\n"))) {
		fields := strings.Fields(line)
		var n int
		if _, err := fmt.Sscan(fields[1], &n); err != nil || len(fields) != 3 {
			t.Fatalf("kcat says %q", line)
		}
		headers := strings.Split(fields[2], ",")
		if key := strings.TrimPrefix(fields[0], "k"); !slices.Contains(headers, "ce_id="+key+"."+fields[1]) || !slices.Contains(headers, "content-type=application/json") {
			t.Errorf("the headers are %q", headers)
		}
		switch records++; {
		case n == next[fields[0]]:
			next[fields[0]]++
		case n < next[fields[0]]:
			repeated++
		default:
			t.Errorf("key %s: record %d came when %d was due", fields[0], n, next[fields[0]])
		}
	}
	t.Logf("%d events published, kcat read %d records, %d of them repeated, each key in order", keys*each, records, repeated)
	if records-repeated != keys*each {
		t.Errorf("%d records, want %d", records-repeated, keys*each)
	}
	p.stop()
}
