package sources

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pglogrepl"
	"github.com/tidwall/gjson"

	"sluice/bus"
)

// pgItem is one step of the replication: an event or poison, or neither, and how
// far the server may forget once it is durable.
type pgItem struct {
	event  *bus.Event
	poison *Rejected
	done   pglogrepl.LSN // 0 in the middle of a transaction
	size   int
}

// pgDecoder makes events of the messages of one replication connection, which
// describes each table before the first change of it.
type pgDecoder struct {
	source  string
	history string // sets messages apart that belong to no transaction
	outbox  PostgresOutbox
	takes   func(oid uint32, t pgTable) bool
	// skipped is told of the first change of a table that is not taken.
	skipped func(t pgTable)
	// bases gives the base types of domains among the types that are not built in.
	bases func(ctx context.Context, oids []uint32) (map[uint32]uint32, error)

	relations map[uint32]*pgRelation
	tx        pgTransaction
	last      pglogrepl.LSN // of the change before
	ordinal   int           // among the changes with that LSN
	row, old  []pgValue     // used again for each change
	out       []pgItem
}

// pgRelation is a table as it was when the change was made.
type pgRelation struct {
	pgTable
	columns []pgColumn
	full    bool // REPLICA IDENTITY FULL: every column is part of the identity
	skip    bool // not one of the tables to take
	told    bool // that it is skipped
}

type pgTransaction struct {
	open   bool
	xid    uint32
	commit pglogrepl.LSN
	time   time.Time
}

// decode reads one message that stands at lsn of the WAL. What it returns is
// overwritten by the next call; it does not refer to the message.
func (d *pgDecoder) decode(ctx context.Context, lsn pglogrepl.LSN, sent time.Time, msg []byte) ([]pgItem, error) {
	d.out = d.out[:0]
	w := pgWire{b: msg}
	var err error
	switch kind := w.byte(); kind {
	case 'B':
		d.tx = pgTransaction{true, 0, pglogrepl.LSN(w.uint64()), w.time()}
		d.tx.xid = w.uint32()
	case 'C':
		w.byte()   // flags
		w.uint64() // the LSN of the commit
		d.tx.open = false
		d.out = append(d.out, pgItem{done: pglogrepl.LSN(w.uint64())})
	case 'R':
		err = d.relation(ctx, &w)
	case 'I', 'U', 'D':
		err = d.change(kind, lsn, &w, msg)
	case 'T':
		err = d.truncate(lsn, &w)
	case 'M':
		err = d.message(&w, sent)
	case 'Y', 'O': // a type's name, a transaction's origin
		return nil, nil
	default:
		return nil, fmt.Errorf("a replication message of the unknown kind %q: is the output plugin of the slot pgoutput?", kind)
	}
	if err == nil {
		err = w.end()
	}
	return d.out, err
}

// id is the same whenever the server sends the change again. The LSNs of a database that
// was made anew, or set back, begin once more: so the time of the commit is in it too.
func (d *pgDecoder) id(lsn pglogrepl.LSN) string {
	if lsn == d.last {
		d.ordinal++
	} else {
		d.last, d.ordinal = lsn, 0
	}
	return lsn.String() + "-" + strconv.Itoa(d.ordinal) + "-" + d.tx.stamp()
}

func (t *pgTransaction) stamp() string { return strconv.FormatInt(t.time.UnixMicro(), 10) }

func (d *pgDecoder) relation(ctx context.Context, w *pgWire) error {
	oid := w.uint32()
	r := &pgRelation{pgTable: pgTable{w.string(), w.string()}, full: w.byte() == 'f'}
	if r.schema == "" {
		r.schema = "pg_catalog" // the protocol's own short form
	}
	var foreign []uint32 // types that are not built in
	for range w.uint16() {
		c := pgColumn{key: w.byte()&1 != 0, name: w.string(), oid: w.uint32()}
		w.uint32() // the type's modifier
		if w.short {
			return errPgShort
		}
		if c.form = pgFormOf(c.oid); c.oid >= pgFirstOwnOID && !slices.Contains(foreign, c.oid) {
			foreign = append(foreign, c.oid)
		}
		r.columns = append(r.columns, c)
	}
	if len(foreign) > 0 && d.bases != nil {
		bases, err := d.bases(ctx, foreign)
		if err != nil {
			return fmt.Errorf("look up the types of %s: %w", r.pgTable, err)
		}
		r.resolve(bases)
	}
	r.skip = !d.takes(oid, r.pgTable)
	d.relations[oid] = r
	return nil
}

// resolve gives domains the form of their base types.
func (r *pgRelation) resolve(bases map[uint32]uint32) {
	for i := range r.columns {
		if base, ok := bases[r.columns[i].oid]; ok {
			r.columns[i].form = pgFormOf(base)
		}
	}
}

