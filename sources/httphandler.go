package sources

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice/bus"
	"sluice/config/access"
)

// HandlerOptions are the choices of NewHandler. The zero value is good.
type HandlerOptions struct {
	Limits  Limits
	Observe func(outcome Outcome, events int) // counts what became of events; may be nil
	Now     func() time.Time                  // the time of events that have none; time.Now when nil
	Set     []bus.Attr                        // what every event gets, whatever it says itself
	// Await gives the first reply to an event that comes after the call, for requests
	// with Prefer: wait=10; stop ends the waiting. The channel is closed when none can
	// come any more. Nobody waits when Await is nil.
	Await func(e bus.Event) (reply <-chan bus.Event, stop func())
}

// NewHandler takes CloudEvents in binary, structured and batch mode and answers
// when they are durable:
//
//	202  {"id", "source", "status": "accepted", "position"}; for a batch
//	     {"accepted", "rejected", "events": [{"index", "id", "ok", "position"}]}
//	207  some events of a batch: the bad ones have "status", "error" and "attribute"
//	200  the first reply of a function, as a CloudEvent in binary mode, when the
//	     request says Prefer: wait=10 and there is one within so many seconds
//	4xx, 5xx  none: an RFC 9457 problem, for a batch with its "events"
//
// 408, 429, 503 and 507 are worth another attempt, after Retry-After where it is
// given; publish the same ids again.
func NewHandler(pub bus.Publisher, opts HandlerOptions) http.Handler { return newHandler(pub, opts) }

func newHandler(pub bus.Publisher, opts HandlerOptions) *handler {
	h := &handler{
		pub: pub, limits: opts.Limits.orDefault(), observe: opts.Observe, now: opts.Now, set: opts.Set, await: opts.Await,
	}
	if h.observe == nil {
		h.observe = func(Outcome, int) {}
	}
	if h.now == nil {
		h.now = time.Now
	}
	h.buffers.New = func() any { return new([]byte) }
	h.firsts.New = func() any { return new([firstRead]byte) }
	return h
}

type handler struct {
	pub     bus.Publisher
	limits  Limits
	observe func(Outcome, int)
	now     func() time.Time
	set     []bus.Attr
	await   func(bus.Event) (<-chan bus.Event, func())
	buffers sync.Pool // *[]byte, for answers
	firsts  sync.Pool // *[firstRead]byte, for the beginnings of long bodies
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeProblem(w, &problem{Status: http.StatusMethodNotAllowed, Detail: "send events with POST"})
		return
	}
	in := h.incoming(w, r)
	mode, err := bus.ModeOf(r.Header)
	if err == nil {
		err = checkEncoding(r.Header)
	}
	if err != nil {
		h.refuse(w, badInput(err))
		return
	}
	limit := int64(h.limits.Event)
	if mode == bus.Batch {
		limit = int64(h.limits.Batch)
	}
	body, err := in.read(limit)
	switch {
	case err != nil:
		h.refuse(w, badInput(err))
	case mode == bus.Batch:
		h.batch(w, r, body)
	default:
		h.single(w, r, body)
	}
}

// guard lets those through whom check knows.
func (h *handler) guard(check *access.Checker, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var denied *access.Denied
		if !errors.As(check.Check(r, access.Publish), &denied) {
			next.ServeHTTP(w, r)
			return
		}
		p := &problem{Status: denied.Status, Detail: denied.Detail, outcome: Denied}
		if denied.Status == http.StatusTooManyRequests {
			p.outcome = Limited
		}
		denied.SetHeader(w.Header())
		h.refuse(w, p)
	})
}

// checkEncoding refuses compressed bodies: the data is passed on byte for byte,
// and whoever gets it would not know that it is compressed.
func checkEncoding(header http.Header) error {
	if enc := header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return &bus.MediaTypeError{Msg: "a body with a Content-Encoding is not understood: send it uncompressed"}
	}
	return nil
}

func (h *handler) single(w http.ResponseWriter, r *http.Request, body []byte) {
	e, err := bus.FromHTTP(r.Header, body)
	if err == nil && len(h.set) > 0 {
		e, err = e.With(h.set...)
	}
	if err != nil {
		h.refuse(w, badInput(err))
		return
	}
	h.publish(w, r, bus.Stamp(e, h.now()))
}

