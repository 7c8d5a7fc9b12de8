package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The tests named TestProcess run the real program as processes of its own, on a
// store of its own, and kill it. SLUICE_INTEGRATION=1 runs them at full length.

// asProgram makes the test binary behave as the program.
const asProgram = "SLUICE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main() // exits
	}
	if base := os.Getenv(asConsumer); base != "" {
		if err := consumeFor(base); err != nil && !errors.Is(err, io.EOF) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func full() bool { return os.Getenv("SLUICE_INTEGRATION") != "" }

// scale is n at full length and short otherwise.
func scale(short, n int) int {
	if full() {
		return n
	}
	return short
}

// program is one sluice with its config and its data.
type program struct {
	t      *testing.T
	dir    string
	config string
	base   string
	cmd    *exec.Cmd
	log    *lockedBuffer
	env    []string // more variables
	lives  int      // how often it was started; the config may have it as ${env:SLUICE_TEST_LIFE}
	out    *os.File // for its standard output; may be nil
}

// change replaces a part of the config, before the start.
func (p *program) change(from, to string) {
	p.t.Helper()
	text, err := os.ReadFile(p.config)
	if err != nil || !strings.Contains(string(text), from) {
		p.t.Fatalf("the config has no %q: %v", from, err)
	}
	if err := os.WriteFile(p.config, []byte(strings.Replace(string(text), from, to, 1)), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// freePort is a port of the loopback interface that nobody has just now, for a server
// that starts later, maybe several times. It is below those that the system gives to
// whoever asks for any, as every client and most tests do.
func freePort(t *testing.T) int {
	t.Helper()
	const first, ports = 10000, 20000
	var err error
	for range 100 {
		port := first + rand.IntN(ports)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no free port: %v", err)
	return 0
}

// newProgram prepares a program; sections is the YAML beside server and store.
func newProgram(t *testing.T, dir, store, sections string) *program {
	t.Helper()
	port := freePort(t)
	p := &program{t: t, dir: dir, config: filepath.Join(t.TempDir(), "sluice.yaml"), base: fmt.Sprintf("http://127.0.0.1:%d", port), log: &lockedBuffer{}}
	text := fmt.Sprintf("server: {listen: \"127.0.0.1:%d\", drain_timeout: 2s}\nstore: {dir: %q%s}\n%s", port, filepath.Join(dir, "data"), store, sections)
	if err := os.WriteFile(p.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *program) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), p.env...), asProgram+"=1", "SLUICE_SERVER="+p.base, fmt.Sprint("SLUICE_TEST_LIFE=", p.lives))
	return cmd
}

// start runs the program and waits until it is ready.
func (p *program) start() {
	p.t.Helper()
	p.lives++
	p.cmd = p.command("serve", "--config", p.config, "--log-format", "json")
	p.cmd.Stderr = p.log
	if p.out != nil {
		p.cmd.Stdout = p.out
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.kill)
	p.until(30*time.Second, "it is ready", func() bool {
		resp, err := http.Get(p.base + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill ends the program as a crash does.
func (p *program) kill() {
	if p.cmd == nil || p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// stop ends the program as a service manager does.
func (p *program) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("SIGTERM: %v\n%s", err, p.tail())
	}
}

// tail is the end of the log.
func (p *program) tail() string {
	s := p.log.String()
	return s[max(0, len(s)-4000):]
}

// until waits for a condition.
func (p *program) until(limit time.Duration, what string, ok func() bool) {
	p.t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(limit)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			p.t.Fatalf("not within %s: %s\n%s", limit, what, p.tail())
		}
	}
}

// cli runs a command of the program against it.
func (p *program) cli(args ...string) (string, error) {
	out, err := p.command(args...).CombinedOutput()
	return string(out), err
}

func (p *program) mustCLI(args ...string) string {
	p.t.Helper()
	out, err := p.cli(args...)
	if err != nil {
		p.t.Fatalf("sluice %s: %v\n%s\n%s", strings.Join(args, " "), err, out, p.tail())
	}
	return out
}

// status is what /api/v1/status says, as far as these tests look at it.
type status struct {
	Balance   struct{ Entered, Delivered, Dead, Open, Lost, Backlog, Retries int64 }
	Unsettled int

	Recovering bool
}

func (p *program) status() (s status) {
	p.get("/api/v1/status", &s)
	return s
}

func (p *program) get(path string, into any) {
	p.t.Helper()
	resp, err := http.Get(p.base + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("GET %s: %s %v\n%s", path, resp.Status, err, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		p.t.Fatalf("GET %s: %v\n%s", path, err, text)
	}
}

// settled waits until everything that was accepted has ended, and checks that it
// adds up.
func (p *program) settled(limit time.Duration) {
	p.t.Helper()
	var s status
	p.until(limit, "everything is settled", func() bool {
		s = p.status()
		return !s.Recovering && s.Unsettled == 0 && s.Balance.Open == 0
	})
	if s.Balance.Lost != 0 {
		p.t.Fatalf("the deliveries do not add up: %+v", s.Balance)
	}
	p.addsUp()
}

// addsUp checks the counters of accepted events: each was routed or unmatched.
func (p *program) addsUp() {
	p.t.Helper()
	m := p.metrics()
	in := m["sluice_events_accepted_total"] + m["sluice_events_recovered_total"]
	if out := m["sluice_events_routed_total"] + m["sluice_events_unmatched_total"]; in != out {
		p.t.Fatalf("%v events were accepted or recovered, %v were routed or unmatched", in, out)
	}
}

// metrics are the values of /metrics, summed over their labels.
func (p *program) metrics() map[string]float64 {
	p.t.Helper()
	resp, err := http.Get(p.base + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		var v float64
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(line, "#") || !ok {
			continue
		}
		name, _, _ = strings.Cut(name, "{")
		if _, err := fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &v); err == nil {
			sums[name] += v
		}
	}
	return sums
}

// publish sends one event, and tells whether it was acknowledged.
func (p *program) publish(client *http.Client, id string, size int) (acked bool, code int) {
	return p.publishTo("/", client, id, size)
}

// publishTo sends one event to a path, with a subject when one is given, and tells
// whether it was acknowledged.
func (p *program) publishTo(path string, client *http.Client, id string, size int, subject ...string) (acked bool, code int) {
	req, err := http.NewRequest(http.MethodPost, p.base+path, strings.NewReader(strings.Repeat("x", size)))
	if err != nil {
		p.t.Error(err)
		return false, 0
	}
	for name, v := range map[string]string{"ce-specversion": "1.0", "ce-id": id, "ce-source": "/test", "ce-type": "made", "Content-Type": "text/plain"} {
		req.Header.Set(name, v)
	}
	for _, v := range subject {
		req.Header.Set("ce-subject", v)
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusAccepted, resp.StatusCode
}

// function is the far side of a sink: it counts what it gets by event id, and
// answers as told.
type function struct {
	*httptest.Server
	mu       sync.Mutex
	got      map[string]int
	attempts map[string][]string // the attempt numbers by event id
	answer   http.HandlerFunc    // nil: 204
}

func newFunction(t *testing.T, answer http.HandlerFunc) *function {
	t.Helper()
	f := &function{got: map[string]int{}, attempts: map[string][]string{}, answer: answer}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.CloseClientConnections)
	return f
}

func (f *function) serve(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	id := r.Header.Get("ce-id")
	f.mu.Lock()
	f.attempts[id] = append(f.attempts[id], r.Header.Get("Sluice-Attempt"))
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	f.took(id)
	w.WriteHeader(http.StatusNoContent)
}

func (f *function) took(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got[id]++
}

func (f *function) set(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *function) distinct() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

func (f *function) times(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got[id]
}

func (f *function) tries(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.attempts[id]
}
