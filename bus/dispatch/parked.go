package dispatch

import (
	"container/heap"
	"context"
	"time"
)

// parked are the due retries of one sink that are beyond its budget, in the order in
// which they fell due. Nobody looks at them while they wait, however many they are:
// what stands for all of them among the retries is one turn, at the time when the
// budget has something for the first.
type parked struct {
	list []*retry
	turn *retry
}

// mayRetry tells whether a retry is within the sink's budget, or in what time one is.
// Consumers that fetch set their own pace, and where the sink was taken out nothing
// is sent.
func (l *lane) mayRetry() (ok bool, in time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf != nil && (l.conf.pull != nil || l.conf.removed) {
		return true, 0
	}
	return l.budget.take(time.Now())
}

// parkBehind parks a due retry whose sink has parked ones: those go first.
func (r *retries) parkBehind(w *retry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parked[w.sink]
	if p == nil {
		return false
	}
	r.keepBytes(w)
	p.list = append(p.list, w)
	return true
}

// park parks the first due retry of a sink that is beyond its budget.
func (r *retries) park(w *retry, until time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepBytes(w)
	p := &parked{list: []*retry{w}, turn: &retry{sink: w.sink, due: until, turn: true}}
	r.parked[w.sink] = p
	r.put(p.turn)
}

// unpark gives the first of those that are parked, or nil after the last.
func (r *retries) unpark(sink string) *retry {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parked[sink]
	w := p.list[0]
	p.list[0] = nil
	if p.list = p.list[1:]; len(p.list) == 0 {
		delete(r.parked, sink)
	}
	r.dropBytes(w)
	return w
}

// waitsTurn tells whether a sink has parked retries.
func (r *retries) waitsTurn(sink string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.parked[sink] != nil
}

// turnMost is how many parked retries of a sink go in one turn: the due ones of others
// come after that.
const turnMost = 256

// takeTurn brings the parked retries of a lane that are within its budget now. Only
// run calls it, so that nobody else takes them.
func (r *retries) takeTurn(ctx context.Context, l *lane) {
	for n := 0; r.waitsTurn(l.name); n++ {
		ok, in := n < turnMost, time.Duration(0)
		if ok {
			ok, in = l.mayRetry()
		}
		if !ok || ctx.Err() != nil {
			r.turnAgain(l.name, time.Now().Add(in))
			return
		}
		r.offer(ctx, l, r.unpark(l.name))
	}
}

// turnAgain sets the time of the next turn of a sink.
func (r *retries) turnAgain(sink string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	turn := r.parked[sink].turn
	turn.due = at
	r.put(turn)
}

// turnNow lets the parked retries of a sink have their turn, if there are any: the
// budget has something for them. The caller holds the lock of the lane.
func (r *retries) turnNow(sink string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.parked[sink]
	if p == nil || p.turn.place >= len(r.heap) || r.heap[p.turn.place] != p.turn {
		return // it is being taken
	}
	p.turn.due = time.Now()
	heap.Fix(&r.heap, p.turn.place)
	signal(r.wake)
}
