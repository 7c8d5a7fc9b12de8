package dispatch

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"sluice/bus"
	"sluice/sinks"
)

// A sink that needs longer than an attempt may take answers with a lease: the
// delivery waits among the retries, in a record of its own, until the sink says
// how the job ended. It may ask for more time meanwhile. When the time is over
// without a word, that was a failed attempt like any other. All of it survives a
// restart, the tokens too.

// leaseID is the id of a delivery that has taken a lease, or "".
func (d *delivery) leaseID() string {
	if d.leased.IsZero() {
		return ""
	}
	return d.id
}

// leaseTaken is the answer of a sink that has taken a lease: not a failure, and
// not the end.
type leaseTaken struct {
	time.Duration
	kept bool // set by judge: the delivery waits for the end of the job
}

func (e *leaseTaken) Error() string { return "took a lease of " + e.String() }

// errLeaseOver is a lease of which nothing was heard.
var errLeaseOver = errors.New("the sink took a lease and did not say in time how the job ended")

// ErrLease is the answer to a token that is not that of the lease.
var ErrLease = errors.New("the token is not that of this lease")

// leases are the deliveries that wait for the end of a job, by delivery id. An event
// that was published twice has two deliveries of one id. It is guarded by the mutex
// of the retries.
type leases struct {
	waiting map[string][]*retry
	away    map[string][]*away // what somebody is ending or extending at the moment
}

// away is a lease that is not in the list, and may be there again.
type away struct {
	try  int
	sink string
	back chan struct{} // closed when it is known what became of it
}

func newLeases() leases { return leases{map[string][]*retry{}, map[string][]*away{}} }

func (s *leases) put(w *retry) {
	if w.leased != "" {
		s.waiting[w.leased] = append(s.waiting[w.leased], w)
	}
}

func (s *leases) drop(w *retry) {
	if w.leased != "" {
		without(s.waiting, w.leased, w)
	}
}

// without takes one value out of the list of a key.
func without[T comparable](all map[string][]T, key string, one T) {
	left := slices.DeleteFunc(all[key], func(other T) bool { return other == one })
	if all[key] = left; len(left) == 0 {
		delete(all, key)
	}
}

// takeLease ends the wait of a lease, so that the caller alone goes on with it, or
// gives it back by again. done tells those who wait for what becomes of it. While
// somebody else has the lease, who is patient waits, and others get errBusy.
func (r *retries) takeLease(ctx context.Context, id, token string, patient bool) (w *retry, done func(), err error) {
	var gone *away
	for {
		var busy <-chan struct{}
		if w, gone, busy, err = r.pickLease(id, token); busy == nil {
			break
		}
		if !patient {
			return nil, nil, errBusy
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w: gave up waiting: %w", bus.ErrUnavailable, context.Cause(ctx))
		}
	}
	if err != nil {
		return nil, nil, err
	}
	done = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		without(r.leases.away, id, gone)
		close(gone.back)
	}
	if w.d != nil {
		return w, done, nil
	}
	d, err := r.load(ctx, w)
	if err != nil {
		r.again(w)
		done()
		return nil, nil, err
	}
	d.key, d.reserved = w.key, w.reserved
	w.d = d
	return w, done, nil
}

// errBusy is a lease that somebody else ends or extends at the moment.
var errBusy = errors.New("the lease is being changed")

// LeaseSink is the sink that took a lease; "" when there is none.
func (d *Dispatcher) LeaseSink(id string) string {
	d.retries.mu.Lock()
	defer d.retries.mu.Unlock()
	for _, w := range d.retries.leases.waiting[id] {
		return w.sink
	}
	for _, w := range d.retries.leases.away[id] { // a heartbeat, beside the end of the job
		return w.sink
	}
	return ""
}

// pickLease takes out the lease that a token is of, of several the one that ends
// first. busy says that somebody else has it: a heartbeat and the end of a job may
// come at the same time, and one must not make the other fail.
func (r *retries) pickLease(id, token string) (w *retry, gone *away, busy <-chan struct{}, err error) {
	is := func(try int) bool { return hmac.Equal([]byte(token), []byte(r.d.leaseToken(id, try))) }
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range r.leases.waiting[id] {
		if is(one.try) && (w == nil || one.due.Before(w.due)) {
			w = one
		}
	}
	if w != nil {
		r.remove(w)
		gone = &away{w.try, w.sink, make(chan struct{})}
		r.leases.away[id] = append(r.leases.away[id], gone)
		return w, gone, nil, nil
	}
	for _, one := range r.leases.away[id] {
		if is(one.try) {
			return nil, nil, one.back, nil
		}
	}
	if len(r.leases.waiting[id])+len(r.leases.away[id]) > 0 {
		return nil, nil, nil, ErrLease
	}
	if !r.d.retriesKnown.Load() {
		return nil, nil, nil, fmt.Errorf("lease %q: %w: those of before the restart are still being read: try again", id, bus.ErrUnavailable)
	}
	return nil, nil, nil, fmt.Errorf("lease %q: %w: it ended, ran out or never was", id, bus.ErrNotFound)
}

