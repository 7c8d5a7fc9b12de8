package sources

import (
	"context"
	"fmt"
	"sync"

	natsgo "github.com/nats-io/nats.go"

	"sluice/bus"
	"sluice/config/nats"
)

// What waits of each subscription beside max_bytes, and between them and the bus.
const (
	natsPending = 64 << 10 // messages
	natsHand    = 64       // messages
)

// The replies to messages that ask for one.
const (
	natsAck    = "+ACK"
	natsNotAck = "-ERR "
)

// core subscribes to subjects. Core NATS delivers a message once to who listens:
// what is lost here on the way to the bus is lost for good.
func (r *natsRun) core(ctx, flight context.Context) error {
	in := make(chan *natsgo.Msg, natsHand)
	var open sync.WaitGroup
	subs := make([]*natsgo.Subscription, 0, len(r.source.settings.Subjects))
	for _, subject := range r.source.settings.Subjects {
		sub, err := r.conn.QueueSubscribe(subject, r.source.settings.Queue, func(m *natsgo.Msg) {
			select {
			case in <- m:
			case <-flight.Done():
			}
		})
		if err == nil {
			err = sub.SetPendingLimits(natsPending, int(r.source.settings.MaxBytes))
		}
		if err != nil {
			return fmt.Errorf("cannot subscribe to %s: %w", subject, err)
		}
		open.Add(1)
		sub.SetClosedHandler(func(string) { open.Done() })
		subs = append(subs, sub)
	}
	// So that the first word on what is not allowed is there soon.
	if err := r.conn.FlushTimeout(natsAsk); err != nil {
		_, err = nats.Explain(err)
		return fmt.Errorf("cannot subscribe: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		for _, sub := range subs {
			if sub.Drain() != nil { // not connected: nothing more comes
				_ = sub.Unsubscribe()
			}
		}
		open.Wait()
		close(in)
	})
	defer stop()
	return r.listen(ctx, flight, in, subs)
}

// listen publishes what comes until in is closed.
func (r *natsRun) listen(ctx, flight context.Context, in <-chan *natsgo.Msg, subs []*natsgo.Subscription) error {
	for dropped := 0; ; {
		state := r.watch.State()
		if err := r.over(); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case m, ok := <-in:
			if !ok {
				return nil
			}
			if !r.publish(flight, r.company(m, in)) {
				return nil // the grace is over
			}
			dropped = r.lost(subs, dropped)
		case <-state.Changed:
		case <-flight.Done():
			return nil
		}
	}
}

// company adds to m what else is there.
func (r *natsRun) company(m *natsgo.Msg, in <-chan *natsgo.Msg) []*natsgo.Msg {
	batch, size := []*natsgo.Msg{m}, m.Size()
	for len(batch) < natsBatch && size < int(r.source.settings.MaxBytes) {
		select {
		case m, ok := <-in:
			if !ok {
				return batch
			}
			batch, size = append(batch, m), size+m.Size()
		default:
			return batch
		}
	}
	return batch
}

// publish makes a batch durable, and then answers those who asked for it. It is
// false when ctx ended first.
func (r *natsRun) publish(ctx context.Context, batch []*natsgo.Msg) bool {
	events := make([]bus.Event, 0, len(batch))
	replies := make([]string, len(batch))
	var poison []Rejected
	for i, msg := range batch {
		m := &natsMessage{subject: msg.Subject, header: msg.Header, data: msg.Data}
		m.unnumbered()
		e, err := r.mapping.event(m)
		if err != nil {
			poison = append(poison, r.mapping.reject(m, err))
			replies[i] = natsNotAck + err.Error()
			continue
		}
		events = append(events, e)
		replies[i] = natsAck
	}
	if r.feed.publish(ctx, events...) != nil {
		return false
	}
	for _, rejected := range poison {
		if r.feed.reject(ctx, rejected) != nil {
			return false
		}
	}
	for i, msg := range batch {
		if msg.Reply != "" {
			_ = msg.Respond([]byte(replies[i])) // who hears nothing asks again
		}
	}
	return true
}

// lost counts what the subscriptions dropped, since before.
func (r *natsRun) lost(subs []*natsgo.Subscription, before int) int {
	total := 0
	for _, sub := range subs {
		if n, err := sub.Dropped(); err == nil {
			total += n
		}
	}
	if n := total - before; n > 0 {
		r.source.env.observe(Overloaded, n)
		r.source.env.Log.Warn("messages of core NATS were dropped: they came faster than the bus took them", "messages", n)
	}
	return total
}
