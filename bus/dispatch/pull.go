package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/bus"
	"sluice/sinks"
)

// A queue is a lane without workers. Whoever receives takes deliveries out of it by
// leases, so what waits, spills, is ordered, leased, redelivered and given up is all
// the same as for a sink that is sent to, and survives a restart as that does.

// DelayAttribute is the extension attribute that says, in seconds, how long after it
// was accepted an event is not seen in a queue.
const DelayAttribute = "delayseconds"

// Message is one delivery as a consumer of a queue gets it.
type Message struct {
	ID       string // of the delivery: the same each time
	Receipt  string // what acknowledges this receive of it
	Receives int    // how often it was received, this time included
	Rule     string
	Accepted time.Time
	Event    bus.Event // as the transform of the rule has made it
	Unshaped error     // of Peek: why that has no result, and Event is as it came; a receive makes it a dead letter
}

// MaxReceive is how many messages one call gets at most.
const MaxReceive = 10

// ErrReceipt is a receipt that no queue gave out.
var ErrReceipt = errors.New("the receipt is not one that a receive gave")

// pullPolicy is the policy of a queue: what fails is seen again at once.
func pullPolicy(p sinks.Pull) Policy {
	return Policy{MaxAttempts: p.MaxReceives, MaxAge: p.Retention, Multiplier: 1}
}

// queueNamed is the lane of a queue.
func (d *Dispatcher) queueNamed(name string) (*lane, error) {
	l := d.laneNamed(name)
	if l == nil || !l.pulled() {
		return nil, fmt.Errorf("queue %q: %w: GET /api/v1/queues lists them", name, bus.ErrNotFound)
	}
	return l, nil
}

func (l *lane) pulled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conf != nil && l.conf.pull != nil
}

// Receive gives up to most messages of a queue, which nobody else sees for as long
// as visibility says; 0 for what the queue says. It waits for the first one until
// ctx ends, and then gives none and no error. That the messages are taken is
// durable when it returns: a crash does not give them to somebody else.
func (d *Dispatcher) Receive(ctx context.Context, queue string, most int, visibility time.Duration) ([]Message, error) {
	if !d.calls.enter() {
		return nil, bus.ErrClosed
	}
	defer d.calls.leave()
	l, err := d.queueNamed(queue)
	if err != nil {
		return nil, err
	}
	for {
		taken := l.fetch(min(most, MaxReceive))
		if taken.conf == nil {
			return nil, fmt.Errorf("queue %q: %w", queue, bus.ErrNotFound)
		}
		some := taken.some()
		l.shape(&taken)
		messages := l.hand(taken, visibility)
		l.release(taken.conf)
		if len(messages) > 0 {
			return messages, nil
		}
		if some {
			continue // they were not to be seen now, or at all
		}
		select {
		case <-l.arrived:
		case <-taken.conf.current.Done(): // a reload may have made something else of the queue
			if d.intake.Err() != nil {
				return nil, bus.ErrClosed
			}
		case <-ctx.Done():
			return nil, nil
		case <-d.intake.Done():
			return nil, bus.ErrClosed
		}
	}
}

// fetched is what one look into a queue took out.
type fetched struct {
	conf    *laneConf
	ready   []*delivery
	events  []bus.Event     // what ready is given out as; see shape
	expired []*delivery     // their lease ran out
	delayed []*delivery     // not to be seen yet
	after   []time.Duration // when each of those is
}

func (f *fetched) some() bool { return len(f.ready)+len(f.expired)+len(f.delayed) > 0 }

// fetch takes up to most deliveries that are ready.
func (l *lane) fetch(most int) (f fetched) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf == nil || l.conf.pull == nil {
		return f
	}
	f.conf = l.conf
	l.conf.users++
	now := time.Now()
	for len(f.ready) < most && l.queue.runnable() > 0 && !l.blocked(now) {
		dv := l.queue.pop()
		l.take(dv)
		dv.state = done // its next record is being made
		switch after := l.unseen(dv); {
		case !dv.leased.IsZero():
			f.expired = append(f.expired, dv)
		case after > 0:
			f.delayed, f.after = append(f.delayed, dv), append(f.after, after)
		default:
			f.ready = append(f.ready, dv)
		}
	}
	l.dispatch(now) // there may be more, for somebody else
	return f
}

