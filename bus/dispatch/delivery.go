package dispatch

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/bus"
	"sluice/sinks"
)

// delivery is one event on its way to one sink. All but attempts and the places
// is set once; those belong to whoever holds the delivery: the router, then the
// lane, then the writer that makes it durable.
type delivery struct {
	event    bus.Event
	id       string
	rule     string
	sink     string
	accepted time.Time // when the event was stored, or chosen to be delivered again
	stored   time.Time // when the event was stored, if that is not accepted
	attempts []Attempt
	dropped  int       // attempts that are not kept in attempts
	due      time.Time // not before; zero for as soon as possible
	leased   time.Time // when its sink took a lease for it, that is not over; zero for none

	origin  origin    // the durable record that covers the delivery now
	offered time.Time // when the lane got it
	state   state     // guarded by the lane's mutex

	key      string // of order_by
	pinned   bool   // its next attempt has no record of its own
	reserved bool   // it has taken its key while it waits for its next attempt
	sealed   bool   // a record says that it has ended

	shaped  bool           // when it came into being its rule had a transform
	payload *sinks.Payload // of the attempt under way
}

// origin is the record that covers a delivery: the event in EVENTS that it comes
// from, or a record of its own.
type origin struct {
	ledger *ledger
	pos    bus.Position
}

// settle says that the record is not needed any more for a delivery.
func (o origin) settle(d *delivery) {
	if o.ledger != nil {
		o.ledger.settleBranch(o.pos, branch{d.rule, d.sink})
	}
}

// state is where a delivery is in its lane.
type state byte

const (
	queued    state = iota
	running         // an attempt is under way
	detaching       // running, and being given a record of its own
	detached        // running, with a record of its own in the backlog
	done            // no longer the lane's
)

// Attempt is what one attempt at a delivery came to.
type Attempt struct {
	At       time.Time     `json:"at"`
	Duration time.Duration `json:"duration_ns"`
	Status   int           `json:"status,omitempty"` // the answer's status, if there was one
	Class    string        `json:"class"`            // see Class
	Error    string        `json:"error,omitempty"`
	Answer   []byte        `json:"answer,omitempty"` // the first 4 KiB of the answer's body
}

const (
	maxAttempts = 200      // that are kept; of more, those in the middle go
	maxError    = 2 << 10  // bytes of an error's text
	maxAnswer   = 4 << 10  // of one attempt
	maxAnswers  = 64 << 10 // of all the attempts of one delivery together
)

// addAttempt appends to the history, of an answer no more than is kept. When the answers kept grow too large, those
// between the first and the newest go first: they are the least telling.
func (d *delivery) addAttempt(a Attempt) {
	a.Answer = slices.Clone(a.Answer[:min(len(a.Answer), maxAnswer)])
	d.attempts = append(slices.Clip(d.attempts), a)
	if len(d.attempts) > maxAttempts {
		d.attempts = slices.Delete(d.attempts, maxAttempts/2, maxAttempts/2+1)
		d.dropped++
	}
	total := 0
	for i := range d.attempts {
		total += len(d.attempts[i].Answer)
	}
	for i := 1; total > maxAnswers && i < len(d.attempts)-1; i++ {
		total -= len(d.attempts[i].Answer)
		d.attempts[i].Answer = nil
	}
}

// What a delivery and an attempt take beside their texts and the event's.
const (
	deliveryWeight = 640
	attemptWeight  = 128
)

// weight is about how much memory the delivery takes with its event and its history, which
// may be larger than that.
func (d *delivery) weight() int {
	n := deliveryWeight + d.event.Size() + len(d.attempts)*attemptWeight
	for i := range d.attempts {
		n += len(d.attempts[i].Error) + len(d.attempts[i].Answer)
	}
	return n
}

// deliveryID is the same on every attempt and after every restart, and differs
// between any two of event, rule and sink. salt tells replays apart.
func deliveryID(e bus.Event, rule, sink, salt string) string {
	return identityOf(e).delivery(rule, sink, salt)
}

