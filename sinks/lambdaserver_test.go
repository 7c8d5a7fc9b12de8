package sinks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// serverless is a running serverless-offline, which has Lambda's Invoke API.
type serverless struct {
	url, notes string
}

// newServerless starts it with the functions of testdata/serverless. SLUICE_SERVERLESS
// names the directory in which `npm ci` was run with the package.json from there.
func newServerless(t *testing.T) *serverless {
	t.Helper()
	if os.Getenv("SLUICE_INTEGRATION") == "" {
		t.Skip("needs serverless-offline: set SLUICE_INTEGRATION=1")
	}
	modules := filepath.Join(os.Getenv("SLUICE_SERVERLESS"), "node_modules")
	program := filepath.Join(modules, "serverless", "bin", "serverless.js")
	node, err := exec.LookPath("node")
	if _, gone := os.Stat(program); err != nil || gone != nil {
		const missing = "serverless-offline needs node in PATH and SLUICE_SERVERLESS, the directory of `npm ci` with sinks/testdata/serverless/package-lock.json"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "serverless.yml", "handler.js"} {
		text, err := os.ReadFile(filepath.Join("testdata", "serverless", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	s := &serverless{notes: filepath.Join(dir, "notes")}
	ports := freePorts(t, 2)
	s.url = "http://127.0.0.1:" + ports[1]
	log := &lockedBuffer{}
	cmd := exec.Command(node, program, "offline", "start", "--host", "127.0.0.1", "--httpPort", ports[0], "--lambdaPort", ports[1])
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), "NOTES="+s.notes, "SLS_TELEMETRY_DISABLED=1", "SLS_NOTIFICATIONS_MODE=off", "SLS_INTERACTIVE_SETUP_ENABLE=0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	deadline := time.After(time.Minute)
	for {
		res, err := http.Get(s.url)
		if err == nil {
			_ = res.Body.Close()
			return s
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			t.Fatalf("serverless-offline does not start: %v\n%s", err, log)
		}
	}
}

// freePorts are ports of the loopback interface that nobody has just now.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}

func (s *serverless) sink(t *testing.T, function string, change func(*sinks.Lambda)) sinks.Sink {
	t.Helper()
	l := sinks.NewLambda()
	l.Function, l.Endpoint = "sluice-dev-"+function, parse(t, s.url)
	l.Credentials.AccessKey, l.Credentials.SecretKey = value.NewText(accessKey), value.NewSecret(secretKey)
	if change != nil {
		change(l)
	}
	return open(t, l)
}

// note is what a function got.
type note struct {
	Event  json.RawMessage
	Custom map[string]string
}

// read waits for n notes, and forgets them.
func (s *serverless) read(t *testing.T, n int) (notes []note) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		text, _ := os.ReadFile(s.notes)
		// What does not end with a line break is still being written.
		if lines := strings.Split(strings.TrimSpace(string(text)), "\n"); strings.HasSuffix(string(text), "\n") && len(lines) >= n {
			for _, line := range lines {
				var one note
				if err := json.Unmarshal([]byte(line), &one); err != nil {
					t.Fatal(err)
				}
				notes = append(notes, one)
			}
			if err := os.Remove(s.notes); err != nil {
				t.Fatal(err)
			}
			return notes
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the function got %q", text)
		}
	}
}

// TestIntegrationLambda invokes functions through a real Invoke API.
func TestIntegrationLambda(t *testing.T) {
	t.Parallel()
	server := newServerless(t)
	t.Run("events", func(t *testing.T) { testServerlessEvents(t, server) })
	t.Run("batch", func(t *testing.T) { testServerlessBatch(t, server) })
	t.Run("reply", func(t *testing.T) {
		d := sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Sink: "s", Attempt: 1, Ask: sinks.Ask{Events: true}}
		a, err := server.sink(t, "reply", nil).(sinks.Replier).DeliverReply(t.Context(), d)
		if err != nil || len(a.Events) != 1 || a.Events[0].ID() != "reply-i" || string(a.Events[0].Data()) != `{"to":"i"}` {
			t.Errorf("%v %+v", err, a)
		}
	})
	t.Run("failure", func(t *testing.T) {
		d := sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1}
		err := server.sink(t, "fail", nil).Deliver(t.Context(), d)
		var e *sinks.Error
		if !errors.As(err, &e) || e.Status != 500 || e.Permanent || !strings.Contains(err.Error(), "the picture is torn") || !strings.Contains(string(e.Answer), "handler.js") {
			t.Errorf("a function that throws: %v (%+v)", err, e)
		}
		t.Log(err)
		if err := server.sink(t, "nothing", nil).Deliver(t.Context(), d); !errors.As(err, &e) || e.Status != 404 || !strings.Contains(err.Error(), "there is no such function") {
			t.Errorf("a function that is not there: %v (%+v)", err, e)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := server.sink(t, "slow", nil).Deliver(ctx, d); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a function that takes too long: %v", err)
		}
	})
}

func testServerlessEvents(t *testing.T, server *serverless) {
	n := 0
	for name, e := range sinktest.Events(t) {
		for _, kind := range []string{"request_response", "event"} {
			d := sinks.Delivery{Event: e, ID: "d", Rule: "r", Sink: "s", Attempt: 2}
			if err := server.sink(t, "note", func(l *sinks.Lambda) { l.Invocation = kind }).Deliver(t.Context(), d); err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
				continue
			}
			got := server.read(t, 1)
			if kind == "request_response" && (got[0].Custom["sluice-delivery-id"] != "d" || got[0].Custom["sluice-attempt"] != "2") {
				t.Errorf("%s: the client context is %v", name, got[0].Custom)
			}
			if name == "json" {
				continue // JavaScript writes JSON anew
			}
			back, err := bus.ParseJSON(got[0].Event)
			if err == nil {
				err = sinktest.Same(e, back, true)
			}
			if err != nil {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			n++
		}
	}
	t.Logf("%d invocations with odd events: each got what was sent", n)
}

func testServerlessBatch(t *testing.T, server *serverless) {
	for _, payload := range []string{"cloudevents", "eventbridge"} {
		var ds []sinks.Delivery
		for i := range 20 {
			e, err := kafkaEvent(t, fmt.Sprintf(`{"n":%d}`, i)).With(bus.Attr{Name: "id", Value: fmt.Sprint("e", i)})
			if err != nil {
				t.Fatal(err)
			}
			ds = append(ds, sinks.Delivery{Event: e, ID: fmt.Sprint("d", i), Attempt: 1})
		}
		sink := server.sink(t, "batch", func(l *sinks.Lambda) { l.Payload = payload }).(sinks.BatchSink)
		failed, err := sink.DeliverBatch(t.Context(), ds)
		if err != nil || len(failed) != 20 {
			t.Fatalf("%s: %v %v", payload, failed, err)
		}
		for i, err := range failed {
			if (err != nil) != (i%2 == 1) {
				t.Errorf("%s: event %d: %v", payload, i, err)
			}
		}
		server.read(t, 1)
	}
	t.Log("2 batches of 20, of which the function failed every other: those alone failed")
}
