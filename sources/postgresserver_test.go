package sources_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// TestIntegrationPostgres runs against a real server.
func TestIntegrationPostgres(t *testing.T) {
	t.Parallel()
	server := sourcetest.NewPostgres(t, "logical_decoding_work_mem = 64kB", "wal_sender_timeout = 5s", "wal_writer_delay = 10ms")
	for name, test := range map[string]func(*testing.T, *sourcetest.Postgres){
		"changes":          testPostgresChanges,
		"types":            testPostgresTypes,
		"schema changes":   testPostgresSchema,
		"identity":         testPostgresIdentity,
		"messages":         testPostgresMessages,
		"tables":           testPostgresTables,
		"snapshot":         testPostgresSnapshot,
		"snapshot cut":     testPostgresSnapshotCut,
		"faults":           testPostgresFaults,
		"busy slot":        testPostgresBusy,
		"tls":              testPostgresTLS,
		"patience":         testPostgresPatience,
		"quiet database":   testPostgresQuiet,
		"large, and again": testPostgresLarge,
		"poison":           testPostgresPoison,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, server)
		})
	}
	t.Run("suite", func(t *testing.T) {
		t.Parallel()
		sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject { return postgresSubject(t, server) })
	})
}

// pgSettings are settings for a database of the server.
func pgSettings(server *sourcetest.Postgres, db string) *sources.Postgres {
	s := sources.NewPostgres()
	s.DSN = value.NewSecret(server.DSN(db))
	s.Slot, s.Publication = "slot_"+db, "pub"
	s.Heartbeat = value.Duration(200 * time.Millisecond)
	return s
}

// prepare makes the publication and the slot of a database, so that nothing that
// is written from now on is missed.
func prepare(t *testing.T, server *sourcetest.Postgres, db string) {
	t.Helper()
	server.Exec(t, db, "CREATE PUBLICATION pub FOR ALL TABLES WITH (publish_via_partition_root = true)",
		fmt.Sprintf("SELECT pg_create_logical_replication_slot('slot_%s', 'pgoutput')", db))
}

func postgresSubject(t *testing.T, server *sourcetest.Postgres) *sourcetest.Subject {
	db := server.NewDatabase(t)
	prepare(t, server, db)
	// emit writes a message and waits until the slot is past it. The LSN of one that
	// is not transactional is its end.
	emit := func(ctx context.Context, content []byte) error {
		conn, err := pgx.Connect(ctx, server.DSN(db))
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		var end string
		if err := conn.QueryRow(ctx, "SELECT pg_logical_emit_message(false, 'suite', $1::text)::text", string(content)).Scan(&end); err != nil {
			return err
		}
		for acked := false; !acked; {
			err := conn.QueryRow(ctx, "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots WHERE slot_name = $2", end, "slot_"+db).Scan(&acked)
			if err != nil {
				return err
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	return &sourcetest.Subject{
		Source: sourcetest.NewHost(t).Open(t, pgSettings(server, db)),
		Send:   func(ctx context.Context, e bus.Event) error { return emit(ctx, e.AppendJSON(nil)) },
		Poison: func(ctx context.Context) { _ = emit(ctx, []byte(`{"specversion": "1.0", "id": "poison"}`)) },
	}
}

// running is a source that runs, and what it published.
type running struct {
	*sourcetest.Publisher
	source sources.Source
	host   *sourcetest.Host
	cancel context.CancelFunc
	ended  chan error
}

func runPostgres(t *testing.T, host *sourcetest.Host, s *sources.Postgres, before func(context.Context) error) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{&sourcetest.Publisher{Before: before}, host.Open(t, s), host, cancel, make(chan error, 1)}
	t.Cleanup(cancel)
	go func() { r.ended <- r.source.Run(ctx, r) }()
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(15 * time.Second):
		t.Fatal("Run does not return")
	}
}

func eventually(t *testing.T, what func() string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("waited in vain: %s", what())
		}
	}
}

// until waits for n events and gives them.
func (r *running) until(t *testing.T, n int) []bus.Event {
	t.Helper()
	eventually(t, func() string {
		return fmt.Sprintf("%d of %d events; rejected %d; reported %v", len(r.Stored()), n, len(r.host.Rejected()), r.host.Reported())
	}, func() bool { return len(r.Stored()) >= n })
	events := r.Stored()
	if len(events) != n {
		t.Fatalf("%d events, want %d: %s", len(events), n, events[n].Data())
	}
	return events
}

// rowData is the data of an event.
type rowData struct {
	Schema, Table, Op string
	Key, New, Old     json.RawMessage
	Unchanged         []string
	LSN               string
	XID               uint32
	CommitTime        time.Time `json:"commit_time"`
}

