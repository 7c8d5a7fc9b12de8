package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sluice/bus"
)

// remover deletes settled packs in the background. Nobody waits for it: until a
// pack is gone its ledger says that it is settled.
type remover struct {
	log *slog.Logger

	mu     sync.Mutex
	packs  map[*ledger]*removal
	closed bool
	wake   chan struct{}
}

type removal struct {
	stream bus.Stream
	seqs   []uint64
}

func newRemover(log *slog.Logger) *remover {
	return &remover{log: log, packs: map[*ledger]*removal{}, wake: make(chan struct{}, 1)}
}

func (r *remover) remove(s bus.Stream, books *ledger, seqs ...uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	todo := r.packs[books]
	if todo == nil {
		todo = &removal{stream: s}
		r.packs[books] = todo
	}
	todo.seqs = append(todo.seqs, seqs...)
	signal(r.wake)
}

// stop lets run end once everything is removed.
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
		packs, closed := r.packs, r.closed
		r.packs = map[*ledger]*removal{}
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
	r.remove(todo.stream, books, todo.seqs...)
	pause(ctx, time.Second)
}