// delivery is the id of a delivery of the event.
func (i identity) delivery(rule, sink, salt string) string {
	h := sha256.New()
	for _, s := range [...]string{i.source, i.id, rule, sink, salt} {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// meta is the part of a delivery's record that is not the event. A dead letter
// has the last three fields too.
type meta struct {
	ID       string    `json:"id"`
	Rule     string    `json:"rule"`
	Accepted time.Time `json:"accepted"`
	Stored   time.Time `json:"stored,omitzero"`
	Due      time.Time `json:"due,omitzero"`
	Attempts []Attempt `json:"attempts,omitempty"`
	Dropped  int       `json:"dropped,omitempty"` // attempts that are not listed
	Shaped   bool      `json:"shaped,omitempty"`
	Leased   time.Time `json:"leased,omitzero"`
	From     string    `json:"from,omitempty"`  // the record that it takes over from
	Ended    bool      `json:"ended,omitempty"` // it is done, and there is no event

	Reason string    `json:"reason,omitempty"`
	Died   time.Time `json:"died,omitzero"`
	Config string    `json:"config,omitempty"`
}

// A delivery record is the uvarint length of the meta, the meta as JSON, and the
// event's record. The sink is the key of its pack.

func appendDelivery(dst []byte, m *meta, e bus.Event) []byte {
	text, err := json.Marshal(m)
	if err != nil {
		// Times out of the years 0 to 9999 are all that Marshal can fail on here.
		panic(fmt.Sprintf("dispatch: delivery %s: %v", m.ID, err))
	}
	dst = binary.AppendUvarint(dst, uint64(len(text)))
	dst = append(dst, text...)
	return e.AppendRecord(dst)
}

func (d *delivery) meta() meta {
	return meta{ID: d.id, Rule: d.rule, Accepted: d.accepted, Stored: d.stored, Due: d.due, Attempts: d.attempts, Dropped: d.dropped, Shaped: d.shaped, Leased: d.leased, From: d.origin.name()}
}

// born is when the event was stored.
func (d *delivery) born() time.Time { return bornAt(d.accepted, d.stored) }

func bornAt(accepted, stored time.Time) time.Time {
	if stored.IsZero() {
		return accepted
	}
	return stored
}

// tried is how many attempts there were.
func (d *delivery) tried() int { return d.dropped + len(d.attempts) }

// sinceFirst is how long before now the first attempt ended; 0 for while it is under
// way. What a long history leaves out is never the first.
func (d *delivery) sinceFirst(now time.Time) time.Duration {
	if len(d.attempts) == 0 {
		return 0
	}
	first := d.attempts[0]
	return now.Sub(first.At.Add(first.Duration))
}

// successor is the same delivery under another record.
func (d *delivery) successor(o origin) *delivery {
	return &delivery{
		event: d.event, id: d.id, rule: d.rule, sink: d.sink, accepted: d.accepted, stored: d.stored,
		attempts: slices.Clip(d.attempts), dropped: d.dropped, due: d.due, origin: o, key: d.key, shaped: d.shaped, leased: d.leased,
	}
}

func (d *delivery) record() []byte {
	m := d.meta()
	return appendDelivery(make([]byte, 0, 256+d.event.Size()), &m, d.event)
}

// endRecord is the record of the end of a delivery.
func (d *delivery) endRecord() []byte {
	text, err := json.Marshal(&meta{ID: d.id, Rule: d.rule, From: d.origin.name(), Ended: true})
	if err != nil {
		panic(fmt.Sprintf("dispatch: delivery %s: %v", d.id, err)) // there is nothing in it that could fail
	}
	return append(binary.AppendUvarint(nil, uint64(len(text))), text...)
}

// errEnded is the record of an end, which is no delivery.
var errEnded = errors.New("the delivery has ended")

var errDeliveryRecord = errors.New("not a delivery record")

// splitMeta gives the two parts of a record.
func splitMeta(rec []byte) (text, event []byte, err error) {
	n, size := binary.Uvarint(rec)
	if size <= 0 || n > uint64(len(rec)-size) {
		return nil, nil, errDeliveryRecord
	}
	return rec[size : size+int(n)], rec[size+int(n):], nil
}

func decodeMeta(rec []byte) (m meta, e bus.Event, err error) {
	text, event, err := splitMeta(rec)
	if err != nil {
		return m, e, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, e, fmt.Errorf("%w: %w", errDeliveryRecord, err)
	}
	if m.Ended {
		return m, e, nil
	}
	e, err = bus.DecodeRecord(event)
	return m, e, err
}

func decodeDelivery(rec []byte, sink string) (*delivery, error) {
	m, e, err := decodeMeta(rec)
	if err != nil {
		return nil, err
	}
	if m.Ended {
		return nil, errEnded
	}
	return &delivery{
		event: e, id: m.ID, rule: m.Rule, sink: sink,
		accepted: m.Accepted, stored: m.Stored, attempts: m.Attempts, dropped: m.Dropped, due: m.Due, shaped: m.Shaped, leased: m.Leased,
	}, nil
}
