package dispatch

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
)

// publisher is the way in for one source.
type publisher struct {
	d        *Dispatcher
	source   string
	accepted prometheus.Counter
}

// Publisher is the way in for a source; its name is the label under which what
// it publishes is counted.
func (d *Dispatcher) Publisher(source string) bus.Publisher {
	return &publisher{d: d, source: source, accepted: d.metrics.accepted.WithLabelValues(source)}
}

// call is one Publish that waits for its records.
type call struct {
	results []bus.Result
	mu      sync.Mutex
	left    int
	stored  int
	done    chan struct{}
}

func (p *publisher) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	if len(events) == 0 {
		return nil, nil
	}
	c := &call{results: make([]bus.Result, len(events)), left: len(events), done: make(chan struct{})}
	writes := make([]write, len(events))
	for i := range events {
		writes[i].record = events[i].AppendRecord(make([]byte, 0, events[i].Size()+16))
		writes[i].done = func(pos bus.Position, _ int, err error) { p.stored(c, i, pos, err) }
	}
	if err := p.d.eventWriter.submit(writes...); err != nil {
		p.refuse(err, len(events))
		return c.fail(err), err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return c.abandon(ctx)
	}
	if c.stored == 0 {
		return c.results, c.results[0].Err
	}
	return c.results, nil
}

// stored hears what became of one event. It counts even when the caller has
// given up waiting: the event is in the log.
func (p *publisher) stored(c *call, i int, pos bus.Position, err error) {
	if err == nil {
		p.accepted.Inc()
	} else {
		p.refuse(err, 1)
	}
	c.finish(i, pos, err)
}

func (p *publisher) refuse(err error, events int) {
	p.d.metrics.refused.WithLabelValues(p.source, refusal(err)).Add(float64(events))
}

func (c *call) finish(i int, pos bus.Position, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results[i] = bus.Result{Position: pos, Err: err}
	if err == nil {
		c.stored++
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

func (c *call) fail(err error) []bus.Result {
	for i := range c.results {
		c.results[i].Err = err
	}
	return c.results
}

// abandon answers for a caller that waits no longer. The results belong to the
// writer until it is done with them, so the answer is a slice of its own.
func (c *call) abandon(ctx context.Context) ([]bus.Result, error) {
	err := fmt.Errorf("%w: gave up waiting, the events may be stored: %w", bus.ErrUnavailable, context.Cause(ctx))
	gone := &call{results: make([]bus.Result, len(c.results))}
	return gone.fail(err), err
}
