package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"sluice/bus"
	"sluice/config/value"
)

// Sluice are the settings of the sluice sink. The other bus has the event as it is
// here, under the same id, with the attribute sluicehops counted up: two buses that
// hand events on to each other end in a dead letter with the reason loop, at the
// latest after MaxHops. With dedup there, an event that comes back ends at once.
type Sluice struct {
	URL   value.URL    `yaml:"url" doc:"The other Sluice, such as https://bus.example.com. An event that was handed on more than 16 times, which sluicehops counts, becomes a dead letter with the reason loop."`
	Path  string       `yaml:"path" doc:"Where it takes events: /events, or the path of an http source there."`
	Token value.Secret `yaml:"token" doc:"A token of the other Sluice with the scope publish."`
	TLS   *HTTPTLS     `yaml:"tls" doc:"How an https far side is known, and the sink to it (mTLS)."`
}

// NewSluice returns the settings with their defaults.
func NewSluice() *Sluice { return &Sluice{Path: "/events"} }

// Validate is Settings.Validate.
func (s *Sluice) Validate() value.Faults {
	var faults value.Faults
	switch {
	case s.URL.IsZero():
		faults.Add("url", "is missing: write where the other Sluice is, such as http://127.0.0.1:8484")
	case s.URL.User != nil:
		faults.Add("url", "has a user in it: Sluice knows tokens, write one into token")
	case s.URL.RawQuery != "" || s.URL.Fragment != "":
		faults.Add("url", "has a query or a fragment: write where the other Sluice is, such as http://127.0.0.1:8484")
	}
	if !strings.HasPrefix(s.Path, "/") || strings.ContainsAny(s.Path, "?#% ") {
		faults.Add("path", "is not a path: write one such as /events")
	}
	if !s.Token.IsZero() && !isToken(s.Token.Value()) {
		faults.Add("token", "has a space, a line break or another character that no token has: check what it refers to")
	}
	return append(faults, s.TLS.validate(s.URL).Under("tls")...)
}

// maxSluiceAnswer is how much is read of an answer, which has a line for each event of
// a batch.
const maxSluiceAnswer = 1 << 20

// Open is Settings.Open.
func (s *Sluice) Open(ctx context.Context, env Env) (Sink, error) {
	if err := s.Validate().Err(); err != nil {
		return nil, err
	}
	to := NewHTTP()
	target := *s.URL.URL
	target.Path, target.RawPath = strings.TrimSuffix(target.Path, "/")+s.Path, ""
	to.URL, to.TLS, to.MaxAnswer = s.URL, s.TLS, maxSluiceAnswer
	to.URL.URL = &target
	if !s.Token.IsZero() {
		to.Auth = &HTTPAuth{Bearer: s.Token}
	}
	sink, err := to.Open(ctx, env)
	if err != nil {
		return nil, err
	}
	plain, ok := sink.(*httpSink)
	if !ok {
		return nil, errors.New("the http sink is another than expected")
	}
	plain.help = "check token: it must be one of the other Sluice, with the scope publish"
	typed := *plain
	typed.structured = true
	return &sluiceSink{plain: plain, typed: &typed}, nil
}

// sluiceSink publishes on another bus over HTTP.
type sluiceSink struct {
	contact
	plain *httpSink // in binary mode: the data goes as it is, whatever it is
	typed *httpSink // the same in structured mode, which keeps integers and booleans
}

// Close is io.Closer.
func (s *sluiceSink) Close() error { return s.plain.Close() }

// Deliver is Sink.Deliver.
func (s *sluiceSink) Deliver(ctx context.Context, d Delivery) error {
	var err error
	if d.Event, err = onward(d.Event); err != nil {
		return err
	}
	err = s.one(ctx, d)
	s.heard(err)
	return err
}

