package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"

	"sluice/bus"
)

// input is standard input. Reading it ends with ctx: nothing else would wake up a
// verb that waits for somebody to type.
func (e *env) input(ctx context.Context) io.Reader { return &interruptible{ctx, e.stdin} }

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

// Read gives up waiting when the context ends. The read itself goes on until the
// process ends: a blocked read of a terminal or a pipe cannot be stopped.
func (i *interruptible) Read(p []byte) (int, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	buf := make([]byte, len(p)) // p is the caller's again once we have given up
	go func() {
		n, err := i.r.Read(buf)
		done <- result{buf[:n], err}
	}()
	select {
	case r := <-done:
		return copy(p, r.data), r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

// events reads CloudEvents in JSON: one a line, a batch (a JSON array), or
// documents spread over several lines.
type events struct {
	in    *bufio.Reader
	line  int   // the line, or for a batch the event, that next gave last
	bytes int64 // read so far

	started bool
	queue   []parsed      // what is left of a batch
	docs    *json.Decoder // set when documents span lines
}

// parsed is one event, or why there is none.
type parsed struct {
	event bus.Event
	err   error
}

func newEvents(r io.Reader) *events { return &events{in: bufio.NewReaderSize(r, 64<<10)} }

// next gives the next event. io.EOF ends the input; fatal errors of reading are
// *readError; any other error is about one event, and the next call goes on.
func (s *events) next() (bus.Event, error) {
	if !s.started {
		s.started = true
		if err := s.detect(); err != nil {
			return bus.Event{}, err
		}
	}
	switch {
	case s.docs != nil:
		return s.document()
	case s.queue != nil:
		return s.batched()
	}
	for {
		line, err := s.in.ReadBytes('\n')
		s.bytes += int64(len(line))
		if len(line) == 0 && err != nil {
			return bus.Event{}, readFault(err)
		}
		s.line++
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return bus.ParseJSON(line)
		}
	}
}

// idle tells that the next event is not here yet: what was collected so far should
// not wait for it.
func (s *events) idle() bool { return s.docs == nil && s.queue == nil && s.in.Buffered() == 0 }

// readError says that the input cannot be read any further.
type readError struct{ err error }

func (e *readError) Error() string { return "cannot read the events: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func readFault(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return &readError{err}
}

// detect finds out how the events are written: as an array, as documents of which
// the first opens with a brace alone on its line, or one a line.
func (s *events) detect() error {
	opened := false
	for n := 1; ; n++ {
		head, err := s.in.Peek(n)
		switch {
		case opened && err != nil, errors.Is(err, bufio.ErrBufferFull):
			return nil //nolint:nilerr // whoever reads on comes to it again
		case err != nil:
			return readFault(err)
		}
		switch c := head[n-1]; {
		case opened && c == '\n':
			s.docs = json.NewDecoder(s.in)
			return nil
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
		case !opened && c == '{':
			opened = true
		case !opened && c == '[':
			return s.batch()
		default:
			return nil
		}
	}
}

func (s *events) batch() error {
	doc, err := io.ReadAll(s.in)
	s.bytes += int64(len(doc))
	if err != nil {
		return &readError{err}
	}
	s.queue = []parsed{}
	err = bus.ParseBatch(doc, math.MaxInt, func(_ int, e bus.Event, err error) {
		s.queue = append(s.queue, parsed{e, err})
	})
	if err != nil {
		return &readError{err}
	}
	return nil
}

func (s *events) batched() (bus.Event, error) {
	if len(s.queue) == 0 {
		return bus.Event{}, io.EOF
	}
	first := s.queue[0]
	s.queue = s.queue[1:]
	s.line++
	return first.event, first.err
}

func (s *events) document() (bus.Event, error) {
	var doc json.RawMessage
	if err := s.docs.Decode(&doc); err != nil {
		return bus.Event{}, readFault(err)
	}
	s.bytes = s.docs.InputOffset()
	s.line++
	return bus.ParseJSON(doc)
}

// unit is what line counts.
func (s *events) unit() string {
	if s.docs != nil || s.queue != nil {
		return "event"
	}
	return "line"
}
