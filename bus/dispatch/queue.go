package dispatch

// queue is a FIFO of deliveries that knows how many bytes it holds.
type queue struct {
	items []*delivery
	head  int
	bytes int
}

func (q *queue) len() int { return len(q.items) - q.head }

func (q *queue) push(d *delivery) {
	q.items = append(q.items, d)
	q.bytes += d.event.Size()
}

func (q *queue) peek() *delivery {
	if q.len() == 0 {
		return nil
	}
	return q.items[q.head]
}

func (q *queue) pop() *delivery {
	d := q.peek()
	if d == nil {
		return nil
	}
	q.items[q.head] = nil
	q.head++
	q.bytes -= d.event.Size()
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 64 {
			q.items = nil
		}
	} else if q.head > 1024 && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return d
}

// take removes the deliveries that pick chooses, in order.
func (q *queue) take(pick func(*delivery) bool) []*delivery {
	var taken, kept []*delivery
	for _, d := range q.items[q.head:] {
		if pick(d) {
			taken = append(taken, d)
			q.bytes -= d.event.Size()
		} else {
			kept = append(kept, d)
		}
	}
	q.items, q.head = kept, 0
	return taken
}
