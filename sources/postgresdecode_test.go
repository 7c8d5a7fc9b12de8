package sources

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgtype"

	"sluice/bus"
)

// The capture was made by these statements:
//
//	CREATE DOMAIN price AS numeric(10,2);
//	CREATE TABLE orders (id int PRIMARY KEY, "total ""net""" price, paid bool, doc jsonb, at timestamptz, raw bytea, note text, tags text[]);
//	ALTER TABLE orders ALTER note SET STORAGE EXTERNAL;
//	CREATE TABLE audit (who text, n int); ALTER TABLE audit REPLICA IDENTITY FULL;
//	(the publication and the slot)
//	BEGIN; INSERT INTO orders VALUES (1, 12.50, true, '{"a": 1.0}', '2026-01-02 03:04:05.6+01', '\x00ff', 'short', '{a,b}'), (2, NULL, …); COMMIT;
//	UPDATE orders SET note = repeat('n', 3000) WHERE id = 1; UPDATE orders SET paid = false WHERE id = 1;
//	UPDATE orders SET id = 3 WHERE id = 2; DELETE FROM orders WHERE id = 3;
//	INSERT INTO audit VALUES ('ann', 1); UPDATE audit SET n = 2; DELETE FROM audit;
//	TRUNCATE orders, audit RESTART IDENTITY CASCADE;
//	BEGIN; ALTER TABLE audit DROP n, ADD m numeric; INSERT INTO audit VALUES ('bob', 'NaN');
//	SELECT pg_logical_emit_message(true, 'order.created', '{"id": 1}'); COMMIT;
//	SELECT pg_logical_emit_message(false, 'order.tried', 'text');
//	SELECT pg_logical_emit_message(true, 'order.own', '{"specversion": "1.0", "id": "x", "source": "/s", "type": "own"}');
//	SELECT pg_logical_emit_message(true, 'order.bad', '{"specversion": "1.0"}');
//	COPY audit FROM STDIN (two rows)
const (
	pgCapture = "testdata/postgres/capture.txt"
	pgEvents  = "testdata/postgres/events.txt"
)

var update = flag.Bool("update-postgres", false, "write "+pgEvents+" anew")

// captured is one message of the capture.
type captured struct {
	lsn pglogrepl.LSN
	msg []byte
}

func readCapture(t testing.TB) (all []captured) {
	t.Helper()
	f, err := os.Open(pgCapture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		place, digits, _ := strings.Cut(lines.Text(), " ")
		lsn, err := pglogrepl.ParseLSN(place)
		msg, hexErr := hex.DecodeString(digits)
		if err := errors.Join(err, hexErr, lines.Err()); err != nil {
			t.Fatal(err)
		}
		all = append(all, captured{lsn, msg})
	}
	return all
}

func testDecoder() *pgDecoder {
	return &pgDecoder{
		source: "postgres://h/db", history: "7301-1", outbox: PostgresOutbox{CloudEvents: true}, relations: map[uint32]*pgRelation{},
		takes: func(uint32, pgTable) bool { return true }, skipped: func(pgTable) {},
		bases: func(_ context.Context, oids []uint32) (map[uint32]uint32, error) {
			return map[uint32]uint32{16386: pgtype.NumericOID}, nil // price
		},
	}
}

// show is what a decoder made, one step a line.
func show(it pgItem) string {
	switch {
	case it.poison != nil:
		return fmt.Sprintf("poison %s | %s | %s | %s", it.poison.ID, it.poison.Where, it.poison.Reason, it.poison.Data)
	case it.event != nil:
		return fmt.Sprintf("event %s", it.event.AppendJSON(nil))
	}
	return "done " + it.done.String()
}

// What a real server sent becomes the events that are written down; a second time
// it becomes the same.
func TestPostgresDecode(t *testing.T) {
	t.Parallel()
	all := readCapture(t)
	decode := func() string {
		d := testDecoder()
		out := strings.Builder{}
		for _, c := range all {
			items, err := d.decode(t.Context(), c.lsn, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), c.msg)
			if err != nil {
				t.Fatalf("%s: %v", c.lsn, err)
			}
			for _, it := range items {
				out.WriteString(show(it) + "\n")
			}
		}
		return out.String()
	}
	got := decode()
	if *update {
		if err := os.WriteFile(pgEvents, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(pgEvents)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("other than written down (-want +got):\n%s", diff)
	}
	if again := decode(); again != got {
		t.Error("a second time other events were made")
	}
}

// A message that is cut is an error, never a panic and never half an event.
func TestPostgresDecodeCut(t *testing.T) {
	t.Parallel()
	d := testDecoder()
	for _, c := range readCapture(t) {
		for n := range c.msg {
			switch kind := c.msg[0]; {
			case kind == 'Y': // not looked at
			case n == 0 || kind != 'R' && kind != 'C' && kind != 'B':
				if items, err := d.decode(t.Context(), c.lsn, time.Time{}, c.msg[:n]); err == nil {
					t.Fatalf("%s cut to %d bytes of %d gives %d items", c.lsn, n, len(c.msg), len(items))
				}
			}
		}
		if _, err := d.decode(t.Context(), c.lsn, time.Time{}, c.msg); err != nil {
			t.Fatalf("%s: %v", c.lsn, err)
		}
	}
}

