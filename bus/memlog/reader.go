package memlog

import (
	"context"
	"fmt"
	"sync"

	"sluice/bus"
)

// reader implements bus.Reader. It holds nothing but its place, so one that is
// never closed costs nothing.
type reader struct {
	stream *stream
	key    string // "" reads every key
	next   uint64 // where to look from

	close  sync.Once
	closed chan struct{}
}

// Next implements bus.Reader.
func (r *reader) Next(ctx context.Context) (bus.Pack, error) {
	p, _, err := r.read(ctx, r.wait)
	return p, err
}

// TryNext implements bus.Reader.
func (r *reader) TryNext(ctx context.Context) (bus.Pack, bool, error) {
	return r.read(ctx, func(context.Context) (*bus.Pack, error) {
		p, _, err := r.look()
		return p, err
	})
}

// read gives the pack that get finds, if any, between the hooks.
func (r *reader) read(ctx context.Context, get func(context.Context) (*bus.Pack, error)) (bus.Pack, bool, error) {
	l, op := r.stream.log, Op{Name: OpNext, Stream: r.stream.name, Key: r.key}
	if err := l.enter(); err != nil {
		return bus.Pack{}, false, err
	}
	defer l.running.Done()
	if err := l.before(ctx, op); err != nil {
		return bus.Pack{}, false, err
	}
	p, err := get(ctx)
	if err != nil || p == nil {
		return bus.Pack{}, false, err
	}
	if err := l.after(ctx, op); err != nil {
		return bus.Pack{}, false, err
	}
	r.next = p.Seq + 1
	return *p, true, nil
}

// wait gives the next pack once there is one.
func (r *reader) wait(ctx context.Context) (*bus.Pack, error) {
	for {
		p, more, err := r.look()
		if err != nil || p != nil {
			return p, err
		}
		select {
		case <-more:
		case <-r.stream.log.done:
		case <-r.closed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// look gives the next pack if it is there; else more is closed when there is one.
func (r *reader) look() (p *bus.Pack, more chan struct{}, err error) {
	l := r.stream.log
	err = l.locked(func() error {
		if l.closed || r.isClosed() {
			return fmt.Errorf("memlog: reading %s: %w", r.stream.name, bus.ErrClosed)
		}
		if p = r.stream.find(r.key, r.next); p == nil {
			more = r.stream.more(r.key)
		}
		return nil
	})
	return p, more, err
}

// find is the first pack of the key with a number of at least from.
func (s *stream) find(key string, from uint64) *bus.Pack {
	for seq := max(from, s.first); seq < s.next; seq++ {
		if p := s.at(seq); p != nil && (key == "" || p.Key == key) {
			return p
		}
	}
	return nil
}

// more is closed when the next pack of the key is appended.
func (s *stream) more(key string) chan struct{} {
	c, ok := s.waiting[key]
	if !ok {
		c = make(chan struct{})
		s.waiting[key] = c
	}
	return c
}

func (r *reader) isClosed() bool {
	select {
	case <-r.closed:
		return true
	default:
		return false
	}
}

// Close implements bus.Reader.
func (r *reader) Close() error {
	r.close.Do(func() { close(r.closed) })
	return nil
}
