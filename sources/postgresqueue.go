package sources

import (
	"context"
	"sync"

	"github.com/jackc/pglogrepl"
)

// The window between the connection and the bus, and what is published at a time.
// A single item that is larger passes alone.
const (
	pgQueueItems = 2048
	pgQueueBytes = 16 << 20
	pgBatchItems = 512
	pgBatchBytes = 4 << 20
)

// pgQueue is what was received and is not published yet: bounded, in order, with
// one goroutine at each end.
type pgQueue struct {
	mu      sync.Mutex
	changed sync.Cond
	items   []pgItem
	bytes   int
}

func newPgQueue() *pgQueue {
	q := &pgQueue{}
	q.changed.L = &q.mu
	return q
}

// wake makes waiting calls look at their ctx when it ends.
func (q *pgQueue) wake(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.changed.Broadcast()
	})
}

// put adds an item once there is room.
func (q *pgQueue) put(ctx context.Context, it pgItem) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && (len(q.items) >= pgQueueItems || q.bytes+it.size > pgQueueBytes) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		q.changed.Wait()
	}
	q.items = append(q.items, it)
	q.bytes += it.size
	q.changed.Broadcast()
	return ctx.Err()
}

// mark says how far the server may forget once all before is durable. It takes no
// room behind another item.
func (q *pgQueue) mark(done pglogrepl.LSN) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.items); n > 0 {
		q.items[n-1].done = max(q.items[n-1].done, done)
		return
	}
	q.items = append(q.items, pgItem{done: done})
	q.changed.Broadcast()
}

// take waits for items and moves at most one batch of them to dst.
func (q *pgQueue) take(ctx context.Context, dst []pgItem) ([]pgItem, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		q.changed.Wait()
	}
	n, bytes := 0, 0
	for n < len(q.items) && n < pgBatchItems && (n == 0 || bytes+q.items[n].size <= pgBatchBytes) {
		bytes += q.items[n].size
		n++
	}
	dst = append(dst, q.items[:n]...)
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:]) // the events are not held any longer
	q.items = q.items[:rest]
	q.bytes -= bytes
	q.changed.Broadcast()
	return dst, ctx.Err()
}
