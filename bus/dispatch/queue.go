package dispatch

import (
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"sluice/bus"
)

// queue holds what waits in a lane. Without order it is a FIFO. With order_by it
// is a FIFO for each key: a delivery is ready only when no other of its key is
// ready, running or waiting for its next attempt, so that one key never holds up
// another. It is guarded by its lane's mutex.
type queue struct {
	ready fifo
	keyOf func(bus.Event) string // nil: no order
	keys  map[string]*orderKey   // the keys that are taken
	held  int                    // deliveries in memory behind a taken key
	apart int                    // deliveries that are parked
	// generation tells the queue from the one before the last change of order.
	generation int
	bytes      int
}

// orderKey is what waits behind one key that is taken.
type orderKey struct {
	taken   int // deliveries that are ready, running or waiting for an attempt
	waiting []*delivery
	// parked are further ones, as places in the backlog: a key that is held up
	// for long costs little memory.
	parked  []bus.Position
	since   time.Time // none of the parked was accepted earlier; zero while there are none
	loading bool
}

// parkAfter is how many deliveries of one key wait in memory.
const parkAfter = 8

// keyFunc reads the key of order_by: an attribute's name, or data. and a gjson
// path. What an event lacks is the empty key, which is ordered too.
func keyFunc(by string) func(bus.Event) string {
	path, inData := strings.CutPrefix(by, "data.")
	switch {
	case by == "":
		return nil
	case inData:
		return func(e bus.Event) string {
			if !e.DataIsJSON() {
				return ""
			}
			return gjson.GetBytes(e.Data(), path).String()
		}
	}
	return func(e bus.Event) string { return e.Get(by) }
}

// len is the number of deliveries in memory.
func (q *queue) len() int { return q.ready.len() + q.held }

// runnable is the number of those that may run now.
func (q *queue) runnable() int { return q.ready.len() }

// push adds a delivery behind those of its key.
func (q *queue) push(d *delivery) {
	q.bytes += d.event.Size()
	if q.keyOf == nil {
		q.ready.push(d)
		return
	}
	k := q.key(d)
	if k.taken == 0 && !k.loading {
		k.taken++
		q.ready.push(d)
		return
	}
	k.waiting = append(k.waiting, d)
	q.held++
}

// key is the entry of a delivery's key.
func (q *queue) key(d *delivery) *orderKey {
	d.key = q.keyOf(d.event)
	k := q.keys[d.key]
	if k == nil {
		k = &orderKey{}
		q.keys[d.key] = k
	}
	return k
}

// pushBacklog adds a delivery that was read from the backlog. When its key is
// held up, only its place is kept.
func (q *queue) pushBacklog(d *delivery) {
	if q.keyOf != nil {
		if k := q.key(d); len(k.parked) > 0 || k.loading || k.taken > 0 && q.crowded(k) {
			k.parked = append(k.parked, d.origin.pos)
			if k.since.IsZero() || d.accepted.Before(k.since) {
				k.since = d.accepted
			}
			q.apart++
			return
		}
	}
	q.push(d)
}

// crowded tells whether one more delivery behind a taken key is better parked:
// what waits for keys must not keep the feed from those that are free.
func (q *queue) crowded(k *orderKey) bool {
	return len(k.waiting) >= parkAfter || q.held >= feedDeliveries || q.bytes >= queueBytes/2
}

// reserve takes a delivery's key for it: it waits for an attempt somewhere else.
func (q *queue) reserve(d *delivery) {
	if q.keyOf != nil {
		q.key(d).taken++
		d.reserved = true
	}
}

// unpark takes the next places of a key that are to be read from the backlog.
func (q *queue) unpark(k *orderKey) []bus.Position {
	n := min(parkAfter, len(k.parked))
	places := slices.Clone(k.parked[:n])
	k.parked = slices.Delete(k.parked, 0, n)
	return places
}

// unparked adds what was read from the places that unpark gave. Until then they
// count as parked: nothing may take the direct way past them.
func (q *queue) unparked(key string, k *orderKey, places int, read []*delivery) (more *orderKey) {
	k.loading = false
	q.apart -= places
	for _, d := range read {
		d.key = key
		k.waiting = append(k.waiting, d)
		q.held++
		q.bytes += d.event.Size()
		k.since = d.accepted // those behind it are not older
	}
	if len(k.parked) == 0 {
		k.since = time.Time{}
	}
	return q.promote(key, k)
}