// shape makes of what is ready what the transforms of the rules say. What they have
// no result for is a dead letter.
func (l *lane) shape(f *fetched) {
	var over sync.WaitGroup
	kept := f.ready[:0]
	for _, dv := range f.ready {
		e, err := l.d.message(dv)
		if err != nil {
			over.Go(func() { l.judge(f.conf, dv, result{start: time.Now(), err: err}) })
			continue
		}
		kept, f.events = append(kept, dv), append(f.events, e)
	}
	f.ready = kept
	over.Wait()
}

// unseen is how long a delivery is not to be seen yet.
func (l *lane) unseen(dv *delivery) time.Duration {
	if dv.tried() > 0 {
		return 0
	}
	delay := l.conf.pull.Delay
	if text, ok := dv.event.Lookup(DelayAttribute); ok {
		if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
			delay = min(time.Duration(seconds)*time.Second, maxLease)
		}
	}
	return delay - l.d.now().Sub(dv.accepted)
}

// hand gives what was fetched its next place: each waits for the durable record of
// that, all of them together.
func (l *lane) hand(f fetched, visibility time.Duration) []Message {
	if visibility <= 0 {
		visibility = f.conf.pull.Visibility
	}
	var over sync.WaitGroup
	for _, dv := range f.expired {
		l.leaseOver(dv)
		over.Go(func() { l.judge(f.conf, dv, result{start: time.Now(), err: errLeaseOver}) })
	}
	waits := make([]wait, 0, len(f.ready)+len(f.delayed))
	for _, dv := range f.ready {
		waits = append(waits, wait{d: l.leasing(dv, visibility), after: visibility})
	}
	for i, dv := range f.delayed {
		waits = append(waits, wait{d: dv, after: f.after[i]})
	}
	if len(waits) > 0 {
		l.d.retries.schedule(l, waits...)
	}
	over.Wait()
	messages := make([]Message, 0, len(f.ready))
	for i, dv := range f.ready {
		if n := dv.tried() + 1; waits[i].kept {
			messages = append(messages, Message{
				ID: dv.id, Receipt: l.d.receipt(dv.id, n), Receives: n, Rule: dv.rule, Accepted: dv.accepted, Event: f.events[i],
			})
		}
	}
	return messages
}

// leasing gives a delivery to a consumer, but for the record of that.
func (l *lane) leasing(dv *delivery, visibility time.Duration) *delivery {
	a := Attempt{At: l.d.now(), Class: Class(&leaseTaken{Duration: visibility})}
	l.ending(dv, a, Leased, false)
	l.d.fates.outcome(dv, a, Leased, visibility, dv.tried()+1)
	l.d.history.outcome(dv, a, Leased, visibility, dv.tried()+1)
	l.mu.Lock()
	defer l.mu.Unlock()
	dv.leased = a.At
	return dv
}

// Peek gives up to most messages that are in memory and ready, without taking them.
func (d *Dispatcher) Peek(queue string, most int) ([]Message, error) {
	l, err := d.queueNamed(queue)
	if err != nil {
		return nil, err
	}
	waiting, messages := l.first(most)
	for i, dv := range waiting {
		messages[i].Event, messages[i].Unshaped = d.message(dv)
	}
	return messages, nil
}

// first are up to most deliveries that are ready, and messages of them without their
// events: those are made without the lock.
func (l *lane) first(most int) (waiting []*delivery, messages []Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue.ready.each(func(dv *delivery) bool {
		waiting = append(waiting, dv)
		messages = append(messages, Message{ID: dv.id, Receives: dv.tried(), Rule: dv.rule, Accepted: dv.accepted})
		return len(messages) < most
	})
	l.nudgeFeed()
	return waiting, messages
}

