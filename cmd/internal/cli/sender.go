package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"sluice/bus"
)

// batchBytes is where a batch ends that has not its number of events yet: servers
// take 8 MiB unless told otherwise.
const batchBytes = 4 << 20

// sender publishes events in batches and keeps count.
type sender struct {
	e       *env
	api     *client
	batch   int
	retries int
	events  *events // where they come from; nil for the one of the flags
	single  string  // its id
	bar     *progress
	total   int64 // bytes of the input; 0 when it has no known end

	waiting   []outbound
	bytes     int
	taken     int // events that came, readable or not
	published int
	position  string // of the last one published
	failures  []failure
}

// outbound is an event on its way.
type outbound struct {
	line  int
	id    string
	event []byte // in JSON
}

// failure is an event that was not published.
type failure struct {
	Line   int    `json:"line"`
	ID     string `json:"id,omitempty"`
	Status int    `json:"status,omitempty"`
	Error  string `json:"error"`
}

func newSender(e *env, api *client, p *publish) *sender {
	return &sender{e: e, api: api, batch: p.batch, retries: p.retries, bar: &progress{}}
}

// add takes an event into the batch, and sends that when it is full.
func (s *sender) add(ctx context.Context, event bus.Event, line int) error {
	s.taken++
	doc := event.AppendJSON(make([]byte, 0, event.Size()+64))
	if len(s.waiting) > 0 && s.bytes+len(doc) > batchBytes {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	s.waiting = append(s.waiting, outbound{line, event.ID(), doc})
	s.bytes += len(doc)
	if len(s.waiting) < s.batch {
		return nil
	}
	return s.flush(ctx)
}

// flush sends the batch. An error means that nothing more should be sent: the
// server cannot be reached, or lets nobody in.
func (s *sender) flush(ctx context.Context) error {
	if len(s.waiting) == 0 {
		return nil
	}
	if err := s.deliver(ctx, s.waiting); err != nil {
		return err
	}
	s.waiting, s.bytes = s.waiting[:0], 0
	if s.events != nil {
		s.bar.at(s.events.bytes, s.total, fmt.Sprintf("published %d", s.published))
	}
	return nil
}

// deliver sends events until each is published or refused for good.
func (s *sender) deliver(ctx context.Context, batch []outbound) error {
	for try := 0; ; try++ {
		again, after, err := s.post(ctx, batch)
		if err != nil || len(again) == 0 {
			return err
		}
		if len(again) < len(batch) {
			try = 0 // the server gets on
		}
		if try >= s.retries {
			for _, o := range again {
				s.reject(failure{o.line, o.id, o.status, o.why + fmt.Sprintf(" (sent %d times)", try+1)})
			}
			return nil
		}
		batch = batch[:0:0]
		for _, o := range again {
			batch = append(batch, o.outbound)
		}
		if err := s.e.sleep(ctx, max(after, backoff(try))); err != nil {
			return errInterrupted
		}
	}
}

// backoff is how long to wait when the server does not say: from half a second,
// doubling up to half a minute, less up to a half so that many publishers do not
// come back at once.
func backoff(try int) time.Duration {
	d := min(500*time.Millisecond<<min(try, 10), 30*time.Second)
	return d - rand.N(d/2)
}

// refused is an event that the server had no room for.
type refused struct {
	outbound
	status int
	why    string
}

// post sends events once. Those that are worth sending again come back, with how
// long the server asks to wait.
func (s *sender) post(ctx context.Context, batch []outbound) (again []refused, after time.Duration, err error) {
	doc := []byte{'['}
	for i, o := range batch {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = append(doc, o.event...)
	}
	answer, err := s.api.exchange(ctx, http.MethodPost, "events", nil, bus.TypeBatch, append(doc, ']'))
	var no *apiError
	if errors.As(err, &no) {
		answer, after = no.body, no.after
		if no.Status == http.StatusUnauthorized || no.Status == http.StatusForbidden {
			return nil, 0, err
		}
	} else if err != nil {
		return nil, 0, err
	}
	items, err := decode[struct {
		Events []struct {
			Index    int
			OK       bool
			Position string
			Status   int
			Error    string
		}
	}](orNothing(answer), nil)
	if err != nil {
		return nil, 0, err
	}
	if len(items.Events) == 0 && no != nil {
		again, err = s.whole(ctx, batch, no)
		return again, after, err
	}
	told := make([]bool, len(batch))
	for _, item := range items.Events {
		if item.Index < 0 || item.Index >= len(batch) {
			continue
		}
		told[item.Index] = true
		o := batch[item.Index]
		switch {
		case item.OK:
			s.published++
			s.position = item.Position
		case retryable(item.Status):
			again = append(again, refused{o, item.Status, item.Error})
		default:
			s.reject(failure{o.line, o.id, item.Status, item.Error})
		}
	}
	for i, o := range batch {
		if !told[i] {
			s.reject(failure{Line: o.line, ID: o.id, Error: "the server did not say what became of it: send it again with the same id"})
		}
	}
	return again, after, nil
}

// whole handles an answer that is about a whole batch.
func (s *sender) whole(ctx context.Context, batch []outbound, no *apiError) (again []refused, err error) {
	switch {
	case retryable(no.Status):
		for _, o := range batch {
			again = append(again, refused{o, no.Status, no.Detail})
		}
	case no.Status == http.StatusRequestEntityTooLarge && len(batch) > 1:
		// The server takes smaller batches than this; halves find out how small.
		half := len(batch) / 2
		if err := s.deliver(ctx, batch[:half]); err != nil {
			return nil, err
		}
		return nil, s.deliver(ctx, batch[half:])
	default:
		for _, o := range batch {
			s.reject(failure{o.line, o.id, no.Status, no.Detail})
		}
	}
	return again, nil
}

// retryable tells whether a status is worth another attempt.
func retryable(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

func orNothing(doc json.RawMessage) json.RawMessage {
	if len(doc) == 0 {
		return json.RawMessage("{}")
	}
	return doc
}

func (s *sender) reject(f failure) {
	s.failures = append(s.failures, f)
	if s.e.json() {
		return // they are part of the result
	}
	id := ""
	if f.ID != "" && s.events != nil {
		id = " (" + f.ID + ")"
	}
	s.e.complain("%s%s: %s", s.where(f.Line), id, f.Error)
}

// ended tells whether err ends the input, and whether that is a fault.
func ended(err error) (done bool, fatal error) {
	var broken *readError
	switch {
	case errors.Is(err, io.EOF):
		return true, nil
	case errors.As(err, &broken):
		return true, err
	}
	return false, nil
}

// finish sends what is left, unless cause ended the sending, and sums up.
func (s *sender) finish(ctx context.Context, cause error) error {
	var lost *connError
	var broken *readError
	if cause == nil || errors.As(cause, &broken) && ctx.Err() == nil {
		if err := s.flush(ctx); err != nil {
			cause = err
		}
	}
	s.bar.end()
	if errors.Is(cause, context.Canceled) {
		cause = errInterrupted
	}
	if cause != nil && errors.As(cause, &lost) && s.published == 0 {
		return cause // nothing to sum up
	}
	if err := s.summary(); err != nil {
		return err
	}
	switch {
	case cause != nil:
		return cause
	case len(s.failures) > 0:
		return exit(exitFailure)
	}
	return nil
}

func (s *sender) summary() error {
	// Of what was under way when the server was lost, nobody knows.
	unknown := s.taken - s.published - len(s.failures)
	if s.e.json() {
		if s.failures == nil {
			s.failures = []failure{}
		}
		return s.e.printJSON(map[string]any{
			"published": s.published, "rejected": len(s.failures), "unknown": unknown, "failures": s.failures,
		})
	}
	text := fmt.Sprintf("published %d, rejected %d", s.published, len(s.failures))
	if unknown > 0 {
		text += fmt.Sprintf(", unknown %d: send those again with the same ids", unknown)
	}
	if s.single != "" && s.published == 1 {
		text += fmt.Sprintf(": id %s, position %s", s.single, s.position)
	}
	if !s.e.quiet {
		s.e.printf("%s\n", text)
	}
	return nil
}
