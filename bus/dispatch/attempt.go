package dispatch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"sluice/sinks"
)

// attempt makes one attempt at a delivery, or at a batch that begins with it, and
// sees to what follows. It returns once each delivery is settled or has a new
// durable record: so failures cannot pile up in memory faster than the store
// takes them.
func (l *lane) attempt(d *delivery) {
	conf := l.use()
	if conf == nil { // the sink was taken out just now
		l.giveBack(d)
		return
	}
	defer l.release(conf)
	if conf.pull != nil { // a reload has made a queue of it just now
		l.giveBack(d)
		return
	}
	batch := []*delivery{d}
	if conf.options.Batch.on() {
		batch = l.gather(conf, d)
	}
	if !l.waitRate(conf, batch) {
		return
	}
	l.sendBatch(conf, batch)
}

// guard calls a sink with the sink's timeout. One that panics has failed.
func (l *lane) guard(conf *laneConf, d *delivery, call func(context.Context) error) (err error) {
	ctx := l.deadline(conf)
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("the sink panicked", "event_id", d.event.ID(), "rule", d.rule, "err", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("the sink panicked: %v", p)
		}
	}()
	return call(ctx)
}

// deadline is the context of an attempt that begins now.
func (l *lane) deadline(conf *laneConf) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return conf.deadlines.begin(time.Now())
}

// result is what came of an attempt at one delivery.
type result struct {
	start time.Time
	took  time.Duration
	err   error
	sent  bool // it was an attempt at the sink, and not what ended before that
	watch bool // it says something about the sink that is not known yet
}

// unwritten is what the store does not know yet of deliveries whose attempt is over.
type unwritten struct {
	waits []wait
	dead  []death
}

// death is a delivery that was given up, and the attempt that did it.
type death struct {
	d    *delivery
	why  Verdict
	last Attempt
}

// judge records an attempt at one delivery, and does what the policy says.
func (l *lane) judge(conf *laneConf, d *delivery, r result) {
	var u unwritten
	l.decide(conf, d, r, &u)
	l.write(conf, u)
}

// write makes durable what follows from an attempt, and waits for that: all of a batch
// share the writes of the log.
func (l *lane) write(conf *laneConf, u unwritten) {
	l.report(conf, u.dead)
	buried := l.d.bury(l, u.dead)
	if len(u.waits) > 0 {
		l.d.retries.schedule(l, u.waits...)
	}
	buried.Wait()
}

// decide records an attempt at one delivery. What the policy says is done, or is added
// to what is to be written.
func (l *lane) decide(conf *laneConf, d *delivery, r result, u *unwritten) {
	took, err := r.took, r.err
	now, wall := r.start.Add(took), l.d.now()
	a := Attempt{At: wall.Add(-took), Duration: took, Class: Class(err)}
	var answer *sinks.Error
	if errors.As(err, &answer) {
		a.Status, a.Answer = answer.Status, answer.Answer
	}
	if err != nil {
		a.Error = errorText(err)
	}
	n := d.tried() + 1
	after, said := conf.next(n, d.attempts, wall.Sub(d.accepted), d.sinceFirst(wall), err)
	verdict, after := conf.poison(said, after)
	l.ending(d, a, verdict, r.sent)
	if r.watch {
		l.metrics.attempt(a.Class, took)
		l.observe(conf, said, a, err, now)
	}
	l.d.fates.outcome(d, a, verdict, after, n)
	l.d.history.outcome(d, a, verdict, after, n)
	switch verdict {
	case Delivered:
		l.metrics.delivered(d.rule, max(0, wall.Sub(d.accepted)))
		l.end(d, &l.metrics.live.delivered)
	case Leased:
		l.lease(d, err, after)
	case Discarded:
		l.metrics.discarded(d.rule)
		l.end(d, &l.metrics.live.discarded)
	case Again:
		l.log.Warn("delivery failed; trying again later", "event_id", d.event.ID(), "source", d.event.Source(),
			"rule", d.rule, "attempt", n, "after", after.Round(time.Millisecond), "err", err)
		u.waits = append(u.waits, wait{d: d, after: after})
	default:
		l.log.Error("delivery given up: dead letter", "event_id", d.event.ID(), "source", d.event.Source(),
			"rule", d.rule, "attempt", n, "reason", verdict.String(), "err", err)
		u.dead = append(u.dead, death{d: d, why: verdict, last: a})
	}
}

// errorText is what is kept of an error, and holds on to no more of it.
func errorText(err error) string {
	text := err.Error()
	return strings.Clone(text[:min(len(text), maxError)])
}

