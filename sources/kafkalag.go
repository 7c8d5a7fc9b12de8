package sources

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kafkaLag knows how far the partitions of this member are, and their ends: from
// what was fetched, and by asking now and then, since nothing is fetched while the
// bus does not take more.
type kafkaLag struct {
	mu         sync.Mutex
	partitions map[kafkaPartition]kafkaPlace
	oldest     time.Time // of what is in hand
}

type kafkaPartition struct {
	topic string
	id    int32
}

type kafkaPlace struct{ next, end int64 }

// kafkaAsk is how often the ends are asked for.
const kafkaAsk = 10 * time.Second

func newKafkaLag() *kafkaLag { return &kafkaLag{partitions: map[kafkaPartition]kafkaPlace{}} }

// at notes where a partition is: the next record to be taken, and its end.
func (l *kafkaLag) at(topic string, id int32, next, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partitions[kafkaPartition{topic, id}] = kafkaPlace{next, end}
}

// hold notes the last records of what is in hand.
func (l *kafkaLag) hold(last []*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range last {
		if l.oldest.IsZero() || r.Timestamp.Before(l.oldest) {
			l.oldest = r.Timestamp
		}
	}
}

// done notes that nothing is in hand any more, up to these records.
func (l *kafkaLag) done(last []*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.oldest = time.Time{}
	for _, r := range last {
		p := kafkaPartition{r.Topic, r.Partition}
		if place, ours := l.partitions[p]; ours {
			place.next = r.Offset + 1
			l.partitions[p] = place
		}
	}
}

// forget drops partitions that are another's now.
func (l *kafkaLag) forget(lost map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for topic, ids := range lost {
		for _, id := range ids {
			delete(l.partitions, kafkaPartition{topic, id})
		}
	}
}

func (l *kafkaLag) now() (lag Lag, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, place := range l.partitions {
		lag.Records += max(0, place.end-place.next)
	}
	if !l.oldest.IsZero() {
		lag.Age = max(0, time.Since(l.oldest))
	}
	return lag, len(l.partitions) > 0
}

// follow asks for the ends until ctx ends.
func (l *kafkaLag) follow(ctx context.Context, client *kgo.Client) {
	tick := time.NewTicker(kafkaAsk)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = l.ask(ctx, client) // the next time, then; what fails shows elsewhere
		}
	}
}

func (l *kafkaLag) ask(ctx context.Context, client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaAsk)
	defer cancel()
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	committed := client.CommittedOffsets() // of this member's partitions
	for topic, partitions := range committed {
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for partition := range partitions {
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.Timestamp = partition, -1 // the end
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	if len(req.Topics) == 0 {
		return nil
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode)); p.ErrorCode == 0 {
				l.ends(t.Topic, p.Partition, p.Offset, committed[t.Topic][p.Partition].Offset)
			}
		}
	}
	return err
}

// ends notes the end of a partition, and where it is if nothing of it was fetched.
func (l *kafkaLag) ends(topic string, id int32, end, committed int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := kafkaPartition{topic, id}
	place, ours := l.partitions[p]
	if !ours && committed < 0 {
		return
	}
	if !ours {
		place.next = committed
	}
	place.end = end
	l.partitions[p] = place
}
