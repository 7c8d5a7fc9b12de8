package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"sluice/bus"
)

// A delivery moves from record to record: from its event to the backlog, to a retry,
// to a lease, to its end. Each record names the one that it takes over from. A crash
// forgets what was settled since the last commit of the ledgers; it is read off the
// few records that are newer than that commit. So what had moved on before the crash
// is not there twice after it, and the end of a lease is durable by a record as
// small as its name, however much the ledgers hold.

// recordName says where a record is.
type recordName struct {
	stream string
	pos    bus.Position
}

// String is the name in the form that parseRecordName reads, such as RETRIES/1042.7.
func (n recordName) String() string { return n.stream + "/" + n.pos.String() }

func parseRecordName(s string) (n recordName, err error) {
	stream, pos, ok := strings.Cut(s, "/")
	if !ok {
		return n, fmt.Errorf("%q is not the name of a record such as RETRIES/1042.7", s)
	}
	n.stream = stream
	n.pos, err = bus.ParsePosition(pos)
	return n, err
}

// name is that of the record, or "" when there is none.
func (o origin) name() string {
	if o.ledger == nil {
		return ""
	}
	return recordName{o.ledger.stream, o.pos}.String()
}

// step is one move of one delivery away from a record. An event has many deliveries,
// so the record alone does not tell which.
type step struct {
	from     recordName
	delivery string
}

// takeOver reads the records that are newer than the last commit, and settles those
// that they took over from. Streams that were made anew since then say nothing.
func (d *Dispatcher) takeOver(ctx context.Context, saved map[string]savedLedger) error {
	t := takeover{d: d, heads: map[string]uint64{}, last: map[step]newRecord{}}
	d.writersByName(func(name string, w *writer) {
		if saved[name].Stream == w.stream.ID() {
			t.heads[name] = w.head.Load()
		}
	})
	// In the order in which a delivery goes through them: of two records that took
	// over from the same one, the later one counts.
	for _, name := range []string{bus.Backlog, bus.Retries, bus.DeadLetters} {
		head, known := t.heads[name]
		if from := saved[name].Answered + 1; known && from <= head {
			if err := eachPack(ctx, d.store.Stream(name), from, func(p bus.Pack) bool {
				t.read(name, p)
				return p.Seq < head
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

type takeover struct {
	d     *Dispatcher
	heads map[string]uint64 // the last packs of the streams that are as they were
	last  map[step]newRecord
}

// newRecord is a record that is newer than the last commit.
type newRecord struct {
	recordName
	branch
}

func (t *takeover) read(stream string, p bus.Pack) {
	t.d.list(stream, p)
	for i, rec := range p.Records {
		text, _, err := splitMeta(rec)
		if err != nil {
			continue // whoever reads it for its content says so
		}
		var m meta
		if json.Unmarshal(text, &m) != nil || m.From == "" {
			continue
		}
		from, err := parseRecordName(m.From)
		if head, known := t.heads[from.stream]; err != nil || !known || from.pos.Seq > head {
			continue
		}
		s := step{from, m.ID}
		if before, ok := t.last[s]; ok { // a write that was repeated because its answer got lost
			t.settle(before)
		}
		t.last[s] = newRecord{recordName{stream, bus.Position{Seq: p.Seq, Index: i}}, branch{m.Rule, p.Key}}
		t.settle(newRecord{from, branch{m.Rule, p.Key}})
	}
}

// settle notes that a record is settled, before its pack is read.
func (t *takeover) settle(r newRecord) {
	switch r.stream {
	case bus.Events:
		t.d.events.markBranch(r.pos, r.branch)
	case bus.Backlog:
		t.d.lane(r.sink).books.mark(r.pos)
	case bus.Retries:
		t.d.retries.books.mark(r.pos)
	}
}