// one publishes an event that is counted already.
func (s *sluiceSink) one(ctx context.Context, d Delivery) error {
	if d.Payload != nil { // the path and the headers of a request are for functions
		d.Payload = &Payload{Body: d.Payload.Body, ContentType: d.Payload.ContentType}
	}
	for _, a := range d.Event.Attrs() {
		if a.Kind != bus.String {
			return s.typed.Deliver(ctx, d)
		}
	}
	return s.plain.Deliver(ctx, d)
}

// onward is an event with its hop counted.
func onward(e bus.Event) (bus.Event, error) {
	hops := Hops(e) + 1
	if hops > MaxHops {
		return e, Permanent(fmt.Errorf("%w: the event %q of type %q was handed on %d times and would be again: "+
			"look at which buses and rules send it where it came from", ErrLoop, e.ID(), e.Type(), hops-1))
	}
	counted, err := e.With(bus.Attr{Name: HopsAttribute, Value: strconv.Itoa(hops)})
	return counted, Permanent(err)
}

// DeliverBatch is BatchSink.DeliverBatch: one POST, and the fate of each event from
// the answer.
func (s *sluiceSink) DeliverBatch(ctx context.Context, ds []Delivery) ([]error, error) {
	failed := make([]error, len(ds))
	sent := make([]Delivery, 0, len(ds))
	places := make([]int, 0, len(ds)) // of sent in ds
	for i, d := range ds {
		if d.Event, failed[i] = onward(d.Event); failed[i] == nil {
			sent, places = append(sent, d), append(places, i)
		}
	}
	if len(sent) == 0 {
		return failed, nil
	}
	fates, err := s.post(ctx, sent)
	s.heard(err)
	if err != nil && len(sent) == len(ds) {
		return nil, err
	}
	for i, place := range places {
		if failed[place] = err; err == nil {
			failed[place] = fates[i]
		}
	}
	return failed, nil
}

// post publishes a batch. A non-nil error is about all of it.
func (s *sluiceSink) post(ctx context.Context, ds []Delivery) ([]error, error) {
	var answer []byte
	status := 0
	refused := s.plain.post(ctx, s.plain.newBatch(ctx, ds), func(res *http.Response) (err error) {
		status = res.StatusCode
		answer, err = io.ReadAll(io.LimitReader(res.Body, maxSluiceAnswer))
		return err
	})
	var e *Error
	if errors.As(refused, &e) {
		answer = e.Answer
	}
	fates, ok := fatesOf(s.plain.mask(answer), len(ds))
	switch {
	case !ok && refused != nil:
		return nil, refused
	case !ok:
		return nil, fmt.Errorf("the answer %d does not say what became of each event: check that url and path lead to where a Sluice takes events", status)
	}
	for i, fate := range fates {
		var one *Error
		if !errors.As(fate, &one) {
			continue
		}
		if e != nil {
			one.RetryAfter, one.NotBefore = e.RetryAfter, e.NotBefore
		}
		if one.Status == http.StatusRequestEntityTooLarge {
			// In a batch it is JSON, which may be larger than the event is.
			fates[i] = s.one(ctx, ds[i])
		}
	}
	return fates, nil
}

// fatesOf reads what became of each of n events. It is false for an answer that does
// not say.
func fatesOf(answer []byte, n int) ([]error, bool) {
	var a struct {
		Events []struct {
			Index  int    `json:"index"`
			OK     bool   `json:"ok"`
			Status int    `json:"status"`
			Error  string `json:"error"`
		} `json:"events"`
	}
	if json.Unmarshal(answer, &a) != nil || len(a.Events) != n {
		return nil, false
	}
	fates := make([]error, n)
	for i, item := range a.Events {
		switch {
		case item.Index != i || !item.OK && item.Status == 0:
			return nil, false
		case !item.OK:
			text := item.Error[:min(len(item.Error), maxTrouble)]
			fates[i] = &Error{Err: fmt.Errorf("answered %d: %s", item.Status, strings.ToValidUTF8(text, "")), Status: item.Status, Answer: []byte(item.Error)}
		}
	}
	return fates, true
}
