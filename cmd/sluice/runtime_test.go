package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tests named TestRuntime run events through the runtimes that functions are
// written for, and through the SDKs. SLUICE_RUNTIMES names a directory with the
// packages of testdata/runtimes/package.json, by npm ci.

// runtimeServer is a far side that is a process of its own.
type runtimeServer struct {
	base string
	cmd  *exec.Cmd
	out  *lockedBuffer
	log  *lockedBuffer
}

// runtimes is the directory of the packages.
func runtimes(t *testing.T) string {
	t.Helper()
	if !full() {
		t.Skip("set SLUICE_INTEGRATION=1 to run against real runtimes")
	}
	dir, err := filepath.Abs(os.Getenv("SLUICE_RUNTIMES"))
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "node_modules", "cloudevents"))
	}
	if _, node := exec.LookPath("node"); err != nil || node != nil {
		missing(t, "the runtimes need node in PATH and SLUICE_RUNTIMES: copy cmd/sluice/testdata/runtimes/package*.json to a directory, "+
			"run npm ci --ignore-scripts there, and name it")
	}
	return filepath.Join(dir, "node_modules")
}

// startRuntime runs a server that listens on a port of the loopback interface, and
// waits until it does.
func startRuntime(t *testing.T, port int, name string, args ...string) *runtimeServer {
	t.Helper()
	r := &runtimeServer{base: fmt.Sprintf("http://127.0.0.1:%d", port), out: &lockedBuffer{}, log: &lockedBuffer{}}
	r.cmd = exec.Command(name, args...)
	r.cmd.Dir = filepath.Join("testdata", "runtimes")
	r.cmd.Env = append(os.Environ(), "NODE_PATH="+runtimes(t))
	r.cmd.Stdout, r.cmd.Stderr = r.out, r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s%s", filepath.Base(name), r.out, r.log)
		}
	})
	limit := time.After(30 * time.Second)
	for {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.base, "http://"))
		if err == nil {
			_ = conn.Close()
			return r
		}
		select {
		case <-limit:
			t.Fatalf("%s does not listen: %v", name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// lines are the lines of JSON that it printed.
func (r *runtimeServer) lines() (all []json.RawMessage) {
	for line := range strings.Lines(r.out.String()) {
		if line[0] == '{' || line[0] == '[' {
			all = append(all, json.RawMessage(line))
		}
	}
	return all
}

// newNodeFunction runs one of testdata/runtimes/functions.cjs in the functions
// framework.
func newNodeFunction(t *testing.T, target string) *runtimeServer {
	t.Helper()
	return newNodeFunctionAt(t, freePort(t), target)
}

func newNodeFunctionAt(t *testing.T, port int, target string) *runtimeServer {
	t.Helper()
	framework := filepath.Join(runtimes(t), "@google-cloud", "functions-framework", "build", "src", "main.js")
	return startRuntime(t, port, "node", "-r", "./loopback.cjs", framework, "--source=functions.cjs", "--target="+target,
		"--signature-type=cloudevent", fmt.Sprintf("--port=%d", port))
}

// newWorkerd runs testdata/runtimes/worker.mjs. The program stands in a package of
// its own for each platform.
func newWorkerd(t *testing.T) *runtimeServer {
	t.Helper()
	programs, err := filepath.Glob(filepath.Join(runtimes(t), "@cloudflare", "workerd-*", "bin", "workerd*"))
	if err != nil || len(programs) != 1 {
		missing(t, fmt.Sprintf("there is no workerd for %s/%s in SLUICE_RUNTIMES: %v", runtime.GOOS, runtime.GOARCH, err))
	}
	port := freePort(t)
	return startRuntime(t, port, programs[0], "serve", "worker.capnp", fmt.Sprintf("--socket-addr=http=127.0.0.1:%d", port))
}

// send publishes an event, which has to be taken.
func (p *program) send(source, id, eventType, subject, data string) {
	p.t.Helper()
	event, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": id, "source": source, "type": eventType, "subject": subject,
		"time": "2026-05-01T12:00:00Z", "data": json.RawMessage(data),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.Post(p.base, "application/cloudevents+json", bytes.NewReader(event))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusAccepted {
		p.t.Fatalf("event %s: %s %v\n%s", id, resp.Status, err, answer)
	}
}

// attempts are the statuses of the attempts at the delivery of an event that is a
// dead letter; nil when it is none.
func (p *program) attempts(event string) (statuses []int) {
	p.t.Helper()
	for _, l := range p.deadLetters() {
		var e struct{ ID string }
		if err := json.Unmarshal(l.Event, &e); err != nil {
			p.t.Fatal(err)
		}
		if e.ID != event {
			continue
		}
		for _, a := range l.Attempts {
			statuses = append(statuses, a.Status)
		}
	}
	return statuses
}

// received is a request to a function, with the attributes of a binary event as
// they were before they became headers.
type received struct {
	attributes map[string]string
	body       string
}

// collector is a function that keeps what it gets.
type collector struct {
	*httptest.Server
	mu  sync.Mutex
	all []received
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		got := received{attributes: map[string]string{}, body: string(body)}
		for name, values := range r.Header {
			if name, ok := strings.CutPrefix(strings.ToLower(name), "ce-"); ok {
				got.attributes[name] = unescaped(values[0])
			}
		}
		c.mu.Lock()
		c.all = append(c.all, got)
		c.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) got() []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// unescaped undoes the percent encoding of an attribute in a header, which the SDKs
// leave as it is.
func unescaped(v string) string {
	if plain, err := url.PathUnescape(v); err == nil {
		return plain
	}
	return v
}
