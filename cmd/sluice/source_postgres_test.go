package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"sluice/sources/sourcetest"
)

// rowSink is a function that writes down which rows it got.
type rowSink struct {
	*httptest.Server
	mu      sync.Mutex
	ids     map[string]map[string]int // by table/n: how often, by event id
	newest  map[string]int            // by table
	order   []string                  // what came for the first time out of its order
	repeats int
}

func newRowSink(t *testing.T) *rowSink {
	t.Helper()
	s := &rowSink{ids: map[string]map[string]int{}, newest: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var data struct {
			Table string
			New   struct{ N int }
		}
		if err := json.NewDecoder(r.Body).Decode(&data); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.took(data.Table, data.New.N, r.Header.Get("ce-id"))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.CloseClientConnections)
	return s
}

func (s *rowSink) took(table string, n int, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := table + "/" + strconv.Itoa(n)
	if s.ids[row] == nil {
		s.ids[row] = map[string]int{}
		if n != s.newest[table]+1 {
			s.order = append(s.order, fmt.Sprintf("%s came after %d", row, s.newest[table]))
		}
		s.newest[table] = max(s.newest[table], n)
	} else {
		s.repeats++
	}
	s.ids[row][id]++
}

func (s *rowSink) rows() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

// pgWriter fills the tables a and b with the rows 1, 2, 3 … in transactions, and
// goes on where the table ends after the server was gone.
type pgWriter struct {
	server       *sourcetest.Postgres
	db           string
	written      atomic.Int64
	transactions int
}

func (w *pgWriter) run(ctx context.Context, rows int, pace time.Duration) error {
	for big := false; w.written.Load() < int64(rows); {
		conn, err := pgx.Connect(ctx, w.server.DSN(w.db))
		for err == nil {
			size := 1 + rand.IntN(40)
			if !big && w.written.Load() > int64(rows)/3 {
				size = 5000
			}
			if err = w.transaction(ctx, conn, size); err == nil {
				big = big || size == 5000
				err = w.count(ctx, conn)
			}
			if err == nil && w.written.Load() >= int64(rows) {
				break
			}
			<-time.After(pace)
		}
		if conn != nil {
			_ = conn.Close(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		<-time.After(50 * time.Millisecond)
	}
	return nil
}

func (w *pgWriter) transaction(ctx context.Context, conn *pgx.Conn, size int) error {
	w.transactions++
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for _, table := range []string{"a", "b"} {
		n := (size + 1) / 2
		if size == 5000 {
			n = map[string]int{"a": 5000}[table]
		}
		sql := fmt.Sprintf("INSERT INTO %s SELECT m + i, repeat('x', 200) FROM (SELECT coalesce(max(n), 0) AS m FROM %[1]s) AS old, generate_series(1, %d) AS i", table, n)
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

func (w *pgWriter) count(ctx context.Context, conn *pgx.Conn) error {
	var n int64
	err := conn.QueryRow(ctx, "SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b)").Scan(&n)
	w.written.Store(n)
	return err
}

// TestProcessPostgres writes 20,000 rows in many transactions, one of them of 5,000
// rows, while sluice is killed, and PostgreSQL is killed and stopped in a hurry.
// Every row reaches the function, in the order of its table; what comes twice has
// the same id.
func TestProcessPostgres(t *testing.T) {
	t.Parallel()
	const rows = 20_000
	server := sourcetest.NewPostgres(t)
	w := &pgWriter{server: server, db: server.NewDatabase(t, `CREATE TABLE a (n int PRIMARY KEY, x text)`, `CREATE TABLE b (n int PRIMARY KEY, x text)`)}
	sink := newRowSink(t)
	dsn := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(server.DSN(w.db)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf(
		"sources:\n  db: {postgres: {dsn: \"${file:%s}\", tables: [a, b], heartbeat: 1s}}\nsinks:\n%s"+everythingTo,
		dsn, sinkYAML("f", sink.URL, ", order_by: subject, concurrency: 8"), "f"))
	p.start()
	p.until(20*time.Second, "the slot", func() bool {
		return server.Get(t, w.db, "SELECT count(*) FROM pg_replication_slots WHERE active AND confirmed_flush_lsn IS NOT NULL") == "1"
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- w.run(ctx, rows, 10*time.Millisecond) }()
	kills, crashes, lag := 0, 0, 0.0
	for i, at := range []int64{1500, 4000, 6700, 7500, 11_700, 13_000, 15_000, 18_000} {
		p.until(2*time.Minute, fmt.Sprintf("%d rows", at), func() bool {
			lag = max(lag, p.metrics()["sluice_source_lag_bytes"])
			return w.written.Load() >= at
		})
		switch i {
		case 1:
			server.Crash(t)
			server.Start(t)
			crashes++
		case 5:
			server.Immediate(t)
			server.Start(t)
			crashes++
		default:
			p.kill()
			p.start()
			kills++
		}
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	total := int(w.written.Load())
	p.until(2*time.Minute, "every row is at the function", func() bool { return sink.rows() >= total })
	p.settled(60 * time.Second)
	checkRows(t, sink, total)
	p.until(20*time.Second, "the slot is confirmed", func() bool {
		now, shown := p.metrics()["sluice_source_lag_bytes"]
		return shown && now < 1<<16
	})
	if lag == 0 {
		t.Error("sluice_source_lag_bytes was never more than 0")
	}
	sink.mu.Lock()
	repeats := sink.repeats
	sink.mu.Unlock()
	again := p.stored() - total
	t.Logf("%d rows in %d transactions, %d kill -9 of sluice, %d of PostgreSQL: none missing, the order of both tables kept; with the same id, %d were published again and %d delivered again; the slot was %.0f KiB behind at most",
		total, w.transactions, kills, crashes, again, repeats, lag/1024)
	// A crash repeats the transactions that were not published as a whole.
	if limit := 5000 + (kills+crashes)*500; again > limit {
		t.Errorf("%d rows were published again, at most %d were expected", again, limit)
	}
	p.stop()
	if strings.Contains(p.log.String(), sourcetest.PostgresPassword) {
		t.Error("the log shows the password")
	}
	t.Run("snapshot", func(t *testing.T) { testPostgresSnapshotKills(t, server) })
}

// stored counts the events in the log.
func (p *program) stored() (n int) {
	p.t.Helper()
	from := ""
	for {
		var page struct {
			Events []json.RawMessage
			Next   string
		}
		p.get("/api/v1/events?limit=1000&from="+url.QueryEscape(from), &page)
		if n += len(page.Events); page.Next == "" {
			return n
		}
		from = page.Next
	}
}

func checkRows(t *testing.T, sink *rowSink, total int) {
	t.Helper()
	sink.mu.Lock()
	defer sink.mu.Unlock()
	if len(sink.ids) != total {
		t.Errorf("%d different rows are at the function, want %d", len(sink.ids), total)
	}
	if len(sink.order) > 0 {
		t.Errorf("%d rows came out of order, such as: %s", len(sink.order), sink.order[0])
	}
	seen := map[string]string{}
	for row, ids := range sink.ids {
		if len(ids) != 1 {
			t.Errorf("%s came with the ids %v", row, ids)
		}
		for id := range ids {
			if other, taken := seen[id]; taken {
				t.Errorf("%s and %s have the same id %s", row, other, id)
			}
			seen[id] = row
		}
	}
}
