package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/sources/sourcetest"
)

// flood is an upstream with far more messages than the store may hold.
type flood struct {
	source string // the YAML of its source, without the name
	env    []string
	store  int64 // how large the store may become
	size   int   // of a message, about
	total  int   // messages
	again  int   // messages that a crash may repeat
	most   int   // what upstream may have sent ahead of what is acknowledged
	// fill makes the messages 1 to total. The program runs, with its sink paused.
	fill func(p *program)
	// at is what upstream has as acknowledged, and how much it has sent ahead of that: in
	// messages, or in bytes; 0 where it does not know.
	at func() (acknowledged string, ahead int)
}

// order is message n: rowSink knows it by its number.
func (f *flood) order(n int) []byte {
	return fmt.Appendf(nil, `{"table": "orders", "new": {"n": %d}, "fill": %q}`, n, strings.Repeat("x", f.size))
}

// run fills the store from upstream, kills the program while it is full, and makes room.
// While there is none the source says so and takes no more, and its memory stays small;
// in the end every message is at the function.
func (f *flood) run(t *testing.T) {
	began := time.Now()
	sink := newRowSink(t)
	p := newProgram(t, t.TempDir(), fmt.Sprintf(", max_bytes: %d, retain: {size: 1MiB}", f.store),
		"sources:\n  in: {"+f.source+"}\nsinks:\n"+sinkYAML("f", sink.URL, ", concurrency: 16")+fmt.Sprintf(everythingTo, "f"))
	p.env = append(p.env, f.env...)
	p.start()
	p.mustCLI("sinks", "pause", "f")
	f.fill(p)
	filled := time.Since(began)
	took, before, ahead := f.stalled(p)
	peak := p.peak()
	p.kill()
	p.start()
	more, after, _ := f.stalled(p)
	full := time.Since(began)
	if held := int64(took+more) * int64(f.size); held > f.store {
		t.Errorf("%d and %d events were taken, of %d MB, into a store of %d MB", took, more, held>>20, f.store>>20)
	}
	if ahead > f.most {
		t.Errorf("upstream has sent %d ahead of what is acknowledged, at most %d were expected", ahead, f.most)
	}
	if took*2 > f.total || sink.rows() > 0 {
		t.Errorf("%d of %d messages fit, and %d were delivered: that fills nothing", took, f.total, sink.rows())
	}
	p.mustCLI("sinks", "resume", "f")
	p.until(time.Minute, "every message is at the function", func() bool { return sink.rows() >= f.total })
	p.settled(30 * time.Second)
	p.until(10*time.Second, "the source is well", func() bool { return f.state(p).State == "running" })
	again := took + f.state(p).Accepted - f.total
	peak = max(peak, p.peak())
	_, repeats := checkOrders(t, sink, f.total)
	end, _ := f.at()
	t.Logf("%d messages of %d KiB, a store of %d MB: full with %d, upstream at %s and %d ahead, with %d more and at %s after kill -9, at %s in the end; none missing, %d published again and %d delivered again with the same id; %d MB of memory at the most; filled after %.1f s, full twice after %.1f s, all there after %.1f s",
		f.total, f.size>>10, f.store>>20, took, before, ahead, more, after, end, again, repeats, peak>>20, filled.Seconds(), full.Seconds(), time.Since(began).Seconds())
	if again > f.again || repeats > again {
		t.Errorf("%d messages were published again, at most %d were expected; %d were delivered again", again, f.again, repeats)
	}
	if peak > 300<<20 {
		t.Errorf("%d MB of memory, want at most 300", peak>>20)
	}
	p.stop()
}

// inSource is what `sluice sources ls` says of the source.
type inSource struct {
	State     string
	Accepted  int
	LastError string `json:"last_error"`
}

func (f *flood) state(p *program) inSource {
	p.t.Helper()
	var list struct{ Sources []inSource }
	if err := json.Unmarshal([]byte(p.mustCLI("sources", "ls", "-o", "json")), &list); err != nil || len(list.Sources) != 1 {
		p.t.Fatalf("sluice sources ls: %v %+v", err, list)
	}
	return list.Sources[0]
}

