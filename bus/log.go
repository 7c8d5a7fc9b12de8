package bus

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The streams of a Log. Every log has exactly these.
const (
	Events      = "EVENTS"      // every accepted event, in order
	Backlog     = "BACKLOG"     // deliveries that wait for a busy, paused or broken sink; key: the sink
	Retries     = "RETRIES"     // deliveries that wait for their next attempt; key: the sink
	DeadLetters = "DEADLETTERS" // deliveries that were given up; key: the sink
)

// StreamNames lists the streams of a Log.
func StreamNames() []string { return []string{Events, Backlog, Retries, DeadLetters} }

// Log is the durable store under the bus: four streams of packs and a small
// table of state. It is safe for use by many goroutines. bus/jetstream keeps it
// on disk, bus/memlog in memory; bus/bustest says what both must do.
type Log interface {
	// Stream gives one of StreamNames. It panics on any other name.
	Stream(name string) Stream
	// PutState durably replaces the value under key (letters, digits, - and _,
	// dots between them). A nil value removes the key.
	PutState(ctx context.Context, key string, value []byte) error
	// State is the value last put under key, ErrNotFound, or ErrDamaged when there is
	// one and no copy of it can be read.
	State(ctx context.Context, key string) ([]byte, error)
	// StateKeys lists the keys that start with prefix, sorted, those too whose value
	// is damaged.
	StateKeys(ctx context.Context, prefix string) ([]string, error)
	// Usage tells how full the store is. It is cheap: call it as often as you like.
	Usage() Usage
	// Close waits for running calls, makes everything durable and releases the
	// store. Calls after Close return ErrClosed. Close may be called twice.
	Close() error
}

// Usage is the size of a store in bytes.
type Usage struct {
	Stored int64 // what the streams hold
	Limit  int64 // what they may hold
	Free   int64 // what the volume below has left; -1 when there is no volume
}

// Stream is an ordered sequence of packs. Sequence numbers start at 1, grow, and
// are never used twice in one stream.
type Stream interface {
	// ID names this incarnation of the stream: it changes when the stream is made
	// anew, which makes every position and mark taken before it worthless.
	ID() string
	// Append stores the records as one pack under key and returns its sequence
	// number once it is durable. It stores all of the records or none. Packs of
	// one caller get ascending numbers in the order of its calls. Errors: ErrFull,
	// ErrTooLarge, ErrClosed (nothing stored) and ErrUnavailable (unknown).
	// The records are not kept after the call.
	Append(ctx context.Context, key string, records [][]byte) (seq uint64, err error)
	// Read opens a reader at the first pack with a number of at least from. With a
	// key it sees the packs of that key alone.
	Read(ctx context.Context, key string, from uint64) (Reader, error)
	// Get is the pack with that number, or ErrNotFound.
	Get(ctx context.Context, seq uint64) (Pack, error)
	// Remove deletes packs; one that is not there is no error. A removal may be
	// undone by a power loss, never by a crash of the process alone.
	Remove(ctx context.Context, seqs ...uint64) error
	// Trim deletes every pack with a number below seq; with a key, those of that
	// key alone.
	Trim(ctx context.Context, key string, below uint64) error
	// Since is the number of the first pack that was appended at or after t; the
	// number that the next pack will have when there is none.
	Since(ctx context.Context, t time.Time) (seq uint64, err error)
	// Gone picks from numbers, given in order, those that no pack has: it was
	// removed or lost, or there never was one.
	Gone(ctx context.Context, seqs ...uint64) ([]uint64, error)
	// Info tells what the stream holds.
	Info(ctx context.Context) (StreamInfo, error)
	// Keys lists the keys that have packs, with how many packs each has.
	Keys(ctx context.Context) (map[string]int, error)
}

// StreamInfo is what a stream holds. First and Last are 0 while it never held
// anything; in a stream that was emptied, First is Last + 1.
type StreamInfo struct {
	First, Last uint64
	FirstTime   time.Time // when the first pack that is left was appended
	Packs       uint64
	Bytes       uint64
}

// Reader gives the packs of a stream in order, waiting for new ones. It is for
// one goroutine. Packs that are removed before they are read are left out.
type Reader interface {
	// Next waits for the next pack. It ends with ctx's error, after which it may
	// be called again and goes on where it was, or with ErrClosed.
	// A pack that cannot be read whole comes with nil in place of each lost
	// record, never as silence.
	Next(ctx context.Context) (Pack, error)
	// TryNext is Next for a pack that is there already: ok is false, at once, when
	// none is left to read now. A reader that went through all of a stream this
	// way has seen every pack that was there when it was opened.
	TryNext(ctx context.Context) (p Pack, ok bool, err error)
	// Close releases the reader. It may be called twice.
	Close() error
}

// Pack is a group of records that was stored by one write. Records are shared
// with the store: read only. A nil record is one that was damaged on disk.
type Pack struct {
	Seq     uint64
	Key     string
	Time    time.Time // when it was appended
	Records [][]byte
}

// Position is the place of one record: its pack's number and its index there.
type Position struct {
	Seq   uint64
	Index int
}

// Less tells whether p comes before q.
func (p Position) Less(q Position) bool {
	return p.Seq < q.Seq || p.Seq == q.Seq && p.Index < q.Index
}

// String is the position as "seq.index", the form that ParsePosition reads.
func (p Position) String() string { return strconv.FormatUint(p.Seq, 10) + "." + strconv.Itoa(p.Index) }

// ParsePosition reads what Position.String wrote.
func ParsePosition(s string) (Position, error) {
	seq, index, ok := strings.Cut(s, ".")
	n, err := strconv.ParseUint(seq, 10, 64)
	i, err2 := strconv.ParseUint(index, 10, 31)
	if !ok || err != nil || err2 != nil {
		return Position{}, fmt.Errorf("%q is not a position such as 1042.7", s)
	}
	return Position{Seq: n, Index: int(i)}, nil
}
