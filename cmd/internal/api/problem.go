package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/rules"
)

// problem is an answer that is no success (RFC 9457), as an error.
type problem struct {
	Type   string `json:"type"` // about:blank: the status says it all
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	header http.Header
}

func (p *problem) Error() string { return p.Detail }

// refuse is a problem that says what was wrong and what to do.
func refuse(status int, format string, args ...any) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// busy is a problem that goes away by itself.
func busy(status, after int, format string, args ...any) *problem {
	p := refuse(status, format, args...)
	p.header = http.Header{"Retry-After": {strconv.Itoa(after)}}
	return p
}

// problemOf is the answer to an error: what a caller can do something about is
// said, the rest stays in the log.
func problemOf(err error) (p *problem, internal bool) {
	var pattern *rules.PatternError
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p, false
	case errors.As(err, &pattern):
		return refuse(http.StatusBadRequest, "%s", pattern), false
	case errors.As(err, &large):
		return refuse(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", large.Limit), false
	}
	if p = eventProblem(err); p != nil {
		return p, false
	}
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return refuse(http.StatusNotFound, "%s", err), false
	case errors.Is(err, dispatch.ErrLease):
		return refuse(http.StatusUnauthorized, "%s: send the one that came with the delivery, as Sluice-Lease-Token", err), false
	case errors.Is(err, dispatch.ErrReceipt), errors.Is(err, dispatch.ErrOtherQueue):
		return refuse(http.StatusBadRequest, "%s", err), false
	case errors.Is(err, dispatch.ErrHeld):
		return refuse(http.StatusConflict, "%s", err), false
	case errors.Is(err, bus.ErrClosed):
		return busy(http.StatusServiceUnavailable, 2, "the bus is shutting down: ask again in a moment"), false
	case errors.Is(err, bus.ErrOverloaded):
		return busy(http.StatusServiceUnavailable, 1, "the bus is overloaded: ask again in a moment"), false
	case errors.Is(err, bus.ErrFull):
		return busy(http.StatusInsufficientStorage, 30, "the store is full: ask again when space was made"), false
	case errors.Is(err, bus.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return busy(http.StatusServiceUnavailable, 1, "the store does not answer: ask again in a moment"), true
	}
	if errors.Is(err, bus.ErrDamaged) {
		return refuse(http.StatusInternalServerError, "what is asked for cannot be read in the store any more: `sluice doctor` tells of it"), true
	}
	return refuse(http.StatusInternalServerError, "something is wrong with the bus: its log says what"), true
}

// eventProblem is the answer to what is wrong with events that were sent; nil for any
// other error.
func eventProblem(err error) *problem {
	var wrong *bus.AttributeError
	var media *bus.MediaTypeError
	var bad *bus.BadEvent
	switch {
	case errors.As(err, &media):
		return refuse(http.StatusUnsupportedMediaType, "%s", err)
	case errors.Is(err, bus.ErrTooMany):
		return refuse(http.StatusRequestEntityTooLarge, "%s: send fewer at once", err)
	case errors.Is(err, bus.ErrTooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "the event is %s: send a smaller one", bus.ErrTooLarge)
	case errors.As(err, &wrong), errors.As(err, &bad):
		return refuse(http.StatusBadRequest, "the event is not valid: %s", err)
	}
	return nil
}

// handler serves with a function that returns what went wrong.
func (a *api) handler(do func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := do(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there to read it
	}
	p, internal := problemOf(err)
	if internal {
		a.Log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	maps.Copy(w.Header(), p.header)
	writeAs(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, body any) error {
	writeAs(w, "application/json", status, body)
	return nil
}

func writeAs(w http.ResponseWriter, mediaType string, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		// Only times out of the years 0 to 9999 get here, and the door keeps them out.
		panic(fmt.Sprintf("api: %T has no JSON form: %v", body, err))
	}
	w.Header().Set("Content-Type", mediaType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // who hangs up has no use for an error
}
