package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Postgres is a real PostgreSQL server of a test, on a free port of the loopback
// interface, with its data in a directory of its own.
type Postgres struct {
	dir, bin  string
	port      int
	owner     *syscall.Credential // nil: ourselves
	cmd       *exec.Cmd
	databases atomic.Int64
}

// PostgresPassword is the password of the superuser postgres.
const PostgresPassword = "marker-secret-pg"

// NewPostgres starts a server that ends with the test. Settings are lines for
// postgresql.conf. Without SLUICE_INTEGRATION=1, or without a server to run, the
// test is skipped; with CI=true a missing server is a failure.
func NewPostgres(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	if os.Getenv("SLUICE_INTEGRATION") == "" {
		t.Skip("needs a real PostgreSQL: set SLUICE_INTEGRATION=1")
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err == nil && len(found) == 0 {
		var path string
		if path, err = exec.LookPath("initdb"); err == nil {
			found = []string{path}
		}
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no PostgreSQL: install it with apt-get install postgresql")
		}
		t.Skip("there is no PostgreSQL: install it with apt-get install postgresql")
	}
	p := &Postgres{bin: filepath.Dir(slices.Max(found)), port: freePort(t)}
	p.init(t)
	settings = append([]string{
		"listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "wal_level = logical", "max_connections = 200",
		"max_wal_senders = 60", "max_replication_slots = 60", "shared_buffers = 64MB",
		"fsync = off", // what is killed is the server, not the machine
		fmt.Sprintf("port = %d", p.port),
	}, settings...)
	conf := filepath.Join(p.dir, "data", "postgresql.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Start(t)
	t.Cleanup(func() { p.Crash(t) })
	return p
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// init makes the data directory. PostgreSQL refuses to run as root.
func (p *Postgres) init(t testing.TB) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-postgres-") //nolint:usetesting // t.TempDir is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.dir = dir
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(PostgresPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		p.owner = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := errors.Join(os.Chown(dir, int(uid), int(gid)), os.Chown(password, int(uid), int(gid))); err != nil {
			t.Fatal(err)
		}
	}
	cmd := p.command("initdb", "-D", filepath.Join(dir, "data"), "-U", "postgres", "-A", "scram-sha-256",
		"--pwfile", password, "-E", "UTF8", "--locale", "C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
}

func (p *Postgres) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.owner, Setpgid: true}
	return cmd
}

// Start starts the server, again after Crash, and waits until it answers.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p.cmd = p.command("postgres", "-D", filepath.Join(p.dir, "data"))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.DSN("postgres"))
		if err == nil {
			_ = conn.Close(ctx)
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("PostgreSQL does not start: %v\n%s", err, p.Log())
		}
	}
}

// Secure lets the server offer TLS with a certificate in PEM, to whoever asks for it.
func (p *Postgres) Secure(t testing.TB, cert, key []byte) {
	t.Helper()
	data := filepath.Join(p.dir, "data")
	for name, text := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(data, name)
		err := os.WriteFile(path, text, 0o600)
		if err == nil && p.owner != nil {
			err = os.Chown(path, int(p.owner.Uid), int(p.owner.Gid))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conf.WriteString("ssl = on\n")
	if err = errors.Join(err, conf.Close(), p.cmd.Process.Signal(syscall.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); p.Get(t, "postgres", "SELECT current_setting('ssl')") != "on"; {
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL does not offer TLS:\n%s", p.Log())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Log is what the server wrote.
func (p *Postgres) Log() string {
	text, _ := os.ReadFile(filepath.Join(p.dir, "log"))
	return string(text[max(0, len(text)-8000):])
}

// Crash kills every process of the server at once.
func (p *Postgres) Crash(t testing.TB) {
	t.Helper()
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return
	}
	// Its processes have sessions of their own, so they are found by their parent,
	// which must not start more meanwhile.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	all := children(p.cmd.Process.Pid)
	for _, pid := range append(all, p.cmd.Process.Pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.cmd.Wait()
	// A new server refuses to start while one of the old holds the shared memory.
	for _, pid := range all {
		for deadline := time.Now().Add(10 * time.Second); alive(pid) && time.Now().Before(deadline); {
			<-time.After(5 * time.Millisecond)
		}
	}
}

// alive tells whether a process runs: one that waits for its parent does not.
func alive(pid int) bool {
	parent, state := stat(pid)
	return parent != 0 && state != "Z"
}

// stat gives the parent and the state of a process, or zeros when it is gone.
func stat(pid int) (parent int, state string) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	if fields := strings.Fields(rest); len(fields) > 1 {
		state = fields[0]
		parent, _ = strconv.Atoi(fields[1])
	}
	return parent, state
}

// Immediate stops the server without a checkpoint, as an operator in a hurry does.
func (p *Postgres) Immediate(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait()
}

// children lists the processes whose parent is pid.
func children(pid int) (found []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, _ := stat(n); parent == pid {
			found = append(found, n)
		}
	}
	return found
}

// DSN is the address of a database, for the superuser.
func (p *Postgres) DSN(database string) string {
	return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s?sslmode=disable", PostgresPassword, p.port, database)
}

// NewDatabase makes a database and runs the statements in it.
func (p *Postgres) NewDatabase(t testing.TB, statements ...string) (name string) {
	t.Helper()
	name = fmt.Sprintf("test%d", p.databases.Add(1))
	p.Exec(t, "postgres", "CREATE DATABASE "+name)
	p.Exec(t, name, statements...)
	return name
}

// Exec runs statements in a database, each in a transaction of its own.
func (p *Postgres) Exec(t testing.TB, database string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// Get is one value that a query gives, as a text.
func (p *Postgres) Get(t testing.TB, database, sql string) (text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.DSN(database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := conn.QueryRow(ctx, "SELECT coalesce(("+sql+")::text, '')", pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}
