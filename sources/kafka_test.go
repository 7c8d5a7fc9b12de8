package sources_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/bus"
	"sluice/config/kafka"
	"sluice/config/value"
	"sluice/sinks/sinktest"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

const (
	clicks     = "clicks"
	kafkaGroup = "sluice"
	// kafkaPatience is for what takes a rebalance or two.
	kafkaPatience = 30 * time.Second
)

// kafkaCluster is a cluster in this process with a topic of three partitions, and
// a client beside the source.
type kafkaCluster struct {
	*kfake.Cluster
	client *kgo.Client
}

func newKafkaCluster(t *testing.T, opts ...kfake.Opt) *kafkaCluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(3), kfake.SeedTopics(3, clicks)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic(clicks),
		kgo.ManualFlushing(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &kafkaCluster{c, client}
}

func (c *kafkaCluster) settings() *sources.Kafka {
	s := sources.NewKafka()
	s.Brokers, s.Topics, s.Group = c.ListenAddrs(), []string{clicks}, kafkaGroup
	s.SessionTimeout = value.Duration(6 * time.Second)
	return s
}

// produce writes records and returns them with their offsets.
func (c *kafkaCluster) produce(ctx context.Context, records ...*kgo.Record) error {
	var first error
	left := make(chan error, len(records))
	for _, r := range records {
		c.client.Produce(ctx, r, func(_ *kgo.Record, err error) { left <- err })
	}
	if err := c.client.Flush(ctx); err != nil {
		return err
	}
	for range records {
		first = cmp.Or(first, <-left)
	}
	return first
}

// committed is where the group stands in a partition, -1 for nowhere.
func (c *kafkaCluster) committed(ctx context.Context, topic string, partition int32) (int64, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = kafkaGroup
	req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: []int32{partition}}}
	resp, err := req.RequestWith(ctx, c.client)
	if err != nil {
		return -1, err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			return p.Offset, kerr.ErrorForCode(p.ErrorCode)
		}
	}
	return -1, errors.New("no answer for the partition")
}

// acknowledged waits until the group is beyond a record.
func (c *kafkaCluster) acknowledged(ctx context.Context, r *kgo.Record) error {
	for {
		if at, err := c.committed(ctx, r.Topic, r.Partition); err == nil && at > r.Offset {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// cloudEvent is a record in binary mode.
func cloudEvent(e bus.Event) *kgo.Record {
	r := &kgo.Record{Value: e.Data()}
	for _, a := range e.Attrs() {
		key := "ce_" + a.Name
		if a.Name == "datacontenttype" {
			key = "content-type"
		}
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(a.Value)})
	}
	return r
}

func TestKafkaContract(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
		c := newKafkaCluster(t)
		host := sourcetest.NewHost(t)
		var turn atomic.Int32
		return &sourcetest.Subject{
			Source: host.Open(t, c.settings()),
			Send: func(ctx context.Context, e bus.Event) error {
				r := cloudEvent(e)
				r.Partition = turn.Add(1) % 3
				if err := c.produce(ctx, r); err != nil {
					return err
				}
				return c.acknowledged(ctx, r)
			},
			Poison: func(ctx context.Context) {
				r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("poison")}}, Value: []byte("\x00raw")}
				if err := c.produce(ctx, r); err != nil {
					t.Error(err)
				}
				if err := c.acknowledged(ctx, r); err != nil {
					t.Error(err)
				}
				rejected := host.Rejected()
				if len(rejected) == 0 {
					t.Fatal("the poison was acknowledged and is no dead letter")
				}
				if got := rejected[0]; got.Where != fmt.Sprintf("%s/0/%d", clicks, r.Offset) || string(got.Data) != "\x00raw" || !strings.Contains(got.Reason, "specversion") {
					t.Errorf("the dead letter is %+v", got)
				}
			},
		}
	})
}

// kafkaRunner is a source that runs until the test ends or stop is called.
type kafkaRunner struct {
	cancel context.CancelFunc
	done   chan error
}

