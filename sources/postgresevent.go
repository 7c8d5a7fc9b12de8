package sources

import (
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/tidwall/gjson"

	"sluice/bus"
)

// pgChange is what becomes one event: a change of a row, or a row of the snapshot.
type pgChange struct {
	relation *pgRelation
	tx       *pgTransaction // nil for a row of the snapshot
	lsn      pglogrepl.LSN
	id       string
	op, kind string
	at       time.Time // of a row of the snapshot

	row              []pgValue // nil when it is gone
	old              []pgValue // nil when nothing is known of it
	fullOld          bool      // all of old is known, and not the identity alone
	cascade, restart bool      // of a truncate
}

// fits tells whether the rows have a value for each column.
func (c *pgChange) fits() bool {
	n := len(c.relation.columns)
	return (c.row == nil || len(c.row) == n) && (c.old == nil || len(c.old) == n)
}

func (c *pgChange) event(source string) (bus.Event, error) {
	data, err := c.appendData(make([]byte, 0, 512))
	if err != nil {
		return bus.Event{}, err
	}
	at := c.at
	if c.tx != nil {
		at = c.tx.time
	}
	return bus.NewEvent([]bus.Attr{
		{Name: "id", Value: c.id}, {Name: "source", Value: source}, {Name: "type", Value: c.kind},
		{Name: "subject", Value: c.relation.String()}, {Name: "time", Value: at.Format(time.RFC3339Nano)},
		{Name: "datacontenttype", Value: "application/json"},
	}, data)
}

func (c *pgChange) appendData(b []byte) (_ []byte, err error) {
	b = append(b, `{"schema":`...)
	b = gjson.AppendJSONString(b, c.relation.schema)
	b = append(b, `,"table":`...)
	b = gjson.AppendJSONString(b, c.relation.name)
	b = append(b, `,"op":"`...)
	b = append(b, c.op...)
	b = append(b, '"')
	c.fillFromOld()
	if b, err = c.appendRows(b); err != nil {
		return nil, err
	}
	if c.op == "truncate" {
		b = append(b, `,"cascade":`...)
		b = strconv.AppendBool(b, c.cascade)
		b = append(b, `,"restart_identity":`...)
		b = strconv.AppendBool(b, c.restart)
	}
	b = append(b, `,"lsn":"`...)
	b = append(b, c.lsn.String()...)
	b = append(b, '"')
	if c.tx != nil {
		b = append(b, `,"commit_lsn":"`...)
		b = append(b, c.tx.commit.String()...)
		b = append(b, `","xid":`...)
		b = strconv.AppendUint(b, uint64(c.tx.xid), 10)
		b = append(b, `,"commit_time":"`...)
		b = c.tx.time.AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

// fillFromOld takes large values that did not change, and so were not sent again,
// from the old row when that has them.
func (c *pgChange) fillFromOld() {
	if !c.fullOld || c.row == nil {
		return
	}
	for i := range c.row {
		if c.row[i].kind == 'u' {
			c.row[i] = c.old[i]
		}
	}
}

func (c *pgChange) appendRows(b []byte) (_ []byte, err error) {
	columns := c.relation.columns
	isKey := func(col *pgColumn) bool { return col.key }
	now := c.row
	if now == nil {
		now = c.old
	}
	if now != nil && !c.relation.full && hasKey(columns) {
		b = append(b, `,"key":`...)
		if b, err = appendPgRow(b, columns, now, isKey); err != nil {
			return nil, err
		}
	}
	if c.row != nil {
		b = append(b, `,"new":`...)
		if b, err = appendPgRow(b, columns, c.row, nil); err != nil {
			return nil, err
		}
	}
	if c.old != nil {
		only := isKey
		if c.fullOld {
			only = nil
		}
		b = append(b, `,"old":`...)
		if b, err = appendPgRow(b, columns, c.old, only); err != nil {
			return nil, err
		}
	}
	return c.appendUnchanged(b), nil
}

func hasKey(columns []pgColumn) bool {
	for i := range columns {
		if columns[i].key {
			return true
		}
	}
	return false
}

// appendUnchanged names the columns of the new row that were not sent.
func (c *pgChange) appendUnchanged(b []byte) []byte {
	open := false
	for i := range c.row {
		if c.row[i].kind != 'u' {
			continue
		}
		if open {
			b = append(b, ',')
		} else {
			b = append(b, `,"unchanged":[`...)
			open = true
		}
		b = gjson.AppendJSONString(b, c.relation.columns[i].name)
	}
	if open {
		b = append(b, ']')
	}
	return b
}
