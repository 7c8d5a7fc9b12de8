package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/produce"

	"sluice/config/kafka"
)

// How records become requests.
const (
	kafkaRequest = 64 << 20               // bytes of records in one, beside the first partition's; brokers take 100 MiB
	kafkaMoves   = 4                      // times that a leader is looked for anew, until the bus waits
	kafkaMove    = 250 * time.Millisecond // before the first of these, and twice as long each time
)

// kafkaPart is what of a call goes to one partition, in order.
type kafkaPart struct {
	topic  string
	id     int32
	leader int32
	open   []kafkaEntry // not settled yet
	most   int          // of them go into a request: less after the broker refused one of several
	n      int          // of them are in the request under way
	err    error        // why the rest is not written
}

// kafkaEntry is a record, and which delivery of the call it is.
type kafkaEntry struct {
	i      int
	record segmentio.Message
	size   int
}

// write writes records and waits until each is written or not.
func (s *kafkaSink) write(ctx context.Context, ds []Delivery) []error {
	errs := make([]error, len(ds))
	if ctx.Err() != nil {
		return fill(errs, context.Cause(ctx))
	}
	all := s.spread(ctx, ds, errs)
	left := all
	for try := 0; len(left) > 0; try++ {
		s.writeParts(ctx, left, errs)
		left = slices.DeleteFunc(slices.Clone(left), func(p *kafkaPart) bool { return !moved(p.err) })
		if try == kafkaMoves || len(left) == 0 || sleep(ctx, kafkaMove<<try) != nil {
			break
		}
		for _, p := range left {
			p.leader, p.err = s.leader(ctx, p.topic, p.id)
		}
	}
	for _, p := range all {
		for _, e := range p.open {
			errs[e.i] = s.verdict(ctx, p.err)
		}
	}
	return errs
}

// fill gives all of them the same error.
func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// moved tells of an error that is over as soon as the leader of the partition is known.
func moved(err error) bool {
	return errors.Is(err, segmentio.NotLeaderForPartition) || errors.Is(err, segmentio.LeaderNotAvailable) ||
		errors.Is(err, segmentio.BrokerNotAvailable)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spread makes the records of a call and sorts them into partitions. Those that
// cannot be written get their error at once.
func (s *kafkaSink) spread(ctx context.Context, ds []Delivery, errs []error) []*kafkaPart {
	type place struct {
		topic string
		id    int
	}
	topics := make(map[string]*kafkaTopic, 1)
	parts := make(map[place]*kafkaPart)
	for i, d := range ds {
		record, err := s.record(d)
		if err != nil {
			errs[i] = Permanent(err)
			continue
		}
		size := sizeOf(record)
		if size+kafkaBatchHead > s.maxBytes {
			errs[i] = s.verdict(ctx, segmentio.MessageSizeTooLarge)
			continue
		}
		topic := topics[record.Topic]
		if topic == nil {
			topic = s.lookUpTopic(ctx, record.Topic)
			topics[record.Topic] = topic
		}
		if topic.err != nil {
			errs[i] = s.verdict(ctx, topic.err)
			continue
		}
		at := place{record.Topic, topic.place(record, s)}
		p := parts[at]
		if p == nil {
			p = &kafkaPart{topic: at.topic, id: int32(at.id), most: len(ds)} //nolint:gosec // it came as an int32
			p.leader, p.err = topic.leader(p.id)
			parts[at] = p
		}
		p.open = append(p.open, kafkaEntry{i, record, size})
	}
	sorted := make([]*kafkaPart, 0, len(parts))
	for _, p := range parts {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, func(a, b *kafkaPart) int { return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id, b.id)) })
	return sorted
}

// The sizes of a batch's head and of a record's own fields, at most.
const (
	kafkaBatchHead  = 61
	kafkaRecordHead = 36
	kafkaHeaderHead = 10
)

// sizeOf is how long a record is in a batch, at most and not compressed.
func sizeOf(r segmentio.Message) int {
	size := kafkaRecordHead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += kafkaHeaderHead + len(h.Key) + len(h.Value)
	}
	return size
}

// kafkaTopic is what the cluster tells of a topic, for the length of a call.
type kafkaTopic struct {
	err        error
	partitions []metadata.ResponsePartition
	all        []int // the partitions
	led        []int // those that have a leader; all of them where none has
	stay       int   // where records without a key go
}

// lookUpTopic asks what kafka-go keeps in memory and renews in the background.
func (s *kafkaSink) lookUpTopic(ctx context.Context, name string) *kafkaTopic {
	resp, err := s.cluster.RoundTrip(ctx, &metadata.Request{TopicNames: []string{name}})
	if err != nil {
		return &kafkaTopic{err: err}
	}
	answer, ok := resp.(*metadata.Response)
	if !ok || len(answer.Topics) != 1 {
		return &kafkaTopic{err: fmt.Errorf("the cluster told nothing of the topic %s", name)}
	}
	found := answer.Topics[0]
	if found.ErrorCode != 0 {
		return &kafkaTopic{err: fmt.Errorf("topic %s: %w", name, segmentio.Error(found.ErrorCode))}
	}
	t := &kafkaTopic{partitions: found.Partitions}
	for _, p := range found.Partitions {
		t.all = append(t.all, int(p.PartitionIndex))
		if p.LeaderID >= 0 {
			t.led = append(t.led, int(p.PartitionIndex))
		}
	}
	if len(t.led) == 0 {
		t.led = t.all
	}
	if len(t.all) == 0 {
		t.err = fmt.Errorf("topic %s: %w", name, segmentio.LeaderNotAvailable)
		return t
	}
	t.stay = t.led[rand.IntN(len(t.led))] //nolint:gosec // it only spreads the load
	return t
}