// leaseToken is what a sink shows that took a lease in its attempt try: nobody else
// can know it, it stays the same over restarts, and it ends with the lease.
func (d *Dispatcher) leaseToken(id string, try int) string {
	mac := hmac.New(sha256.New, d.leaseKey)
	mac.Write(strconv.AppendInt(nil, int64(try), 10))
	mac.Write([]byte("." + id))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// leaseKeyState is where the key of the tokens is kept.
const leaseKeyState = "lease-key"

// restoreLeaseKey reads the key of the tokens, or makes it.
func (d *Dispatcher) restoreLeaseKey(ctx context.Context) error {
	key, err := d.store.State(ctx, leaseKeyState)
	if errors.Is(err, bus.ErrDamaged) {
		d.log.Error("the key of the receipts cannot be read any more: those that were given out are good no longer, and their deliveries come again")
	}
	if errors.Is(err, bus.ErrNotFound) || errors.Is(err, bus.ErrDamaged) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // it never fails
		err = d.store.PutState(ctx, leaseKeyState, key)
	}
	d.leaseKey = key
	return err
}

// EndLease says how the job ended that a sink took a lease for: with a nil failure
// it was done, and a's events are published like those of an answer; a failure
// counts as that of an attempt. It returns nil once that is durable.
func (d *Dispatcher) EndLease(ctx context.Context, id, token string, a sinks.Answer, failure error) error {
	if !d.calls.enter() {
		return bus.ErrClosed
	}
	defer d.calls.leave()
	o, err := d.openLease(ctx, id, token, true)
	if err != nil {
		return err
	}
	if failure == nil {
		err := o.lane.acceptAnswer(o.conf, o.w.d, &a, o.took)
		if err != nil && !errors.Is(err, errLoop) {
			o.restore() // the sink may say it again
			return err
		}
		failure = err
	}
	return d.endLeases(ctx, failure, o)[0]
}

// openedLease is a delivery that was taken back from its lease, as if its attempt
// still ran.
type openedLease struct {
	lane  *lane
	conf  *laneConf // in use until the lease has ended, or is restored
	w     *retry
	start time.Time
	took  time.Duration
	done  func() // tells those who wait for what becomes of the lease
}

