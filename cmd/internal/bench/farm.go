package bench

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// farm is a number of sinks, each on a port of its own, that count what they get.
type farm struct {
	tally *tally
	sinks []*sink
	done  sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// sink is one of them. It answers at once unless it was told otherwise.
type sink struct {
	farm     *farm
	index    int
	listener net.Listener
	ages     histogram // from sending to arrival, while the tally records

	down atomic.Bool // answer 503, and do not count
	hang atomic.Pointer[hang]
}

// hang lets a sink answer late, until it is released.
type hang struct {
	delay    time.Duration
	released chan struct{}
}

func newFarm(t *tally, sinks int) (*farm, error) {
	f := &farm{tally: t, conns: map[net.Conn]struct{}{}}
	for i := range sinks {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.close()
			return nil, err
		}
		s := &sink{farm: f, index: i, listener: l}
		f.sinks = append(f.sinks, s)
		f.done.Go(s.accept)
	}
	return f, nil
}

// addresses are those of the sinks.
func (f *farm) addresses() []string {
	out := make([]string, len(f.sinks))
	for i, s := range f.sinks {
		out[i] = s.listener.Addr().String()
	}
	return out
}

// close ends the sinks and waits for them.
func (f *farm) close() {
	f.mu.Lock()
	f.closed = true
	for _, s := range f.sinks {
		_ = s.listener.Close()
		s.release()
	}
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
}

func (f *farm) add(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		_ = c.Close()
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *farm) drop(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.Close()
}

// latency is how old events were on their first arrival, at all sinks together.
func (f *farm) latency() Latency {
	all := &histogram{}
	for _, s := range f.sinks {
		all.add(&s.ages)
	}
	return all.latency()
}

func (s *sink) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && s.farm.add(c) {
			s.farm.done.Go(func() {
				defer s.farm.drop(c)
				s.serve(c)
			})
		}
	}
}

const (
	answerTaken = "HTTP/1.1 204 No Content\r\n\r\n"
	answerDown  = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
)

// serve answers the requests of one connection.
func (s *sink) serve(c net.Conn) {
	r := bufio.NewReaderSize(c, 4<<10)
	var m message
	for m.read(r) == nil {
		answer := answerTaken
		if s.down.Load() {
			answer = answerDown
		} else {
			s.take(m.event)
		}
		if h := s.hang.Load(); h != nil {
			h.wait()
		}
		if _, err := io.WriteString(c, answer); err != nil || m.close {
			return
		}
	}
}

func (s *sink) take(event int64) {
	t := s.farm.tally
	age, first := t.arrive(s.index, event)
	if first && t.recording.Load() {
		s.ages.record(age)
	}
}

// hangFor makes the sink answer late from now on.
func (s *sink) hangFor(d time.Duration) {
	s.hang.Store(&hang{d, make(chan struct{})})
}

// release makes it answer at once again, also what it has at the moment.
func (s *sink) release() {
	if h := s.hang.Swap(nil); h != nil {
		close(h.released)
	}
}

func (h *hang) wait() {
	t := time.NewTimer(h.delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.released:
	}
}
