package sinks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"sluice/bus"
	"sluice/config/aws"
)

// The headers of the Invoke API.
const (
	headerInvocation    = "X-Amz-Invocation-Type"
	headerContext       = "X-Amz-Client-Context"
	headerFunctionError = "X-Amz-Function-Error"
	headerErrorType     = "X-Amzn-Errortype"
)

// Deliver is Sink.Deliver.
func (s *lambdaSink) Deliver(ctx context.Context, d Delivery) error {
	_, err := s.deliver(ctx, d, false)
	return err
}

// DeliverReply is Replier.DeliverReply. An answer of the function that is a JSON
// CloudEvent, or a list of them, holds events.
func (s *lambdaSink) DeliverReply(ctx context.Context, d Delivery) (a Answer, err error) {
	body, err := s.deliver(ctx, d, d.Ask.Events || d.Ask.Body)
	if err != nil || !s.wait {
		return Answer{Status: http.StatusAccepted}, err
	}
	a.Status = http.StatusOK
	if d.Ask.Body {
		a.ContentType, a.Body = "application/json", start(s.http.mask(body))
	}
	if mediaType := eventsIn(body); d.Ask.Events && mediaType != "" {
		a.Events, err = ReadEvents(d.Sink, d.ID, http.Header{"Content-Type": {mediaType}}, body)
		if err != nil {
			return a, Permanent(fmt.Errorf("the function answered with an event that is not valid: %w", err))
		}
	}
	return a, nil
}

// eventsIn is the media type of an answer that claims to be a CloudEvent, or a list of
// them; "" for others.
func eventsIn(body []byte) string {
	body = bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(body) == 0:
	case body[0] == '{' && gjson.GetBytes(body, "specversion").Type == gjson.String:
		return bus.TypeStructured
	case body[0] == '[' && gjson.GetBytes(body, "0.specversion").Type == gjson.String:
		return bus.TypeBatch
	}
	return ""
}

// DeliverBatch is BatchSink.DeliverBatch: one invocation. An answer that is an object
// with batchItemFailures names the events that failed by their id.
func (s *lambdaSink) DeliverBatch(ctx context.Context, ds []Delivery) ([]error, error) {
	answer, err := s.invoke(ctx, s.batch(ds), "", readBatchAnswer)
	if err != nil || !s.wait {
		return nil, err
	}
	return partial(s.http.mask(answer), ds)
}

// deliver invokes the function with one delivery. The answer is nil unless it is wanted.
func (s *lambdaSink) deliver(ctx context.Context, d Delivery, wanted bool) ([]byte, error) {
	body, err := s.one(d)
	if err != nil {
		return nil, err
	}
	var read answerReader
	if wanted {
		read = readReply
	}
	return s.invoke(ctx, body, clientContext(d), read)
}

// answerReader reads an answer, or the first most bytes of it and one more.
type answerReader func(body io.Reader, most int) ([]byte, error)

func readReply(body io.Reader, most int) ([]byte, error) {
	return io.ReadAll(io.LimitReader(body, int64(most)+1))
}

// invoke calls the function, and returns its answer as read gives it; without read it
// is not wanted.
func (s *lambdaSink) invoke(ctx context.Context, payload []byte, about string, read answerReader) ([]byte, error) {
	req := s.http.request.WithContext(ctx)
	req.Header = http.Header{
		"User-Agent": {userAgent()}, "Content-Type": {"application/json"}, headerInvocation: {"Event"},
	}
	if s.wait {
		req.Header[headerInvocation] = []string{"RequestResponse"}
		if about != "" {
			req.Header[headerContext] = []string{about}
		}
	}
	res, err := s.http.send(ctx, &outgoing{Request: req, body: payload})
	if err != nil {
		return nil, unreachable(err)
	}
	failed := res.Header.Get(headerFunctionError)
	switch good := res.StatusCode >= 200 && res.StatusCode < 300; {
	case !good:
		return nil, s.refused(res)
	case failed == "" && read == nil:
		s.http.drain(res)
		return nil, nil
	}
	defer res.Body.Close() //nolint:errcheck // nothing is lost: the answer was read
	// The body counts now: an answer of which a part is missing is none.
	if failed != "" {
		read = readReply
	}
	answer, err := read(res.Body, maxReply)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the answer of %s: %w", s.http.where, err)
	case failed != "":
		return nil, s.failed(failed, answer)
	}
	return answer, nil
}

// functionAnswer is how much is kept of the answer of a function that failed.
const functionAnswer = 4 << 10

// failed is the error of a function that was called and failed. To the bus it is what
// a function that answers 500 is.
func (s *lambdaSink) failed(how string, answer []byte) error {
	answer = s.http.mask(answer)
	text := strings.Trim(gjson.GetBytes(answer, "errorType").String()+": "+gjson.GetBytes(answer, "errorMessage").String(), ": ")
	if text == "" {
		text = "it says nothing about why"
	}
	return &Error{
		Err:    fmt.Errorf("the function %s failed (%s): %s", s.function, shorten(how), shorten(text)),
		Status: http.StatusInternalServerError, Answer: answer[:min(len(answer), functionAnswer)],
	}
}

// refused is the error of an answer of Lambda itself.
func (s *lambdaSink) refused(res *http.Response) error {
	defer res.Body.Close() //nolint:errcheck // nothing is lost: the status decides
	defer hurry(res.Body)()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, int64(s.http.maxAnswer))) // as much as there is
	answer = s.http.mask(answer)
	code, _, _ := strings.Cut(res.Header.Get(headerErrorType), ":")
	if code == "" {
		code = gjson.GetBytes(answer, "__type").String()
	}
	err := fmt.Errorf("invoke %s: answered %d", s.function, res.StatusCode)
	message := gjson.GetBytes(answer, "Message").String() + gjson.GetBytes(answer, "message").String()
	if text := strings.Trim(shorten(code)+": "+shorten(message), ": "); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	_, advice := aws.Code(code)
	if advice == "" && (res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden) {
		advice = "check credentials and region, whether they may call lambda:InvokeFunction, and the clock of this machine"
	}
	if advice != "" {
		err = fmt.Errorf("%w (%s)", err, advice)
	}
	return asked(&Error{Err: err, Status: res.StatusCode, Answer: answer}, res.Header, time.Now())
}
