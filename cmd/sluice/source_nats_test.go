package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	natsUser     = "alice"
	natsPassword = "pa55word-marker"
)

// natsServer is a real nats-server, as a process of its own.
type natsServer struct {
	t    *testing.T
	bin  string
	dir  string
	port int
	cmd  *exec.Cmd
	log  *lockedBuffer
}

// newNATSServer starts a server. SLUICE_NATS_SERVER names the program, where it is not
// in PATH.
func newNATSServer(t *testing.T) *natsServer {
	t.Helper()
	if !full() {
		t.Skip("set SLUICE_INTEGRATION=1 to run against a real nats-server")
	}
	bin := installed(t, "nats-server", "SLUICE_NATS_SERVER", "github.com/nats-io/nats-server/v2@v2.15.2")
	s := &natsServer{t: t, bin: bin, dir: t.TempDir(), port: freePort(t), log: &lockedBuffer{}}
	conf := fmt.Sprintf("listen: 127.0.0.1:%d\njetstream: {store_dir: %q}\nauthorization: {user: %s, password: %s}\n",
		s.port, filepath.Join(s.dir, "js"), natsUser, natsPassword)
	if err := os.WriteFile(filepath.Join(s.dir, "nats.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	s.start()
	return s
}

func (s *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// start runs the server and waits until it answers.
func (s *natsServer) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.bin, "-c", filepath.Join(s.dir, "nats.conf"))
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url(), "nats://"))
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			s.t.Fatalf("nats-server does not start\n%s", s.log)
		}
	}
}

// end sends a signal and waits until the server is gone.
func (s *natsServer) end(with os.Signal) {
	if s.cmd == nil || s.cmd.ProcessState != nil {
		return
	}
	_ = s.cmd.Process.Signal(with)
	_ = s.cmd.Wait()
}

// client is a connection beside sluice.
func (s *natsServer) client() (*nats.Conn, jetstream.JetStream) {
	s.t.Helper()
	conn, err := nats.Connect(s.url(), nats.UserInfo(natsUser, natsPassword), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond),
		nats.IgnoreAuthErrorAbort())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(2*time.Second))
	if err != nil {
		s.t.Fatal(err)
	}
	return conn, js
}

// natsWriter publishes numbered messages, each until the stream has it.
type natsWriter struct {
	js    jetstream.JetStream
	acked atomic.Int64
}

func (w *natsWriter) write(ctx context.Context, total int) error {
	const writers = 8
	failed := make(chan error, writers)
	var next atomic.Int64
	for range writers {
		go func() {
			for n := next.Add(1); n <= int64(total); n = next.Add(1) {
				data := fmt.Appendf(nil, `{"table": "orders", "new": {"n": %d}, "fill": %q}`, n, strings.Repeat("x", 200))
				for {
					one, cancel := context.WithTimeout(ctx, 2*time.Second)
					_, err := w.js.Publish(one, "in.orders", data, jetstream.WithMsgID(fmt.Sprint(n)))
					cancel()
					if err == nil {
						break
					}
					if ctx.Err() != nil {
						failed <- fmt.Errorf("message %d: %w", n, err)
						return
					}
					<-time.After(20 * time.Millisecond)
				}
				if w.acked.Add(1)%50 == 0 {
					<-time.After(5 * time.Millisecond) // so that the kills hit the middle
				}
			}
			failed <- nil
		}()
	}
	for range writers {
		if err := <-failed; err != nil {
			return err
		}
	}
	return nil
}

// TestProcessNATS sends 20,000 messages through a stream, sluice and another stream,
// while sluice is killed, and nats-server is killed and stopped. Each is at the function
// and in the other stream; what was published or delivered twice has the same id.
func TestProcessNATS(t *testing.T) {
	t.Parallel()
	const total = 20_000
	server := newNATSServer(t)
	_, js := server.client()
	for _, conf := range []jetstream.StreamConfig{
		{Name: "IN", Subjects: []string{"in.>"}, Duplicates: time.Hour},
		{Name: "OUT", Subjects: []string{"out.>"}, Duplicates: time.Hour},
	} {
		if _, err := js.CreateStream(t.Context(), conf); err != nil {
			t.Fatal(err)
		}
	}
	sink := newRowSink(t)
	connection := fmt.Sprintf("urls: [%q], user: %s, password: \"${env:NATS_PASSWORD}\"", server.url(), natsUser)
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf(
		"sources:\n  in: {nats: {%s, jetstream: {stream: IN, consumer: sluice, ack_wait: 3s}}}\nsinks:\n%s  out: {nats: {%[1]s, subject: \"out.{data.table}\"}, concurrency: 16, retry: {initial: 100ms, max: 1s}}\n",
		connection, sinkYAML("f", sink.URL, ", concurrency: 8"))+fmt.Sprintf(everythingTo, "f, out"))
	p.env = append(p.env, "NATS_PASSWORD="+natsPassword)
	p.start()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := &natsWriter{js: js}
	var writing sync.WaitGroup
	var failed error
	writing.Go(func() { failed = w.write(ctx, total) })
	kills, crashes, stops := 0, 0, 0
	for i, at := range []int64{1500, 4000, 6500, 9000, 11_000, 13_000, 15_500, 18_000} {
		p.until(time.Minute, fmt.Sprintf("%d messages", at), func() bool { return w.acked.Load() >= at })
		switch i {
		case 1, 5:
			server.end(syscall.SIGKILL)
			server.start()
			crashes++
		case 3:
			server.end(syscall.SIGTERM)
			server.start()
			stops++
		default:
			p.kill()
			p.start()
			kills++
		}
	}
	if writing.Wait(); failed != nil {
		t.Fatal(failed)
	}
	p.until(2*time.Minute, "every message is at the function", func() bool { return sink.rows() >= total })
	p.settled(60 * time.Second)
	again := p.stored() - total
	inOut := streamed(t, js, "OUT")
	seen, repeats := checkOrders(t, sink, total)
	t.Logf("%d messages, %d kill -9 of sluice, %d of nats-server, which was stopped %d times: %d at the function and %d in the other stream, none missing; with the same id, %d were published again and %d delivered again",
		total, kills, crashes, stops, seen, inOut, again, repeats)
	if inOut != total {
		t.Errorf("the other stream has %d messages, want %d", inOut, total)
	}
	// A crash of either repeats what was in hand.
	if limit := (kills + crashes + stops) * 1000; again > limit {
		t.Errorf("%d messages were published again, at most %d were expected", again, limit)
	}
	p.stop()
	if strings.Contains(p.log.String(), natsPassword) {
		t.Error("the log shows the password")
	}
}

// checkOrders checks that every message is at the function under one id of its own, and
// returns how many are there, and how many came again.
func checkOrders(t *testing.T, sink *rowSink, total int) (seen, repeats int) {
	t.Helper()
	sink.mu.Lock()
	defer sink.mu.Unlock()
	ids := map[string]string{}
	for n := 1; n <= total; n++ {
		row := fmt.Sprint("orders/", n)
		if len(sink.ids[row]) != 1 {
			t.Errorf("%s came with the ids %v", row, sink.ids[row])
		}
		for id := range sink.ids[row] {
			if other, taken := ids[id]; taken {
				t.Errorf("%s and %s have the same id %s", row, other, id)
			}
			ids[id] = row
		}
	}
	return len(sink.ids), sink.repeats
}

// streamed is how many messages a stream has.
func streamed(t *testing.T, js jetstream.JetStream, name string) int {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return int(stream.CachedInfo().State.Msgs)
}
