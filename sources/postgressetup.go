package sources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice/bus"
)

// pgServer is what the source wants to know of the server.
type pgServer struct {
	Version  int // 150003 for 15.3
	WALLevel string
	Database string
	Timeout  int64           // wal_sender_timeout in milliseconds, 0 for none
	oids     map[uint32]bool // of the tables to take
}

const pgMinVersion = 140000 // the first that sends pg_logical_emit_message

// inspect checks that the server can do it at all.
func (s *postgres) inspect(ctx context.Context, side *pgSide) (*pgServer, error) {
	found, err := pgQuery(ctx, side, pgx.RowToStructByPos[struct {
		Version            int
		WALLevel, Database string
		Timeout            int64
	}], `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_database()::text,
		(SELECT setting::bigint FROM pg_settings WHERE name = 'wal_sender_timeout')`)
	if err != nil {
		return nil, err
	}
	server := &pgServer{found[0].Version, found[0].WALLevel, found[0].Database, found[0].Timeout, map[uint32]bool{}}
	if server.Version < pgMinVersion {
		return nil, pgFaultf(nil, "the server is a PostgreSQL %d: logical replication into the bus needs 14 or newer", server.Version/10000)
	}
	if server.WALLevel != "logical" {
		return nil, pgFaultf(nil, "wal_level of the server is %s: run ALTER SYSTEM SET wal_level = logical and restart PostgreSQL", server.WALLevel)
	}
	return server, nil
}

// takes tells whether changes of the table become events. A table that was renamed
// is known by its number.
func (s *postgres) takes(server *pgServer) func(oid uint32, t pgTable) bool {
	return func(oid uint32, t pgTable) bool {
		return len(s.tables) == 0 || server.oids[oid] || slices.Contains(s.tables, t)
	}
}

// skipped says so once when changes are left out: a silence wants an explanation.
func (s *postgres) skipped(t pgTable) {
	s.env.Log.Warn("the publication sends changes of a table that is not in tables: they are left out", "publication", s.set.Publication, "table", t.String())
}

func pgQuote(names ...string) string { return pgx.Identifier(names).Sanitize() }

func pgLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// pgPublished is a table that the source is to take.
type pgPublished struct {
	Schema, Name string
	OID          int64
	Partitioned  bool
	Member       bool // the publication sends it
}

