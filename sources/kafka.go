package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/bus"
	"sluice/config/kafka"
	"sluice/config/value"
)

// Kafka are the settings of the kafka source.
//
// It reads with franz-go and not with kafka-go, which the sink writes with. As a reader
// kafka-go v0.4.51 invents and loses: it hands out the control markers of transactions
// as records, takes an offset that the coordinator failed to look up for one that was
// never committed, and so begins anew or skips what is there, and decompresses a batch
// without a bound.
type Kafka struct {
	kafka.Connection `yaml:",inline"`

	Topics         []string          `yaml:"topics" doc:"The topics to read. One that does not exist yet is read once it does."`
	Group          string            `yaml:"group" doc:"The consumer group: its members share the partitions, and it is where the broker keeps how far they are."`
	Start          string            `yaml:"start" enum:"first,last" doc:"Where to begin in a partition that the group never read: first, with all that is there, or last, with what comes from now on."`
	Isolation      string            `yaml:"isolation" enum:"read_uncommitted,read_committed" doc:"read_committed waits for the end of a transaction and leaves out what was aborted."`
	Type           string            `yaml:"type" doc:"The type of events made of records that are no CloudEvents. That of a tombstone has .tombstone appended."`
	Source         string            `yaml:"source" doc:"The source of such events; the topic is appended. Default: kafka:// and the id of the cluster."`
	ContentType    string            `yaml:"content_type" doc:"The datacontenttype of such events. Default: the header content-type; else application/json for JSON and application/octet-stream for the rest."`
	Headers        map[string]string `yaml:"headers" doc:"Headers that become attributes of such events, by name, such as X-Tenant: tenant; what is no text becomes base64. One whose name is that of an extension attribute already is kept under it, the others are left out."`
	MaxBytes       value.Bytes       `yaml:"max_bytes" doc:"How much one fetch may bring. Of what is compressed, less is asked for, so that it becomes about twice that in memory at the most, going by the batches before. At most five such fetches are in memory; a batch of the broker that is larger is taken whole."`
	SessionTimeout value.Duration    `yaml:"session_timeout" doc:"How long the broker waits for a sign of life before others get the partitions."`
}

// NewKafka returns the settings with their defaults.
func NewKafka() *Kafka {
	return &Kafka{
		Connection: kafka.Defaults(), Start: startFirst, Isolation: readUncommitted, Type: "kafka.record",
		MaxBytes: 4 << 20, SessionTimeout: value.Duration(20 * time.Second),
	}
}

// The values of Kafka.Start and Kafka.Isolation.
const (
	startFirst      = "first"
	startLast       = "last"
	readUncommitted = "read_uncommitted"
	readCommitted   = "read_committed"
)

// Validate is Settings.Validate.
func (s *Kafka) Validate() value.Faults {
	faults := s.Connection.Validate()
	if len(s.Topics) == 0 {
		faults.Add("topics", "is missing: name at least one topic")
	}
	for i, topic := range s.Topics {
		if !kafka.IsTopic(topic) {
			faults.Add(fmt.Sprintf("topics[%d]", i), "%q is not the name of a topic: up to 249 letters, digits, ., _ and -", topic)
		} else if slices.Contains(s.Topics[:i], topic) {
			faults.Add(fmt.Sprintf("topics[%d]", i), "names %s a second time", topic)
		}
	}
	if s.Group == "" {
		faults.Add("group", "is missing: name the consumer group, such as sluice")
	}
	if s.Start != startFirst && s.Start != startLast {
		faults.Add("start", "%q is not a place to start: write %s or %s", s.Start, startFirst, startLast)
	}
	if s.Isolation != readUncommitted && s.Isolation != readCommitted {
		faults.Add("isolation", "%q is not an isolation level: write %s or %s", s.Isolation, readUncommitted, readCommitted)
	}
	// The broker's own defaults (group.min.session.timeout.ms and its max).
	if d := time.Duration(s.SessionTimeout); d < 6*time.Second || d > 30*time.Minute {
		faults.Add("session_timeout", "is out of range: brokers take 6s to 30m")
	}
	if s.MaxBytes < 1<<10 || s.MaxBytes > 1<<30 {
		faults.Add("max_bytes", "is out of range: write 1KiB to 1GiB")
	}
	m := s.mapping("cluster")
	_, err := m.event(&kgo.Record{Topic: "topic", Value: []byte("{}")})
	faults = append(faults, headerFaults(s.Headers)...)
	return append(faults, sampleFaults(s.ContentType, err)...)
}

func (s *Kafka) mapping(cluster string) kafkaMapping {
	return kafkaMapping{source: s.sourceOf(cluster), typ: s.Type, contentType: s.ContentType, headers: newHeaderNames(s.Headers)}
}

// sourceOf is the source of plain events, without the topic.
func (s *Kafka) sourceOf(cluster string) string {
	if s.Source != "" {
		return strings.TrimSuffix(s.Source, "/")
	}
	return "kafka://" + cluster
}

