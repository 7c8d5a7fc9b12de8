package sources_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// runFails runs a source that cannot run, and checks what it says.
func runFails(t *testing.T, host *sourcetest.Host, s *sources.Postgres, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := host.Open(t, s).Run(ctx, &sourcetest.Publisher{})
	if err == nil {
		t.Fatalf("Run returned nil; reported %v", host.Reported())
	}
	for _, part := range want {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), sourcetest.PostgresPassword) {
		t.Errorf("the error shows the password: %v", err)
	}
}

// What only a person can mend ends Run with an error that says how.
func testPostgresFaults(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`, `CREATE ROLE plain LOGIN PASSWORD 'p'`, `CREATE ROLE sender LOGIN REPLICATION PASSWORD 'p'`)
	login := func(user, password, database string) func(*sources.Postgres) {
		return func(s *sources.Postgres) {
			dsn := strings.NewReplacer("postgres:"+sourcetest.PostgresPassword, user+":"+password, "/"+db, "/"+database).Replace(server.DSN(db))
			s.DSN = value.NewSecret(dsn)
		}
	}
	for name, c := range map[string]struct {
		before []string
		change func(*sources.Postgres)
		want   []string
	}{
		"wrong password":   {nil, login("postgres", "wrong", db), []string{"check user and password"}},
		"unknown user":     {nil, login("nobody", "wrong", db), []string{"check user and password"}},
		"unknown database": {nil, login("postgres", sourcetest.PostgresPassword, "nowhere"), []string{"nowhere", "check its name"}},
		"no replication":   {[]string{`CREATE PUBLICATION pub1 FOR TABLE a`}, func(s *sources.Postgres) { login("plain", "p", db)(s); s.Publication = "pub1" }, []string{"REPLICATION"}},
		"not the owner": {nil, func(s *sources.Postgres) {
			login("sender", "p", db)(s)
			s.Publication, s.Tables = "pub2", []string{"a"}
		}, []string{`CREATE PUBLICATION "pub2" FOR TABLE "public"."a"`}},
		"no such table":     {nil, func(s *sources.Postgres) { s.Tables = []string{"Nope"} }, []string{"public.Nope", "does not exist"}},
		"no publication":    {nil, func(s *sources.Postgres) { s.Create, s.Publication = false, "it's" }, []string{"create is false", `CREATE PUBLICATION "it's" FOR ALL TABLES`}},
		"lacks a table":     {[]string{`CREATE PUBLICATION pub3`}, func(s *sources.Postgres) { s.Create, s.Publication, s.Tables = false, "pub3", []string{"a"} }, []string{`ALTER PUBLICATION "pub3" ADD TABLE "public"."a"`}},
		"no slot":           {[]string{`CREATE PUBLICATION pub4`}, func(s *sources.Postgres) { s.Create, s.Publication = false, "pub4" }, []string{"create is false", "pg_create_logical_replication_slot('slot_" + db + "', 'pgoutput')"}},
		"another plugin":    {[]string{`CREATE PUBLICATION pub5`, `SELECT pg_create_logical_replication_slot('s5_` + db + `', 'test_decoding')`}, func(s *sources.Postgres) { s.Publication, s.Slot = "pub5", "s5_"+db }, []string{"test_decoding"}},
		"a physical slot":   {[]string{`CREATE PUBLICATION pub6`, `SELECT pg_create_physical_replication_slot('s6_` + db + `')`}, func(s *sources.Postgres) { s.Publication, s.Slot = "pub6", "s6_"+db }, []string{"physical"}},
		"another's slot":    {[]string{`CREATE PUBLICATION pub7`}, func(s *sources.Postgres) { s.Publication, s.Slot = "pub7", "other" }, []string{"belongs to the database postgres"}},
		"young publication": {[]string{`SELECT pg_create_logical_replication_slot('s8_` + db + `', 'pgoutput')`, `INSERT INTO a VALUES (1)`}, func(s *sources.Postgres) { s.Publication, s.Slot = "pub8", "s8_"+db }, []string{"younger than the slot"}},
		"not via the root": {[]string{`CREATE TABLE p (id int) PARTITION BY RANGE (id)`, `CREATE PUBLICATION pub9 FOR TABLE p`}, func(s *sources.Postgres) { s.Publication, s.Tables = "pub9", []string{"p"} },
			[]string{`ALTER PUBLICATION "pub9" SET (publish_via_partition_root = true)`}},
	} {
		if name == "another's slot" {
			server.Exec(t, "postgres", `SELECT pg_create_logical_replication_slot('other', 'pgoutput')`)
		}
		server.Exec(t, db, c.before...)
		t.Run(name, func(t *testing.T) {
			s := pgSettings(server, db)
			c.change(s)
			runFails(t, sourcetest.NewHost(t), s, c.want...)
		})
	}
	t.Run("a slot that is gone", func(t *testing.T) {
		s, host := pgSettings(server, db), sourcetest.NewHost(t)
		s.Slot, s.Publication = "gone_"+db, "pub10"
		r := runPostgres(t, host, s, nil)
		eventually(t, func() string { return fmt.Sprint("it runs: ", host.Reported()) }, func() bool { _, ok := r.source.(sources.Lagger).Lag(); return ok })
		r.stop(t)
		eventually(t, func() string { return "the slot is free" }, func() bool {
			return server.Get(t, db, `SELECT active FROM pg_replication_slots WHERE slot_name = '`+s.Slot+`'`) == "false"
		})
		server.Exec(t, db, `SELECT pg_drop_replication_slot('`+s.Slot+`')`)
		runFails(t, host, s, "is gone", "another name")
	})
}

// A slot that is in use is waited for, and the error says by whom it is used.
func testPostgresBusy(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`)
	prepare(t, server, db)
	first := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), nil)
	server.Exec(t, db, `INSERT INTO a VALUES (1)`)
	first.until(t, 1)
	pid := server.Get(t, db, `SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'slot_`+db+`'`)
	second := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), nil)
	eventually(t, func() string { return "the second source says who is in its way" }, func() bool {
		err := second.host.Reported()
		return err != nil && strings.Contains(err.Error(), "process "+pid)
	})
	first.stop(t)
	server.Exec(t, db, `INSERT INTO a VALUES (2)`)
	wantLines(t, second.until(t, 1), `row.inserted public.a key{"id":2} new{"id":2}`)
	eventually(t, func() string { return "the error is gone" }, func() bool { return second.host.Reported() == nil })
	second.stop(t)
}

