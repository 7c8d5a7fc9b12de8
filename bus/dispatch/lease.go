package dispatch

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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
type leaseTaken struct{ time.Duration }

func (e *leaseTaken) Error() string { return "took a lease of " + e.String() }

// errLeaseOver is a lease of which nothing was heard.
var errLeaseOver = errors.New("the sink took a lease and did not say in time how the job ended")

// ErrLease is the answer to a token that is not that of the lease.
var ErrLease = errors.New("the token is not that of this lease")

// takeLease ends the wait of a lease, so that the caller alone goes on with it, or
// gives it back by again.
func (r *retries) takeLease(ctx context.Context, id, token string) (*retry, error) {
	r.mu.Lock()
	w := r.leases[id]
	switch {
	case w == nil:
		r.mu.Unlock()
		return nil, fmt.Errorf("lease %q: %w: it ended, ran out or never was", id, bus.ErrNotFound)
	case !hmac.Equal([]byte(token), []byte(r.d.leaseToken(id, w.try))):
		r.mu.Unlock()
		return nil, ErrLease
	}
	r.remove(w)
	r.mu.Unlock()
	if w.d != nil {
		return w, nil
	}
	d, err := r.load(ctx, w)
	if err != nil {
		r.again(w)
		return nil, err
	}
	d.key, d.reserved = w.key, w.reserved
	w.d = d
	return w, nil
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
	if errors.Is(err, bus.ErrNotFound) {
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
	if err := d.endLease(ctx, id, token, a, failure); err != nil {
		return err
	}
	return d.commitNow(ctx)
}

// endLease is EndLease but for the commit.
func (d *Dispatcher) endLease(ctx context.Context, id, token string, a sinks.Answer, failure error) error {
	l, conf, w, err := d.openLease(ctx, id, token)
	if err != nil {
		return err
	}
	defer l.release(conf)
	start := w.d.leased
	took := max(0, d.now().Sub(start))
	if failure == nil {
		if err := l.acceptAnswer(conf, w.d, &a, took); err != nil && !errors.Is(err, errLoop) {
			l.leave(w.d, func() { // the sink may say it again
				if w.pinned {
					w.d.pinned = true
					l.pinned++
				}
				d.retries.add(w)
			})
			return err
		} else if err != nil {
			failure = err
		}
	}
	w.d.leased = time.Time{}
	l.judge(conf, w.d, start, took, failure, false)
	return nil
}

// openLease takes a delivery back from its lease, as if its attempt still ran.
func (d *Dispatcher) openLease(ctx context.Context, id, token string) (*lane, *laneConf, *retry, error) {
	w, err := d.retries.takeLease(ctx, id, token)
	if err != nil {
		return nil, nil, nil, err
	}
	l := d.lane(w.sink)
	conf := l.use()
	if conf == nil {
		d.retries.again(w)
		return nil, nil, nil, bus.ErrClosed
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
	return l, conf, w, nil
}

// ExtendLease gives a job more time, counted from now and at most what the sink's
// option lease says. It returns how much it has, once that is durable.
func (d *Dispatcher) ExtendLease(ctx context.Context, id, token string, more time.Duration) (time.Duration, error) {
	w, err := d.retries.takeLease(ctx, id, token)
	if err != nil {
		return 0, err
	}
	l := d.lane(w.sink)
	most := l.longestLease()
	if most <= 0 {
		d.retries.again(w)
		return 0, fmt.Errorf("sink %q: %w: its option lease is gone from the config", w.sink, bus.ErrNotFound)
	}
	more = min(more, most)
	return more, d.retries.extend(ctx, l, w, more)
}

func (l *lane) longestLease() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf == nil {
		return 0
	}
	return time.Duration(l.conf.options.Lease)
}

// extend moves a lease into a new record, and settles the old one. When the new one
// cannot be written, the lease stays as it was.
func (r *retries) extend(ctx context.Context, l *lane, w *retry, more time.Duration) error {
	due := time.Now().Add(more)
	next := w.d.successor(w.d.origin)
	next.due = r.d.now().Add(more)
	durable := make(chan error, 1)
	err := r.d.retryWriter.submit(write{key: w.sink, record: next.record(), done: func(pos bus.Position, n int, err error) {
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
		l.mu.Unlock()
		w.d.origin.settle()
		if pos.Index == n-1 {
			r.books.read(pos.Seq)
		}
		durable <- nil
	}})
	if err != nil {
		r.again(w)
		return err
	}
	select {
	case err = <-durable:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: gave up waiting: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
}