// Open is Settings.Open.
func (s *Kafka) Open(_ context.Context, env Env) (Source, error) {
	opts, err := s.Options(env.Log)
	if err != nil {
		return nil, err
	}
	// Made and dropped to find what the client itself does not like. It does not
	// connect before it is asked to.
	client, err := kgo.NewClient(append(opts, s.consumer()...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	client.Close()
	return &kafkaSource{env: env, settings: s, opts: opts}, nil
}

// What a client holds in memory.
const (
	kafkaFetches    = 4         // fetches at a time, under way or waiting
	kafkaBatch      = 2000      // records in one Publish at most
	kafkaDecompress = 256 << 20 // what one batch of the broker may become
	kafkaReadMost   = 1 << 30   // bytes of an answer: the client takes no larger bound
)

// consumer are the client's options for reading. Offsets are committed by hand,
// and while a batch is in hand its partitions stay with this member: so no
// commit is ever made for a partition that is another's.
func (s *Kafka) consumer() []kgo.Opt {
	start, level := kgo.NewOffset().AtStart(), kgo.ReadUncommitted()
	if s.Start == startLast {
		start = kgo.NewOffset().AtEnd()
	}
	if s.Isolation == readCommitted {
		level = kgo.ReadCommitted()
	}
	most := int32(s.MaxBytes) //nolint:gosec // Validate holds it to 1 GiB
	return []kgo.Opt{
		kgo.ConsumerGroup(s.Group), kgo.ConsumeTopics(s.Topics...), kgo.FetchIsolationLevel(level),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.ConsumeStartOffset(start),
		// Where the broker lost records or the log is shorter than what was read,
		// read all of it again rather than skip any: the ids stay the same.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepRetryableFetchErrors(), // a topic that was created anew shows in these only
		kgo.MaxConcurrentFetches(kafkaFetches),
		kgo.BrokerMaxReadBytes(max(100<<20, 2*min(most, kafkaReadMost/2))), kgo.MaxDecompressBatchBytes(kafkaDecompress),
		kgo.FetchMaxWait(time.Second),
		kgo.SessionTimeout(time.Duration(s.SessionTimeout)), kgo.RebalanceTimeout(kafkaRebalance),
		kgo.HeartbeatInterval(min(3*time.Second, time.Duration(s.SessionTimeout)/3)),
	}
}

type kafkaSource struct {
	env      Env
	settings *Kafka
	opts     []kgo.Opt
	lag      atomic.Pointer[kafkaLag] // of the current Run
	anew     atomic.Bool              // a topic was created anew: nothing in it was read
}

// Lag is Lagger.Lag.
func (s *kafkaSource) Lag() (Lag, bool) {
	if l := s.lag.Load(); l != nil {
		return l.now()
	}
	return Lag{}, false
}

// Run is Source.Run.
func (s *kafkaSource) Run(ctx context.Context, pub bus.Publisher) error {
	watch := kafka.NewWatch(s.env.report)
	lag := newKafkaLag()
	owned := &kafkaOwned{lag: lag}
	opts := append(slices.Clone(s.opts), s.settings.consumer()...)
	opts = append(opts, kgo.WithHooks(watch), kgo.OnPartitionsRevoked(owned.lose), kgo.OnPartitionsLost(owned.lose))
	if s.anew.Load() {
		opts = append(opts, kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	}
	opts = append(opts, newKafkaFetch(s.settings.MaxBytes).options()...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer s.end(client)
	cluster, err := clusterOf(ctx, client, s.env.Name)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return unreachable(watch, err)
	}
	s.lag.Store(lag)
	defer s.lag.Store(nil)
	within, fail := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer fail(nil) // first, so that there is an end to wait for
	beside(&asking, fail, func() { lag.follow(within, client) })
	run := &kafkaRun{
		source: s, client: client, watch: watch, owned: owned, lag: lag, feed: feed{&s.env, pub},
		mapping: s.settings.mapping(cluster),
	}
	if err := run.loop(within); err != nil || ctx.Err() != nil {
		return err
	}
	return context.Cause(within)
}

// end leaves the group, so that others get the partitions at once, and closes the
// client. A broker that is gone must not hold it up.
func (s *kafkaSource) end(client *kgo.Client) {
	client.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := client.LeaveGroupContext(ctx); err != nil {
		s.env.Log.Debug("could not leave the consumer group", "err", err)
	}
	client.CloseAllowingRebalance()
}

// clusterOf asks the cluster for its id, which stays the same whatever its
// brokers are called. It shows right away whether they can be reached.
func clusterOf(ctx context.Context, client *kgo.Client, otherwise string) (string, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{} // none: nil asks for all
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return "", err
	}
	if resp.ClusterID == nil || *resp.ClusterID == "" {
		return otherwise, nil
	}
	return *resp.ClusterID, nil
}

// unreachable is the error of a cluster that did not answer, with what the
// connections showed where that says more.
func unreachable(watch *kafka.Watch, err error) error {
	if _, trouble := watch.Trouble(); trouble != nil {
		return trouble
	}
	_, explained := kafka.Explain(err)
	return fmt.Errorf("cannot reach the cluster: %w", explained)
}

// recreated tells of a topic that was deleted and created again.
func recreated(err error) bool { return errors.Is(err, kerr.UnknownTopicID) }