func runKafka(t *testing.T, src sources.Source, pub bus.Publisher) *kafkaRunner {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &kafkaRunner{cancel, make(chan error, 1)}
	go func() { r.done <- src.Run(ctx, pub) }()
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// wait is what Run returns.
func (r *kafkaRunner) wait() error {
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(kafkaPatience):
		return errors.New("Run does not return")
	}
}

func (r *kafkaRunner) stop() error {
	r.cancel()
	return r.wait()
}

// ended tells whether Run returned by itself.
func (r *kafkaRunner) ended() bool { return len(r.done) > 0 }

func kafkaUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(kafkaPatience)
	for !ok() {
		select {
		case <-limit:
			t.Fatalf("waited in vain: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// plainRecords are records with their number as value, n for each of 3 partitions.
func plainRecords(n int) (records []*kgo.Record) {
	for i := range n {
		for p := range int32(3) {
			records = append(records, &kgo.Record{Partition: p, Value: fmt.Appendf(nil, "%d", i), Key: fmt.Appendf(nil, "p%d", p)})
		}
	}
	return records
}

// inOrder checks that what was stored has every record of 3 partitions, in order
// but for repetitions, and counts those.
func inOrder(t *testing.T, stored []bus.Event, each int) (repeated int) {
	t.Helper()
	next := map[string]int{}
	for _, e := range stored {
		var n int
		if _, err := fmt.Sscan(string(e.Data()), &n); err != nil {
			t.Fatal(err)
		}
		switch key := e.Get("partitionkey"); {
		case n == next[key]:
			next[key]++
		case n < next[key]:
			repeated++
		default:
			t.Errorf("%s: record %d came when %d was due", key, n, next[key])
			next[key] = n + 1
		}
	}
	for p := range 3 {
		if got := next[fmt.Sprint("p", p)]; got != each {
			t.Errorf("partition %d: %d of %d records are stored", p, got, each)
		}
	}
	return repeated
}

// Whatever a broker answers, every record is stored, in its partition's order, and
// the group gets to the end.
func TestKafkaFaults(t *testing.T) {
	t.Parallel()
	const each = 300
	all := func(keys ...kmsg.Key) []kmsg.Key { return keys }
	for name, fault := range map[string]kfake.Fault{
		"fetch not leader":         {Keys: all(kmsg.Fetch), Err: kerr.NotLeaderForPartition, Count: 6},
		"fetch unknown error":      {Keys: all(kmsg.Fetch), Err: kerr.UnknownServerError, Count: 6},
		"fetch fenced epoch":       {Keys: all(kmsg.Fetch), Err: kerr.FencedLeaderEpoch, Count: 3},
		"fetch storage error":      {Keys: all(kmsg.Fetch), Err: kerr.KafkaStorageError, Count: 3},
		"offsets still load":       {Keys: all(kmsg.OffsetFetch), Group: kafkaGroup, Err: kerr.CoordinatorLoadInProgress, Count: 3},
		"commit moved":             {Keys: all(kmsg.OffsetCommit), Group: kafkaGroup, Err: kerr.NotCoordinator, Count: 3},
		"commit still loads":       {Keys: all(kmsg.OffsetCommit), Group: kafkaGroup, Err: kerr.CoordinatorLoadInProgress, Count: 3},
		"commit timed out":         {Keys: all(kmsg.OffsetCommit), Group: kafkaGroup, Err: kerr.RequestTimedOut, Count: 3},
		"commit of an old session": {Keys: all(kmsg.OffsetCommit), Group: kafkaGroup, Err: kerr.IllegalGeneration, Count: 1},
		"join moved":               {Keys: all(kmsg.JoinGroup), Group: kafkaGroup, Err: kerr.NotCoordinator, Count: 2},
		"session lost":             {Keys: all(kmsg.Heartbeat), Group: kafkaGroup, Err: kerr.UnknownMemberID, Count: 1},
		"rebalance":                {Keys: all(kmsg.Heartbeat), Group: kafkaGroup, Err: kerr.RebalanceInProgress, Count: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newKafkaCluster(t)
			pub := &sourcetest.Publisher{}
			s := c.settings()
			handle := c.Fault(fault)
			src := sourcetest.NewHost(t).Open(t, s)
			run := runKafka(t, src, pub)
			records := plainRecords(each)
			for at := 0; at < len(records); at += 90 {
				if err := c.produce(t.Context(), records[at:min(at+90, len(records))]...); err != nil {
					t.Fatal(err)
				}
			}
			for _, r := range records[len(records)-3:] {
				ctx, cancel := context.WithTimeout(t.Context(), kafkaPatience)
				if err := c.acknowledged(ctx, r); err != nil {
					t.Fatalf("%d of %d are stored: %v", len(pub.Stored()), len(records), err)
				}
				cancel()
			}
			// Heartbeats come every few seconds only.
			kafkaUntil(t, "the fault to be met", func() bool { return handle.Hits() > 0 })
			if err := run.stop(); err != nil {
				t.Errorf("Run returned %v", err)
			}
			repeated := inOrder(t, pub.Stored(), each)
			t.Logf("the fault was met %d times, %d of %d records were repeated", handle.Hits(), repeated, len(records))
		})
	}
}

// Brokers that cut connections, leaders and coordinators that move, while records
// come.
func TestKafkaMovingCluster(t *testing.T) {
	t.Parallel()
	const each = 600
	c := newKafkaCluster(t)
	var requests atomic.Int64
	c.Control(func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		switch kmsg.Key(req.Key()) {
		case kmsg.Fetch, kmsg.OffsetCommit, kmsg.Heartbeat, kmsg.Metadata:
			if requests.Add(1)%17 == 0 {
				return nil, errors.New("cut"), true
			}
		}
		return nil, nil, false
	})
	pub := &sourcetest.Publisher{}
	src := sourcetest.NewHost(t).Open(t, c.settings())
	run := runKafka(t, src, pub)
	records := plainRecords(each)
	for at := 0; at < len(records); at += 90 {
		if err := c.produce(t.Context(), records[at:min(at+90, len(records))]...); err != nil {
			t.Fatal(err)
		}
		c.ShufflePartitionLeaders()
		if at%450 == 0 {
			c.RehashCoordinators()
		}
		<-time.After(50 * time.Millisecond)
	}
	for _, r := range records[len(records)-3:] {
		ctx, cancel := context.WithTimeout(t.Context(), kafkaPatience)
		defer cancel()
		if err := c.acknowledged(ctx, r); err != nil {
			t.Fatalf("%d of %d are stored: %v", len(pub.Stored()), len(records), err)
		}
	}
	if err := run.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	repeated := inOrder(t, pub.Stored(), each)
	t.Logf("%d requests, every 17th cut: %d of %d records were repeated", requests.Load(), repeated, len(records))
}

// Members come and go while records come: every record is stored by one of them.
func TestKafkaRebalance(t *testing.T) {
	t.Parallel()
	const each = 400
	c := newKafkaCluster(t)
	pub := &sourcetest.Publisher{}
	host := sourcetest.NewHost(t)
	run := runKafka(t, host.Open(t, c.settings()), pub)
	var second *kafkaRunner
	records := plainRecords(each)
	for i, at := 0, 0; at < len(records); i, at = i+1, at+60 {
		if err := c.produce(t.Context(), records[at:min(at+60, len(records))]...); err != nil {
			t.Fatal(err)
		}
		switch i % 8 {
		case 2:
			second = runKafka(t, host.Open(t, c.settings()), pub)
		case 6:
			if err := second.stop(); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(100 * time.Millisecond)
	}
	for _, r := range records[len(records)-3:] {
		ctx, cancel := context.WithTimeout(t.Context(), kafkaPatience)
		defer cancel()
		if err := c.acknowledged(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := run.stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if repeated := inOrder(t, pub.Stored(), each); repeated > 0 {
		t.Errorf("%d records were repeated, although every member left in order", repeated)
	}
}

// A topic that is deleted and created again begins with offset 0, and nothing in
// it is taken for something that was read before.
func TestKafkaTopicCreatedAgain(t *testing.T) {
	t.Parallel()
	for _, start := range []string{"first", "last"} {
		t.Run(start, func(t *testing.T) {
			t.Parallel()
			c := newKafkaCluster(t)
			pub := &sourcetest.Publisher{}
			s := c.settings()
			s.Start = "first"
			host := sourcetest.NewHost(t)
			src := host.Open(t, s)
			run := runKafka(t, src, pub)
			old := plainRecords(10)
			if err := c.produce(t.Context(), old...); err != nil {
				t.Fatal(err)
			}
			kafkaUntil(t, "the old records", func() bool { return len(pub.Stored()) == 30 })
			s.Start = start
			del := kmsg.NewPtrDeleteTopicsRequest()
			del.TopicNames = []string{clicks}
			del.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr(clicks)}}
			if _, err := del.RequestWith(t.Context(), c.client); err != nil {
				t.Fatal(err)
			}
			create := kmsg.NewPtrCreateTopicsRequest()
			create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: clicks, NumPartitions: 3, ReplicationFactor: 1}}
			if _, err := create.RequestWith(t.Context(), c.client); err != nil {
				t.Fatal(err)
			}
			writer, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic(clicks), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			if err := writer.ProduceSync(t.Context(), plainRecords(10)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			// Run ends with an error, and is started again as the app does.
			limit := time.After(kafkaPatience)
			for len(pub.Stored()) < 60 {
				select {
				case <-limit:
					t.Fatalf("%d records are stored, want 60; reported: %v", len(pub.Stored()), host.Reported())
				case <-time.After(200 * time.Millisecond):
				}
				if run.ended() {
					t.Logf("Run returned: %v", run.wait())
					run = runKafka(t, src, pub)
				}
			}
			ids := map[string]bool{}
			for _, e := range pub.Stored() {
				ids[e.Source()+" "+e.ID()] = true
			}
			if len(ids) != 60 {
				t.Errorf("%d different ids, want 60", len(ids))
			}
		})
	}
}

// A broker wants certificates, of another authority than when the source was opened: the
// files were replaced since.
func TestKafkaTLSRenewed(t *testing.T) {
	t.Parallel()
	old, fresh := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	c := newKafkaCluster(t, kfake.TLS(fresh.MutualServer("127.0.0.1")))
	s, dir := c.settings(), t.TempDir()
	cert, key := old.Client("sluice")
	s.TLS = &kafka.TLS{}
	s.TLS.CA, s.TLS.Cert, s.TLS.Key = old.Install(dir, cert, key)
	src := sourcetest.NewHost(t).Open(t, s)
	cert, key = fresh.Client("sluice")
	fresh.Install(dir, cert, key)
	login, err := s.TLS.Config()
	if err != nil {
		t.Fatal(err)
	}
	writer, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic(clicks), kgo.DialTLSConfig(login))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if err := writer.ProduceSync(t.Context(), &kgo.Record{Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	pub := &sourcetest.Publisher{}
	run := runKafka(t, src, pub)
	kafkaUntil(t, "the record", func() bool { return run.ended() || len(pub.Stored()) == 1 })
	if run.ended() {
		t.Errorf("Run returned %v", run.wait())
	}
}

// What goes wrong is said in words that tell what to do.
func TestKafkaTrouble(t *testing.T) {
	t.Parallel()
	const password = "pa55word-marker"
	login := func(mechanism, user, password string) *kafka.SASL {
		return &kafka.SASL{Mechanism: mechanism, User: value.NewText(user), Password: value.NewSecret(password)}
	}
	sasl := []kfake.Opt{
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", password), kfake.Superuser("SCRAM-SHA-256", "u", password),
		kfake.Superuser("SCRAM-SHA-512", "u", password),
	}
	for name, c := range map[string]struct {
		opts   []kfake.Opt
		change func(*sources.Kafka)
		want   string // in the error of Run, or in what it reports; "" for none
	}{
		"plain":                 {sasl, func(s *sources.Kafka) { s.SASL = login("plain", "u", password) }, ""},
		"scram-sha-256":         {sasl, func(s *sources.Kafka) { s.SASL = login("scram-sha-256", "u", password) }, ""},
		"scram-sha-512":         {sasl, func(s *sources.Kafka) { s.SASL = login("scram-sha-512", "u", password) }, ""},
		"plain, wrong":          {sasl, func(s *sources.Kafka) { s.SASL = login("plain", "u", password+"x") }, "check user, password and the SASL/TLS settings"},
		"scram, wrong":          {sasl, func(s *sources.Kafka) { s.SASL = login("scram-sha-256", "u", password+"x") }, "check user, password and the SASL/TLS settings"},
		"scram, no such user":   {sasl, func(s *sources.Kafka) { s.SASL = login("scram-sha-512", "nobody", password) }, "check user, password and the SASL/TLS settings"},
		"no login":              {sasl, func(*sources.Kafka) {}, "SASL/TLS settings"},
		"TLS to a port without": {nil, func(s *sources.Kafka) { s.TLS = &kafka.TLS{} }, "TLS handshake"},
		"nobody there":          {nil, func(s *sources.Kafka) { s.Brokers = []string{"127.0.0.1:1"} }, "connection refused"},
		"no such topic":         {nil, func(s *sources.Kafka) { s.Topics = []string{"nothing"} }, "there is no such topic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, clicks)}, c.opts...)...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			s := sources.NewKafka()
			s.Brokers, s.Topics, s.Group = cluster.ListenAddrs(), []string{clicks}, kafkaGroup
			c.change(s)
			host := sourcetest.NewHost(t)
			run := runKafka(t, host.Open(t, s), &sourcetest.Publisher{})
			if c.want == "" {
				kafkaUntil(t, "the group to form", func() bool { return cluster.CoordinatorFor(kafkaGroup) >= 0 && host.Reported() == nil })
				if run.ended() {
					t.Errorf("Run returned %v", run.wait())
				}
				return
			}
			said := saidBy(t, host, run, c.want)
			if strings.Contains(fmt.Sprintf("%v %+v %q", said, said, said), password) {
				t.Errorf("the password shows in %v", said)
			}
		})
	}
}

// While the bus does not take more, nothing more than the bound is fetched, the lag
// shows, and the session stays alive.
func TestKafkaBackPressure(t *testing.T) {
	t.Parallel()
	const each = 20_000
	c := newKafkaCluster(t)
	records := plainRecords(each)
	for _, r := range records {
		r.Value = append(r.Value, strings.Repeat(" ", 1000)...)
	}
	for at := 0; at < len(records); at += 3000 {
		if err := c.produce(t.Context(), records[at:at+3000]...); err != nil {
			t.Fatal(err)
		}
	}
	entered, release := make(chan struct{}, 100), make(chan struct{})
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		return nil
	}}
	s := c.settings()
	s.MaxBytes = 1 << 20
	var fetched atomic.Int64
	c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		fetched.Add(1)
		return nil, nil, false
	})
	src := sourcetest.NewHost(t).Open(t, s)
	run := runKafka(t, src, pub)
	<-entered
	lagger := src.(sources.Lagger)
	kafkaUntil(t, "the lag", func() bool { lag, ok := lagger.Lag(); return ok && lag.Records >= each && lag.Age > 0 })
	<-time.After(8 * time.Second) // longer than the session
	// 60 MB wait; at most 5 fetches of 1 MiB are in memory, and some were empty.
	if n := fetched.Load(); n > 30 {
		t.Errorf("%d fetches while the bus takes nothing", n)
	}
	close(release)
	for _, r := range records[len(records)-3:] {
		ctx, cancel := context.WithTimeout(t.Context(), kafkaPatience)
		defer cancel()
		if err := c.acknowledged(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	kafkaUntil(t, "a lag of nothing", func() bool { lag, ok := lagger.Lag(); return ok && lag == sources.Lag{} })
	if err := run.stop(); err != nil {
		t.Error(err)
	}
	if repeated := inOrder(t, pub.Stored(), each); repeated > 0 {
		t.Errorf("%d records were repeated", repeated)
	}
}

// Control markers are no events; aborted records are where they are asked for.
func TestKafkaTransactions(t *testing.T) {
	t.Parallel()
	for isolation, want := range map[string]int{"read_uncommitted": 3, "read_committed": 2} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			c := newKafkaCluster(t)
			writer, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic(clicks), kgo.TransactionalID("t"))
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			for i := range 3 {
				if err := writer.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				if err := writer.ProduceSync(t.Context(), &kgo.Record{Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
					t.Fatal(err)
				}
				if err := writer.EndTransaction(t.Context(), kgo.TransactionEndTry(i != 1)); err != nil {
					t.Fatal(err)
				}
			}
			s := c.settings()
			s.Isolation = isolation
			pub := &sourcetest.Publisher{}
			run := runKafka(t, sourcetest.NewHost(t).Open(t, s), pub)
			kafkaUntil(t, "the records", func() bool { return len(pub.Stored()) >= want })
			<-time.After(500 * time.Millisecond)
			if got := len(pub.Stored()); got != want {
				t.Errorf("%d events, want %d", got, want)
			}
			if err := run.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKafkaValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*sources.Kafka)
		want   string
	}{
		"good":            {func(*sources.Kafka) {}, ""},
		"much at a time":  {func(s *sources.Kafka) { s.MaxBytes = 1 << 30 }, ""},
		"no brokers":      {func(s *sources.Kafka) { s.Brokers = nil }, "brokers is missing"},
		"no port":         {func(s *sources.Kafka) { s.Brokers = []string{"kafka"} }, "brokers[0] \"kafka\" is not host:port"},
		"no topics":       {func(s *sources.Kafka) { s.Topics = nil }, "topics is missing"},
		"odd topic":       {func(s *sources.Kafka) { s.Topics = []string{"a b"} }, "topics[0]"},
		"topic twice":     {func(s *sources.Kafka) { s.Topics = []string{"a", "a"} }, "a second time"},
		"no group":        {func(s *sources.Kafka) { s.Group = "" }, "group is missing"},
		"start":           {func(s *sources.Kafka) { s.Start = "end" }, "start \"end\""},
		"isolation":       {func(s *sources.Kafka) { s.Isolation = "serializable" }, "isolation"},
		"session":         {func(s *sources.Kafka) { s.SessionTimeout = 1 }, "session_timeout is out of range"},
		"max_bytes":       {func(s *sources.Kafka) { s.MaxBytes = 1 }, "max_bytes is out of range"},
		"content type":    {func(s *sources.Kafka) { s.ContentType = "json" }, "is not a media type"},
		"type":            {func(s *sources.Kafka) { s.Type = "" }, "type must not be empty"},
		"source":          {func(s *sources.Kafka) { s.Source = "a\x00b" }, "source holds"},
		"no mechanism":    {func(s *sources.Kafka) { s.SASL = &kafka.SASL{User: value.NewText("u"), Password: value.NewSecret("p")} }, "sasl.mechanism is missing"},
		"no user":         {func(s *sources.Kafka) { s.SASL = &kafka.SASL{Mechanism: "plain", Password: value.NewSecret("p")} }, "sasl.user is missing"},
		"no password":     {func(s *sources.Kafka) { s.SASL = &kafka.SASL{Mechanism: "plain", User: value.NewText("u")} }, "sasl.password is missing"},
		"cert alone":      {func(s *sources.Kafka) { s.TLS = &kafka.TLS{Cert: "c"} }, "tls has one of cert and key"},
		"insecure and ca": {func(s *sources.Kafka) { s.TLS = &kafka.TLS{CA: "c", Insecure: true} }, "makes ca useless"},
	} {
		s := sources.NewKafka()
		s.Brokers, s.Topics, s.Group = []string{"127.0.0.1:9092"}, []string{clicks}, kafkaGroup
		c.change(s)
		var said []string
		for _, f := range s.Validate() {
			said = append(said, f.Key+" "+f.Msg)
		}
		if c.want == "" && len(said) > 0 || c.want != "" && (len(said) != 1 || !strings.Contains(said[0], c.want)) {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
		if c.want == "" {
			sourcetest.NewHost(t).Open(t, s)
		}
	}
}
