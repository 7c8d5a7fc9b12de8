package sources

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"sluice/bus"
	"sluice/config/value"
)

// The types of the events of the postgres source. A message of
// pg_logical_emit_message has its prefix for a type.
const (
	PostgresInserted  = "postgres.row.inserted"
	PostgresUpdated   = "postgres.row.updated"
	PostgresDeleted   = "postgres.row.deleted"
	PostgresRead      = "postgres.row.read" // of the initial snapshot
	PostgresTruncated = "postgres.table.truncated"
	PostgresMessage   = "postgres.message" // of a message without a prefix
)

// Postgres are the settings of the postgres source: logical replication of a
// PostgreSQL 14 or newer.
//
// A change of a row becomes an event with the subject schema.table and this data,
// in which what is not known is left out:
//
//	{"schema": "public", "table": "orders", "op": "update",
//	 "key": {"id": 7},           the replica identity, which is the primary key by default
//	 "new": {"id": 7, …},        the row as it is now
//	 "old": {…},                 the row as it was with REPLICA IDENTITY FULL, or
//	                             else the old key if that was changed
//	 "unchanged": ["photo"],     columns of new that PostgreSQL did not send, because
//	                             they are large (TOAST) and did not change
//	 "lsn": "0/16B3748", "commit_lsn": "0/16B3790", "xid": 742, "commit_time": "2026-…Z"}
//
// The id is the LSN of the change, its number among the changes with that LSN and the
// time of the commit, so it is the same when PostgreSQL sends the change again, and no
// other change has it when the database was made anew. The source is
// postgres://host/database.
//
// Integers, numeric and float columns are JSON numbers with the digits that
// PostgreSQL prints (NaN and infinity are texts), boolean is a boolean, json and
// jsonb are embedded as they are, timestamptz is RFC 3339 in UTC, timestamp the same
// without a zone, bytea is base64; a domain is like its base type. All else, arrays
// and enums among it, is the text that PostgreSQL prints.
type Postgres struct {
	DSN         value.Secret   `yaml:"dsn" doc:"The database, such as postgres://user:password@host/db?sslmode=verify-full or host=… dbname=…; refer to it, since it holds a password."`
	Publication string         `yaml:"publication" doc:"The publication, which says what is sent."`
	Slot        string         `yaml:"slot" doc:"The replication slot, which remembers how far the bus has come. Nobody else may use it."`
	Tables      []string       `yaml:"tables" doc:"The tables to take, as schema.table or, in public, table; everything in the publication when left out."`
	Create      bool           `yaml:"create" doc:"Whether the source may create the publication and the slot, and add tables to the publication."`
	Snapshot    string         `yaml:"snapshot" enum:"none,initial" doc:"initial makes an event of every row that is there before the first change."`
	Outbox      PostgresOutbox `yaml:"outbox" doc:"What becomes of the messages of pg_logical_emit_message."`
	Heartbeat   value.Duration `yaml:"heartbeat" doc:"How often at least the server is told what is durable and is asked how far the slot is behind."`
}

// PostgresOutbox says what becomes of the messages of pg_logical_emit_message.
type PostgresOutbox struct {
	Prefix      string `yaml:"prefix" doc:"Only messages whose prefix starts with this become events; all of them when left out. The whole prefix is the type of the event."`
	CloudEvents bool   `yaml:"cloudevents" doc:"Whether a JSON object with a specversion is a CloudEvent of its own and is taken as it is."`
}