// line is an event in short: its type, subject, key, new and old row.
func line(t *testing.T, e bus.Event) string {
	t.Helper()
	var d rowData
	if err := json.Unmarshal(e.Data(), &d); err != nil {
		t.Fatalf("%s: %v", e.Data(), err)
	}
	s := fmt.Sprintf("%s %s", strings.TrimPrefix(e.Type(), "postgres."), e.Subject())
	for _, part := range []struct {
		name string
		text json.RawMessage
	}{{"key", d.Key}, {"new", d.New}, {"old", d.Old}} {
		if part.text != nil {
			s += " " + part.name + string(part.text)
		}
	}
	if d.Unchanged != nil {
		s += fmt.Sprint(" unchanged", d.Unchanged)
	}
	return s
}

func wantLines(t *testing.T, events []bus.Event, want ...string) {
	t.Helper()
	var got []string
	for _, e := range events {
		got = append(got, line(t, e))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func testPostgresChanges(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, name text)`, `CREATE SCHEMA "My ""own"""`,
		`CREATE TABLE "My ""own"""."Odd.Table" ("a""b" int PRIMARY KEY)`,
		`CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)`,
		`CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM (0) TO (10)`)
	host := sourcetest.NewHost(t)
	s := pgSettings(server, db)
	s.Publication = `The "pub"` // which the source creates, with the slot
	r := runPostgres(t, host, s, nil)
	eventually(t, func() string { return fmt.Sprint("the slot is active: ", host.Reported()) }, func() bool {
		return server.Get(t, db, "SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'slot_"+db+"'") == "true"
	})
	server.Exec(t, db, `INSERT INTO a VALUES (1, 'one'), (2, NULL)`, `UPDATE a SET name = 'eins' WHERE id = 1`,
		`UPDATE a SET id = 3 WHERE id = 2`, `DELETE FROM a WHERE id = 3`, `TRUNCATE a, parted RESTART IDENTITY CASCADE`,
		`INSERT INTO "My ""own"""."Odd.Table" VALUES (1)`, `INSERT INTO parted VALUES (5, 6)`,
		`BEGIN; INSERT INTO a VALUES (9); ROLLBACK`,
		`BEGIN; INSERT INTO a VALUES (7, 'x'); SAVEPOINT s; INSERT INTO a VALUES (8); ROLLBACK TO s; COMMIT`)
	events := r.until(t, 10)
	wantLines(t, events,
		`row.inserted public.a key{"id":1} new{"id":1,"name":"one"}`,
		`row.inserted public.a key{"id":2} new{"id":2,"name":null}`,
		`row.updated public.a key{"id":1} new{"id":1,"name":"eins"}`,
		`row.updated public.a key{"id":3} new{"id":3,"name":null} old{"id":2}`,
		`row.deleted public.a key{"id":3} old{"id":3}`,
		`table.truncated public.a`,
		`table.truncated public.parted`,
		`row.inserted My "own".Odd.Table key{"a\"b":1} new{"a\"b":1}`,
		`row.inserted public.parted key{"id":5} new{"id":5,"v":6}`,
		`row.inserted public.a key{"id":7} new{"id":7,"name":"x"}`)
	ids := map[string]bool{}
	for _, e := range events {
		ids[e.ID()] = true
		if src := e.Source(); !strings.HasPrefix(src, "postgres://127.0.0.1:") || !strings.HasSuffix(src, "/"+db) || strings.Contains(src, sourcetest.PostgresPassword) {
			t.Errorf("the source is %s", src)
		}
		if age := time.Since(e.Time()); age < 0 || age > time.Minute {
			t.Errorf("the time is %s", e.Time())
		}
	}
	if len(ids) != len(events) {
		t.Errorf("%d ids for %d events", len(ids), len(events))
	}
	var d rowData
	if err := json.Unmarshal(events[0].Data(), &d); err != nil || d.Schema != "public" || d.Table != "a" || d.Op != "insert" || d.LSN == "" || d.XID == 0 || !d.CommitTime.Equal(events[0].Time()) {
		t.Errorf("the data is %s (%v)", events[0].Data(), err)
	}
	r.stop(t)
}

func testPostgresTypes(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE DOMAIN cents AS numeric(20,2)`, `CREATE DOMAIN price AS cents CHECK (VALUE > 0)`, `CREATE TYPE mood AS ENUM ('sad', 'ok')`,
		`CREATE TABLE v (n int, i8 int8, num numeric, f4 float4, f8 float8, b bool, t text, c char(3), j json, jb jsonb, ts timestamp, tz timestamptz,
			d date, ti time, by bytea, arr int[], m mood, u uuid, dom price, iv interval, nan numeric, inf float8, bc timestamptz, never timestamp, o oid, nul text)`)
	prepare(t, server, db)
	s := pgSettings(server, db)
	const insert = `INSERT INTO v VALUES (-1, 9223372036854775807, 12345678901234567890.1230, 0.1, 1e300, true, E'a"\\\n<é', 'ab', '{"a" : 1.50, "a": 2}', '{"b": 1e2}',
		'2026-01-02 03:04:05.6', '2026-01-02 03:04:05.000001+02', '2026-01-02', '03:04:05', '\x00ff', '{1,NULL}', 'ok', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1.5, '1 day 2 hours',
		'NaN', '-Infinity', '0044-03-15 12:00:00+00 BC', 'infinity', 7, NULL)`
	const want = `new{"n":-1,"i8":9223372036854775807,"num":12345678901234567890.1230,"f4":0.1,"f8":1e+300,"b":true,"t":"a\"\\\n\u003cé","c":"ab ","j":{"a" : 1.50, "a": 2},"jb":{"b": 100},` +
		`"ts":"2026-01-02T03:04:05.6","tz":"2026-01-02T01:04:05.000001Z","d":"2026-01-02","ti":"03:04:05","by":"AP8=","arr":"{1,NULL}","m":"ok","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","dom":1.50,"iv":"P1DT2H",` +
		`"nan":"NaN","inf":"-Infinity","bc":"0044-03-15 12:00:00+00 BC","never":"infinity","o":7,"nul":null}`
	// The settings of the database do not change how values print.
	server.Exec(t, db, "ALTER DATABASE "+db+" SET datestyle = 'German'", "ALTER DATABASE "+db+" SET bytea_output = 'escape'", "ALTER DATABASE "+db+" SET timezone = 'Asia/Tokyo'", "ALTER DATABASE "+db+" SET extra_float_digits = -10")
	server.Exec(t, db, strings.ReplaceAll(insert, "'2026-01-02 03:04:05.6'", "timestamp '2026-01-02 03:04:05.6'"))
	r := runPostgres(t, sourcetest.NewHost(t), s, nil)
	wantLines(t, r.until(t, 1), "row.inserted public.v "+want)
	r.stop(t)
	// A snapshot gives the same values.
	s.Slot, s.Snapshot = s.Slot+"b", "initial"
	r = runPostgres(t, sourcetest.NewHost(t), s, nil)
	wantLines(t, r.until(t, 1), "row.read public.v "+want)
	r.stop(t)
}

