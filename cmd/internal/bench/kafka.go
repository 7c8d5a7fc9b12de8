package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// readerName is what the kafka source is compared with: a reader that does nothing
// with what it reads, but tells the group how far it is.
const readerName = "kafka-go reader"

const (
	kafkaPartitions = 6
	kafkaLoad       = "kafka, 6 partitions"
	kafkaPatience   = time.Minute // without a single record
	readerCommits   = 1000        // records from one commit to the next
)

// kafka reads a topic that was filled before, by turns through a bus and with a
// bare reader. The clock runs from the first record to the last: joining a group
// takes as long as the broker wants.
func (r *runner) kafka(ctx context.Context) error {
	if len(r.Brokers) == 0 {
		return errors.New("needs a Kafka broker: name one with --brokers 127.0.0.1:9092 (to start one: docker run -p 9092:9092 apache/kafka)")
	}
	topic := fmt.Sprintf("sluice-bench-%08x", rand.Uint32())
	client, err := kgo.NewClient(kgo.SeedBrokers(r.Brokers...), kgo.DefaultProduceTopic(topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err != nil {
		return err
	}
	defer client.Close()
	defer dropTopic(client, topic)
	if err := r.next(ctx, "%d records into a topic", r.Events); err != nil {
		return err
	}
	if err := fillTopic(ctx, client, topic, r.Events, r.Size); err != nil {
		return fmt.Errorf("fill the topic %s: %w", topic, err)
	}
	for round := 1; round <= r.Rounds; round++ {
		for _, system := range []string{sluiceName, readerName} {
			if err := r.next(ctx, "%s, round %d of %d", system, round, r.Rounds); err != nil {
				return err
			}
			group := fmt.Sprintf("%s-%s-%d", topic, system[:6], round)
			read := r.kafkaBus
			if system == readerName {
				read = r.kafkaReader
			}
			m, err := read(ctx, topic, group)
			dropGroup(client, group)
			if err != nil {
				return err
			}
			m.Load, m.System, m.Round = kafkaLoad, system, round
			r.report.Measures = append(r.report.Measures, m)
		}
	}
	r.report.compare(side{kafkaLoad, sluiceName}, side{kafkaLoad, readerName}, eventRate())
	return nil
}

func kafkaSteps(s *Settings) int { return 1 + 2*s.Rounds }

// fillTopic makes a topic with n records of that size.
func fillTopic(ctx context.Context, client *kgo.Client, topic string, n, size int) error {
	create := kmsg.NewPtrCreateTopicsRequest()
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, kafkaPartitions, -1
	create.Topics, create.TimeoutMillis = append(create.Topics, t), 20_000
	made, err := create.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range made.Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	value := fmt.Appendf(nil, `{"fill": "%s"}`, bytes.Repeat([]byte("x"), max(0, size-12)))
	for i := range n {
		client.Produce(ctx, &kgo.Record{Key: fmt.Append(nil, i), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				cancel(err)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return context.Cause(ctx)
	}
	return nil
}

// What a run leaves on a broker is removed as far as the broker lets it.
func dropTopic(client *kgo.Client, topic string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames, req.TimeoutMillis = []string{topic}, 10_000
	req.Topics = []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
	_, _ = req.RequestWith(ctx, client)
}

func dropGroup(client *kgo.Client, group string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = []string{group}
	_, _ = req.RequestWith(ctx, client)
}

// kafkaBus reads the topic through the kafka source of a bus: an event counts when
// it is durable.
func (r *runner) kafkaBus(ctx context.Context, topic, group string) (m Measure, err error) {
	f, err := newFarm(newTally(0, 0), 1)
	if err != nil {
		return m, err
	}
	defer f.close()
	source := fmt.Sprintf("sources:\n  k: {kafka: {brokers: [%q], topics: [%s], group: %q}}\n", strings.Join(r.Brokers, `", "`), topic, group)
	b, err := r.startBus(ctx, busOf{load: kafkaLoad, farm: f, nowhere: true, sources: source})
	if err != nil {
		return m, err
	}
	defer b.stop()
	var before, now counters
	var from, cpu time.Duration
	began, last := time.Now(), time.Now()
	for int(now.accepted) < r.Events {
		previous := now.accepted
		if now, err = b.counters(ctx); err != nil {
			return m, err
		}
		switch {
		case before.accepted == 0:
			before, from, cpu = now, time.Since(began), cpuTime(b.pid())
			last = time.Now()
		case now.accepted > previous:
			last = time.Now()
		}
		if time.Since(last) > kafkaPatience || before.accepted == 0 && time.Since(began) > kafkaPatience {
			return m, fmt.Errorf("the bus took %.0f of %d records\n%s", now.accepted, r.Events, b.log)
		}
		if err := b.alive(); err != nil {
			return m, err
		}
		pause(ctx, 10*time.Millisecond)
	}
	m.rate(now.accepted-before.accepted, time.Since(began)-from, cpuTime(b.pid())-cpu)
	m.Accepted, m.Duplicates = int64(r.Events), int64(now.accepted)-int64(r.Events)
	m.PeakBytes, m.IdleBytes, m.IdleOwnBytes = memory(b.pid()).peak, b.idle.resident, b.idle.own
	if n := now.accepted - before.accepted; n > 0 {
		m.WritesPerEvent = (now.writes - before.writes) / n
	}
	return m, ctx.Err()
}

// kafkaReader reads the topic with kafka-go in this process.
func (r *runner) kafkaReader(ctx context.Context, topic, group string) (m Measure, err error) {
	reader := segmentio.NewReader(segmentio.ReaderConfig{
		Brokers: r.Brokers, GroupID: group, Topic: topic, StartOffset: segmentio.FirstOffset,
		MaxBytes: 8 << 20, QueueCapacity: readerCommits, MaxWait: time.Second,
	})
	defer reader.Close() //nolint:errcheck // it was only read
	var began time.Time
	var cpu time.Duration
	for n := 1; n <= r.Events; n++ {
		limit, cancel := context.WithTimeout(ctx, kafkaPatience)
		record, err := reader.FetchMessage(limit)
		cancel()
		if err != nil {
			return m, fmt.Errorf("%s, record %d: %w", readerName, n, err)
		}
		if n == 1 {
			began, cpu = time.Now(), cpuTime(os.Getpid())
		}
		if n%readerCommits == 0 || n == r.Events {
			if err := reader.CommitMessages(ctx, record); err != nil {
				return m, fmt.Errorf("%s: commit: %w", readerName, err)
			}
		}
	}
	m.rate(float64(r.Events-1), time.Since(began), cpuTime(os.Getpid())-cpu)
	m.Accepted = int64(r.Events)
	return m, ctx.Err()
}

// rate fills in what n events in that time come to.
func (m *Measure) rate(n float64, took, cpu time.Duration) {
	m.Events, m.Seconds = int64(n), took.Seconds()
	if n > 0 && took > 0 {
		m.EventsPerSecond = n / took.Seconds()
		m.CPUPerThousand = cpu.Seconds() / n * 1000
	}
}