// NewPostgres returns the settings with their defaults.
func NewPostgres() *Postgres {
	return &Postgres{
		Publication: "sluice", Slot: "sluice", Create: true, Snapshot: "none",
		Outbox: PostgresOutbox{CloudEvents: true}, Heartbeat: value.Duration(10 * time.Second),
	}
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// Validate is Settings.Validate.
func (s *Postgres) Validate() (faults value.Faults) {
	if s.DSN.Value() == "" {
		faults.Add("dsn", "is missing: refer to the address of the database, such as ${env:DATABASE_URL}")
	} else if c, err := pgconn.ParseConfig(s.DSN.Value()); err != nil {
		// The parser's own message quotes parts of the text.
		faults.Add("dsn", "is not a PostgreSQL address: write postgres://user:password@host/database, special characters percent-encoded, or host=… dbname=… user=…; certificates it names must exist")
	} else if c.Database == "" && c.User == "" {
		faults.Add("dsn", "names no database: write it behind the host, as in postgres://host/database")
	}
	if !slotName.MatchString(s.Slot) {
		faults.Add("slot", "is %q: a replication slot has a name of 1 to 63 lower-case letters, digits and _", s.Slot)
	}
	if s.Publication == "" || len(s.Publication) > 63 || strings.ContainsRune(s.Publication, 0) {
		faults.Add("publication", "is %q: give a name of 1 to 63 bytes", s.Publication)
	}
	seen := map[pgTable]bool{}
	for i, text := range s.Tables {
		t := parsePgTable(text)
		switch key := fmt.Sprintf("tables[%d]", i); {
		case t.schema == "" || t.name == "":
			faults.Add(key, "is %q: write schema.table", text)
		case seen[t]:
			faults.Add(key, "%s is listed twice", t)
		}
		seen[t] = true
	}
	if s.Snapshot != "none" && s.Snapshot != "initial" {
		faults.Add("snapshot", "is %q: write none or initial", s.Snapshot)
	}
	if h := time.Duration(s.Heartbeat); h < 100*time.Millisecond || h > 10*time.Minute {
		faults.Add("heartbeat", "is %s: write a time from 100ms to 10m", h)
	}
	return faults
}

// pgTable names a table, as the catalog has it.
type pgTable struct{ schema, name string }

func (t pgTable) String() string { return t.schema + "." + t.name }

// parsePgTable reads schema.table, or table in the schema public.
func parsePgTable(text string) pgTable {
	schema, name, ok := strings.Cut(text, ".")
	if !ok {
		return pgTable{"public", text}
	}
	return pgTable{schema, name}
}

// Open is Settings.Open.
func (s *Postgres) Open(_ context.Context, env Env) (Source, error) {
	cfg, err := pgconn.ParseConfig(s.DSN.Value())
	if err != nil {
		return nil, fmt.Errorf("the dsn is not a PostgreSQL address")
	}
	p := &postgres{set: *s, env: env, cfg: cfg, source: pgSource(cfg)}
	for _, text := range s.Tables {
		p.tables = append(p.tables, parsePgTable(text))
	}
	return p, nil
}

// pgSource is the source attribute: the server and the database, never the user
// or the password.
func pgSource(cfg *pgconn.Config) string {
	u := url.URL{Scheme: "postgres", Host: cfg.Host, Path: "/" + cfg.Database}
	if cfg.Database == "" {
		u.Path += cfg.User // the default of PostgreSQL itself
	}
	if strings.HasPrefix(cfg.Host, "/") { // the directory of a Unix socket
		u.Host = "localhost"
	} else if strings.Contains(cfg.Host, ":") {
		u.Host = "[" + cfg.Host + "]"
	}
	if cfg.Port != 5432 {
		u.Host += fmt.Sprintf(":%d", cfg.Port)
	}
	return u.String()
}

type postgres struct {
	set    Postgres
	env    Env
	cfg    *pgconn.Config
	source string
	tables []pgTable // of set, parsed

	history pgHistory // that durable is a place of; used by Run alone

	// The LSNs are 0 while nothing is known.
	end     atomic.Uint64 // where the server's WAL ends
	durable atomic.Uint64 // what the bus has
}

// How long a source waits before it connects again: longer each time.
const (
	pgFirstWait = 100 * time.Millisecond
	pgMaxWait   = 10 * time.Second
)

// Run is Source.Run. It connects again by itself when the server goes away or the
// slot is in use; what only a person can mend is an error.
func (s *postgres) Run(ctx context.Context, pub bus.Publisher) error {
	f := feed{&s.env, pub}
	for wait := pgFirstWait; ; wait = min(2*wait, pgMaxWait) {
		began := time.Now()
		err := pgClear(s.session(ctx, f))
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what was in flight is through; the rest comes again
		}
		if !pgPasses(err) {
			return err
		}
		s.env.Log.Warn("the connection to PostgreSQL is lost and will be made again", "err", err)
		s.env.report(err)
		if time.Since(began) > pgMaxWait {
			wait = pgFirstWait
		}
		_ = pause(ctx, wait) // when ctx ends the next session does at once
	}
}

// Lag is Lagger.Lag: the bytes of WAL between what the server was told to forget
// and the end.
func (s *postgres) Lag() (Lag, bool) {
	end, durable := s.end.Load(), s.durable.Load()
	if end == 0 || durable == 0 {
		return Lag{}, false
	}
	return Lag{Bytes: int64(max(end, durable) - durable)}, true
}

// raise sets an LSN that never goes back while the server is the same.
func raise(a *atomic.Uint64, lsn pglogrepl.LSN) {
	for old := a.Load(); uint64(lsn) > old && !a.CompareAndSwap(old, uint64(lsn)); {
		old = a.Load()
	}
}

// session is one life of the connection: it gets everything ready, reads the
// snapshot if there is one to read, and follows the changes until ctx ends or
// something breaks.
func (s *postgres) session(ctx context.Context, f feed) error {
	side := &pgSide{source: s}
	defer side.close()
	server, err := s.inspect(ctx, side)
	if err != nil {
		return err
	}
	if err := s.ensurePublication(ctx, side, server); err != nil {
		return err
	}
	conn, err := s.connect(ctx, true)
	if err != nil {
		return err
	}
	defer pgClose(conn)
	slot, err := s.ensureSlot(ctx, side, conn, server)
	if err != nil {
		return err
	}
	if slot.read {
		if err := s.readSnapshot(ctx, f, side, slot); err != nil {
			return err
		}
	}
	return s.follow(ctx, f, side, conn, server, slot)
}
