package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/sources/sourcetest"
)

// testPostgresSnapshotKills kills a bus three times while it reads the rows that were
// there before it, and changes some rows each time. Every row is read or comes as a
// change, and the same row in the same state always has the same id.
func testPostgresSnapshotKills(t *testing.T, server *sourcetest.Postgres) {
	const rows, kills = 20_000, 3
	db := server.NewDatabase(t, `CREATE TABLE a (n int PRIMARY KEY, x text)`,
		fmt.Sprintf("INSERT INTO a SELECT i, 'old' FROM generate_series(1, %d) AS i", rows))
	dir := t.TempDir()
	dsn := filepath.Join(dir, "dsn")
	if err := os.WriteFile(dsn, []byte(server.DSN(db)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProgram(t, dir, "", fmt.Sprintf(
		"sources:\n  db: {postgres: {dsn: \"${file:%s}\", tables: [a], slot: snap, publication: snap, snapshot: initial, heartbeat: 1s}}\nsinks: {out: {stdout: {}}}\n"+everythingTo, dsn, "out"))
	out, err := os.Create(filepath.Join(dir, "out.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.out = out
	cut := 0
	for kill := range kills {
		p.start()
		p.until(time.Minute, "rows are read", func() bool { return p.metrics()["sluice_events_accepted_total"] > 1000 })
		if p.metrics()["sluice_events_accepted_total"] < rows {
			cut++
		}
		p.kill()
		server.Exec(t, db, fmt.Sprintf("UPDATE a SET x = 'new' WHERE n %% 1000 = %d", kill))
	}
	p.start()
	var got map[int]map[string]map[string]int
	p.until(2*time.Minute, "every row in its last state", func() bool {
		got = p.rowStates()
		for n := 1; n <= rows; n++ {
			last := "old"
			if n%1000 < kills {
				last = "new"
			}
			if len(got[n][last]) == 0 {
				return false
			}
		}
		return true
	})
	p.settled(time.Minute)
	read, changed := 0, 0
	for n, states := range p.rowStates() {
		for state, ids := range states {
			// A row that was changed while the bus was down may be read in that state, and comes as a change too.
			most := map[string]int{"old": 1, "new": 2}[state]
			if len(ids) > most {
				t.Errorf("the row %d in the state %s has the ids %v", n, state, ids)
			}
			if state == "new" {
				changed++
			} else {
				read++
			}
		}
	}
	t.Logf("a snapshot of %d rows, kill -9 %d times in the middle of it: %d rows were read as they had been, %d changed ones are there as they are, each with one id for each state",
		rows, cut, read, changed)
	if cut == 0 {
		t.Error("the snapshot was through before every kill")
	}
	p.stop()
}

// rowStates counts what the program has printed of each row, by state and event id.
// A kill may leave half a line.
func (p *program) rowStates() map[int]map[string]map[string]int {
	p.t.Helper()
	text, err := os.ReadFile(p.out.Name())
	if err != nil {
		p.t.Fatal(err)
	}
	got := map[int]map[string]map[string]int{}
	for line := range bytes.Lines(text) {
		var e struct {
			ID   string
			Data struct {
				New struct {
					N int
					X string
				}
			}
		}
		if json.Unmarshal(line, &e) != nil {
			continue
		}
		row := e.Data.New
		if got[row.N] == nil {
			got[row.N] = map[string]map[string]int{}
		}
		if got[row.N][row.X] == nil {
			got[row.N][row.X] = map[string]int{}
		}
		got[row.N][row.X][e.ID]++
	}
	return got
}
