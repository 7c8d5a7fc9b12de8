package sources

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice/bus"
)

// pgSnapshotTable is a table to read.
type pgSnapshotTable struct {
	Schema, Name string
	OID          int64
	Partitioned  bool
	Full         bool   // REPLICA IDENTITY FULL
	Filter       string // of the publication, an SQL expression
	Columns      []string
	Types        []int64
	Keys         []bool
}

// readSnapshot publishes every row as it is at the slot's first LSN, from which the
// changes go on: no gap and no overlap. When it was interrupted, the tables are read
// again as a whole, as they are then, and what was changed since the slot was made
// follows as changes; so nothing is lost, deletes of rows read before included, but
// a row may be read in a newer state than the changes that follow begin with.
//
// The id of a row's event is the row's place, the transaction that wrote it and the
// history of the database: the same row read again has the same id, a changed one
// another, and so has one of a database that was made anew.
func (s *postgres) readSnapshot(ctx context.Context, f feed, side *pgSide, slot pgSlot) error {
	tables, err := s.snapshotTables(ctx, side)
	if err != nil {
		return err
	}
	conn, err := s.connect(ctx, false)
	if err != nil {
		return err
	}
	defer pgClose(conn)
	begin := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
	if slot.exported != "" {
		begin += "SET TRANSACTION SNAPSHOT " + pgLiteral(slot.exported) + ";"
	}
	short, cancel := context.WithTimeout(ctx, pgQueryTimeout)
	defer cancel()
	if _, err := conn.Exec(short, begin).ReadAll(); err != nil {
		return err
	}
	late, done := graceful(ctx, pgStopTime)
	defer done()
	r := &pgSnapshot{postgres: s, feed: f, conn: conn, lsn: slot.confirmed, at: time.Now().UTC()}
	s.env.Log.Info("reading the tables", "tables", len(tables), "lsn", slot.confirmed.String())
	s.env.report(nil)
	for _, t := range tables {
		relation := r.relation(t)
		if err := r.types(ctx, side, relation, t); err != nil {
			return err
		}
		if err := r.readTable(ctx, late, t, relation); err != nil {
			return fmt.Errorf("read %s.%s: %w", t.Schema, t.Name, err)
		}
	}
	s.env.Log.Info("the tables are read", "tables", len(tables), "rows", r.rows, "took", time.Since(r.at).Round(time.Millisecond))
	slot.state.Read = true
	return s.keep(ctx, slot.state)
}

// snapshotTables are the tables of the publication that the source takes, with the
// columns and rows that the publication sends.
func (s *postgres) snapshotTables(ctx context.Context, side *pgSide) ([]pgSnapshotTable, error) {
	// Column lists and row filters are there from PostgreSQL 15 on.
	all, err := pgQuery(ctx, side, pgx.RowToStructByPos[pgSnapshotTable], `
		SELECT p.schemaname::text, p.tablename::text, c.oid::bigint, c.relkind = 'p', c.relreplident = 'f', coalesce(to_jsonb(p)->>'rowfilter', ''),
			array_agg(a.attname::text ORDER BY a.attnum), array_agg(a.atttypid::bigint ORDER BY a.attnum),
			array_agg(coalesce(a.attnum = ANY(i.indkey), false) ORDER BY a.attnum)
		FROM pg_publication_tables p
		JOIN pg_namespace n ON n.nspname = p.schemaname
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
			AND (to_jsonb(p)->'attnames' IS NULL OR to_jsonb(p)->'attnames' ? a.attname::text)
		LEFT JOIN pg_index i ON i.indrelid = c.oid AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
		WHERE p.pubname = $1
		GROUP BY p.schemaname, p.tablename, c.oid, c.relkind, c.relreplident, to_jsonb(p)->>'rowfilter'
		ORDER BY p.schemaname, p.tablename`, s.set.Publication)
	if err != nil || len(s.tables) == 0 {
		return all, err
	}
	var taken []pgSnapshotTable
	for _, t := range all {
		for _, want := range s.tables {
			if want == (pgTable{t.Schema, t.Name}) {
				taken = append(taken, t)
			}
		}
	}
	return taken, nil
}