// A database that was made anew uses the same LSNs for other changes: their ids differ.
func TestPostgresIDsOfAnotherHistory(t *testing.T) {
	t.Parallel()
	ids := func(history string, later time.Duration) map[string]bool {
		d, seen := testDecoder(), map[string]bool{}
		d.history = history
		for _, c := range readCapture(t) {
			items, err := d.decode(t.Context(), c.lsn, time.Time{}, c.msg)
			if err != nil {
				t.Fatal(err)
			}
			if c.msg[0] == 'B' {
				d.tx.time = d.tx.time.Add(later)
			}
			for _, it := range items {
				if it.event != nil && it.event.Source() == d.source {
					seen[it.event.ID()] = true
				}
			}
		}
		return seen
	}
	before := ids("7301-1", 0)
	for id := range ids("7302-1", time.Microsecond) {
		if before[id] {
			t.Errorf("%s is the id of two changes", id)
		}
	}
	if len(before) < 10 {
		t.Errorf("only %d ids", len(before))
	}
}

// A table may have no columns, or none that are sent.
func TestPostgresDecodeNoColumns(t *testing.T) {
	t.Parallel()
	d := testDecoder()
	var items []pgItem
	for _, msg := range []string{"R\x00\x00\x40\x01public\x00t\x00d\x00\x00", "I\x00\x00\x40\x01N\x00\x00"} {
		var err error
		if items, err = d.decode(t.Context(), 1, time.Time{}, []byte(msg)); err != nil {
			t.Fatal(err)
		}
	}
	if len(items) != 1 || items[0].event == nil || !strings.Contains(string(items[0].event.Data()), `"op":"insert","new":{}`) {
		t.Errorf("got %+v", items)
	}
}

func TestPostgresValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		oid        uint32
		text, want string // want "": poison
	}{
		{pgtype.Int4OID, "-5", "-5"},
		{pgtype.NumericOID, "0.10", "0.10"},
		{pgtype.NumericOID, "123456789012345678901234567890.5", "123456789012345678901234567890.5"},
		{pgtype.NumericOID, "NaN", `"NaN"`},
		{pgtype.Float8OID, "1e-07", "1e-07"},
		{pgtype.Float8OID, "Infinity", `"Infinity"`},
		{pgtype.Float4OID, "", `""`},
		{pgtype.BoolOID, "t", "true"},
		{pgtype.BoolOID, "f", "false"},
		{pgtype.JSONOID, ` {"a" : 1.00} `, ` {"a" : 1.00} `},
		{pgtype.JSONOID, strings.Repeat("[", 5000) + strings.Repeat("]", 5000), ""},
		{pgtype.TextOID, "a\"\\\n\x01", `"a\"\\\n\u0001"`},
		{pgtype.TextOID, "\xff", ""},
		{pgtype.ByteaOID, `\x`, `""`},
		{pgtype.ByteaOID, `\xdeadbeef`, `"3q2+7w=="`},
		{pgtype.ByteaOID, `\xd`, ""},
		{pgtype.TimestampOID, "2026-01-02 03:04:05", `"2026-01-02T03:04:05"`},
		{pgtype.TimestamptzOID, "2026-01-02 03:04:05.120+00", `"2026-01-02T03:04:05.12Z"`},
		{pgtype.TimestamptzOID, "2026-01-02 03:04:05+05:30", `"2026-01-02 03:04:05+05:30"`},
		{pgtype.TimestamptzOID, "infinity", `"infinity"`},
		{pgtype.TimestamptzOID, "10000-01-02 03:04:05+00", `"10000-01-02 03:04:05+00"`},
		{pgtype.Int4ArrayOID, "{1,2}", `"{1,2}"`},
	} {
		got, err := appendPgValue(nil, pgFormOf(c.oid), pgValue{'t', []byte(c.text)})
		if err != nil && c.want != "" || string(got) != c.want {
			t.Errorf("type %d, %.40q: %.60s, %v, want %s", c.oid, c.text, got, err, c.want)
		}
	}
}

func FuzzPostgresDecode(f *testing.F) {
	all := readCapture(f)
	for _, c := range all {
		f.Add(c.msg)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		d := testDecoder()
		for _, c := range all { // so that the tables are known
			if _, err := d.decode(t.Context(), c.lsn, time.Time{}, c.msg); err != nil {
				t.Fatal(err)
			}
		}
		items, err := d.decode(t.Context(), 1, time.Unix(0, 0).UTC(), msg)
		if err != nil {
			return
		}
		for _, it := range items {
			if it.event == nil {
				continue
			}
			if _, err := bus.ParseJSON(it.event.AppendJSON(nil)); err != nil {
				t.Errorf("%q became an event that cannot be read: %v", msg, err)
			}
		}
	})
}

func FuzzPostgresValue(f *testing.F) {
	for _, text := range []string{"1", "-1e5", "t", `{"a":1}`, "2026-01-02 03:04:05.6+00", `\x00`, "a\"b", "\xff"} {
		for form := range pgBytes + 1 {
			f.Add(byte(form), []byte(text))
		}
	}
	f.Fuzz(func(t *testing.T, form byte, text []byte) {
		got, err := appendPgValue(nil, pgForm(form)%(pgBytes+1), pgValue{'t', text})
		if err == nil && !bus.ValidJSON(got) {
			t.Errorf("form %d of %q is %q", form, text, got)
		}
	})
}
