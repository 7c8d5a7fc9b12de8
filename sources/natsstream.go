package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
	"sluice/config/nats"
)

// How a batch is fetched.
const (
	natsIdle = 2 * time.Second       // how long one request waits for the first message
	natsMore = 10 * time.Millisecond // how long one waits for company
)

// stream reads through a pull consumer: a batch at a time, which is published in one
// go and then acknowledged. So a crash repeats one batch, with the same ids.
func (r *natsRun) stream(ctx, flight context.Context) error {
	js, err := jetstream.New(r.conn, jetstream.WithDefaultTimeout(natsAsk))
	if err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	consumer, err := r.consumer(ctx, js)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		_, err = nats.Explain(err)
		if state := r.watch.State(); state.Denied != nil {
			err = state.Denied // the question timed out because of it
		}
		return err
	}
	config := consumer.CachedInfo().Config
	lag := &natsLag{}
	r.source.lag.Store(lag)
	defer r.source.lag.Store(nil)
	following, unfollow := context.WithCancel(ctx)
	var asking sync.WaitGroup
	beside(&asking, r.fail, func() { follow(following, consumer, lag) })
	defer asking.Wait()
	defer unfollow()
	for wait := feedFirst; ctx.Err() == nil; {
		if err := r.over(); err != nil {
			return err
		}
		batch, err := r.fetch(ctx, consumer)
		if err != nil && len(batch) == 0 {
			if err := r.trouble(ctx, consumer, err); err != nil {
				return err
			}
			if pause(ctx, wait) == nil {
				wait = min(2*wait, feedMax)
			}
			continue
		}
		wait = feedFirst
		if err := r.take(flight, batch, config, lag); err != nil {
			return nil // only when the grace is over: the rest comes again
		}
	}
	return nil
}

// consumer finds the consumer, and makes what is missing.
func (r *natsRun) consumer(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	want := r.source.settings.JetStream
	ctx, cancel := context.WithTimeout(ctx, natsAsk)
	defer cancel()
	stream, err := js.Stream(ctx, want.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) && want.Create {
		// Another member may make it at the same moment: then it is there.
		if stream, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: want.Stream, Subjects: want.Subjects}); errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			stream, err = js.Stream(ctx, want.Stream)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the stream %s: %w", want.Stream, err)
	}
	consumer, err := stream.Consumer(ctx, want.Consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		conf := jetstream.ConsumerConfig{
			Durable: want.Consumer, AckPolicy: jetstream.AckExplicitPolicy, FilterSubjects: want.Subjects,
			AckWait: time.Duration(want.AckWait), DeliverPolicy: jetstream.DeliverAllPolicy,
		}
		if want.Start == natsNew {
			conf.DeliverPolicy = jetstream.DeliverNewPolicy
		}
		consumer, err = stream.CreateConsumer(ctx, conf)
	}
	if err != nil {
		return nil, fmt.Errorf("the consumer %s of the stream %s: %w", want.Consumer, want.Stream, err)
	}
	return consumer, r.fits(consumer.CachedInfo().Config)
}

// fits checks a consumer that somebody made.
func (r *natsRun) fits(have jetstream.ConsumerConfig) error {
	want := r.source.settings.JetStream
	filters := have.FilterSubjects
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	other := slices.Sorted(slices.Values(filters))
	switch {
	case have.AckPolicy == jetstream.AckNonePolicy:
		return fmt.Errorf("the consumer %s needs no acknowledgements, so a crash would lose messages: make one with the policy explicit", want.Consumer)
	case have.HeadersOnly:
		return fmt.Errorf("the consumer %s delivers headers only, so the data would be lost: make one without headers_only", want.Consumer)
	case len(want.Subjects) > 0 && !slices.Equal(other, slices.Sorted(slices.Values(want.Subjects))):
		return fmt.Errorf("the consumer %s reads the subjects [%s] and not [%s]: name another consumer, or change the subjects of one of them",
			want.Consumer, strings.Join(filters, " "), strings.Join(want.Subjects, " "))
	}
	if have.MaxDeliver > 0 {
		r.source.env.Log.Warn("the server gives up a message of this consumer after some deliveries; it is lost then",
			"consumer", want.Consumer, "max_deliver", have.MaxDeliver)
	}
	return nil
}

// fetch waits for messages and returns what there is, up to a batch. On an error it
// returns what came before it.
func (r *natsRun) fetch(ctx context.Context, c jetstream.Consumer) ([]jetstream.Msg, error) {
	if state := r.watch.State(); state.Err != nil {
		select {
		case <-state.Changed:
		case <-ctx.Done():
		}
		return nil, nil
	}
	// A request is left to end by itself: what the server sends to one that was given
	// up comes again only after ack_wait.
	more := []jetstream.FetchOpt{jetstream.FetchMaxBytes(int(r.source.settings.MaxBytes)), jetstream.FetchMaxWait(natsMore)}
	batch, err := collect(nil, c, natsBatch, more...)
	if len(batch) > 0 || err != nil || ctx.Err() != nil {
		return batch, err
	}
	// This one may be given up, when ctx ends. It has no limit in bytes, so that a
	// message that is larger comes too.
	idle, cancel := context.WithTimeout(ctx, natsIdle)
	defer cancel()
	batch, err = collect(nil, c, 1, jetstream.FetchContext(idle))
	if len(batch) == 0 || err != nil || ctx.Err() != nil {
		return batch, err
	}
	return collect(batch, c, natsBatch-1, more...)
}