// A source whose bus takes nothing for more than twice wal_sender_timeout keeps its
// connection, holds a bounded part of the data in memory and shows its lag.
func testPostgresPatience(t *testing.T, server *sourcetest.Postgres) {
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY, x text)`)
	prepare(t, server, db)
	release, entered := make(chan struct{}), make(chan struct{}, 1000)
	r := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), func(context.Context) error {
		entered <- struct{}{}
		<-release
		return nil
	})
	const rows, size = 400, 100_000
	server.Exec(t, db, `ALTER TABLE a ALTER x SET STORAGE EXTERNAL`,
		fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO a VALUES (i, repeat('x', %d)); COMMIT; END LOOP; END $$`, rows, size))
	<-entered
	pid := func() string {
		return server.Get(t, db, `SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'slot_`+db+`'`)
	}
	before := pid()
	<-time.After(12 * time.Second) // wal_sender_timeout is 5 s
	if after := pid(); after != before || before == "" {
		t.Errorf("the server's process was %s and is %s: the connection was lost", before, after)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	lag, ok := r.source.(sources.Lagger).Lag()
	if !ok || lag.Bytes < rows*size/2 {
		t.Errorf("the lag is %+v %v, want about %d bytes", lag, ok, rows*size)
	}
	close(release)
	r.until(t, rows)
	eventually(t, func() string {
		lag, _ := r.source.(sources.Lagger).Lag()
		return fmt.Sprintf("the lag of %+v goes", lag)
	}, func() bool {
		lag, ok := r.source.(sources.Lagger).Lag()
		return ok && lag.Bytes < 100_000
	})
	t.Logf("the bus took nothing for 12 s: lag %d bytes of %d, heap of the whole test %d", lag.Bytes, rows*size, memory.HeapAlloc)
	r.stop(t)
}

// The slot of a database in which nothing happens does not keep the WAL of others.
func testPostgresQuiet(t *testing.T, server *sourcetest.Postgres) {
	db, busy := server.NewDatabase(t), server.NewDatabase(t, `CREATE TABLE a (x text)`)
	prepare(t, server, db)
	r := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), nil)
	server.Exec(t, busy, `INSERT INTO a SELECT repeat('x', 1000) FROM generate_series(1, 1000)`)
	end := server.Get(t, busy, `SELECT pg_current_wal_lsn()`)
	eventually(t, func() string { return "the slot moves" }, func() bool {
		return server.Get(t, db, `SELECT confirmed_flush_lsn >= '`+end+`' FROM pg_replication_slots WHERE slot_name = 'slot_`+db+`'`) == "true"
	})
	r.stop(t)
}

