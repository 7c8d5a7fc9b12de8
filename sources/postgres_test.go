package sources

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/config/value"
)

func TestPostgresValidate(t *testing.T) {
	t.Parallel()
	good := func() *Postgres {
		s := NewPostgres()
		s.DSN = value.NewSecret("postgres://u:marker-secret@h/db")
		return s
	}
	for name, c := range map[string]struct {
		change func(*Postgres)
		key    string // "" for none
	}{
		"defaults":          {func(*Postgres) {}, ""},
		"key=value":         {func(s *Postgres) { s.DSN = value.NewSecret("host=h dbname=d user=u") }, ""},
		"no dsn":            {func(s *Postgres) { s.DSN = value.Secret{} }, "dsn"},
		"bad dsn":           {func(s *Postgres) { s.DSN = value.NewSecret("postgres://u:marker-secret@h:x/db") }, "dsn"},
		"bad sslmode":       {func(s *Postgres) { s.DSN = value.NewSecret("postgres://u:marker-secret@h/db?sslmode=odd") }, "dsn"},
		"slot in capitals":  {func(s *Postgres) { s.Slot = "Sluice" }, "slot"},
		"no slot":           {func(s *Postgres) { s.Slot = "" }, "slot"},
		"odd publication":   {func(s *Postgres) { s.Publication = "my \"own\" pub" }, ""},
		"no publication":    {func(s *Postgres) { s.Publication = "" }, "publication"},
		"tables":            {func(s *Postgres) { s.Tables = []string{"a", "s.b"} }, ""},
		"half a table":      {func(s *Postgres) { s.Tables = []string{"a", "s."} }, "tables[1]"},
		"a table twice":     {func(s *Postgres) { s.Tables = []string{"a", "public.a"} }, "tables[1]"},
		"odd snapshot":      {func(s *Postgres) { s.Snapshot = "always" }, "snapshot"},
		"hectic heartbeat":  {func(s *Postgres) { s.Heartbeat = 1 }, "heartbeat"},
		"no heartbeat":      {func(s *Postgres) { s.Heartbeat = 0 }, "heartbeat"},
		"an initial snap":   {func(s *Postgres) { s.Snapshot = "initial" }, ""},
		"a long slot's end": {func(s *Postgres) { s.Slot = strings.Repeat("a", 64) }, "slot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := good()
			c.change(s)
			var keys []string
			for _, f := range s.Validate() {
				keys = append(keys, f.Key)
				if strings.Contains(f.Msg, "marker-secret") {
					t.Errorf("the fault shows the password: %s", f.Msg)
				}
			}
			if got := strings.Join(keys, " "); got != c.key {
				t.Errorf("faults of %q, want %q", got, c.key)
			}
		})
	}
}

func TestPostgresSourceName(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:p@db.example.com/shop":               "postgres://db.example.com/shop",
		"postgres://u:p@db.example.com:6543/shop":          "postgres://db.example.com:6543/shop",
		"postgres://u:p@[::1]/shop":                        "postgres://[::1]/shop",
		"host=/var/run/postgresql dbname=shop user=u":      "postgres://localhost/shop",
		"host=h user=u password=p dbname='my shop'":        "postgres://h/my%20shop",
		"postgres://u:p@a,b/shop?target_session_attrs=any": "postgres://a/shop",
	} {
		s := NewPostgres()
		s.DSN = value.NewSecret(dsn)
		src, err := s.Open(t.Context(), Env{})
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if got := src.(*postgres).source; got != want {
			t.Errorf("%s: source %s, want %s", dsn, got, want)
		}
	}
}

// The queue is bounded in items and in bytes, keeps the order, and lets a large
// item pass alone.
func TestPostgresQueue(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	q := newPgQueue()
	defer q.wake(ctx)()
	if err := q.put(ctx, pgItem{size: 2 * pgQueueBytes}); err != nil {
		t.Fatal(err)
	}
	blocked := make(chan error, 1)
	go func() { blocked <- q.put(ctx, pgItem{size: 1, done: 7}) }()
	select {
	case <-blocked:
		t.Fatal("an item was taken over the limit")
	case <-time.After(20 * time.Millisecond):
	}
	q.mark(5) // takes no room
	items, err := q.take(ctx, nil)
	if err != nil || len(items) != 1 || items[0].done != 5 {
		t.Fatalf("took %+v, %v", items, err)
	}
	if err := <-blocked; err != nil {
		t.Fatal(err)
	}
	for range pgQueueItems - 1 {
		if err := q.put(ctx, pgItem{size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	go func() { blocked <- q.put(ctx, pgItem{size: 1}) }()
	cancel()
	if err := <-blocked; !errors.Is(err, context.Canceled) {
		t.Errorf("a put that waits ended with %v", err)
	}
	items, err = q.take(ctx, nil)
	if !errors.Is(err, context.Canceled) || len(items) != pgBatchItems || items[0].done != 7 {
		t.Errorf("took %d, %v", len(items), err)
	}
}