// place is the partition of a record: by its key that which Java clients take.
func (t *kafkaTopic) place(r segmentio.Message, s *kafkaSink) int {
	switch {
	case s.roundRobin:
		return s.turns.Balance(r, t.led...)
	case r.Key != nil:
		return segmentio.Murmur2Balancer{}.Balance(r, t.all...)
	}
	return t.stay
}

func (t *kafkaTopic) leader(id int32) (int32, error) {
	for _, p := range t.partitions {
		if p.PartitionIndex == id && p.LeaderID >= 0 {
			return p.LeaderID, nil
		}
	}
	return -1, fmt.Errorf("partition %d: %w", id, segmentio.LeaderNotAvailable)
}

func (s *kafkaSink) leader(ctx context.Context, topic string, id int32) (int32, error) {
	t := s.lookUpTopic(ctx, topic)
	if t.err != nil {
		return -1, t.err
	}
	return t.leader(id)
}

// writeParts writes to all leaders at the same time, and to each of them one request
// after the other until its parts are settled or have an error.
func (s *kafkaSink) writeParts(ctx context.Context, parts []*kafkaPart, errs []error) {
	leaders := make(map[int32][]*kafkaPart)
	for _, p := range parts {
		if p.err == nil {
			leaders[p.leader] = append(leaders[p.leader], p)
		}
	}
	var writing sync.WaitGroup
	for _, left := range leaders {
		writing.Go(func() {
			for len(left) > 0 {
				round := s.round(left)
				s.send(ctx, round)
				for _, p := range round {
					s.settle(ctx, p, errs)
				}
				left = slices.DeleteFunc(left, func(p *kafkaPart) bool { return p.err != nil || len(p.open) == 0 })
			}
		})
	}
	writing.Wait()
}

// round decides what goes into the next request: of each part as much as fits in a
// batch, and as many parts as fit in a request.
func (s *kafkaSink) round(parts []*kafkaPart) []*kafkaPart {
	total := 0
	for i, p := range parts {
		size := kafkaBatchHead
		p.n = 0
		for _, e := range p.open[:min(p.most, len(p.open))] {
			if size += e.size; size > s.maxBytes {
				break
			}
			p.n++
		}
		if total += size; total > kafkaRequest && i > 0 {
			return parts[:i]
		}
	}
	return parts
}

// send writes a round and gives each part its error.
func (s *kafkaSink) send(ctx context.Context, round []*kafkaPart) {
	req := &produce.Request{Acks: int16(segmentio.RequireAll), Timeout: patience(ctx)}
	for _, p := range round {
		records := make([]segmentio.Record, p.n)
		for i, e := range p.open[:p.n] {
			records[i] = segmentio.Record{Key: protocol.NewBytes(e.record.Key), Value: protocol.NewBytes(e.record.Value), Headers: e.record.Headers}
		}
		if last := len(req.Topics) - 1; last < 0 || req.Topics[last].Topic != p.topic {
			req.Topics = append(req.Topics, produce.RequestTopic{Topic: p.topic})
		}
		topic := &req.Topics[len(req.Topics)-1]
		topic.Partitions = append(topic.Partitions, produce.RequestPartition{Partition: p.id, RecordSet: protocol.RecordSet{
			Attributes: protocol.Attributes(s.codec), Records: protocol.NewRecordReader(records...),
		}})
	}
	resp, err := s.cluster.RoundTrip(ctx, req)
	for _, p := range round {
		if p.err = err; err == nil {
			p.err = answerFor(p, resp)
		}
	}
}

// patience is how long, in milliseconds, the broker may wait for the replicas: half
// of what is left, so that its answer comes in time.
func patience(ctx context.Context) int32 {
	wait := 30 * time.Second
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end))
	}
	return int32(max(1, wait.Milliseconds()/2)) //nolint:gosec // it is below 30 s
}

// answerFor is what the broker says of a part.
func answerFor(p *kafkaPart, resp segmentio.Response) error {
	if answer, ok := resp.(*produce.Response); ok {
		for _, topic := range answer.Topics {
			for _, a := range topic.Partitions {
				switch {
				case topic.Topic != p.topic || a.Partition != p.id:
				case a.ErrorCode == 0:
					return nil
				case a.ErrorMessage != "":
					return fmt.Errorf("%w: %s", segmentio.Error(a.ErrorCode), a.ErrorMessage)
				default:
					return segmentio.Error(a.ErrorCode)
				}
			}
		}
	}
	return fmt.Errorf("the broker's answer leaves out %s/%d", p.topic, p.id)
}

// settle notes what became of a part's request. One that is refused for what is in it
// is written again in halves: so the verdict is for the record that is the reason,
// and not for those beside it.
func (s *kafkaSink) settle(ctx context.Context, p *kafkaPart, errs []error) {
	err := p.err
	if err == nil {
		p.open, p.most = p.open[p.n:], min(2*p.most, 1<<20)
		return
	}
	switch class, _ := kafka.Explain(err); {
	case class != kafka.Large && class != kafka.Invalid: // what comes behind it waits too: order
	case p.n > 1:
		p.most, p.err = p.n/2, nil
	default:
		errs[p.open[0].i] = s.verdict(ctx, err)
		p.open, p.err = p.open[1:], nil
	}
}