// A large transaction that is cut in the middle is sent again from its start, with
// the same ids, and nothing of it is confirmed before.
func testPostgresLarge(t *testing.T, server *sourcetest.Postgres) {
	const rows = 20_000
	db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`)
	prepare(t, server, db)
	confirmed := func() string {
		return server.Get(t, db, `SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'slot_`+db+`'`)
	}
	server.Exec(t, db, fmt.Sprintf(`BEGIN; INSERT INTO a SELECT generate_series(1, %d); COMMIT`, rows/2))
	// COPY writes many rows with one LSN.
	copyRows(t, server.DSN(db), rows/2, rows)
	start := confirmed()
	var calls atomic.Int32
	half := make(chan struct{})
	host := sourcetest.NewHost(t)
	first := runPostgres(t, host, pgSettings(server, db), func(ctx context.Context) error {
		switch calls.Add(1) {
		case 8:
			close(half)
		case 9:
			<-ctx.Done()
			return ctx.Err()
		default:
			<-time.After(50 * time.Millisecond) // so that the queue fills
		}
		return nil
	})
	<-half
	if now := confirmed(); now != start {
		t.Errorf("%s was confirmed in the middle of the first transaction, which starts behind %s", now, start)
	}
	first.stop(t)
	second := runPostgres(t, host, pgSettings(server, db), nil)
	events := second.until(t, rows)
	ids := map[string]int{}
	for i, e := range events {
		ids[e.ID()] = i
	}
	for i, e := range first.Stored() {
		if at, ok := ids[e.ID()]; !ok || at != i {
			t.Fatalf("event %d had the id %s, which is at %d now", i, e.ID(), at)
		}
	}
	for i, e := range events {
		if want := fmt.Sprintf(`row.inserted public.a key{"id":%d} new{"id":%[1]d}`, i+1); line(t, e) != want {
			t.Fatalf("event %d is %s, want %s", i, line(t, e), want)
		}
	}
	if len(ids) != rows {
		t.Errorf("%d ids for %d rows", len(ids), rows)
	}
	t.Logf("%d of %d rows were published before the stop and again after it, with the same ids", len(first.Stored()), rows)
	second.stop(t)
}

func copyRows(t *testing.T, dsn string, from, to int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.CopyFrom(t.Context(), pgx.Identifier{"a"}, []string{"id"}, pgx.CopyFromSlice(to-from, func(i int) ([]any, error) { return []any{from + i + 1}, nil }))
	if err != nil {
		t.Fatal(err)
	}
}

// TestIntegrationPostgresLost needs servers with other settings.
func TestIntegrationPostgresLost(t *testing.T) {
	t.Parallel()
	t.Run("wal_level", func(t *testing.T) {
		t.Parallel()
		server := sourcetest.NewPostgres(t, "wal_level = replica")
		runFails(t, sourcetest.NewHost(t), pgSettings(server, "postgres"), "wal_level of the server is replica", "ALTER SYSTEM SET wal_level = logical")
	})
	t.Run("a slot that kept too much", func(t *testing.T) {
		t.Parallel()
		server := sourcetest.NewPostgres(t, "max_slot_wal_keep_size = 1MB", "min_wal_size = 32MB", "max_wal_size = 32MB")
		db := server.NewDatabase(t, `CREATE TABLE a (x text)`)
		prepare(t, server, db)
		for range 3 {
			server.Exec(t, db, `INSERT INTO a SELECT repeat('x', 1000) FROM generate_series(1, 20000)`, `SELECT pg_switch_wal()`, `CHECKPOINT`)
		}
		runFails(t, sourcetest.NewHost(t), pgSettings(server, db), "is lost", "max_slot_wal_keep_size", "another name")
	})
	t.Run("restarts", func(t *testing.T) {
		t.Parallel()
		server := sourcetest.NewPostgres(t)
		db := server.NewDatabase(t, `CREATE TABLE a (id int PRIMARY KEY)`)
		prepare(t, server, db)
		r := runPostgres(t, sourcetest.NewHost(t), pgSettings(server, db), nil)
		for i, stop := range []func(testing.TB){server.Crash, server.Immediate} {
			server.Exec(t, db, fmt.Sprintf(`INSERT INTO a VALUES (%d)`, i))
			eventually(t, func() string { return "the row" }, func() bool { return distinct(r.Stored()) == i+1 })
			stop(t)
			eventually(t, func() string { return "the trouble is shown" }, func() bool { return r.host.Reported() != nil })
			server.Start(t)
			eventually(t, func() string { return fmt.Sprint("it is well again: ", r.host.Reported()) }, func() bool { return r.host.Reported() == nil })
		}
		r.stop(t)
	})
}

func distinct(events []bus.Event) int {
	ids := map[string]bool{}
	for _, e := range events {
		ids[e.ID()] = true
	}
	return len(ids)
}