// receipt names one receive of a delivery.
func (d *Dispatcher) receipt(id string, n int) string {
	return id + "." + strconv.Itoa(n) + "." + d.leaseToken(id, n)
}

// lease is the delivery and the token in a receipt.
func (d *Dispatcher) readReceipt(receipt string) (id, token string, err error) {
	parts := strings.Split(receipt, ".")
	if len(parts) != 3 {
		return "", "", ErrReceipt
	}
	return parts[0], parts[2], nil
}

// Ack ends messages for good. The error of each receipt is nil once that is durable;
// bus.ErrNotFound is that of a message that others see again, or that was
// acknowledged before.
func (d *Dispatcher) Ack(ctx context.Context, receipts ...string) []error {
	return d.endAll(ctx, receipts, nil)
}

// Nack gives messages back: others see them after that time, which is at most
// MaxDelay. It counts as a failed attempt.
func (d *Dispatcher) Nack(ctx context.Context, after time.Duration, receipts ...string) []error {
	failure := errNacked
	if after > 0 {
		failure = sinks.NotBefore(errNacked, after)
	}
	return d.endAll(ctx, receipts, failure)
}

// errNacked is a message that a consumer gave back.
var errNacked = errors.New("the consumer gave the message back")

func (d *Dispatcher) endAll(ctx context.Context, receipts []string, failure error) []error {
	errs := make([]error, len(receipts))
	if !d.calls.enter() {
		return closedFor(errs)
	}
	defer d.calls.leave()
	var opened []*openedLease
	var places, busy []int
	for i, receipt := range receipts {
		o, err := d.openReceipt(ctx, receipt, false)
		switch errs[i] = err; {
		case err == nil:
			opened, places = append(opened, o), append(places, i)
		case errors.Is(err, errBusy):
			busy = append(busy, i)
		}
	}
	for i, err := range d.endLeases(ctx, failure, opened...) {
		errs[places[i]] = err
	}
	// Nobody waits with leases in hand that others may wait for.
	for _, i := range busy {
		o, err := d.openReceipt(ctx, receipts[i], true)
		if errs[i] = err; err == nil {
			errs[i] = d.endLeases(ctx, failure, o)[0]
		}
	}
	return errs
}

func (d *Dispatcher) openReceipt(ctx context.Context, receipt string, patient bool) (*openedLease, error) {
	id, token, err := d.readReceipt(receipt)
	if err != nil {
		return nil, err
	}
	return d.openLease(ctx, id, token, patient)
}

// CheckReceipts fails when a receipt is of another queue, or the queue is none: that is
// a mistake of who asks, and hides others. Whether a receipt is good it does not tell.
func (d *Dispatcher) CheckReceipts(queue string, receipts ...string) error {
	held := false // a queue that a reload has taken out may have messages in hand, and come back
	for i, receipt := range receipts {
		id, _, err := d.readReceipt(receipt)
		if err != nil {
			continue
		}
		switch sink := d.LeaseSink(id); sink {
		case "":
		case queue:
			held = true
		default:
			return fmt.Errorf("receipts[%d]: %w %q: name the queue that the message was received from", i, ErrOtherQueue, queue)
		}
	}
	if held {
		return nil
	}
	_, err := d.queueNamed(queue)
	return err
}

// ErrOtherQueue is a receipt of another queue than was named.
var ErrOtherQueue = errors.New("the receipt is not of the queue")

// closedFor says for each of some receipts that the bus is stopping.
func closedFor(errs []error) []error {
	for i := range errs {
		errs[i] = bus.ErrClosed
	}
	return errs
}

// Extend lets a consumer have messages for longer, counted from now.
func (d *Dispatcher) Extend(ctx context.Context, visibility time.Duration, receipts ...string) []error {
	errs := make([]error, len(receipts))
	if !d.calls.enter() {
		return closedFor(errs)
	}
	defer d.calls.leave()
	var all sync.WaitGroup
	for i, receipt := range receipts {
		id, token, err := d.readReceipt(receipt)
		if errs[i] = err; err == nil {
			all.Go(func() { _, errs[i] = d.extendLease(ctx, id, token, visibility) })
		}
	}
	all.Wait()
	return errs
}

