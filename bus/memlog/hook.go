package memlog

import (
	"context"
	"errors"
	"fmt"

	"sluice/bus"
)

// ErrCrash when returned by a Hook kills the log there and then: every call that is
// running or follows fails with an error that wraps it (and bus.ErrUnavailable,
// which is how a log that died under its caller looks). See Log.Restart.
var ErrCrash = errors.New("the log has crashed")

// Hook is called, outside of any lock, around each operation. It may block; ctx is
// the operation's. An error fails the operation: at Before nothing was done and
// the caller gets that very error, at After it was done but the caller is told
// bus.ErrUnavailable. ErrCrash is the exception.
type Hook func(ctx context.Context, op Op) error

// Op is one operation as a Hook sees it.
type Op struct {
	Name   string // OpAppend and so on
	Stream string // "" for the state table
	Key    string
	N      int // records of an append, numbers of a removal
	When   When
}

// The names of the operations, which are those of the methods. OpNext stands
// for TryNext too; it is seen before the reader waits and, once there is a pack,
// before it moves past that.
const (
	OpAppend    = "Append"
	OpRead      = "Read"
	OpNext      = "Next"
	OpGet       = "Get"
	OpRemove    = "Remove"
	OpTrim      = "Trim"
	OpSince     = "Since"
	OpGone      = "Gone"
	OpInfo      = "Info"
	OpKeys      = "Keys"
	OpPutState  = "PutState"
	OpState     = "State"
	OpStateKeys = "StateKeys"
)

// When is the side of the operation a Hook is called on.
type When int

// The two sides.
const (
	Before When = iota // nothing is done yet
	After              // it is done, the caller does not know yet
)

// String is "before" or "after".
func (w When) String() string {
	if w == Before {
		return "before"
	}
	return "after"
}

// do runs one operation between its hooks. f runs under the lock.
func (l *Log) do(ctx context.Context, op Op, f func() error) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.running.Done()
	if err := l.before(ctx, op); err != nil {
		return err
	}
	if err := l.locked(f); err != nil {
		return err
	}
	return l.after(ctx, op)
}

// enter counts the caller as running, unless the log is closed or dead.
func (l *Log) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crashed {
		return errCrashed()
	}
	if l.closed {
		return fmt.Errorf("memlog: %w", bus.ErrClosed)
	}
	l.running.Add(1)
	return nil
}

// locked runs f under the lock unless the log crashed meanwhile. A log that is
// merely closing lets running calls through.
func (l *Log) locked(f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.crashed {
		return errCrashed()
	}
	return f()
}

func (l *Log) before(ctx context.Context, op Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	op.When = Before
	if err := l.hook(ctx, op); err != nil {
		return err
	}
	return ctx.Err() // a hook that delays may outlast its caller
}

func (l *Log) after(ctx context.Context, op Op) error {
	op.When = After
	err := l.hook(ctx, op)
	if err == nil || errors.Is(err, ErrCrash) {
		return err
	}
	return fmt.Errorf("memlog: %s: %w: %w", op.Name, bus.ErrUnavailable, err)
}

func (l *Log) hook(ctx context.Context, op Op) error {
	if l.opts.Hook == nil {
		return nil
	}
	err := l.opts.Hook(ctx, op)
	if errors.Is(err, ErrCrash) {
		l.crash()
		return errCrashed()
	}
	return err
}

func errCrashed() error { return fmt.Errorf("memlog: %w: %w", bus.ErrUnavailable, ErrCrash) }
