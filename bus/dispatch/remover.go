package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sluice/bus"
)

// remover deletes settled packs in the background, once a commit of the ledgers says
// that they are settled: until then their records tell what they took over from.
// Nobody waits for it.
type remover struct {
	log *slog.Logger

	mu     sync.Mutex
	packs  removals // that are not committed
	ready  removals
	closed bool
	wake   chan struct{}
}

// removals are packs to remove, by the ledgers that they are in.
type removals map[*ledger]*removal

type removal struct {
	stream bus.Stream
	seqs   []uint64
}

func (r removals) add(s bus.Stream, books *ledger, seqs ...uint64) {
	todo := r[books]
	if todo == nil {
		todo = &removal{stream: s}
		r[books] = todo
	}
	todo.seqs = append(todo.seqs, seqs...)
}

func newRemover(log *slog.Logger) *remover {
	return &remover{log: log, packs: removals{}, ready: removals{}, wake: make(chan struct{}, 1)}
}

func (r *remover) remove(s bus.Stream, books *ledger, seqs ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.packs.add(s, books, seqs...)
}

// take gives the packs that the snapshots know which are taken from now on.
func (r *remover) take() removals {
	r.mu.Lock()
	defer r.mu.Unlock()
	packs := r.packs
	r.packs = removals{}
	return packs
}

// keep gives back what take gave: the snapshots were not saved.
func (r *remover) keep(packs removals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for books, todo := range packs {
		r.packs.add(todo.stream, books, todo.seqs...)
	}
}

// release lets what take gave be removed.
func (r *remover) release(packs removals) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for books, todo := range packs {
		r.ready.add(todo.stream, books, todo.seqs...)
	}
	signal(r.wake)
}

// stop lets run end once everything is removed that was released.
func (r *remover) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	signal(r.wake)
}

func (r *remover) run(ctx context.Context) {
	for {
		<-r.wake
		r.mu.Lock()
		packs, closed := r.ready, r.closed
		r.ready = removals{}
		r.mu.Unlock()
		for books, todo := range packs {
			r.do(ctx, books, todo, closed)
		}
		if closed {
			return
		}
	}
}

func (r *remover) do(ctx context.Context, books *ledger, todo *removal, last bool) {
	err := todo.stream.Remove(ctx, todo.seqs...)
	if err == nil {
		for _, seq := range todo.seqs {
			books.drop(seq)
		}
		return
	}
	if last || ctx.Err() != nil || errors.Is(err, bus.ErrClosed) {
		r.log.Warn("settled packs stay in the store; the next start removes them", "packs", len(todo.seqs), "err", err)
		return
	}
	r.log.Warn("cannot remove settled packs; trying again", "packs", len(todo.seqs), "err", err)
	r.release(removals{books: todo})
	pause(ctx, time.Second)
}
