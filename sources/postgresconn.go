package sources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// How long the server may take.
const (
	pgConnectTimeout = 15 * time.Second // for the connection and the login
	pgQueryTimeout   = 30 * time.Second // for a look into the catalog
	pgSlotTimeout    = 5 * time.Minute  // for a new slot, which waits for running transactions
	pgCloseTimeout   = 2 * time.Second
)

// The settings of a session that say how values print. Replication prints with
// those of its own session.
var pgSession = [...][2]string{
	{"client_encoding", "UTF8"}, {"datestyle", "ISO"}, {"timezone", "UTC"}, {"intervalstyle", "iso_8601"},
	{"extra_float_digits", "1"}, {"bytea_output", "hex"},
	// The source has limits of its own, and a snapshot takes as long as it takes.
	{"statement_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"},
}

// connConfig is the config of one connection.
func (s *postgres) connConfig(replication bool) *pgconn.Config {
	c := s.cfg.Copy()
	for _, p := range pgSession {
		c.RuntimeParams[p[0]] = p[1]
	}
	delete(c.RuntimeParams, "replication")
	if replication {
		c.RuntimeParams["replication"] = "database"
		c.RuntimeParams["idle_session_timeout"] = "0" // it waits while the tables are read
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "sluice " + s.env.Name
	}
	if c.ConnectTimeout == 0 || c.ConnectTimeout > pgConnectTimeout {
		c.ConnectTimeout = pgConnectTimeout
	}
	// A server that went away without a word is noticed within a minute.
	dialer := net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 15 * time.Second, Interval: 10 * time.Second, Count: 4,
	}}
	c.DialFunc = dialer.DialContext
	return c
}

func (s *postgres) connect(ctx context.Context, replication bool) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(ctx, pgConnectTimeout)
	defer cancel()
	return pgconn.ConnectConfig(ctx, s.connConfig(replication))
}

func pgClose(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), pgCloseTimeout)
	defer cancel()
	_ = conn.Close(ctx) // what it had to say was said before
}

// pgSide is an ordinary connection beside the replication, for the catalog. It is
// made when it is needed, and again when it broke. It may be used by several
// goroutines.
type pgSide struct {
	source *postgres
	mu     sync.Mutex
	conn   *pgx.Conn
}

// query runs one statement and collects what scan makes of its rows.
func pgQuery[T any](ctx context.Context, p *pgSide, scan func(pgx.CollectableRow) (T, error), sql string, args ...any) ([]T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, pgQueryTimeout)
	defer cancel()
	if err := p.connect(ctx); err != nil {
		return nil, err
	}
	rows, err := p.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scan)
}

// exec runs one statement without a result.
func (p *pgSide) exec(ctx context.Context, sql string) error {
	_, err := pgQuery(ctx, p, func(pgx.CollectableRow) (struct{}, error) { return struct{}{}, nil }, sql)
	return err
}

func (p *pgSide) connect(ctx context.Context) error {
	if p.conn != nil && !p.conn.IsClosed() && p.conn.Ping(ctx) == nil {
		return nil
	}
	if p.conn != nil {
		_ = p.conn.Close(ctx)
	}
	c, err := pgx.ParseConfig(p.source.set.DSN.Value())
	if err != nil {
		return errors.New("the dsn is not a PostgreSQL address")
	}
	c.Config = *p.source.connConfig(false)
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statements to go stale
	p.conn, err = pgx.ConnectConfig(ctx, c)
	return err
}

func (p *pgSide) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), pgCloseTimeout)
		defer cancel()
		_ = p.conn.Close(ctx)
	}
}

// pgFault is something that only a person can mend; its text says how.
type pgFault struct {
	msg   string
	cause error
}

func (e *pgFault) Error() string {
	if e.cause == nil {
		return e.msg
	}
	return e.msg + ": " + e.cause.Error()
}

func (e *pgFault) Unwrap() error { return e.cause }

func pgFaultf(cause error, format string, args ...any) error {
	return &pgFault{fmt.Sprintf(format, args...), cause}
}

// errSlotBusy: somebody else reads from the slot at the moment.
var errSlotBusy = errors.New("the replication slot is in use")

// pgPasses tells whether an error may go away by itself, so that it is worth
// connecting again soon.
func pgPasses(err error) bool {
	var fault *pgFault
	var answer *pgconn.PgError
	switch {
	case errors.As(err, &fault):
		return false
	case errors.As(err, &answer):
		switch answer.Code {
		case "55006", "40001", "40P01": // object in use, serialization failure, deadlock
			return true
		}
		// Connection exceptions, lack of resources, shutting down or starting up, I/O.
		return len(answer.Code) == 5 && strings.Contains(" 08 53 57 58 ", " "+answer.Code[:2]+" ")
	}
	return true
}

// pgClear makes an answer of the server an error that says what to do.
func pgClear(err error) error {
	var fault *pgFault
	var answer *pgconn.PgError
	if err == nil || errors.As(err, &fault) || !errors.As(err, &answer) {
		return err
	}
	said := answer.Message
	if answer.Detail != "" {
		said += " (" + answer.Detail + ")"
	}
	if answer.Hint != "" {
		said += " (" + answer.Hint + ")"
	}
	cause := fmt.Errorf("%s (SQLSTATE %s)", said, answer.Code)
	switch {
	case answer.Code == "28P01":
		return pgFaultf(cause, "PostgreSQL refused the login: check user and password in dsn")
	case answer.Code == "28000":
		return pgFaultf(cause, "PostgreSQL refused the login: check the user in dsn, that it has the attributes LOGIN and REPLICATION, and that pg_hba.conf lets it in from here")
	case answer.Code == "3D000":
		return pgFaultf(cause, "the database in dsn does not exist: check its name")
	case answer.Code == "53400":
		return pgFaultf(cause, "PostgreSQL has no replication slot or sender left: raise max_replication_slots and max_wal_senders, or drop a slot that nobody uses")
	case answer.Code == "42501":
		return pgFaultf(cause, "the user in dsn may not do this: it needs the attribute REPLICATION (ALTER ROLE … REPLICATION), SELECT on the tables for a snapshot, and to own the tables to create the publication")
	case answer.Code == "42704" && strings.Contains(answer.Message, "publication"):
		return pgFaultf(cause, "the publication is younger than the slot, or was dropped: PostgreSQL reads old changes with the catalog of their time. Use a new slot by giving slot another name; with snapshot: initial the tables are read again")
	}
	return fmt.Errorf("PostgreSQL: %w", &pgAnswer{cause, answer})
}

// pgAnswer prints what the server said in full and still is its *pgconn.PgError.
type pgAnswer struct {
	error
	answer *pgconn.PgError
}

func (e *pgAnswer) Unwrap() error { return e.answer }
