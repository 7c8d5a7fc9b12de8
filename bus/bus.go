package bus

import (
	"context"
	"errors"
)

// Publisher takes events onto the bus. It is safe for use by many goroutines.
type Publisher interface {
	// Publish stores the events and returns one Result for each, in order. A nil
	// Result.Err means that the event is durable: on disk, fsynced as the store
	// is configured. The returned error is non-nil only when nothing of the call
	// was stored and every Result says so too. When ctx ends first, whether the
	// events are stored is unknown, and the error says so: publish again with the
	// same ids.
	Publish(ctx context.Context, events ...Event) ([]Result, error)
}

// Result is what became of one published event.
type Result struct {
	Position     Position // where it is in the log, when Err is nil
	Err          error
	Deduplicated bool // it was published before, and is stored once
}

// What can keep the bus or its log from taking something. A caller tells them
// apart with errors.Is; each is wrapped with the cause.
var (
	// ErrFull: the store has no room left until events are settled or the disk
	// has space again. Nothing was stored.
	ErrFull = errors.New("the store is full")
	// ErrOverloaded: more is waiting to be stored than the bus wants to hold in
	// memory. Nothing was stored; try again a little later.
	ErrOverloaded = errors.New("the bus is overloaded")
	// ErrUnavailable: the log does not answer, or did not in time. Whether
	// anything was stored is unknown.
	ErrUnavailable = errors.New("the store is unavailable")
	// ErrClosed: the bus or its log is shutting down or closed. Nothing was stored.
	ErrClosed = errors.New("the bus is shutting down")
	// ErrTooLarge: one record is larger than a pack may be.
	ErrTooLarge = errors.New("larger than the store accepts")
	// ErrDamaged: something is stored there, and cannot be read any more.
	ErrDamaged = errors.New("damaged on disk")
	// ErrNotFound: nothing is stored under that position or key.
	ErrNotFound = errors.New("not found")
)