func (d *Dispatcher) openLease(ctx context.Context, id, token string, patient bool) (*openedLease, error) {
	w, told, err := d.retries.takeLease(ctx, id, token, patient)
	if err != nil {
		return nil, err
	}
	l := d.lane(w.sink)
	conf := l.use()
	if conf == nil {
		d.retries.again(w)
		told()
		return nil, fmt.Errorf("sink %q: %w: it is not in the config at the moment", w.sink, bus.ErrUnavailable)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d.retries.gone(w.sink)
	if w.pinned {
		w.d.pinned = false
		l.pinned--
	}
	l.running[w.d] = struct{}{}
	w.d.state = done // it has its record
	return &openedLease{lane: l, conf: conf, w: w, start: w.d.leased, took: max(0, d.now().Sub(w.d.leased)), done: told}, nil
}

// restore lets the lease go on as it was.
func (o *openedLease) restore() {
	o.lane.leave(o.w.d, func() {
		if o.w.pinned {
			o.w.d.pinned = true
			o.lane.pinned++
		}
		o.lane.d.retries.add(o.w)
	})
	o.lane.release(o.conf)
	o.done()
}

// judge ends the lease.
func (o *openedLease) judge(failure error) {
	o.lane.leaseOver(o.w.d)
	o.lane.judge(o.conf, o.w.d, result{start: o.start, took: o.took, err: failure})
	o.lane.release(o.conf)
	o.done()
}

// ended is the write that makes the end of a job durable that was done.
func (o *openedLease) ended(done func(error)) write {
	r := o.lane.d.retries
	return write{key: o.w.sink, record: o.w.d.endRecord(), done: func(pos bus.Position, n int, err error) {
		switch {
		case err == nil:
			r.books.begin(pos.Seq, n, 0)
			o.w.d.sealed = true
			o.judge(nil)
			r.keepEnded([]bus.Position{pos})
			if pos.Index == n-1 {
				r.books.read(pos.Seq)
			}
		case refused(err): // that it ended makes room, and the ledgers can still say it
			o.judge(nil)
		default:
			o.restore()
		}
		done(err)
	}}
}

// endPatience is how long the end of a lease may take to be written.
const endPatience = 10 * time.Second

// endLeases ends leases together, and waits until that is durable. One that fails
// gets a new record as its policy says.
func (d *Dispatcher) endLeases(ctx context.Context, failure error, all ...*openedLease) []error {
	type ended struct {
		i   int
		err error
	}
	results := make(chan ended, len(all))
	var writes []write
	for i, o := range all {
		if failure != nil {
			d.work.Go(func() {
				o.judge(failure)
				results <- ended{i, nil}
			})
			continue
		}
		writes = append(writes, o.ended(func(err error) { results <- ended{i, err} }))
	}
	if err := d.retryWriter.submit(writes...); err != nil {
		for i, o := range all {
			if failure == nil {
				o.restore()
				results <- ended{i, err}
			}
		}
	}
	errs := make([]error, len(all))
	for i := range errs {
		errs[i] = fmt.Errorf("%w: the store takes too long: whether it is done shows later", bus.ErrUnavailable)
	}
	limit := time.NewTimer(endPatience)
	defer limit.Stop()
	full := false
	for range all {
		select {
		case one := <-results:
			errs[one.i] = one.err
			full = full || refused(one.err)
		case <-limit.C:
			return errs
		case <-ctx.Done():
			return errs
		}
	}
	if full {
		err := d.commitNow(ctx)
		for i := range errs {
			if refused(errs[i]) {
				errs[i] = err
			}
		}
	}
	return errs
}

// ExtendLease gives a job more time, counted from now and at most what the sink's
// option lease says. It returns how much it has, once that is durable.
func (d *Dispatcher) ExtendLease(ctx context.Context, id, token string, more time.Duration) (time.Duration, error) {
	if !d.calls.enter() {
		return 0, bus.ErrClosed
	}
	defer d.calls.leave()
	return d.extendLease(ctx, id, token, more)
}

func (d *Dispatcher) extendLease(ctx context.Context, id, token string, more time.Duration) (time.Duration, error) {
	w, done, err := d.retries.takeLease(ctx, id, token, true)
	if err != nil {
		return 0, err
	}
	l := d.lane(w.sink)
	most, configured := l.longestLease()
	if !configured {
		d.retries.again(w)
		done()
		return 0, fmt.Errorf("sink %q: %w: it is not in the config at the moment", w.sink, bus.ErrUnavailable)
	}
	if most <= 0 {
		d.retries.again(w)
		done()
		return 0, fmt.Errorf("sink %q: %w: its option lease is gone from the config", w.sink, bus.ErrNotFound)
	}
	more = min(more, most)
	return more, d.retries.extend(ctx, l, w, more, done)
}

func (l *lane) longestLease() (most time.Duration, configured bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf == nil {
		return 0, false
	}
	return time.Duration(l.conf.options.Lease), true
}

// extend moves a lease into a new record, and settles the old one. When the new one
// cannot be written, the lease stays as it was. done is called in the end.
func (r *retries) extend(ctx context.Context, l *lane, w *retry, more time.Duration, done func()) error {
	due := time.Now().Add(more)
	next := w.d.successor(w.d.origin)
	next.due = r.d.now().Add(more)
	durable := make(chan error, 1)
	err := r.d.retryWriter.submit(write{key: w.sink, record: next.record(), born: next.born(), done: func(pos bus.Position, n int, err error) {
		defer done()
		if err != nil {
			r.again(w)
			durable <- err
			return
		}
		r.books.begin(pos.Seq, n, 0)
		next.origin, next.reserved = origin{r.books, pos}, w.d.reserved
		l.mu.Lock()
		if w.d.pinned {
			l.pinned--
		}
		r.again(&retry{due: due, pos: pos, sink: w.sink, d: next, reserved: w.reserved, key: w.key, leased: next.id, try: w.try})
		l.settle(w.d)
		l.mu.Unlock()
		if pos.Index == n-1 {
			r.books.read(pos.Seq)
		}
		durable <- nil
	}})
	if err != nil {
		r.again(w)
		done()
		return err
	}
	select {
	case err = <-durable:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: gave up waiting: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
}
