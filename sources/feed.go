package sources

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

// feed publishes for a source that pulls from its upstream. While the bus does not
// take more it waits, which is the back-pressure: the source fetches nothing
// meanwhile.
type feed struct {
	env *Env
	pub bus.Publisher
}

// How long the bus is left alone that did not take events: longer each time.
const (
	feedFirst = 20 * time.Millisecond
	feedMax   = 5 * time.Second
)

// publish returns nil once every event is durable, or is a dead letter because
// it is larger than the store accepts; then the upstream may be told. The events
// are stored in their order, which a repetition keeps. It ends early only with
// ctx, and its error.
func (f feed) publish(ctx context.Context, events ...bus.Event) error {
	for wait := feedFirst; len(events) > 0; wait = min(2*wait, feedMax) {
		results, err := f.pub.Publish(ctx, events...)
		stored, cause := 0, error(nil)
		for stored < len(events) && cause == nil {
			if cause = faultOf(results, err, stored); errors.Is(cause, bus.ErrTooLarge) {
				cause = f.reject(ctx, tooLargeEvent(events[stored]))
			} else if cause == nil {
				f.env.observe(Accepted, 1)
			}
			if cause == nil {
				stored++
			}
		}
		events = events[stored:]
		if len(events) == 0 {
			break
		}
		if stored > 0 {
			wait = feedFirst
		}
		f.env.report(fmt.Errorf("the bus does not take events: %w", cause))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
	f.env.report(nil)
	return nil
}

// reject returns nil once the input is a durable dead letter. It ends early only
// with ctx, and its error.
func (f feed) reject(ctx context.Context, r Rejected) error {
	for wait := feedFirst; ; wait = min(2*wait, feedMax) {
		err := f.env.Reject(ctx, r)
		if err == nil {
			f.env.observe(Invalid, 1)
			return nil
		}
		f.env.report(fmt.Errorf("cannot make a dead letter of what is no event: %w", err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func tooLargeEvent(e bus.Event) Rejected {
	return Rejected{
		ID: e.ID(), Where: e.Source(), Reason: "the event is larger than the store accepts",
		ContentType: bus.TypeStructured, Data: e.AppendJSON(nil),
	}
}

// pause waits for between half of d and d, so that not all who wait come back at
// once, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sampleFaults is what is wrong with the settings of plain input: with the media type
// of its data, or with an attribute, as an event that was made with them tells.
func sampleFaults(contentType string, sample error) (faults value.Faults) {
	if contentType != "" && !strings.Contains(contentType, "/") {
		faults.Add("content_type", "%q is not a media type: write one such as application/json", contentType)
	}
	var attr *bus.AttributeError
	if errors.As(sample, &attr) {
		key := attr.Name
		if key == "datacontenttype" {
			key = "content_type"
		}
		faults.Add(key, "%s", attr.Msg)
	}
	return faults
}