// ensurePublication makes the publication and its tables, or says what to run.
func (s *postgres) ensurePublication(ctx context.Context, side *pgSide, server *pgServer) error {
	tables, err := s.findTables(ctx, side)
	if err != nil {
		return err
	}
	for _, t := range tables {
		server.oids[uint32(t.OID)] = true
	}
	viaRoot, err := pgQuery(ctx, side, pgx.RowTo[bool], `SELECT pubviaroot FROM pg_publication WHERE pubname = $1`, s.set.Publication)
	if err != nil {
		return err
	}
	if len(viaRoot) == 0 {
		what := "FOR ALL TABLES"
		if len(tables) > 0 {
			what = "FOR TABLE " + pgTableList(tables)
		}
		return s.runOrSay(ctx, side, "the publication "+s.set.Publication+" does not exist",
			"CREATE PUBLICATION "+pgQuote(s.set.Publication)+" "+what+" WITH (publish_via_partition_root = true)")
	}
	var missing []pgPublished
	for _, t := range tables {
		if t.Partitioned && !viaRoot[0] {
			return pgFaultf(nil, "the publication %s sends changes of %s.%s under the names of its partitions: run ALTER PUBLICATION %s SET (publish_via_partition_root = true)",
				s.set.Publication, t.Schema, t.Name, pgQuote(s.set.Publication))
		}
		if !t.Member {
			missing = append(missing, t)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return s.runOrSay(ctx, side, fmt.Sprintf("the publication %s lacks tables of this source", s.set.Publication),
		"ALTER PUBLICATION "+pgQuote(s.set.Publication)+" ADD TABLE "+pgTableList(missing))
}

// runOrSay runs the statement that mends a lack, or asks a person to do it.
func (s *postgres) runOrSay(ctx context.Context, side *pgSide, lack, sql string) error {
	if !s.set.Create {
		return pgFaultf(nil, "%s, and create is false: run %s", lack, sql)
	}
	err := side.exec(ctx, sql)
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == "42501" {
		return pgFaultf(err, "%s, and the user in dsn may not mend it: let the owner of the tables (for all tables, a superuser) run %s", lack, sql)
	}
	if err == nil {
		s.env.Log.Info("PostgreSQL was made ready", "because", lack, "sql", sql)
	}
	return err
}

func pgTableList(tables []pgPublished) string {
	var names []string
	for _, t := range tables {
		names = append(names, pgQuote(t.Schema, t.Name))
	}
	return strings.Join(names, ", ")
}

// findTables looks up the tables of the settings, all of which must exist.
func (s *postgres) findTables(ctx context.Context, side *pgSide) ([]pgPublished, error) {
	if len(s.tables) == 0 {
		return nil, nil
	}
	var schemas, names []string
	for _, t := range s.tables {
		schemas, names = append(schemas, t.schema), append(names, t.name)
	}
	found, err := pgQuery(ctx, side, pgx.RowToStructByPos[pgPublished], `
		SELECT n.nspname::text, c.relname::text, c.oid::bigint, c.relkind = 'p',
			EXISTS (SELECT FROM pg_publication_tables p WHERE p.pubname = $3 AND p.schemaname = n.nspname AND p.tablename = c.relname)
		FROM unnest($1::text[], $2::text[]) AS w(schema, name)
		JOIN pg_namespace n ON n.nspname = w.schema
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p')`,
		schemas, names, s.set.Publication)
	if err != nil {
		return nil, err
	}
	for _, t := range s.tables {
		if !slices.ContainsFunc(found, func(f pgPublished) bool { return f.Schema == t.schema && f.Name == t.name }) {
			return nil, pgFaultf(nil, "the table %s in tables does not exist in this database: names are written as the catalog has them, mostly in lower case", t)
		}
	}
	return found, nil
}

// pgSlot is the replication slot as it was found or made.
type pgSlot struct {
	confirmed pglogrepl.LSN
	known     pglogrepl.LSN // what the bus has, when this process knows; else 0
	exported  string        // the name of the snapshot at confirmed, when it was just made
	read      bool          // the tables are to be read first
	state     pgState
}

// pgHistory names a sequence of LSNs of which none is used twice.
type pgHistory struct {
	system   string
	timeline int32
}

func (h pgHistory) String() string { return fmt.Sprintf("%s-%d", h.system, h.timeline) }

// pgState is what the source keeps of a slot, for as long as it is the same slot
// of the same database.
type pgState struct {
	System   string `json:"system"`
	Database string `json:"database"`
	Read     bool   `json:"read"` // the initial snapshot was published as a whole
}

func (s *postgres) stateKey() string { return "slot-" + s.set.Slot }

// ensureSlot finds the slot, or makes it on conn, whose snapshot lives until conn
// is used again.
func (s *postgres) ensureSlot(ctx context.Context, side *pgSide, conn *pgconn.PgConn, server *pgServer) (slot pgSlot, err error) {
	short, cancel := context.WithTimeout(ctx, pgQueryTimeout)
	defer cancel()
	system, err := pglogrepl.IdentifySystem(short, conn)
	if err != nil {
		return slot, err
	}
	// After a crash the server has forgotten what was confirmed since its last
	// checkpoint: the bus has not. After a failover or a restore, though, the history
	// is another, and may be shorter: then only the slot counts.
	history := pgHistory{system.SystemID, system.Timeline}
	if durable := pglogrepl.LSN(s.durable.Load()); s.history == history && durable <= system.XLogPos {
		slot.known = durable
	}
	s.history = history
	slot.state = pgState{System: system.SystemID, Database: server.Database}
	known := false
	switch text, err := s.env.State.Get(short, s.stateKey()); {
	case errors.Is(err, bus.ErrNotFound):
	case err != nil:
		return slot, fmt.Errorf("read the state of the source: %w", err)
	default:
		var kept pgState
		if err := json.Unmarshal(text, &kept); err != nil {
			return slot, fmt.Errorf("the state of the source is damaged: %w", err)
		}
		if kept.System == slot.state.System && kept.Database == slot.state.Database {
			slot.state, known = kept, true
		}
	}
	found, err := s.findSlot(ctx, side, server)
	switch {
	case err != nil:
		return slot, err
	case found != nil:
		slot.confirmed = *found
	case known:
		return slot, pgFaultf(nil, "the replication slot %s is gone, and with it the changes that the bus has not seen: give slot another name to start anew, with snapshot: initial to read the tables again, or, if the gap does not matter, run %s",
			s.set.Slot, s.createSlotSQL())
	case !s.set.Create:
		return slot, pgFaultf(nil, "the replication slot %s does not exist, and create is false: run %s", s.set.Slot, s.createSlotSQL())
	default:
		if err := s.createSlot(ctx, conn, &slot); err != nil {
			return slot, err
		}
	}
	slot.read = s.set.Snapshot == "initial" && !slot.state.Read
	if known {
		return slot, nil
	}
	return slot, s.keep(ctx, slot.state)
}

func (s *postgres) keep(ctx context.Context, state pgState) error {
	ctx, cancel := context.WithTimeout(ctx, pgQueryTimeout)
	defer cancel()
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := s.env.State.Put(ctx, s.stateKey(), text); err != nil {
		return fmt.Errorf("keep the state of the source: %w", err)
	}
	return nil
}

func (s *postgres) createSlotSQL() string {
	return "SELECT pg_create_logical_replication_slot(" + pgLiteral(s.set.Slot) + ", 'pgoutput')"
}

// findSlot gives the confirmed LSN of the slot, or nil when there is none.
func (s *postgres) findSlot(ctx context.Context, side *pgSide, server *pgServer) (*pglogrepl.LSN, error) {
	rows, err := pgQuery(ctx, side, pgx.RowToStructByPos[struct {
		Plugin, Database, Confirmed, Status string
		PID                                 int
	}], `SELECT coalesce(plugin::text, ''), coalesce(database::text, ''), coalesce(confirmed_flush_lsn, '0/0')::text,
			coalesce(wal_status, ''), coalesce(active_pid, 0)
		FROM pg_replication_slots WHERE slot_name = $1`, s.set.Slot)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	row, name := rows[0], s.set.Slot
	switch {
	case row.Plugin == "":
		return nil, pgFaultf(nil, "the replication slot %s is a physical one: give slot another name", name)
	case row.Database != server.Database:
		return nil, pgFaultf(nil, "the replication slot %s belongs to the database %s and not to %s: give slot another name", name, row.Database, server.Database)
	case row.Plugin != "pgoutput":
		return nil, pgFaultf(nil, "the replication slot %s has the output plugin %s and not pgoutput: give slot another name", name, row.Plugin)
	case row.Status == "lost":
		return nil, pgFaultf(nil, "the replication slot %s is lost: it kept more WAL than max_slot_wal_keep_size allows, and PostgreSQL removed changes that the bus has not seen. Drop it with SELECT pg_drop_replication_slot(%s) and give slot another name, with snapshot: initial to read the tables again",
			name, pgLiteral(name))
	case row.PID != 0:
		return nil, fmt.Errorf("%w: the process %d of the server reads from %s; this source waits until it is free. Two sources need two slots", errSlotBusy, row.PID, name)
	}
	lsn, err := pglogrepl.ParseLSN(row.Confirmed)
	return &lsn, err
}

func (s *postgres) createSlot(ctx context.Context, conn *pgconn.PgConn, slot *pgSlot) error {
	ctx, cancel := context.WithTimeout(ctx, pgSlotTimeout)
	defer cancel()
	options := pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication, SnapshotAction: "NOEXPORT_SNAPSHOT"}
	if s.set.Snapshot == "initial" {
		options.SnapshotAction = "EXPORT_SNAPSHOT"
	}
	// It takes until the transactions that run now have ended: seldom, but then it
	// should be seen.
	hint := time.AfterFunc(10*time.Second, func() {
		s.env.report(errors.New("waiting for running transactions to end, to create the replication slot: see SELECT pid, xact_start, query FROM pg_stat_activity ORDER BY xact_start"))
	})
	defer hint.Stop()
	made, err := pglogrepl.CreateReplicationSlot(ctx, conn, pgQuote(s.set.Slot), "pgoutput", options)
	if err != nil {
		return fmt.Errorf("create the replication slot %s: %w", s.set.Slot, err)
	}
	slot.exported = made.SnapshotName
	if slot.confirmed, err = pglogrepl.ParseLSN(made.ConsistentPoint); err != nil {
		return err
	}
	s.env.Log.Info("the replication slot was created", "slot", s.set.Slot, "lsn", made.ConsistentPoint)
	return nil
}
