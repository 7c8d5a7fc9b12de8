package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sluice/bus"
	"sluice/config/value"
)

// Stdout are the settings of the stdout sink.
type Stdout struct {
	Writer io.Writer `yaml:"-"` // where to print instead of standard output
}

// NewStdout returns the settings with their defaults.
func NewStdout() *Stdout { return &Stdout{Writer: os.Stdout} }

// Validate is Settings.Validate.
func (s *Stdout) Validate() value.Faults { return nil }

// Open is Settings.Open.
func (s *Stdout) Open(_ context.Context, _ Env) (Sink, error) {
	return &stdoutSink{w: s.Writer, turn: make(chan struct{}, 1)}, nil
}

type stdoutSink struct {
	w    io.Writer
	turn chan struct{} // holds a token while somebody writes
}

// Deliver is Sink.Deliver: one line, one write. A payload that is a text may have
// several lines.
func (s *stdoutSink) Deliver(ctx context.Context, d Delivery) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	line := printed(d)
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// A pipe that nobody reads blocks a write for good, and no deadline helps: the
	// turn is passed on when the write ends, this call returns when ctx does.
	done := make(chan error, 1)
	go func() {
		_, err := s.w.Write(line)
		<-s.turn
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lineOf is what a file has of a delivery, whose lines are JSON each: of a text that a
// transform made, the text as a JSON string.
func lineOf(d Delivery) []byte {
	if d.Payload == nil || d.Payload.Body == nil || bus.IsJSON(d.Payload.ContentType) {
		return printed(d)
	}
	var line bytes.Buffer
	encoder := json.NewEncoder(&line)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(string(d.Payload.Body)) // a string always has a form, and a buffer takes it
	return line.Bytes()
}

// printed is what is written of a delivery: what a transform made of the event, or
// the event.
func printed(d Delivery) []byte {
	var line []byte
	oneLine := true
	if d.Payload != nil && d.Payload.Body != nil {
		line = append(make([]byte, 0, len(d.Payload.Body)+1), d.Payload.Body...)
		oneLine = bus.IsJSON(d.Payload.ContentType)
	} else {
		line = d.Event.AppendJSON(make([]byte, 0, d.Event.Size()+128))
	}
	for i, c := range line {
		// Line breaks in JSON stand between tokens only.
		if oneLine && (c == '\n' || c == '\r') {
			line[i] = ' '
		}
	}
	return append(line, '\n')
}
