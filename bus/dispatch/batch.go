package dispatch

import (
	"context"
	"errors"
	"time"

	"sluice/config/value"
	"sluice/sinks"
)

// Batch says how many deliveries go into one attempt.
type Batch struct {
	Max   int            `yaml:"max" doc:"The most events in one request; 1 or nothing for no batches. What a transform makes of an event goes out by itself."`
	Bytes value.Bytes    `yaml:"bytes" doc:"The most bytes of events in one request."`
	Wait  value.Duration `yaml:"wait" doc:"How long an event waits for company."`
}

func (b Batch) on() bool { return b.Max > 1 }

// alone is the most deliveries that d may share an attempt with: half as many
// after each failure. So the event that makes a batch fail ends up alone, and
// those beside it are delivered.
func (b Batch) alone(d *delivery) int {
	return max(1, b.Max>>min(d.tried(), 30))
}

// alone is that of the batch, but that what a transform makes of an event goes out
// by itself: it may have a path and headers of its own.
func (l *lane) alone(b Batch, d *delivery) int {
	if l.d.shaped(d) {
		return 1
	}
	return b.alone(d)
}

// gather collects a batch that begins with d. It waits for company once, and only
// one worker of a lane does so at a time: the others would share out what comes.
func (l *lane) gather(conf *laneConf, d *delivery) []*delivery {
	b := conf.options.Batch
	batch, open := l.fill(b, []*delivery{d})
	if wait := time.Duration(b.Wait); wait > 0 && open {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		for waiting := true; waiting && open; {
			select {
			case <-timer.C:
				waiting = false
			case <-l.company:
			case <-l.d.intake.Done():
				waiting = false
			}
			batch, open = l.fill(b, batch)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering = false
	l.dispatch(time.Now())
	return batch
}

// fill adds what is ready and of the batch's kind. It is open while more could
// come: not once it is full, or what is next does not go into it.
func (l *lane) fill(b Batch, batch []*delivery) (_ []*delivery, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := 0
	for _, d := range batch {
		size += d.event.Size()
	}
	most := l.alone(b, batch[0])
	open = true
	for len(batch) < most && !l.blocked(time.Now()) {
		d := l.queue.ready.peek()
		if d == nil {
			break
		}
		if open = l.alone(b, d) == most && (b.Bytes <= 0 || size+d.event.Size() <= int(b.Bytes)); !open {
			break
		}
		l.queue.pop()
		l.take(d)
		size += d.event.Size()
		batch = append(batch, d)
	}
	l.nudgeFeed()
	return batch, open && len(batch) < most
}

// sendBatch makes one attempt at several deliveries. When the sink will never
// take the whole of it, each half is tried by itself, down to the event that is
// the reason.
func (l *lane) sendBatch(conf *laneConf, batch []*delivery) {
	start := time.Now()
	if batch = l.endLeases(conf, batch, start); len(batch) == 0 {
		return
	}
	for _, d := range batch {
		if conf.removed {
			break // nothing is sent
		}
		var err error
		d.payload, err = l.d.shape(d)
		switch {
		case err == nil && d.payload == nil:
		case len(batch) > 1: // a reload gave the rule a transform just now
			for i := range batch {
				l.sendBatch(conf, batch[i:i+1])
			}
			return
		case err != nil:
			l.judge(conf, d, result{start: start, err: err}) // it says nothing about the sink
			return
		}
	}
	var answer sinks.Answer
	failed, err := l.deliverBatch(conf, batch, &answer)
	took := time.Since(start)
	batch[0].payload = nil // made anew for each attempt
	if err != nil && l.d.attempts.Err() != nil {
		for _, d := range batch {
			l.leave(d, nowhere)
		}
		return
	}
	if len(batch) > 1 && conf.divides(err) {
		l.sendBatch(conf, batch[:len(batch)/2])
		l.sendBatch(conf, batch[len(batch)/2:])
		return
	}
	watch := conf.telling(failed, len(batch))
	switch {
	case err != nil || len(batch) > 1:
	case answer.Lease > 0:
		if err = l.acceptEvents(conf, batch[0], &answer); err != nil {
			watch = -1
			break
		}
		err = &leaseTaken{Duration: min(answer.Lease, time.Duration(conf.options.Lease))}
	default:
		if err = l.acceptAnswer(conf, batch[0], &answer, took); err != nil {
			watch = -1 // it says nothing about the sink
		}
	}
	var u unwritten
	for i, d := range batch {
		one := err
		if one == nil && i < len(failed) {
			one = failed[i]
		}
		l.decide(conf, d, result{start: start, took: took, err: one, sent: true, watch: i == watch}, &u)
	}
	l.write(conf, u)
}

// divides tells whether parts of a batch may fare better than all of it.
func (c *laneConf) divides(err error) bool {
	if err == nil {
		return false
	}
	var e *sinks.Error
	if errors.As(err, &e) && e.MayBeDone {
		return false // it would be done once more for each part that it is in
	}
	_, verdict := c.policy.Next(1, nil, 0, 0, err)
	return verdict == Rejected
}

// telling is which delivery of an attempt at n says how the sink is doing: the breaker
// and the pace see one attempt, whatever its size. A far side that has taken some of a
// batch works, whichever they are, unless it asked for fewer attempts; one that has
// failed at each of them does not.
func (c *laneConf) telling(failed []error, n int) int {
	taken, sickest := -1, -1
	for i, err := range failed[:min(len(failed), n)] {
		if err == nil {
			if taken < 0 {
				taken = i
			}
			continue
		}
		var e *sinks.Error
		status := 0
		if errors.As(err, &e) {
			status = e.Status
		}
		_, verdict := c.policy.Next(1, nil, 0, 0, err)
		switch h := healthOf(verdict, Attempt{Status: status}); {
		case h == busy:
			return i
		case h == sick && sickest < 0:
			sickest = i
		}
	}
	switch {
	case len(failed) < n: // nothing failed, or nothing is known of these alone
		return len(failed)
	case taken >= 0:
		return taken
	}
	return max(sickest, 0)
}

// endLeases gives back the deliveries that can be sent. The others have taken a
// lease, and they were due: its time is over.
func (l *lane) endLeases(conf *laneConf, batch []*delivery, now time.Time) (rest []*delivery) {
	for _, d := range batch {
		if d.leased.IsZero() || conf.removed {
			rest = append(rest, d)
			continue
		}
		l.leaseOver(d)
		l.judge(conf, d, result{start: now, err: errLeaseOver})
	}
	return rest
}

// leaseOver notes that the time of a lease is over.
func (l *lane) leaseOver(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d.leased = time.Time{}
}

func (l *lane) deliverBatch(conf *laneConf, batch []*delivery, answer *sinks.Answer) (failed []error, err error) {
	sink, ok := conf.sink.(sinks.BatchSink)
	if !ok || len(batch) == 1 && (!conf.options.Batch.on() || batch[0].payload != nil) {
		return nil, l.guard(conf, batch[0], func(ctx context.Context) (err error) {
			one := l.outgoing(batch[0])
			if r, ok := conf.sink.(sinks.Replier); ok {
				one.Ask = l.ask(conf, batch[0])
				*answer, err = r.DeliverReply(ctx, one)
				return err
			}
			return conf.sink.Deliver(ctx, one)
		})
	}
	ds := make([]sinks.Delivery, len(batch))
	for i, d := range batch {
		ds[i] = l.outgoing(d)
	}
	err = l.guard(conf, batch[0], func(ctx context.Context) error {
		failed, err = sink.DeliverBatch(ctx, ds)
		return err
	})
	return failed, err
}

func (l *lane) outgoing(d *delivery) sinks.Delivery {
	return sinks.Delivery{Event: d.event, ID: d.id, Rule: d.rule, Sink: l.name, Attempt: d.tried() + 1, Payload: d.payload}
}