// pgFirstOwnOID is the first number of what a user creates.
const pgFirstOwnOID = 16384

func (d *pgDecoder) known(oid uint32) (*pgRelation, error) {
	if r := d.relations[oid]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("a change of the table number %d, which the server did not describe", oid)
}

// change is an insert, an update or a delete.
func (d *pgDecoder) change(kind byte, lsn pglogrepl.LSN, w *pgWire, msg []byte) error {
	r, err := d.known(w.uint32())
	if err != nil {
		return err
	}
	ch := pgChange{relation: r, tx: &d.tx, lsn: lsn, id: d.id(lsn)}
	part := w.byte()
	if part == 'K' || part == 'O' {
		d.old = w.row(d.old)
		ch.old, ch.fullOld = d.old, part == 'O'
		if kind == 'U' {
			part = w.byte()
		}
	}
	if part == 'N' {
		d.row = w.row(d.row)
		ch.row = d.row
	}
	if err := w.end(); err != nil {
		return err
	}
	switch kind {
	case 'I':
		ch.op, ch.kind = "insert", PostgresInserted
	case 'U':
		ch.op, ch.kind = "update", PostgresUpdated
	case 'D':
		ch.op, ch.kind = "delete", PostgresDeleted
	}
	if (ch.row == nil) != (kind == 'D') || ch.old == nil && kind == 'D' || !ch.fits() {
		return errPgShort
	}
	d.emitChange(&ch, msg)
	return nil
}

func (d *pgDecoder) emitChange(ch *pgChange, msg []byte) {
	r := ch.relation
	if !r.skip {
		e, err := ch.event(d.source)
		d.emit(e, err, ch.id, r.String()+" "+ch.lsn.String(), msg)
	} else if !r.told {
		r.told = true
		d.skipped(r.pgTable)
	}
}

// emit adds an event, or poison when err says that there is none.
func (d *pgDecoder) emit(e bus.Event, err error, id, where string, raw []byte) {
	it := pgItem{event: &e, size: e.Size()}
	if err != nil {
		it = pgItem{poison: &Rejected{ID: id, Where: where, Reason: err.Error(), Data: slices.Clone(raw)}, size: len(raw)}
	}
	d.out = append(d.out, it)
}

func (d *pgDecoder) truncate(lsn pglogrepl.LSN, w *pgWire) error {
	n, options := w.uint32(), w.byte()
	for range n {
		oid := w.uint32()
		if w.short {
			return errPgShort
		}
		r, err := d.known(oid)
		if err != nil {
			return err
		}
		ch := pgChange{
			relation: r, tx: &d.tx, lsn: lsn, id: d.id(lsn), op: "truncate", kind: PostgresTruncated,
			cascade: options&1 != 0, restart: options&2 != 0,
		}
		d.emitChange(&ch, nil)
	}
	return nil
}

// message is a message of pg_logical_emit_message.
func (d *pgDecoder) message(w *pgWire, sent time.Time) error {
	transactional := w.byte()&1 != 0
	lsn := pglogrepl.LSN(w.uint64())
	prefix := w.string()
	content := slices.Clone(w.take(int(w.uint32())))
	if w.short {
		return errPgShort
	}
	// The LSN of a message is the end of its record, where the record of a row may
	// begin: the ids must differ.
	id, at := lsn.String()+"-message-", d.tx.time
	if transactional {
		id += d.tx.stamp()
	} else { // it stands on its own
		id, at = id+d.history, sent
	}
	if strings.HasPrefix(prefix, d.outbox.Prefix) {
		e, err := d.messageEvent(id, prefix, content, at)
		d.emit(e, err, id, "message "+prefix+" "+lsn.String(), content)
	}
	if !transactional {
		// Not a byte more: the record that begins there would be skipped.
		d.out = append(d.out, pgItem{done: lsn})
	}
	return nil
}

func (d *pgDecoder) messageEvent(id, prefix string, content []byte, at time.Time) (bus.Event, error) {
	if d.outbox.CloudEvents && len(content) > 0 && gjson.ParseBytes(content).IsObject() && gjson.GetBytes(content, "specversion").Exists() {
		e, err := bus.ParseJSON(content)
		if err != nil {
			return e, err
		}
		return bus.Stamp(e, at), nil
	}
	if prefix == "" {
		prefix = PostgresMessage
	}
	contentType := "application/octet-stream"
	switch {
	case bus.ValidJSON(content):
		contentType = "application/json"
	case utf8.Valid(content):
		contentType = "text/plain; charset=utf-8"
	}
	attrs := []bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: d.source}, {Name: "type", Value: prefix},
		{Name: "time", Value: at.Format(time.RFC3339Nano)},
	}
	if len(content) > 0 {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: contentType})
	}
	return bus.NewEvent(attrs, content)
}
