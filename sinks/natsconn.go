package sinks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/config/nats"
)

// natsConn is one connection of a nats sink.
type natsConn struct {
	nc    *natsgo.Conn
	js    jetstream.JetStream
	watch *nats.Watch
	made  time.Time
	// dropped says that another has taken its place.
	dropped atomic.Bool
}

// publish publishes messages, and fills errs. A message that is nil is left out. What a
// connection took with it that is soon made again is published again: a server that
// restarts is no failure yet.
func (c *natsConn) publish(ctx context.Context, msgs []*natsgo.Msg, errs []error, settings *NATS) {
	away, cancel := context.WithTimeout(ctx, natsAway)
	defer cancel()
	for msgs = slices.Clone(msgs); ; {
		if err := c.back(away); err != nil {
			for i, m := range msgs {
				if m != nil {
					errs[i] = err
				}
			}
			return
		}
		if settings.JetStream {
			c.store(ctx, msgs, errs, settings.Stream)
		} else {
			c.flush(ctx, msgs, errs)
		}
		again := false
		for i := range msgs {
			if msgs[i] != nil && c.lost(errs[i]) && away.Err() == nil {
				again = true
			} else {
				msgs[i] = nil
			}
		}
		if !again {
			return
		}
	}
}

// lost tells an error of the connection from one of the message.
func (c *natsConn) lost(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, natsgo.ErrDisconnected) || errors.Is(err, natsgo.ErrReconnectBufExceeded)
}

var errLost = errors.New("nothing was heard of the message")

// back waits for the connection, and returns why there is none.
func (c *natsConn) back(ctx context.Context) error {
	for !c.nc.IsConnected() {
		state := c.watch.State()
		if state.Closed || state.Err != nil && (state.Class == nats.Login || ctx.Err() != nil) {
			return state.Err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the connection is lost: %w", context.Cause(ctx))
		}
		look := time.NewTimer(50 * time.Millisecond) // the word of a loss comes later than the loss
		select {
		case <-state.Changed:
		case <-look.C:
		case <-ctx.Done():
		}
		look.Stop()
	}
	return nil
}

// store publishes messages to streams, and fills errs. One that is published again
// has the same id: the stream drops it.
func (c *natsConn) store(ctx context.Context, msgs []*natsgo.Msg, errs []error, stream string) {
	before := c.watch.State()
	var opts []jetstream.PublishOpt
	if stream != "" {
		opts = append(opts, jetstream.WithExpectStream(stream))
	}
	acks := make([]jetstream.PubAckFuture, len(msgs))
	for i, m := range msgs {
		switch {
		case m == nil:
		case deaf(before.Denied):
			errs[i] = before.Denied
		default:
			acks[i], errs[i] = c.js.PublishMsgAsync(m, opts...)
		}
	}
	for i, ack := range acks {
		if ack != nil {
			errs[i] = c.wait(ctx, ack, msgs[i].Subject, before)
		}
	}
}

// wait is what becomes of one message.
func (c *natsConn) wait(ctx context.Context, ack jetstream.PubAckFuture, subject string, before nats.State) error {
	for state := before; ; {
		select {
		case <-ack.Ok():
			return nil
		case err := <-ack.Err():
			return c.missing(ctx, subject, err)
		case <-ctx.Done():
			return fmt.Errorf("the stream has not said that it has the message: %w", context.Cause(ctx))
		case <-state.Changed:
			// What is not allowed is told to the connection, and not to who waits.
			state = c.watch.State()
			if state.Denied != before.Denied && forbids(state.Denied, subject) || deaf(state.Denied) { //nolint:errorlint // whether there is another
				return state.Denied
			}
			if state.Err != nil {
				return fmt.Errorf("%w: %w", errLost, state.Err)
			}
		}
	}
}

// missing tells a subject that no stream has from a stream that does not answer.
func (c *natsConn) missing(ctx context.Context, subject string, err error) error {
	if !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, natsAsk)
	defer cancel()
	stream, asked := c.js.StreamNameBySubject(ctx, subject)
	switch {
	case asked == nil:
		return fmt.Errorf("the stream %s, which has the subject %s, does not answer", stream, subject)
	case errors.Is(asked, jetstream.ErrStreamNotFound):
		return &noStream{subject}
	case errors.Is(asked, natsgo.ErrNoResponders):
		return fmt.Errorf("JetStream does not answer: wait for it, check that it is enabled, or write jetstream: false: %w", asked)
	}
	return fmt.Errorf("nothing answers for the subject %s: %w", subject, asked)
}

// noStream is a subject that no stream has.
type noStream struct{ subject string }

func (e *noStream) Error() string {
	return fmt.Sprintf("no stream has the subject %s: create one that does, check the subject, or write jetstream: false", e.subject)
}

// flush publishes messages to core NATS, and fills errs: nil once the server has them.
func (c *natsConn) flush(ctx context.Context, msgs []*natsgo.Msg, errs []error) {
	denials := c.watch.Denials(c.nc)
	defer denials.Stop()
	sent := make([]*natsgo.Msg, len(msgs))
	for i, m := range msgs {
		if m != nil {
			if errs[i] = c.nc.PublishMsg(m); errs[i] == nil {
				sent[i] = m
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, natsAckWait)
	defer cancel()
	err := c.nc.FlushWithContext(ctx)
	var denied []error // what is not allowed is said before the answer to the flush
	if err == nil {
		denied, err = denials.All(ctx)
	}
	switch {
	case err == nil:
	case ctx.Err() == nil: // a flush fails with the connection only
		err = fmt.Errorf("%w: %w", errLost, err)
	default:
		err = fmt.Errorf("the server has not said that it has the message: %w", context.Cause(ctx))
	}
	for i, m := range sent {
		switch {
		case m == nil:
		case err != nil:
			errs[i] = err
		default:
			if at := slices.IndexFunc(denied, func(d error) bool { return forbids(d, m.Subject) }); at >= 0 {
				errs[i] = denied[at]
			}
		}
	}
}

// forbids tells whether a violation is about publishing to a subject.
func forbids(violation error, subject string) bool {
	return violation != nil && strings.Contains(strings.ToLower(violation.Error()), strings.ToLower(fmt.Sprintf("publish to %q", subject)))
}

// deaf tells whether a violation is about the inbox that acknowledgements come to.
func deaf(violation error) bool {
	return violation != nil && strings.Contains(strings.ToLower(violation.Error()), `subscription to "`)
}
