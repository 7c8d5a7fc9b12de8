package bench

import (
	"sync"
	"sync/atomic"
	"time"
)

// tally keeps the books: each event by its number, from the moment it is sent to
// the moment it is at every sink. It is safe for use by many goroutines.
type tally struct {
	sinks int // that each event goes to
	start time.Time
	// slots holds one entry for each event that is on its way: neither refused nor
	// at all its sinks. nil when there may be any number of them.
	slots chan struct{}

	grow   sync.Mutex
	next   atomic.Int64
	chunks [maxChunks]atomic.Pointer[chunk]

	accepted, refused   atomic.Int64 // events
	arrived, duplicates atomic.Int64 // deliveries: the first of each, and the others
	strangers           atomic.Int64 // arrivals of events that were never sent
	lastArrival         atomic.Int64 // when, since start

	recording atomic.Bool // latencies count
	acks      histogram
}

const (
	chunkEvents = 1 << 14
	maxChunks   = 1 << 13 // 134 million events
)

// chunk is what is known of a run of events.
type chunk struct {
	sent   [chunkEvents]atomic.Int64  // when, since the start of the tally
	state  [chunkEvents]atomic.Uint32 // flags
	places [chunkEvents]atomic.Int32  // how many sinks have it
	counts []atomic.Uint32            // by event and sink: how often it arrived
}

// The flags of an event.
const (
	isAccepted = 1 << iota
	isDone
)

func newTally(sinks, outstanding int) *tally {
	t := &tally{sinks: sinks, start: time.Now()}
	if outstanding > 0 {
		t.slots = make(chan struct{}, outstanding)
	}
	return t
}

// take gives out n numbers in a row; ok is false when there are no more.
func (t *tally) take(n int) (first int64, ok bool) {
	last := t.next.Add(int64(n)) - 1
	first = last - int64(n) + 1
	if last >= chunkEvents*maxChunks {
		return 0, false
	}
	for c := first / chunkEvents; c <= last/chunkEvents; c++ {
		if t.chunks[c].Load() == nil {
			t.add(c)
		}
	}
	return first, true
}

func (t *tally) add(c int64) {
	t.grow.Lock()
	defer t.grow.Unlock()
	if t.chunks[c].Load() == nil {
		t.chunks[c].Store(&chunk{counts: make([]atomic.Uint32, chunkEvents*t.sinks)})
	}
}

// now is the time as the tally keeps it.
func (t *tally) now() time.Duration { return time.Since(t.start) }

func (t *tally) at(id int64) (*chunk, int64) {
	if id < 0 || id >= t.next.Load() || id >= chunkEvents*maxChunks {
		return nil, 0
	}
	return t.chunks[id/chunkEvents].Load(), id % chunkEvents
}

// sent says when event id was, or should have been, sent.
func (t *tally) sent(id int64, at time.Duration) {
	if c, i := t.at(id); c != nil {
		c.sent[i].Store(int64(at))
	}
}

// accept notes that the server took an event.
func (t *tally) accept(id int64) {
	c, i := t.at(id)
	if c == nil {
		return
	}
	c.state[i].Or(isAccepted)
	t.accepted.Add(1)
	if t.recording.Load() {
		t.acks.record(t.now() - time.Duration(c.sent[i].Load()))
	}
	if t.sinks == 0 {
		t.finish(c, i)
	}
}

// refuse notes that the server did not take an event, or did not say so. It may
// be delivered all the same.
func (t *tally) refuse(id int64) {
	if c, i := t.at(id); c != nil {
		t.refused.Add(1)
		t.finish(c, i)
	}
}

// arrive notes an event at a sink. The first time it tells how old the event is.
func (t *tally) arrive(sink int, id int64) (age time.Duration, first bool) {
	c, i := t.at(id)
	if c == nil || sink >= t.sinks {
		t.strangers.Add(1)
		return 0, false
	}
	if c.counts[int(i)*t.sinks+sink].Add(1) > 1 {
		t.duplicates.Add(1)
		return 0, false
	}
	now := t.now()
	t.arrived.Add(1)
	t.lastArrival.Store(int64(now))
	if int(c.places[i].Add(1)) == t.sinks {
		t.finish(c, i)
	}
	return now - time.Duration(c.sent[i].Load()), true
}

func (t *tally) finish(c *chunk, i int64) {
	if c.state[i].Or(isDone)&isDone == 0 && t.slots != nil {
		<-t.slots
	}
}

// missing counts the deliveries of accepted events that did not arrive.
func (t *tally) missing() (lost int64) {
	for id := range min(t.next.Load(), chunkEvents*maxChunks) {
		c, i := t.at(id)
		if c != nil && c.state[i].Load()&isAccepted != 0 {
			lost += int64(t.sinks) - int64(c.places[i].Load())
		}
	}
	return lost
}
