// Package natstest is a real NATS server inside a test, to be stopped, started
// again and cut off. It is for tests only.
package natstest

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// patience is how long a server may take to start.
const patience = 30 * time.Second

// Server is a server on a port of the loopback interface, with JetStream in a
// directory of its own.
type Server struct {
	URL  string
	opts *server.Options
	mu   sync.Mutex
	srv  *server.Server
}

// Start gives a server that ends with the test. change may alter its options.
func Start(t testing.TB, change ...func(*server.Options)) *Server {
	t.Helper()
	s := &Server{opts: &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, MaxPayload: 8 << 20,
		JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 64 << 20,
	}}
	s.Resume(t, change...)
	t.Cleanup(s.Stop)
	return s
}

// Resume starts the server that was stopped, at the same address. change may alter its
// options.
func (s *Server) Resume(t testing.TB, change ...func(*server.Options)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range change {
		f(s.opts)
	}
	srv, err := server.NewServer(s.opts.Clone())
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	s.srv, s.opts.Port = srv, srv.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it listens on TCP
	s.URL = fmt.Sprintf("nats://127.0.0.1:%d", s.opts.Port)
}

// Reload changes the options of the server while it runs, as a SIGHUP does.
func (s *Server) Reload(t testing.TB, change func(*server.Options)) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.opts)
	if err := s.srv.ReloadOptions(s.opts.Clone()); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the server; what it stored stays.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.srv.Shutdown()
	s.srv.WaitForShutdown()
}

// Client is a connection beside the one under test, and JetStream through it.
func (s *Server) Client(t testing.TB, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	opts = append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	conn, err := nats.Connect(s.URL, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, js
}

// Proxy is a way to a server that can be blocked.
type Proxy struct {
	URL    string
	mute   chan struct{}
	muting sync.Once
}

// NewProxy listens in front of a server until the test ends.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &Proxy{URL: "nats://" + l.Addr().String(), mute: make(chan struct{})}
	target := s.URL[len("nats://"):]
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = in.Close() })
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _ = out.Close() })
			go func() { _, _ = io.Copy(out, in) }()
			go p.answers(in, out)
		}
	}()
	return p
}

// answers passes on what the server says, until it is muted.
func (p *Proxy) answers(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-p.mute:
			continue
		default:
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Mute drops all that the server says from now on.
func (p *Proxy) Mute() { p.muting.Do(func() { close(p.mute) }) }
