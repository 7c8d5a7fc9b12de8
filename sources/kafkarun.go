package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/bus"
	"sluice/config/kafka"
)

// How long things may take.
const (
	kafkaRebalance = time.Minute      // for a member to let go of partitions, before it is put out of the group
	kafkaHold      = 20 * time.Second // for a batch to keep its partitions while the bus does not take it
	kafkaGrace     = 10 * time.Second // for a batch to finish when the source stops
	kafkaCalm      = 5 * time.Second  // without an error, until trouble counts as over
)

// kafkaRun is one Run: a member of the group that takes one batch at a time. The
// client fetches the next ones meanwhile, up to its bound.
type kafkaRun struct {
	source   *kafkaSource
	client   *kgo.Client
	watch    *kafka.Watch
	owned    *kafkaOwned
	lag      *kafkaLag
	feed     feed
	mapping  kafkaMapping
	troubled bool // a fetch error was reported
}

func (r *kafkaRun) loop(ctx context.Context) error {
	// What is in flight when ctx ends gets some more time.
	flight, land := context.WithCancel(context.WithoutCancel(ctx))
	defer land()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(kafkaGrace, land) })
	defer stop()
	for ctx.Err() == nil {
		fetches, err := r.poll(ctx)
		if err == nil {
			err = r.faults(fetches)
		}
		if ctx.Err() != nil && fetches.NumRecords() == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.take(flight, fetches); err != nil {
			if ctx.Err() != nil {
				return nil // it is repeated: nothing of it was committed
			}
			return err
		}
		r.client.AllowRebalance()
	}
	return nil
}

// poll waits for records, for a while. An error means that the broker refuses the
// login.
func (r *kafkaRun) poll(ctx context.Context) (kgo.Fetches, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaCalm)
	defer cancel()
	refused := r.watch.Refused()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-refused:
			cancel()
		case <-done:
		}
	}()
	fetches := r.client.PollRecords(ctx, kafkaBatch)
	r.owned.mark()
	select {
	case <-refused:
		_, err := r.watch.Trouble()
		return fetches, err
	default:
		return fetches, nil
	}
}

// faults deals with the errors among fetches, and returns those that end the run.
func (r *kafkaRun) faults(fetches kgo.Fetches) (fatal error) {
	calm := true
	fetches.EachError(func(topic string, partition int32, err error) {
		var loss *kgo.ErrDataLoss
		var bomb *kgo.ErrDecompressTooLarge
		where := fmt.Sprintf("%s/%d", topic, partition)
		switch class, explained := kafka.Explain(err); {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrClientClosed):
		case recreated(err):
			r.source.anew.Store(true)
			fatal = fmt.Errorf("the topic %s was deleted and created again: it is read from its start", topic)
		case errors.As(err, &loss):
			r.source.env.Log.Warn("the broker lost records that were there before", "where", where, "err", err)
		case class == kafka.Login, class == kafka.Denied, errors.As(err, &bomb):
			fatal = fmt.Errorf("kafka %s: %w", where, explained)
		case kerr.IsRetriable(err) && class != kafka.Unknown:
			// A leader that moves, for instance: the client follows it.
			r.source.env.Log.Debug("kafka fetch", "where", where, "err", err)
		default:
			calm, r.troubled = false, true
			r.source.env.report(fmt.Errorf("kafka %s: %w", where, explained))
		}
	})
	if calm && r.troubled && fatal == nil {
		r.troubled = false
		r.source.env.report(nil)
	}
	return fatal
}

// take makes a batch durable and commits it: all of its events in one Publish,
// in the order of each partition.
func (r *kafkaRun) take(ctx context.Context, fetches kgo.Fetches) error {
	n := fetches.NumRecords()
	if n == 0 {
		return nil
	}
	// Others wait for the rebalance while the bus is full: at some point they
	// get the partitions and the records a second time, with the same ids.
	hold := time.AfterFunc(kafkaHold, r.client.AllowRebalance)
	defer hold.Stop()
	events := make([]bus.Event, 0, n)
	var poison []Rejected
	var last []*kgo.Record // of each partition
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			r.lag.at(p.Topic, p.Partition, p.Records[0].Offset, p.HighWatermark)
			last = append(last, p.Records[len(p.Records)-1])
		}
		for _, record := range p.Records {
			if e, err := r.mapping.event(record); err != nil {
				poison = append(poison, r.mapping.reject(record, err))
			} else {
				events = append(events, e)
			}
		}
	})
	r.lag.hold(last)
	if err := r.feed.publish(ctx, events...); err != nil {
		return err
	}
	for _, rejected := range poison {
		if err := r.feed.reject(ctx, rejected); err != nil {
			return err
		}
	}
	err := r.commit(ctx, slices.Clone(last))
	r.lag.done(last)
	return err
}

// commit tells the group how far its partitions are durable. Until it knows, or
// gives the partitions to somebody else, nothing more is taken: so a crash repeats
// one batch and what was fetched since, whatever becomes of the coordinator.
func (r *kafkaRun) commit(ctx context.Context, last []*kgo.Record) error {
	for wait := feedFirst; ; wait = min(2*wait, feedMax) {
		if last = r.owned.still(last); len(last) == 0 {
			return nil
		}
		err := r.client.CommitRecords(ctx, last...)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.UnknownMemberID),
			errors.Is(err, kerr.FencedInstanceID), errors.Is(err, kerr.RebalanceInProgress):
			// The session is over or about to be. Whoever has the partitions then
			// gets the records again, with the same ids.
			r.client.AllowRebalance()
		}
		class, explained := kafka.Explain(err)
		if class == kafka.Denied {
			return fmt.Errorf("cannot commit: %w", explained)
		}
		r.source.env.report(fmt.Errorf("cannot commit: %w", explained))
		r.troubled = true
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// kafkaOwned notes which partitions went away while a batch was in hand.
type kafkaOwned struct {
	lag  *kafkaLag
	mu   sync.Mutex
	lost map[string]map[int32]bool
}

// mark begins a new batch.
func (o *kafkaOwned) mark() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost = nil
}

// lose is a callback of the group.
func (o *kafkaOwned) lose(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	o.lag.forget(lost)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lost == nil {
		o.lost = map[string]map[int32]bool{}
	}
	for topic, partitions := range lost {
		if o.lost[topic] == nil {
			o.lost[topic] = map[int32]bool{}
		}
		for _, p := range partitions {
			o.lost[topic][p] = true
		}
	}
}

// still leaves out the records of partitions that went away.
func (o *kafkaOwned) still(records []*kgo.Record) []*kgo.Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := records[:0]
	for _, r := range records {
		if !o.lost[r.Topic][r.Partition] {
			kept = append(kept, r)
		}
	}
	return kept
}