// pgSnapshot reads tables in one transaction.
type pgSnapshot struct {
	*postgres
	feed  feed
	conn  *pgconn.PgConn
	lsn   pglogrepl.LSN
	at    time.Time
	rows  int
	batch []bus.Event
	bytes int
}

func (r *pgSnapshot) relation(t pgSnapshotTable) *pgRelation {
	relation := &pgRelation{pgTable: pgTable{t.Schema, t.Name}, full: t.Full}
	for i, name := range t.Columns {
		relation.columns = append(relation.columns, pgColumn{name: name, key: t.Keys[i], oid: uint32(t.Types[i]), form: pgFormOf(uint32(t.Types[i]))})
	}
	return relation
}

func (r *pgSnapshot) types(ctx context.Context, side *pgSide, relation *pgRelation, t pgSnapshotTable) error {
	var own []uint32
	for _, oid := range t.Types {
		if oid >= pgFirstOwnOID {
			own = append(own, uint32(oid))
		}
	}
	if len(own) == 0 {
		return nil
	}
	bases, err := pgBases(ctx, side, own)
	if err == nil {
		relation.resolve(bases)
	}
	return err
}

// The columns before those of the table: they make the id.
const pgIdentity = 3

// readTable publishes the rows as they come: the server waits while the bus does
// not take more.
func (r *pgSnapshot) readTable(ctx, late context.Context, t pgSnapshotTable, relation *pgRelation) error {
	sql := strings.Builder{}
	sql.WriteString("SELECT tableoid::text, ctid::text, xmin::text")
	for _, c := range t.Columns {
		sql.WriteString(", " + pgQuote(c))
	}
	sql.WriteString(" FROM ")
	if !t.Partitioned {
		sql.WriteString("ONLY ") // who inherits is listed itself
	}
	sql.WriteString(pgQuote(t.Schema, t.Name))
	if t.Filter != "" {
		sql.WriteString(" WHERE " + t.Filter)
	}
	rows := r.conn.ExecParams(ctx, sql.String(), nil, nil, nil, nil)
	row := make([]pgValue, len(t.Columns))
	for rows.NextRow() {
		values := rows.Values()
		if len(values) != pgIdentity+len(row) {
			return errPgShort
		}
		for i := range row {
			row[i] = pgValue{'t', values[pgIdentity+i]}
			if row[i].text == nil {
				row[i].kind = 'n'
			}
		}
		id := fmt.Sprintf("read-%s-%s-%s-%s", values[0], bytes.Trim(values[1], "()"), values[2], r.history)
		if err := r.take(late, pgChange{relation: relation, lsn: r.lsn, id: id, op: "read", kind: PostgresRead, at: r.at, row: row}, values); err != nil {
			_, _ = rows.Close() // the connection is closed anyway
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if _, err := rows.Close(); err != nil {
		return err
	}
	return r.flush(late)
}

func (r *pgSnapshot) take(ctx context.Context, c pgChange, values [][]byte) error {
	r.rows++
	e, err := c.event(r.source)
	if err != nil {
		if err := r.flush(ctx); err != nil {
			return err
		}
		return r.feed.reject(ctx, Rejected{
			ID: c.id, Where: c.relation.String() + " " + c.id, Reason: err.Error(), Data: bytes.Join(values[pgIdentity:], []byte("\t")),
		})
	}
	r.batch = append(r.batch, e)
	if r.bytes += e.Size(); len(r.batch) < pgBatchItems && r.bytes < pgBatchBytes {
		return nil
	}
	return r.flush(ctx)
}

func (r *pgSnapshot) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	err := r.feed.publish(ctx, r.batch...)
	r.batch, r.bytes = r.batch[:0], 0
	return err
}
