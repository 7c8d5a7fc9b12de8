package main

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestProcessNATSCore publishes to core subjects of a nats-server that is killed
// meanwhile. What is published while it is there reaches who listens; what comes while
// it is gone waits, and is in its hands in the end.
func TestProcessNATSCore(t *testing.T) {
	t.Parallel()
	server := newNATSServer(t)
	conn, _ := server.client()
	var mu sync.Mutex
	heard := map[string]int{}
	if _, err := conn.Subscribe("made.>", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		heard[m.Header.Get("ce-id")]++
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf(
		"sinks:\n  out: {nats: {urls: [%q], user: %s, password: \"${env:NATS_PASSWORD}\", jetstream: false, subject: \"made.{partitionkey}\"}, concurrency: 16, retry: {initial: 50ms, max: 300ms}, breaker: {probe_after: 100ms, probe_max: 300ms}}\n",
		server.url(), natsUser)+fmt.Sprintf(everythingTo, "out"))
	p.env = append(p.env, "NATS_PASSWORD="+natsPassword)
	p.start()
	all := func(prefix string, n int) bool {
		mu.Lock()
		defer mu.Unlock()
		for i := range n {
			if heard[fmt.Sprint(prefix, i)] == 0 {
				return false
			}
		}
		return true
	}
	connection := func(want string) {
		t.Helper()
		p.until(30*time.Second, "the sink is "+want, func() bool {
			var sink struct{ Connection struct{ State string } }
			p.get("/api/v1/sinks/out", &sink)
			return sink.Connection.State == want
		})
	}
	connection("idle")
	const each = 100
	p.publishNumbers("before-", each)
	p.until(30*time.Second, "all before the crash are heard", func() bool { return all("before-", each) })
	connection("connected")

	server.end(syscall.SIGKILL)
	connection("disconnected")
	p.publishNumbers("during-", each)
	server.start()
	connection("connected")
	p.until(30*time.Second, "who listens is back", func() bool { return conn.IsConnected() && conn.Flush() == nil })
	p.publishNumbers("after-", each)
	p.until(30*time.Second, "all after the crash are heard", func() bool { return all("after-", each) })
	p.settled(30 * time.Second)
	if s := p.status(); s.Balance.Dead != 0 || s.Balance.Delivered != 3*each {
		t.Errorf("%+v, want %d delivered", s.Balance, 3*each)
	}
	p.stop()
	if strings.Contains(p.log.String(), natsPassword) {
		t.Error("the log shows the password")
	}
}
