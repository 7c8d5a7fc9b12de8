package sources

import (
	"context"
	"log/slog"
	"net/http"

	"sluice/bus"
)

// Env is what a source is given besides its settings.
type Env struct {
	Name string // the name of the source in the config
	Log  *slog.Logger
	// Dir is a directory of the source's own, for what is too large for State. It
	// is there after a restart. "" when the bus keeps nothing on disk. Whoever
	// uses it makes it.
	Dir string
	// State keeps small values over restarts, such as the place to go on from.
	State State
	// Handle opens a door in the bus's own listener for as long as the source runs.
	// The path is taken when Open calls it: an error says who has it.
	Handle func(Door) error
	// Observe counts what became of what arrived. It may be nil.
	Observe func(outcome Outcome, events int)
	// Await gives the first reply of a function to an event that comes after the
	// call, for callers that wait for one; who waits calls stop. The channel is closed
	// when none can come any more: the bus stops. It may be nil.
	Await func(e bus.Event) (reply <-chan bus.Event, stop func())
	// Reject makes a dead letter of input that cannot become an event, and returns
	// nil once it is durable: then it may be acknowledged upstream.
	Reject func(ctx context.Context, r Rejected) error
	// Report shows an error that the source deals with by itself, such as a lost
	// connection, in the state of the source until it reports nil. It may be nil.
	Report func(err error)
}

// Door is a path of the bus's own listener.
type Door struct {
	Path    string
	Handler http.Handler
	// Verifies says that the handler checks by itself who calls. Otherwise
	// the caller needs a token with the scope publish, as for /events.
	Verifies bool
}

// State keeps values of one source over restarts: at most 256 KiB each, by keys of
// letters, digits, - and _. What Put has taken is on disk.
type State interface {
	// Get is the value last put, or bus.ErrNotFound.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put replaces the value; nil removes it.
	Put(ctx context.Context, key string, value []byte) error
}

// Rejected is input that cannot become an event.
type Rejected struct {
	ID          string // the same when upstream sends it again
	Where       string // where it stood, such as clicks/3/4711 for topic, partition and offset
	Reason      string // what is wrong with it
	ContentType string // of Data; application/octet-stream when empty
	Data        []byte // as it came
	// Key and Headers are what came beside the data, of a record that has them.
	Key     []byte
	Headers []Header
}

// Header is a header of a record as it came.
type Header struct {
	Name  string
	Value []byte
}

// observe is Observe when there is one.
func (e *Env) observe(outcome Outcome, events int) {
	if e.Observe != nil {
		e.Observe(outcome, events)
	}
}

// report is Report when there is one.
func (e *Env) report(err error) {
	if e.Report != nil {
		e.Report(err)
	}
}
