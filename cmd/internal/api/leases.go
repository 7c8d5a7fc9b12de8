package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"sluice/bus/dispatch"
	"sluice/config/value"
	"sluice/sinks"
)

// A function that took a lease says here how its job ended. It shows the token that
// came with the delivery; no other is needed.

// leaseToken is the token in Sluice-Lease-Token or Authorization: Bearer.
func leaseToken(r *http.Request) string {
	if token := r.Header.Get("Sluice-Lease-Token"); token != "" {
		return token
	}
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token)
}

// extendLease gives a job more time.
func (a *api) extendLease(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		For string `json:"for"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	more, err := value.ParseDuration(body.For)
	if err != nil || more <= 0 {
		return refuse(http.StatusBadRequest, `for: %q is no time: write one such as "10m"`, body.For)
	}
	granted, err := a.Bus.ExtendLease(r.Context(), r.PathValue("id"), leaseToken(r), time.Duration(more))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"seconds": seconds(granted)})
}

// completeLease ends a job that was done. A body that is a CloudEvent, in any mode,
// is the reply; of any other, the start is kept for on_success.
func (a *api) completeLease(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r, replyBytes)
	if err != nil {
		return err
	}
	answer := sinks.Answer{
		Status: http.StatusOK, ContentType: r.Header.Get("Content-Type"), Body: body[:min(len(body), sinks.MaxAnswerBody)],
	}
	if sinks.HoldsEvents(r.Header) {
		if answer.Events, err = sinks.ReadEvents(a.Bus.LeaseSink(r.PathValue("id")), r.PathValue("id"), r.Header, body); err != nil {
			return refuse(http.StatusBadRequest, "the reply is no CloudEvent: %s", err)
		}
	}
	return a.endLease(w, r, answer, nil)
}

// replyBytes is the largest body of a reply.
const replyBytes = 1 << 20

// maxFailure is how many bytes a function may say about a failure.
const maxFailure = 4 << 10

// failLease ends a job that failed.
func (a *api) failLease(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Error      string `json:"error"`
		Retry      *bool  `json:"retry"`
		RetryAfter string `json:"retry_after"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	if body.Error == "" {
		body.Error = "no reason given"
	}
	// No more is kept of it, and the log has no use for more.
	failure := errors.New("the function says that the job failed: " + body.Error[:min(len(body.Error), maxFailure)])
	if body.RetryAfter != "" {
		after, err := duration("retry_after", body.RetryAfter, dispatch.MaxDelay)
		if err != nil {
			return err
		}
		failure = sinks.NotBefore(failure, after)
	}
	if body.Retry != nil && !*body.Retry {
		failure = sinks.Permanent(failure)
	}
	return a.endLease(w, r, sinks.Answer{}, failure)
}

func (a *api) endLease(w http.ResponseWriter, r *http.Request, answer sinks.Answer, failure error) error {
	// Who asked may hang up: what has begun is ended.
	err := a.Bus.EndLease(context.WithoutCancel(r.Context()), r.PathValue("id"), leaseToken(r), answer, failure)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]bool{"ended": true})
}