// lease lets a delivery wait for the end of a job.
func (l *lane) lease(d *delivery, err error, most time.Duration) {
	l.mu.Lock()
	d.leased = l.d.now()
	l.mu.Unlock()
	one := []wait{{d: d, after: most}}
	l.d.retries.schedule(l, one...)
	if taken := (*leaseTaken)(nil); errors.As(err, &taken) {
		taken.kept = one[0].kept
	}
}

// observe tells the breaker and the lane's state about an attempt.
func (l *lane) observe(conf *laneConf, verdict Verdict, a Attempt, err error, now time.Time) {
	l.mu.Lock()
	if err == nil || verdict == Leased {
		l.lastOKAt = now
	} else {
		l.lastErr, l.lastErrAt = err.Error(), now
	}
	h := healthOf(verdict, a)
	if conf.retired || verdict == Looped { // it says nothing about the sink as it is now
		l.mu.Unlock()
		return
	}
	changed := l.breaker.observe(h, conf.options.Breaker, now.Add(-a.Duration), now)
	l.logins.observe(verdict, a)
	l.pace.observe(h, a.Duration, now)
	if changed && !l.breaker.open {
		l.pace.restart()
	}
	open, until := l.breaker.open, l.breaker.until
	switch {
	case changed, open:
		l.refresh()
	case l.queue.runnable() > 0 && l.workers < l.limit(): // the pace has grown
		l.dispatch(now)
	}
	l.mu.Unlock()
	if open {
		l.d.wakeAt(l, until)
	}
	switch {
	case changed && open:
		l.log.Warn("breaker open: the sink keeps failing; its deliveries wait in the backlog", "failures", conf.options.Breaker.Failures, "err", err)
	case changed:
		l.log.Info("breaker closed: the sink answers again")
	}
	if verdict == Gone {
		l.d.disable(l, err)
	}
}

func healthOf(verdict Verdict, a Attempt) health {
	switch {
	case a.Status == 429:
		return busy
	case verdict == Delivered, verdict == Leased, verdict == Rejected && a.Status != 0:
		return healthy
	case a.Status >= 400 && a.Status < 500 && a.Status != 408:
		return healthy
	}
	return sick
}

// giveBack returns a delivery whose attempt never started.
func (l *lane) giveBack(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gathering = false
	delete(l.running, d)
	if l.direct(d) && !l.ordered() {
		l.accept(d)
		return
	}
	d.state = queued
	l.queue.pushHead(d)
	l.refresh()
}

// next is the policy's word, but for what the config says itself.
func (c *laneConf) next(attempt int, past []Attempt, age, since time.Duration, err error) (time.Duration, Verdict) {
	if errors.Is(err, errDiscarded) {
		return 0, Discarded
	}
	return c.policy.Next(attempt, past, age, since, err)
}

// poison is what becomes of a delivery by the policy's word: an event that an ordered
// sink never takes may block its key for as long as it takes. But one that its answer
// sends round in a circle does what it does each time: more attempts are no way out.
func (c *laneConf) poison(said Verdict, after time.Duration) (Verdict, time.Duration) {
	if c.options.OnPoison != PoisonBlocks || c.options.OrderBy == "" {
		return said, after
	}
	switch said {
	case Rejected, Gone, AttemptsExhausted, Expired, Untransformed:
		return Again, max(c.policy.Max, time.Minute)
	}
	return said, after
}

// Class is the closed set of what an attempt comes to, the label of the metrics:
// ok, timeout, canceled, refused, reset, dns, tls, throttled, status_3xx,
// status_4xx, status_5xx, rejected (by the sink itself, without an answer),
// leased (it has begun, and is to say how that ended), loop (the answer came through too many sinks), transform (nothing was sent: the rule's transform has no result) and failed
// (anything else).
func Class(err error) string {
	if err == nil {
		return "ok"
	}
	var answer *sinks.Error
	if errors.As(err, &answer) && answer.Status > 0 {
		if answer.Status == 429 {
			return "throttled"
		}
		return fmt.Sprintf("status_%dxx", answer.Status/100)
	}
	var timeout net.Error
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var unshaped *shapeError
	var lease *leaseTaken
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unshaped):
		return "transform"
	case errors.Is(err, errLoop):
		return "loop"
	case errors.As(err, &lease):
		return "leased"
	case errors.Is(err, errLeaseOver):
		return "lease_over"
	case errors.Is(err, errNacked):
		return "nacked"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.As(err, &dns):
		return "dns"
	case errors.As(err, &record), errors.As(err, &verify), errors.As(err, &unknown):
		return "tls"
	case answer != nil && answer.Permanent:
		return "rejected"
	}
	return "failed"
}