func testPostgresSchema(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, x text)`)
	prepare(t, server, db)
	s := pgSettings(server, db)
	s.Tables = []string{"a"}
	r := runPostgres(t, sourcetest.NewHost(t), s, nil)
	server.Exec(t, db, `INSERT INTO a VALUES (1, 'x')`)
	r.until(t, 1)
	server.Exec(t, db, `ALTER TABLE a ADD y int DEFAULT 5`, `INSERT INTO a VALUES (2, 'x')`,
		`ALTER TABLE a DROP x`, `INSERT INTO a VALUES (3, 6)`,
		`ALTER TABLE a RENAME y TO z`, `INSERT INTO a VALUES (4, 7)`,
		`ALTER TABLE a ALTER z TYPE text`, `INSERT INTO a VALUES (5, '8')`,
		`BEGIN; INSERT INTO a VALUES (6, '9'); ALTER TABLE a ADD w bool; INSERT INTO a VALUES (7, '9', true); COMMIT`,
		`ALTER TABLE a RENAME TO b`, `INSERT INTO b VALUES (8)`,
		`CREATE TABLE a (id int PRIMARY KEY)`, `INSERT INTO a VALUES (9)`)
	wantLines(t, r.until(t, 9),
		`row.inserted public.a key{"id":1} new{"id":1,"x":"x"}`,
		`row.inserted public.a key{"id":2} new{"id":2,"x":"x","y":5}`,
		`row.inserted public.a key{"id":3} new{"id":3,"y":6}`,
		`row.inserted public.a key{"id":4} new{"id":4,"z":7}`,
		`row.inserted public.a key{"id":5} new{"id":5,"z":"8"}`,
		`row.inserted public.a key{"id":6} new{"id":6,"z":"9"}`,
		`row.inserted public.a key{"id":7} new{"id":7,"z":"9","w":true}`,
		`row.inserted public.b key{"id":8} new{"id":8,"z":"5","w":null}`,
		`row.inserted public.a key{"id":9} new{"id":9}`)
	r.stop(t)
}

func testPostgresIdentity(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE k (id int PRIMARY KEY, n int, big text)`, `ALTER TABLE k ALTER big SET STORAGE EXTERNAL`,
		`CREATE TABLE f (id int PRIMARY KEY, n int, big text)`, `ALTER TABLE f ALTER big SET STORAGE EXTERNAL`, `ALTER TABLE f REPLICA IDENTITY FULL`)
	prepare(t, server, db)
	server.Exec(t, db, `INSERT INTO k VALUES (1, 1, repeat('x', 10000))`, `UPDATE k SET n = 2`,
		`INSERT INTO f VALUES (1, 1, repeat('x', 10000))`, `UPDATE f SET n = 2`, `DELETE FROM f`)
	r := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), nil)
	events, big := r.until(t, 5), strings.Repeat("x", 10000)
	wantLines(t, events,
		`row.inserted public.k key{"id":1} new{"id":1,"n":1,"big":"`+big+`"}`,
		`row.updated public.k key{"id":1} new{"id":1,"n":2} unchanged[big]`,
		`row.inserted public.f new{"id":1,"n":1,"big":"`+big+`"}`,
		`row.updated public.f new{"id":1,"n":2,"big":"`+big+`"} old{"id":1,"n":1,"big":"`+big+`"}`,
		`row.deleted public.f old{"id":1,"n":2,"big":"`+big+`"}`)
	r.stop(t)
}

