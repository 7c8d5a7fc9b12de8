package sinks

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"sluice/bus"
)

// maxReply is how large the events in an answer may be together.
const maxReply = 1 << 20

// Of a request that may be answered by a lease, and of that answer.
const (
	headerLease      = "Sluice-Lease"       // of the answer: how much time it wants, such as 10m
	headerCallback   = "Sluice-Callback"    // where the end of the job is told
	headerLeaseToken = "Sluice-Lease-Token" // what is shown there
)

// DeliverReply is Replier.DeliverReply. An answer in the 2xx range that is a
// CloudEvent, in binary, structured or batch mode, holds events. One with status
// 202 and Sluice-Lease asks for a lease.
func (s *httpSink) DeliverReply(ctx context.Context, d Delivery) (a Answer, err error) {
	err = s.attempt(ctx, d, func(res *http.Response) error {
		a.Status, a.ContentType = res.StatusCode, res.Header.Get("Content-Type")
		if lease := s.leaseIn(res, d.Ask.Lease != nil, "write lease beside http, with the most time that it may take"); lease != "" {
			if a.Lease, err = leaseOf(lease); err != nil {
				return Permanent(err)
			}
		}
		events := d.Ask.Events && HoldsEvents(res.Header)
		if !events && !d.Ask.Body {
			defer hurry(res.Body)()
			_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, int64(s.maxAnswer)))
			return nil
		}
		// The body counts now: an answer of which a part is missing is none.
		body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
		if err != nil {
			return fmt.Errorf("reading the answer of %s: %w", s.where, err)
		}
		if d.Ask.Body {
			a.Body = start(s.mask(body))
		}
		if events {
			of := d.ID
			if a.Lease > 0 { // the end of the job has a reply too, which is another event
				of += "-lease"
			}
			if a.Events, err = ReadEvents(d.Sink, of, res.Header, body); err != nil {
				// Another attempt does not mend that.
				err = Permanent(fmt.Errorf("the function answered with an event that is not valid: %w", err))
			}
		}
		return err
	})
	return a, err
}

// start is as much of an answer's body as is kept. Secrets are taken out before: half
// of one would not be found.
func start(body []byte) []byte { return body[:min(len(body), MaxAnswerBody)] }

// leaseIn is the lease that an answer asks for. Where the sink gives none, the delivery
// counts as made, and how the job ends can never be told: the first time the log says
// so, with what to do.
func (s *httpSink) leaseIn(res *http.Response, given bool, hint string) string {
	lease := res.Header.Get(headerLease)
	if lease == "" || res.StatusCode != http.StatusAccepted {
		return ""
	}
	if given {
		return lease
	}
	s.leaseless.Do(func() {
		s.log.Warn("the function asks for a lease, and the sink gives none: its deliveries count as made, and a job that fails is not done again: "+hint, "host", s.where)
	})
	return ""
}

// leaseOf reads the header Sluice-Lease.
func leaseOf(text string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.TrimSpace(text))
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("the answer's %s is %.64q, which is no time: write one such as 10m", headerLease, text)
	}
	return d, nil
}

// cloudEvents begins the media types of events.
const cloudEvents = "application/cloudevents"

// HoldsEvents tells whether an answer is one event or several.
func HoldsEvents(h http.Header) bool {
	if h.Get("Ce-Specversion") != "" || h.Get("Ce-Type") != "" {
		return true
	}
	mediaType := h.Get("Content-Type")
	return len(mediaType) >= len(cloudEvents) && strings.EqualFold(mediaType[:len(cloudEvents)], cloudEvents)
}

// ReadEvents reads the events of an answer to the delivery of a sink. One in binary
// mode may leave out what says nothing new: specversion, source (then that of the
// sink) and id (then one that follows from the delivery, and stays the same when
// the answer is repeated). h is changed.
func ReadEvents(sink, delivery string, h http.Header, body []byte) (events []bus.Event, err error) {
	if len(body) > maxReply {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxReply)
	}
	if mode, err := bus.ModeOf(h); err == nil && mode == bus.Batch {
		var first error
		err := bus.ParseBatch(body, maxReplies, func(i int, e bus.Event, err error) {
			if err != nil && first == nil {
				first = fmt.Errorf("event %d: %w", i, err)
			}
			events = append(events, e)
		})
		if err == nil {
			err = first
		}
		return events, err
	}
	if h.Get("Ce-Type") != "" {
		for _, standard := range [][2]string{
			{"Ce-Specversion", bus.SpecVersion}, {"Ce-Source", "/sinks/" + sink}, {"Ce-Id", delivery + "-reply"},
		} {
			if h.Get(standard[0]) == "" {
				h.Set(standard[0], standard[1])
			}
		}
	}
	e, err := bus.FromHTTP(h, body)
	return []bus.Event{e}, err
}

// maxReplies is how many events one answer may hold.
const maxReplies = 1000
