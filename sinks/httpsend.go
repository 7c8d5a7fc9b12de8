package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"
)

// outgoing is a request on its way, with what signatures are made of.
type outgoing struct {
	*http.Request
	id   string // of the delivery, or of the batch
	body []byte
	// message is all of the request, when it is there: nothing is added to it, and
	// Request is what all requests have in common.
	message *message
}

// post sends a request, and gives a good answer to read, which may be nil. It
// returns the error of that, or the one that an answer or its absence means.
func (s *httpSink) post(ctx context.Context, o *outgoing, read func(*http.Response) error) error {
	s.warmer.touch()
	defer s.warmer.touch()
	var word *given
	if s.consent != nil {
		var err error
		if word, err = s.consent.obtain(ctx); err != nil {
			return unreachable(err)
		}
	}
	if s.signer != nil {
		s.signer.put(o, time.Now()) // after all waiting: the far side looks at the time
	}
	res, err := s.send(ctx, o)
	if err != nil {
		if s.consent != nil && ctx.Err() == nil {
			s.consent.given.drop(word) // the connection is lost: who answers next may be another
		}
		return unreachable(err)
	}
	return s.verdict(res, read)
}

// unreachable is err, for good when it leads to an address that is not to be
// reached.
func unreachable(err error) error {
	var refused *refusedAddress
	if errors.As(err, &refused) {
		return Permanent(err)
	}
	return err
}

// send sends a request with the sink's credentials, and once more with fresh ones
// when the far side did not take those.
func (s *httpSink) send(ctx context.Context, o *outgoing) (*http.Response, error) {
	for renewed := false; ; renewed = true {
		if s.credential != nil {
			if err := s.credential.put(o.Request, o.body); err != nil {
				return nil, err
			}
		}
		res, err := s.carry(ctx, o)
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
				err = fmt.Errorf("%w: %w", cause, err)
			}
			return nil, fmt.Errorf("%s to %s: %w", o.Method, s.where, s.explain(err))
		}
		if s.credential == nil || !s.credential.judged(o.Request, res.StatusCode) || renewed {
			return res, nil
		}
		s.drain(res)
		o.Request = o.Clone(ctx) // what the transport still holds stays as it is
	}
}

func (s *httpSink) carry(ctx context.Context, o *outgoing) (*http.Response, error) {
	if o.message != nil {
		return s.wire.send(ctx, o.message, nil)
	}
	return s.transport.carry(o.Request, o.body)
}

// bare sends a request without an event.
func (s *httpSink) bare(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	req := s.request.WithContext(ctx)
	req.Method = method
	if path != "" {
		target := *req.URL
		target.Path, target.RawPath, target.RawQuery = path, "", ""
		req.URL = &target
	}
	req.Header = maps.Clone(s.header)
	maps.Copy(req.Header, header)
	return s.send(ctx, &outgoing{Request: req})
}

// askConsent is the question of consent.
func (s *httpSink) askConsent(ctx context.Context, header http.Header) (status int, answer http.Header, err error) {
	res, err := s.bare(ctx, http.MethodOptions, "", header)
	if err != nil {
		return 0, nil, err
	}
	s.drain(res)
	return res.StatusCode, res.Header, nil
}

// drain reads what is left of a short answer, so that its connection is fit for the
// next request.
func (s *httpSink) drain(res *http.Response) {
	defer res.Body.Close() //nolint:errcheck // nothing is lost
	defer hurry(res.Body)()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, int64(s.maxAnswer)))
}