func testPostgresMessages(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`)
	prepare(t, server, db)
	server.Exec(t, db, `SELECT pg_logical_emit_message(true, 'order.created', '{"id" : 1.0}')`,
		`SELECT pg_logical_emit_message(true, 'other.kind', 'x')`,
		`BEGIN; INSERT INTO a VALUES (1); SELECT pg_logical_emit_message(true, 'order.note', 'plain é'); COMMIT`,
		`BEGIN; SELECT pg_logical_emit_message(true, 'order.never', 'x'); ROLLBACK`,
		`BEGIN; SELECT pg_logical_emit_message(false, 'order.tried', '2'); ROLLBACK`,
		`SELECT pg_logical_emit_message(true, 'order.bytes', '\x00ff'::bytea)`,
		`SELECT pg_logical_emit_message(true, 'order.empty', '')`,
		`SELECT pg_logical_emit_message(true, 'order.own', '{"specversion": "1.0", "id": "x1", "source": "/own", "type": "own", "data": {"n": 1}}')`,
		`SELECT pg_logical_emit_message(true, 'order.bad', '{"specversion": "1.0", "id": "x2"}')`)
	s := pgSettings(server, db)
	s.Outbox.Prefix = "order."
	r := runPostgres(t, sourcetest.NewHost(t), s, nil)
	var got []string
	for _, e := range r.until(t, 7) {
		got = append(got, fmt.Sprintf("%s %s %q", e.Type(), e.Get("datacontenttype"), e.Data()))
	}
	if want := []string{
		`order.created application/json "{\"id\" : 1.0}"`,
		`postgres.row.inserted application/json`,
		`order.note text/plain; charset=utf-8 "plain é"`,
		`order.tried application/json "2"`,
		`order.bytes application/octet-stream "\x00\xff"`,
		`order.empty  ""`,
		`own  "{\"n\": 1}"`,
	}; !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	eventually(t, func() string { return "the dead letter" }, func() bool { return len(r.host.Rejected()) == 1 })
	if bad := r.host.Rejected()[0]; !strings.Contains(bad.Where, "order.bad") || !strings.Contains(string(bad.Data), "x2") || bad.ID == "" {
		t.Errorf("rejected %+v", bad)
	}
	r.stop(t)
	s.Slot, s.Outbox = s.Slot+"b", sources.PostgresOutbox{}
	r = runPostgres(t, sourcetest.NewHost(t), s, nil)
	eventually(t, func() string { return "the second slot" }, func() bool {
		return server.Get(t, db, "SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = '"+s.Slot+"'") == "true"
	})
	server.Exec(t, db, `SELECT pg_logical_emit_message(true, 'own', '{"specversion": "1.0", "id": "x1"}')`)
	if e := r.until(t, 1)[0]; e.Type() != "own" || e.ID() == "x1" || !e.DataIsJSON() {
		t.Errorf("with cloudevents: false the event is %s %s", e.Type(), e.ID())
	}
	r.stop(t)
}

func testPostgresTables(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`, `CREATE TABLE b (id int PRIMARY KEY)`, `CREATE TABLE c (id int PRIMARY KEY)`,
		`CREATE PUBLICATION pub FOR TABLE a, c`)
	s := pgSettings(server, db)
	s.Tables = []string{"a", "public.b"}
	r := runPostgres(t, sourcetest.NewHost(t), s, nil)
	eventually(t, func() string { return "the slot" }, func() bool {
		return server.Get(t, db, "SELECT active AND confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'slot_"+db+"'") == "true"
	})
	server.Exec(t, db, `INSERT INTO a VALUES (1)`, `INSERT INTO c VALUES (1)`, `INSERT INTO b VALUES (1)`)
	wantLines(t, r.until(t, 2), `row.inserted public.a key{"id":1} new{"id":1}`, `row.inserted public.b key{"id":1} new{"id":1}`)
	r.stop(t)
}