// stalled waits until the source says that the store is full, and has taken nothing for
// a while. It returns how many events it had published, and where it stood upstream.
func (f *flood) stalled(p *program) (accepted int, at string, ahead int) {
	p.t.Helper()
	const still = 1200 * time.Millisecond
	look := time.NewTicker(250 * time.Millisecond)
	defer look.Stop()
	since, limit := time.Now(), time.After(time.Minute)
	for time.Since(since) < still {
		select {
		case <-look.C:
		case <-limit:
			p.t.Fatalf("the store does not fill up: %+v, %s\n%s", f.state(p), at, p.tail())
		}
		s := f.state(p)
		acknowledged, sent := f.at()
		if s.State != "degraded" || !strings.Contains(s.LastError, "the store is full") || s.Accepted != accepted || acknowledged != at || sent != ahead {
			accepted, at, ahead, since = s.Accepted, acknowledged, sent, time.Now()
		}
	}
	return accepted, at, ahead
}

// peak is the most memory that the program had resident since its start, in bytes.
func (p *program) peak() (bytes int64) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0 // no Linux
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	if _, err := fmt.Sscan(rest, &bytes); err != nil {
		p.t.Fatal(err)
	}
	return bytes << 10
}

// TestProcessKafkaFullStore has 130 MB in a topic for a store of 32. The most of it is
// compressed to next to nothing: going by its bytes, one fetch would bring all of that.
func TestProcessKafkaFullStore(t *testing.T) {
	t.Parallel()
	k := newKafkaServer(t)
	k.create(6, "clicks")
	client := k.client()
	f := &flood{
		source: fmt.Sprintf("kafka: {brokers: [%q], topics: [clicks], group: sluice, session_timeout: 6s}", k.plain),
		store:  32 << 20, size: 16 << 10, total: 8000, again: 2000,
		at: func() (string, int) { return fmt.Sprint("offset ", committed(t, client, "sluice")), 0 },
	}
	f.fill = func(*program) {
		n := 1
		for _, part := range []struct {
			codec kgo.CompressionCodec
			to    int
		}{{kgo.ZstdCompression(), f.total * 7 / 8}, {kgo.NoCompression(), f.total}} {
			writer := k.client(kgo.DefaultProduceTopic("clicks"), kgo.ProducerBatchCompression(part.codec))
			for ; n <= part.to; n++ {
				writer.Produce(t.Context(), &kgo.Record{Value: f.order(n), Key: fmt.Append(nil, n)}, func(_ *kgo.Record, err error) {
					if err != nil {
						t.Error(err)
					}
				})
			}
			if err := writer.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.run(t)
	if n := committed(t, client, "sluice"); n != int64(f.total) {
		t.Errorf("%d of %d records are committed", n, f.total)
	}
}

// committed is how many records a group is past, in all partitions together.
func committed(t *testing.T, client *kgo.Client, group string) (records int64) {
	t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	one := kmsg.NewOffsetFetchRequestGroup()
	one.Group = group
	req.Groups = append(req.Groups, one)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range resp.Groups {
		for _, topic := range g.Topics {
			for _, p := range topic.Partitions {
				records += max(0, p.Offset)
			}
		}
	}
	return records
}

// TestProcessPostgresFullStore has 130 MB of rows for a store of 32.
func TestProcessPostgresFullStore(t *testing.T) {
	t.Parallel()
	server := sourcetest.NewPostgres(t)
	db := server.NewDatabase(t, `CREATE TABLE orders (n int PRIMARY KEY, x text)`, `ALTER TABLE orders ALTER x SET STORAGE EXTERNAL`)
	dsn := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(server.DSN(db)), 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), server.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	const transaction = 100 // rows
	f := &flood{
		source: fmt.Sprintf(`postgres: {dsn: "${file:%s}", tables: [orders], heartbeat: 1s}`, dsn),
		store:  32 << 20, size: 16 << 10, total: 8000, again: 512 + transaction,
		most: 40 << 20, // what waits in the source, a batch that it publishes, and what is in the sockets
	}
	f.at = func() (confirmed string, ahead int) {
		const sql = `SELECT confirmed_flush_lsn::text, pg_wal_lsn_diff(sent_lsn, confirmed_flush_lsn)::bigint
			FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid`
		if err := conn.QueryRow(t.Context(), sql).Scan(&confirmed, &ahead); err != nil {
			return "", 0 // the slot is not there yet, or not in use
		}
		return confirmed, ahead
	}
	f.fill = func(p *program) {
		p.until(20*time.Second, "the slot", func() bool { confirmed, _ := f.at(); return confirmed != "" })
		for n := 0; n < f.total; n += transaction {
			if _, err := conn.Exec(t.Context(), "INSERT INTO orders SELECT i, repeat('x', $1) FROM generate_series($2::int + 1, $2 + $3) AS i", f.size, n, transaction); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.run(t)
}

// TestProcessNATSFullStore has 130 MB in a stream for a store of 32.
func TestProcessNATSFullStore(t *testing.T) {
	t.Parallel()
	server := newNATSServer(t)
	_, js := server.client()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "IN", Subjects: []string{"in.>"}}); err != nil {
		t.Fatal(err)
	}
	f := &flood{
		source: fmt.Sprintf("nats: {urls: [%q], user: %s, password: \"${env:NATS_PASSWORD}\", jetstream: {stream: IN, consumer: sluice, ack_wait: 3s}}", server.url(), natsUser),
		env:    []string{"NATS_PASSWORD=" + natsPassword},
		store:  32 << 20, size: 16 << 10, total: 8000, again: 1000, most: 1000,
	}
	f.at = func() (string, int) {
		consumer, err := js.Consumer(t.Context(), "IN", "sluice")
		if err != nil {
			t.Fatal(err)
		}
		info := consumer.CachedInfo()
		return fmt.Sprint("message ", info.AckFloor.Stream), int(info.Delivered.Stream - info.AckFloor.Stream)
	}
	f.fill = func(*program) {
		for n := 1; n <= f.total; n++ {
			if _, err := js.PublishAsync("in.orders", f.order(n)); err != nil {
				t.Fatal(err)
			}
		}
		<-js.PublishAsyncComplete()
		if n := streamed(t, js, "IN"); n != f.total {
			t.Fatalf("the stream has %d messages", n)
		}
	}
	f.run(t)
}

// TestProcessSQSFullStore has several times in a queue what the store may hold.
func TestProcessSQSFullStore(t *testing.T) {
	t.Parallel()
	server := sourcetest.NewElasticMQ(t)
	in := server.Queue(t, "in")
	f := &flood{
		source: fmt.Sprintf("sqs: {queue_url: %q, wait: 1s, visibility: 5s, credentials: {access_key: key, secret_key: \"${env:SQS_SECRET}\"}}", in),
		env:    []string{"SQS_SECRET=" + sqsSecret},
		store:  5 << 20, size: 16 << 10, total: 700, again: 200, most: 200,
	}
	f.at = func() (string, int) {
		const inHand = types.QueueAttributeNameApproximateNumberOfMessagesNotVisible
		out, err := server.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &in, AttributeNames: []types.QueueAttributeName{inHand}})
		if err != nil {
			t.Fatal(err)
		}
		ahead, _ := strconv.Atoi(out.Attributes[string(inHand)])
		return fmt.Sprint("the last ", server.Left(t, in)), ahead
	}
	f.fill = func(*program) {
		const writers, many = 8, 1
		var writing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for n := 1 + many*w; n <= f.total; n += many * writers {
					batch := &sqs.SendMessageBatchInput{QueueUrl: &in}
					for i := range many {
						batch.Entries = append(batch.Entries, types.SendMessageBatchRequestEntry{
							Id: aws.String(fmt.Sprint(i)), MessageBody: aws.String(string(f.order(n + i))),
						})
					}
					if out, err := server.SendMessageBatch(t.Context(), batch); err != nil || len(out.Failed) > 0 {
						t.Errorf("%v %+v", err, out)
					}
				}
			})
		}
		writing.Wait()
	}
	f.run(t)
	if n := server.Left(t, in); n > 0 {
		t.Errorf("%d messages are left in the queue", n)
	}
}
