package sinks_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"sluice/bus"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// terminal is the far side of the stdout sink: it reads each write as one line.
type terminal struct {
	t    *testing.T
	got  chan sinktest.Got
	hang atomic.Bool
	over chan struct{}
}

func (w *terminal) Write(line []byte) (int, error) {
	if bytes.IndexByte(line, '\n') != len(line)-1 || bytes.IndexByte(line, '\r') >= 0 {
		w.t.Errorf("not one line in one write: %.200q", line)
	}
	e, err := bus.ParseJSON(bytes.Clone(line))
	if err != nil {
		w.t.Errorf("%v in %.200q", err, line)
	}
	w.got <- sinktest.Got{Event: e}
	if w.hang.Load() {
		<-w.over
	}
	return len(line), nil
}

func TestStdout(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
		w := &terminal{t: t, got: make(chan sinktest.Got, 1024), over: make(chan struct{})}
		t.Cleanup(func() { close(w.over) })
		s := sinks.NewStdout()
		s.Writer = w
		return &sinktest.Subject{
			Sink:       openIn(t, s, env),
			Received:   w.got,
			Hang:       func() { w.hang.Store(true) },
			KeepsKinds: true,
			OneLine:    true,
			Local:      true,
		}
	})
}

func TestStdoutError(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s := sinks.NewStdout()
	s.Writer = w
	err := open(t, s).Deliver(context.Background(), testDelivery(t, "json"))
	var e *sinks.Error
	if !errors.Is(err, io.ErrClosedPipe) || errors.As(err, &e) {
		t.Errorf("%v, want a plain error of the pipe", err)
	}
}