func testPostgresPoison(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, j json)`)
	prepare(t, server, db)
	server.Exec(t, db, `INSERT INTO a VALUES (1, '1')`, `INSERT INTO a VALUES (2, (repeat('[', 3000) || repeat(']', 3000))::json)`)
	r := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), nil)
	server.Exec(t, db, `INSERT INTO a VALUES (3, '3')`)
	r.until(t, 2)
	if bad := r.host.Rejected(); len(bad) != 1 || !strings.Contains(bad[0].Reason, "column j") || !strings.Contains(string(bad[0].Data), "[[[[") {
		t.Errorf("rejected %+v", bad)
	}
	r.stop(t)
}

func testPostgresSnapshot(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, n int)`, `INSERT INTO a SELECT i, 0 FROM generate_series(1, 3000) i`,
		`CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)`, `CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)`, `INSERT INTO p VALUES (1)`,
		`CREATE TABLE other (id int)`, `INSERT INTO other VALUES (1)`)
	s := pgSettings(server, db)
	s.Tables, s.Snapshot = []string{"a", "p"}, "initial"
	host := sourcetest.NewHost(t)
	// Rows change while they are read.
	var once sync.Once
	r := runPostgres(t, host, s, func(context.Context) error {
		once.Do(func() { server.Exec(t, db, `UPDATE a SET n = 1 WHERE id <= 10`, `INSERT INTO a VALUES (5000, 5)`) })
		return nil
	})
	events := r.until(t, 3001+11)
	reads := 0
	for i, e := range events {
		if e.Type() == sources.PostgresRead {
			reads++
			if i >= 3001 {
				t.Error("a row was read after a change")
			}
		}
	}
	if reads != 3001 {
		t.Errorf("%d rows were read, want 3001", reads)
	}
	if got := line(t, events[0]); got != `row.read public.a key{"id":1} new{"id":1,"n":0}` {
		t.Errorf("the first row is %s", got)
	}
	r.stop(t)
	// It is not read again.
	r = runPostgres(t, host, s, nil)
	server.Exec(t, db, `INSERT INTO p VALUES (2)`)
	wantLines(t, r.until(t, 1), `row.inserted public.p key{"id":2} new{"id":2}`)
	r.stop(t)
}

// A snapshot that is cut is read again: rows that did not change have the same ids,
// and what was changed meanwhile follows.
func testPostgresSnapshotCut(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, n int)`, `INSERT INTO a SELECT i, 0 FROM generate_series(1, 2000) i`)
	s := pgSettings(server, db)
	s.Snapshot = "initial"
	host := sourcetest.NewHost(t)
	entered, cut := make(chan struct{}), make(chan struct{})
	var once sync.Once
	first := runPostgres(t, host, s, func(context.Context) error {
		once.Do(func() { close(entered) })
		<-cut
		return nil
	})
	<-entered
	first.cancel()
	close(cut)
	if err := <-first.ended; err != nil {
		t.Fatal(err)
	}
	had := first.Stored()
	server.Exec(t, db, `UPDATE a SET n = 1 WHERE id = 1`, `DELETE FROM a WHERE id = 2`)
	again := runPostgres(t, host, s, nil)
	if len(had) == 0 || len(had) >= 2000 {
		t.Fatalf("the snapshot was cut after %d of 2000 rows", len(had))
	}
	events := again.until(t, 1999+2)
	ids := map[string]bool{}
	for _, e := range events {
		ids[e.ID()] = true
	}
	gone := 0
	for _, e := range had {
		if !ids[e.ID()] {
			gone++
		}
	}
	if gone != 2 || len(ids) != len(events) {
		t.Errorf("of %d rows read before %d have another id now, want 2 of them; %d ids for %d events", len(had), gone, len(ids), len(events))
	}
	wantLines(t, events[1999:], `row.updated public.a key{"id":1} new{"id":1,"n":1}`, `row.deleted public.a key{"id":2} old{"id":2}`)
	again.stop(t)
}