// Purge discards every message that is ready in a queue now, and returns how many.
// What consumers have at the moment, what waits behind that in its group, and what
// is not to be seen yet, stays.
func (d *Dispatcher) Purge(ctx context.Context, queue string) (discarded int, err error) {
	if !d.calls.enter() {
		return 0, bus.ErrClosed
	}
	defer d.calls.leave()
	l, err := d.queueNamed(queue)
	if err != nil {
		return 0, err
	}
	defer l.wake() // somebody may have missed the message that this has woken up for
	for until := d.now(); ctx.Err() == nil; {
		f := l.fetch(purgeBatch)
		if f.conf == nil {
			return discarded, fmt.Errorf("queue %q: %w", queue, bus.ErrNotFound)
		}
		n := l.discard(&f, until)
		l.hand(fetched{conf: f.conf, expired: f.expired, delayed: f.delayed, after: f.after}, 0)
		l.release(f.conf)
		discarded += n
		if n > 0 || len(f.expired)+len(f.delayed) > 0 {
			continue
		}
		coming, held := l.coming()
		if held {
			return discarded, fmt.Errorf("queue %q: %w", queue, ErrHeld)
		}
		if !coming || len(f.ready) > 0 {
			break // what is left came after, or somebody has to do something first
		}
		if d.intake.Err() != nil {
			return discarded, bus.ErrClosed
		}
		l.await(ctx)
	}
	return discarded, errors.Join(ctx.Err(), d.commitNow(ctx))
}

// ErrHeld is a queue that is paused: nothing of it is read.
var ErrHeld = errors.New("it is paused: `sluice sinks resume` lets it go on")

// await waits for a message, or a while: what is read may all be behind others.
func (l *lane) await(ctx context.Context) {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-l.arrived:
	case <-t.C:
	case <-l.d.intake.Done():
	case <-ctx.Done():
	}
}

const purgeBatch = 256

// discard ends what was accepted before a time; the rest goes back to the queue.
func (l *lane) discard(f *fetched, until time.Time) (n int) {
	for _, dv := range f.ready {
		if dv.accepted.After(until) {
			l.giveBack(dv)
			continue
		}
		l.judge(f.conf, dv, result{start: time.Now(), err: errDiscarded})
		n++
	}
	return n
}

// coming tells whether messages may get ready without anybody's doing. Those that
// wait for a lease in their group do not. held says that the lane is paused.
func (l *lane) coming() (coming, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	coming = l.queue.runnable() > 0 || l.behind() || l.spilling > 0 || len(l.closing) > 0 || l.queue.reading()
	return coming, l.hold != nil
}

// commitNow saves the ledgers and waits for that. Those who call it meanwhile share
// the next save.
func (d *Dispatcher) commitNow(ctx context.Context) error {
	done := make(chan error, 1)
	d.saving.mu.Lock()
	d.saving.waiting = append(d.saving.waiting, done)
	first := !d.saving.running
	d.saving.running = true
	d.saving.mu.Unlock()
	if first {
		go d.save()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: gave up waiting: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
}

// saving are those who wait for a save of the ledgers.
type saving struct {
	mu      sync.Mutex
	running bool
	waiting []chan error
}

// save saves the ledgers until nobody waits.
func (d *Dispatcher) save() {
	for {
		d.saving.mu.Lock()
		group := d.saving.waiting
		d.saving.waiting = nil
		d.saving.running = len(group) > 0
		d.saving.mu.Unlock()
		if len(group) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), savePatience)
		err := d.commit(ctx)
		cancel()
		for _, done := range group {
			done <- err
		}
	}
}

// savePatience is how long one save may take.
const savePatience = 10 * time.Second