// collect appends to batch what one request brings.
func collect(batch []jetstream.Msg, c jetstream.Consumer, n int, opts ...jetstream.FetchOpt) ([]jetstream.Msg, error) {
	result, err := c.Fetch(n, opts...)
	if err != nil {
		return batch, err
	}
	for m := range result.Messages() {
		batch = append(batch, m)
	}
	if err := result.Error(); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		return batch, err
	}
	return batch, nil
}

// trouble deals with a request that failed, and returns an error when the run cannot
// go on.
func (r *natsRun) trouble(ctx context.Context, c jetstream.Consumer, err error) error {
	class, explained := nats.Explain(err)
	if class == nats.Outage && errors.Is(err, natsgo.ErrNoResponders) {
		// The consumer is gone, or its server is.
		asked, cancel := context.WithTimeout(ctx, natsAsk)
		defer cancel()
		if _, err := c.Info(asked); err != nil {
			class, explained = nats.Explain(err)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if class == nats.Unknown || class == nats.Denied {
		return explained
	}
	r.source.env.report(fmt.Errorf("cannot fetch: %w", explained))
	return nil
}

// take makes a batch durable and acknowledges it: all of its events in one Publish,
// in the order of the stream. An error means that ctx ended first.
func (r *natsRun) take(ctx context.Context, batch []jetstream.Msg, config jetstream.ConsumerConfig, lag *natsLag) error {
	if len(batch) == 0 {
		return nil
	}
	defer r.keepAlive(batch, config.AckWait)()
	events := make([]bus.Event, 0, len(batch))
	var poison []Rejected
	for i, msg := range batch {
		m, pending := messageOf(msg)
		switch i {
		case 0:
			lag.hold(len(batch), m.time, pending)
		case len(batch) - 1:
			lag.hold(len(batch), lag.since(), pending)
		}
		if e, err := r.mapping.event(m); err != nil {
			poison = append(poison, r.mapping.reject(m, err))
		} else {
			events = append(events, e)
		}
	}
	err := r.feed.publish(ctx, events...)
	for i := 0; err == nil && i < len(poison); i++ {
		err = r.feed.reject(ctx, poison[i])
	}
	defer lag.done()
	if err != nil {
		for _, msg := range batch {
			_ = msg.Nak() // so that it comes at once to whoever reads next
		}
		return err
	}
	r.acknowledge(batch, config.AckPolicy)
	return nil
}

// acknowledge tells the server that a batch is durable. What does not get there is
// delivered again, with the same ids.
func (r *natsRun) acknowledge(batch []jetstream.Msg, policy jetstream.AckPolicy) {
	if policy == jetstream.AckAllPolicy {
		batch = batch[len(batch)-1:]
	}
	for _, msg := range batch {
		if err := msg.Ack(); err != nil {
			r.source.env.Log.Debug("an acknowledgement is lost: the message comes again", "err", err)
			return
		}
	}
}

// keepAlive tells the server that a batch is being worked on, until stop is called.
func (r *natsRun) keepAlive(batch []jetstream.Msg, ackWait time.Duration) (stop func()) {
	done := make(chan struct{})
	var working sync.WaitGroup
	beside(&working, r.fail, func() {
		tick := time.NewTicker(max(100*time.Millisecond, ackWait/3))
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				for _, msg := range batch {
					_ = msg.InProgress() // the next time, then
				}
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		working.Wait()
	})
}

// messageOf is a message of a stream, and how many come behind it.
func messageOf(msg jetstream.Msg) (m *natsMessage, pending uint64) {
	m = &natsMessage{subject: msg.Subject(), header: msg.Headers(), data: msg.Data()}
	if meta, err := msg.Metadata(); err == nil { // it is read from the reply subject, which the fetch has checked
		m.sequence(meta.Stream, meta.Sequence.Stream, meta.Timestamp)
		pending = meta.NumPending
	}
	return m, pending
}

// since is when the oldest message in hand was published.
func (l *natsLag) since() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oldest
}

// follow asks for the lag now and then: nothing is fetched while the bus takes nothing.
func follow(ctx context.Context, c jetstream.Consumer, lag *natsLag) {
	tick := time.NewTicker(natsAsk)
	defer tick.Stop()
	for {
		asked, cancel := context.WithTimeout(ctx, natsAsk)
		if info, err := c.Info(asked); err == nil { // what fails shows elsewhere
			lag.learn(info.NumPending, info.NumAckPending)
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
