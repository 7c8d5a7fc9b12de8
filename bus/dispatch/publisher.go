package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
)

// publisher is the way in for one source.
type publisher struct {
	d            *Dispatcher
	source       string
	accepted     prometheus.Counter
	deduplicated prometheus.Counter
	records      sync.Pool // *[]byte, for the records of one call
}

// Publisher is the way in for a source; its name is the label under which what
// it publishes is counted.
func (d *Dispatcher) Publisher(source string) bus.Publisher {
	return &publisher{
		d: d, source: source,
		accepted:     d.metrics.accepted.WithLabelValues(source),
		deduplicated: d.metrics.deduplicated.WithLabelValues(source),
		records:      sync.Pool{New: func() any { return new([]byte) }},
	}
}

const (
	// recordSlack is about what the form of a record adds to the size of its event.
	recordSlack = 48
	// keptRecords is the largest memory for records that is used again.
	keptRecords = 1 << 20
)

// call is one Publish that waits for its records.
type call struct {
	results []bus.Result
	mu      sync.Mutex
	left    int
	stored  int
	cause   error // why the rest of the call must not be stored
	done    chan struct{}
}

func (p *publisher) Publish(ctx context.Context, events ...bus.Event) ([]bus.Result, error) {
	if len(events) == 0 {
		return nil, nil
	}
	c := &call{results: make([]bus.Result, len(events)), left: len(events), done: make(chan struct{})}
	writes := make([]write, 0, len(events))
	size := 0
	for i := range events {
		size += events[i].Size() + recordSlack
	}
	buffer := p.records.Get().(*[]byte)
	records := slices.Grow((*buffer)[:0], size) // one piece for all of them
	var broken func() bool
	if len(events) > 1 {
		broken = c.broken
	}
	for i := range events {
		store := func(pos bus.Position, _ int, err error) { p.stored(c, i, pos, err) }
		if p.d.dedup != nil {
			if store = p.claim(c, i, events[i]); store == nil {
				continue
			}
		}
		from := len(records)
		records = events[i].AppendRecord(records)
		writes = append(writes, write{record: records[from:len(records):len(records)], done: store, skip: broken})
	}
	if len(writes) > 0 {
		if err := p.d.eventWriter.submit(writes...); err != nil {
			for _, w := range writes {
				w.done(bus.Position{}, 0, err)
			}
		}
	}
	if gone := ctx.Done(); gone == nil {
		<-c.done // the writer answers every write
	} else {
		select {
		case <-c.done:
		case <-gone:
			return c.abandon(ctx) // the writer still reads the records
		}
	}
	if *buffer = records; cap(records) <= keptRecords {
		p.records.Put(buffer)
	}
	if c.stored == 0 {
		return c.results, c.results[0].Err
	}
	return c.results, nil
}

// claim asks for an event whether it is new, and gives what to call once it is
// stored. Nil means that it was published before: that is its result, now or when
// the publish that stores it has ended.
func (p *publisher) claim(c *call, i int, e bus.Event) func(bus.Position, int, error) {
	d := p.d.dedup
	sum := d.sum(e)
	known, wait, fresh := d.claim(sum, time.Now())
	switch {
	case fresh:
		return func(pos bus.Position, _ int, err error) {
			d.resolve(sum, pos, err, time.Now())
			p.stored(c, i, pos, err)
		}
	case wait != nil:
		go func() {
			<-wait.done // the writer answers every write
			if wait.err != nil {
				p.refuse(wait.err, 1)
				c.finish(i, bus.Result{Err: wait.err})
				return
			}
			p.repeated(c, i, wait.pos)
		}()
	default:
		p.repeated(c, i, known)
	}
	return nil
}

func (p *publisher) repeated(c *call, i int, pos bus.Position) {
	p.deduplicated.Inc()
	c.finish(i, bus.Result{Position: pos, Deduplicated: true})
}

// stored hears what became of one event. It counts even when the caller has
// given up waiting: the event is in the log.
func (p *publisher) stored(c *call, i int, pos bus.Position, err error) {
	if err == nil {
		p.accepted.Inc()
	} else {
		p.refuse(err, 1)
	}
	c.finish(i, bus.Result{Position: pos, Err: err})
}

func (p *publisher) refuse(err error, events int) {
	p.d.metrics.refused.WithLabelValues(p.source, refusal(err)).Add(float64(events))
}

// broken tells that an event of the call was not stored although it could have
// been: those after it are not stored either, so that whoever sends them again,
// from the first that failed, keeps their order.
func (c *call) broken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cause != nil
}

func (c *call) finish(i int, r bus.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Err == nil:
		c.stored++
	case c.cause != nil:
		r.Err = c.cause
	case !errors.Is(r.Err, bus.ErrTooLarge):
		c.cause = r.Err
	}
	c.results[i] = r
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
