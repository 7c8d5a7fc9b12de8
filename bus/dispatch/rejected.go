package dispatch

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/bus"
)

// SourceOf is the source whose dead letters are kept under a key of DEADLETTERS; ok is
// false for a key that is the name of a sink.
func SourceOf(key string) (source string, ok bool) { return strings.CutPrefix(key, sourceKey) }

// sourceKey begins the keys of dead letters that came from a source and not from a
// sink. No sink can be called so.
const sourceKey = "source:"

// Reject makes a dead letter of input that cannot become an event. e is a wrapper
// around its raw bytes, which a source gives the same id when it gets the input
// again. It returns nil once the dead letter is durable.
func (d *Dispatcher) Reject(ctx context.Context, source string, e bus.Event, why string) error {
	now := time.Now()
	m := meta{
		ID: deliveryID(e, "", sourceKey+source, ""), Accepted: now, Died: now,
		Reason: Malformed.String(), Config: d.Version(),
		Attempts: []Attempt{{At: now, Class: Malformed.String(), Error: why[:min(len(why), maxError)]}},
	}
	durable := make(chan error, 1)
	key := sourceKey + source
	err := d.deadWriter.submit(write{key: key, record: appendDelivery(nil, &m, e), done: func(_ bus.Position, _ int, err error) {
		if err == nil {
			d.dead.count(key, 1)
		}
		durable <- err
	}})
	if err != nil {
		return err
	}
	select {
	case err = <-durable:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: gave up waiting for the dead letter: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
}

// Rejections is how many dead letters of a source there are.
func (d *Dispatcher) Rejections(source string) int { return d.dead.total(sourceKey + source) }
