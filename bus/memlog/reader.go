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
	l, op := r.stream.log, Op{Name: OpNext, Stream: r.stream.name, Key: r.key}
	if err := l.enter(); err != nil {
		return bus.Pack{}, err
	}
	defer l.running.Done()
	if err := l.before(ctx, op); err != nil {
		return bus.Pack{}, err
	}
	p, err := r.wait(ctx)
	if err != nil {
		return bus.Pack{}, err
	}
	if err := l.after(ctx, op); err != nil {
		return bus.Pack{}, err
	}
	r.next = p.Seq + 1
	return *p, nil
}

// TryNext implements bus.Reader.
func (r *reader) TryNext(ctx context.Context) (p bus.Pack, ok bool, err error) {
	l := r.stream.log
	err = l.locked(func() error {
		if l.closed || r.isClosed() {
			return fmt.Errorf("memlog: reading %s: %w", r.stream.name, bus.ErrClosed)
		}
		ok = r.stream.find(r.key, r.next) != nil
		return nil
	})
	if err != nil || !ok {
		return bus.Pack{}, false, err
	}
	p, err = r.Next(ctx)
	return p, err == nil, err
}

// wait gives the next pack once there is one.
func (r *reader) wait(ctx context.Context) (*bus.Pack, error) {
	l := r.stream.log
	for {
		var p *bus.Pack
		var more chan struct{}
		err := l.locked(func() error {
			if l.closed || r.isClosed() {
				return fmt.Errorf("memlog: reading %s: %w", r.stream.name, bus.ErrClosed)
			}
			if p = r.stream.find(r.key, r.next); p == nil {
				more = r.stream.more(r.key)
			}
			return nil
		})
		if err != nil || p != nil {
			return p, err
		}
		select {
		case <-more:
		case <-l.done:
		case <-r.closed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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
