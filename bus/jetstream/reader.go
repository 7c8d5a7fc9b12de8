package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/bus"
)

// reader implements bus.Reader. It asks for packs when Next has none at hand, so
// the server never sends more than was asked for and never finds it too slow; it
// holds nothing on the server, so there is nothing to lose or to clean up.
type reader struct {
	stream *stream
	key    string
	next   uint64     // where to look from
	ready  []bus.Pack // fetched, not given yet

	close  sync.Once
	closed chan struct{}
}

// Read implements bus.Stream.
func (s *stream) Read(ctx context.Context, key string, from uint64) (bus.Reader, error) {
	if _, err := s.subject(key); err != nil {
		return nil, err
	}
	if err := s.log.enter(ctx); err != nil {
		return nil, err
	}
	defer s.log.running.Done()
	return &reader{stream: s, key: key, next: max(from, 1), closed: make(chan struct{})}, nil
}

// retryPause is between two tries of a reader that the store does not answer.
const retryPause = 200 * time.Millisecond

// Next implements bus.Reader. While the store does not answer it tries on.
func (r *reader) Next(ctx context.Context) (bus.Pack, error) {
	l := r.stream.log
	if err := l.enter(ctx); err != nil {
		return bus.Pack{}, err
	}
	defer l.running.Done()
	for {
		p, end, err := r.step(ctx)
		var again <-chan time.Time
		switch {
		case errors.Is(err, bus.ErrUnavailable):
			l.opts.Log.Warn("a reader waits for the store", "stream", r.stream.name, "err", err)
			end, again = &more{}, time.After(retryPause)
		case err != nil || end == nil:
			return p, err
		}
		select {
		case <-end.done:
			r.next = max(r.next, end.seq)
		case <-again:
		case <-r.closed:
		case <-l.ctx.Done():
		case <-ctx.Done():
			return bus.Pack{}, ctx.Err()
		}
	}
}

// TryNext implements bus.Reader.
func (r *reader) TryNext(ctx context.Context) (bus.Pack, bool, error) {
	if err := r.stream.log.enter(ctx); err != nil {
		return bus.Pack{}, false, err
	}
	defer r.stream.log.running.Done()
	p, end, err := r.step(ctx)
	return p, err == nil && end == nil, err
}

// step gives the next pack or, at the end of the stream, what to wait for.
func (r *reader) step(ctx context.Context) (p bus.Pack, end *more, err error) {
	for {
		select {
		case <-r.closed:
			return bus.Pack{}, nil, r.errClosed()
		case <-r.stream.log.ctx.Done():
			return bus.Pack{}, nil, r.errClosed()
		default:
		}
		if p, ok := r.pop(); ok {
			return p, nil, nil
		}
		p, found, at, end := r.stream.tail.look(r.key, r.next)
		r.next = at
		if found {
			r.next = p.Seq + 1
			return p, nil, nil
		}
		if end != nil {
			return bus.Pack{}, end, nil
		}
		if err := r.stream.log.retry(ctx, r.fetch); err != nil {
			return bus.Pack{}, nil, err
		}
	}
}

// pop gives the next fetched pack that was not removed since.
func (r *reader) pop() (bus.Pack, bool) {
	for len(r.ready) > 0 {
		p := r.ready[0]
		r.ready[0] = bus.Pack{}
		r.ready = r.ready[1:]
		if !r.stream.tail.isGone(p.Seq) {
			return p, true
		}
	}
	return bus.Pack{}, false
}

// fetch gets the next packs from the server and moves on behind them.
func (r *reader) fetch(ctx context.Context, e *engine) error {
	packs, next, err := r.stream.fetchFrom(ctx, e, r.key, r.next)
	if err != nil {
		return err
	}
	r.ready, r.next = packs, next
	return nil
}

func (r *reader) errClosed() error {
	return fmt.Errorf("jetstream: reading %s: %w", r.stream.name, bus.ErrClosed)
}

// Close implements bus.Reader.
func (r *reader) Close() error {
	r.close.Do(func() { close(r.closed) })
	return nil
}