// publish stores one event and answers when it is durable.
func (h *handler) publish(w http.ResponseWriter, r *http.Request, e bus.Event) {
	var reply <-chan bus.Event
	wait := preferredWait(r.Header)
	if wait > 0 && h.await != nil {
		var stop func()
		reply, stop = h.await(e)
		defer stop()
	}
	result, p := h.store(r.Context(), e)
	if p != nil {
		h.refuse(w, p)
		return
	}
	h.observe(Accepted, 1)
	if reply != nil && !result.Deduplicated && answerReply(w, r, reply, wait) {
		return
	}
	buf := h.buffers.Get().(*[]byte)
	*buf = appendAccepted((*buf)[:0], e, result)
	writeJSON(w, "application/json", http.StatusAccepted, *buf)
	h.buffers.Put(buf)
}

// store publishes one event. The problem is nil when it is durable. A sender that goes
// away does not end the wait: the store answers within its own time, the event is
// counted as what became of it, and to watch each request costs as much as to wait.
func (h *handler) store(ctx context.Context, e bus.Event) (bus.Result, *problem) {
	results, err := h.pub.Publish(context.WithoutCancel(ctx), e)
	if err := faultOf(results, err, 0); err != nil {
		return bus.Result{}, badStore(ctx, err)
	}
	return results[0], nil
}

// faultOf is why event i of a Publish is not durable, by what that returned: its own
// result before the error of the whole, since one event may be wrong for good and the
// next only have to wait. A Publisher that forgets a result did not say durable.
func faultOf(results []bus.Result, err error, i int) error {
	switch {
	case i < len(results) && results[i].Err != nil:
		return results[i].Err
	case i >= len(results) && err == nil:
		return bus.ErrUnavailable
	}
	return err
}

func (h *handler) refuse(w http.ResponseWriter, p *problem) {
	h.observe(p.outcome, 1)
	writeProblem(w, p)
}

// batch takes the good events of a batch and says of each what became of it.
func (h *handler) batch(w http.ResponseWriter, r *http.Request, body []byte) {
	expected := 8 + len(body)>>10 // events of a KiB or more; there may be any number
	b := batch{
		limit: int(h.limits.Event), now: h.now(), set: h.set,
		events: make([]bus.Event, 0, expected), at: make([]int, 0, expected), items: make([]item, 0, expected),
	}
	if err := bus.ParseBatch(body, h.limits.BatchEvents, b.take); err != nil {
		h.refuse(w, badInput(err))
		return
	}
	b.publish(r.Context(), h.pub)
	for outcome, n := range b.count() {
		h.observe(outcome, n)
	}
	b.answer(w)
}

// batch is a batch on its way through the door.
type batch struct {
	limit  int // bytes of one event
	now    time.Time
	set    []bus.Attr
	events []bus.Event // the good ones
	at     []int       // their places in items
	items  []item
	worst  *problem // the fault that decides the status when no event was taken
}

// take is the callback of ParseBatch.
func (b *batch) take(i int, e bus.Event, err error) {
	b.items = append(b.items, item{Index: i})
	if err == nil && len(b.set) > 0 {
		e, err = e.With(b.set...)
	}
	if err == nil && e.Size() > b.limit {
		err = &bus.BadEvent{ID: e.ID(), Err: &tooLarge{limit: b.limit}}
	}
	if err != nil {
		b.fail(i, badInput(err))
		return
	}
	b.items[i].ID = e.ID()
	b.events = append(b.events, bus.Stamp(e, b.now))
	b.at = append(b.at, i)
}

// fail notes a fault of event i. One that is worth another attempt outweighs the
// others: the sender would not come back after a 400.
func (b *batch) fail(i int, p *problem) {
	b.items[i].fault(p)
	if b.worst == nil || p.retryable() && !b.worst.retryable() {
		b.worst = p
	}
}

func (b *batch) publish(ctx context.Context, pub bus.Publisher) {
	if len(b.events) == 0 {
		return
	}
	results, err := pub.Publish(ctx, b.events...)
	for n, i := range b.at {
		if fault := faultOf(results, err, n); fault != nil {
			b.fail(i, badStore(ctx, fault))
			continue
		}
		b.items[i].OK, b.items[i].Deduplicated = true, results[n].Deduplicated
		b.items[i].Position = results[n].Position.String()
		b.items[i].outcome = Accepted
	}
}

func (b *batch) count() map[Outcome]int {
	counts := make(map[Outcome]int)
	for i := range b.items {
		counts[b.items[i].outcome]++
	}
	return counts
}