// pushHead adds a delivery that has taken its key already.
func (q *queue) pushHead(d *delivery) {
	q.bytes += d.event.Size()
	q.ready.push(d)
}

// pop takes the next delivery that may run; it keeps its key until release.
func (q *queue) pop() *delivery {
	d := q.ready.pop()
	if d != nil {
		q.bytes -= d.event.Size()
	}
	return d
}

// release gives a key to the next one that waits for it. parked tells
// that this one has to be read from the backlog first.
func (q *queue) release(key string) (parked *orderKey) {
	if q.keyOf == nil {
		return nil
	}
	k := q.keys[key]
	if k == nil || k.taken == 0 {
		return nil
	}
	k.taken--
	return q.promote(key, k)
}

// reading tells whether parked deliveries are on their way back.
func (q *queue) reading() bool {
	for _, k := range q.keys {
		if k.loading {
			return true
		}
	}
	return false
}

// parkedPlaces are all that is parked.
func (q *queue) parkedPlaces() (places []bus.Position) {
	for _, k := range q.keys {
		places = append(places, k.parked...)
		k.parked = nil
	}
	slices.SortFunc(places, func(a, b bus.Position) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
	return places
}

// promote makes the first that waits for a free key ready.
func (q *queue) promote(key string, k *orderKey) (parked *orderKey) {
	switch {
	case k.taken > 0 || k.loading:
	case len(k.waiting) > 0:
		k.taken++
		q.held--
		q.ready.push(k.waiting[0])
		k.waiting = slices.Delete(k.waiting, 0, 1)
	case len(k.parked) > 0:
		k.loading = true
		return k
	default:
		delete(q.keys, key)
	}
	return nil
}

// take removes the deliveries that pick chooses: those of a key in their order.
func (q *queue) take(pick func(*delivery) bool, unpark func(string, *orderKey)) []*delivery {
	taken := q.ready.take(pick)
	for _, d := range taken {
		if k := q.keys[d.key]; q.keyOf != nil && k != nil {
			k.taken--
		}
	}
	for key, k := range q.keys {
		k.waiting = slices.DeleteFunc(k.waiting, func(d *delivery) bool {
			if pick(d) {
				taken = append(taken, d)
				q.held--
				return true
			}
			return false
		})
		if p := q.promote(key, k); p != nil {
			unpark(key, p)
		}
	}
	for _, d := range taken {
		q.bytes -= d.event.Size()
	}
	return taken
}

// oldest calls visit with deliveries of which one has waited longest of those that are
// wanted: others may stand before it.
func (q *queue) oldest(wanted func(*delivery) bool, visit func(*delivery)) {
	first := func(d *delivery) (more bool) {
		if !wanted(d) {
			return true
		}
		visit(d)
		return false
	}
	q.ready.each(first)
	for _, k := range q.keys {
		if i := slices.IndexFunc(k.waiting, wanted); i >= 0 {
			visit(k.waiting[i])
		}
	}
}

// fifo is a queue of deliveries.
type fifo struct {
	items []*delivery
	head  int
}

func (f *fifo) len() int { return len(f.items) - f.head }

func (f *fifo) push(d *delivery) { f.items = append(f.items, d) }

func (f *fifo) peek() *delivery {
	if f.len() == 0 {
		return nil
	}
	return f.items[f.head]
}

func (f *fifo) pop() *delivery {
	d := f.peek()
	if d == nil {
		return nil
	}
	f.items[f.head] = nil
	f.head++
	switch {
	case f.head < len(f.items) && (f.head < 1024 || f.head < len(f.items)/2):
	case f.head == len(f.items) && cap(f.items) > 64:
		f.items, f.head = nil, 0
	default:
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	return d
}

// each calls visit with each delivery in order, until that is false.
func (f *fifo) each(visit func(*delivery) bool) {
	for _, d := range f.items[f.head:] {
		if !visit(d) {
			return
		}
	}
}

// take removes the deliveries that pick chooses, in order.
func (f *fifo) take(pick func(*delivery) bool) (taken []*delivery) {
	f.items = slices.DeleteFunc(f.items[f.head:], func(d *delivery) bool {
		if pick(d) {
			taken = append(taken, d)
			return true
		}
		return false
	})
	f.head = 0
	return taken
}
