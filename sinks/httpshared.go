package sinks

import (
	"context"
	"errors"
	"sync"
	"time"
)

// shared is something that all attempts need and that is fetched by one of them at
// a time, such as a token. The others wait for the same answer. A fetch runs on
// when whoever asked for it gives up: the next attempt has use for it.
type shared[T comparable] struct {
	// fetch gets a value and how long it is good for; 0 is until it is dropped.
	fetch   func(ctx context.Context) (value T, life time.Duration, err error)
	timeout time.Duration // of one fetch
	pause   time.Duration // how long an error stands in for the next fetch

	mu     sync.Mutex
	value  T
	have   bool
	renew  time.Time // when a new one is fetched, while this one is still good
	until  time.Time // the zero time: no end
	err    error     // of the last fetch
	retry  time.Time // when err has stood for long enough
	call   *sharedCall[T]
	stop   context.CancelFunc // of the call
	closed bool
}

// sharedCall is a fetch under way; the result is there once done is closed.
type sharedCall[T any] struct {
	done  chan struct{}
	value T
	err   error
}

var errClosed = errors.New("the sink is closed")

// get is the value, fetched when there is none that is good. It waits for that, but
// not when an old one is good for a while yet.
func (s *shared[T]) get(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var none T
		return none, context.Cause(ctx)
	}
	call, value, err := s.look(time.Now())
	if call == nil {
		return value, err
	}
	select {
	case <-call.done:
		return call.value, call.err
	case <-ctx.Done():
		return value, context.Cause(ctx)
	}
}

// look is the value, or the call to wait for.
func (s *shared[T]) look(now time.Time) (wait *sharedCall[T], value T, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	good := s.have && (s.until.IsZero() || now.Before(s.until))
	due := !good || !s.renew.IsZero() && !now.Before(s.renew)
	switch {
	case s.closed:
		return nil, value, errClosed
	case due && s.call == nil && !now.Before(s.retry):
		s.start()
	case due && s.call == nil && !good:
		return nil, value, s.err
	}
	if good {
		return nil, s.value, nil
	}
	return s.call, value, nil
}

// start begins a fetch. s.mu is held.
func (s *shared[T]) start() {
	ctx, cancel := context.WithTimeout(context.Background(), s.timeout)
	call := &sharedCall[T]{done: make(chan struct{})}
	s.call, s.stop = call, cancel
	go func() {
		defer cancel()
		value, life, err := s.fetch(ctx)
		call.value, call.err = value, err
		s.finish(value, life, err)
		close(call.done)
	}()
}

func (s *shared[T]) finish(value T, life time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call = nil
	now := time.Now()
	if err != nil {
		s.err, s.retry = err, now.Add(s.pause)
		return
	}
	s.value, s.have, s.err = value, true, nil
	s.renew, s.until, s.retry = time.Time{}, time.Time{}, time.Time{}
	if life > 0 {
		// The clocks of the two sides differ, and a request takes its time.
		s.until = now.Add(life - min(life/10, 10*time.Second))
		s.renew = now.Add(life - min(life/5, time.Minute))
	}
}

// drop forgets a value that turned out not to be good, unless another has taken
// its place already.
func (s *shared[T]) drop(value T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.have && s.value == value {
		var none T
		s.value, s.have = none, false
	}
}

// close ends the fetch under way and waits for it.
func (s *shared[T]) close() {
	s.mu.Lock()
	s.closed = true
	call := s.call
	if call != nil {
		s.stop()
	}
	s.mu.Unlock()
	if call != nil {
		<-call.done
	}
}
