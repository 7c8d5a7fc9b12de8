package cli

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// running is a verb that runs a bus, until stop.
type running struct {
	*rig
	stop func() int
}

func runBus(t *testing.T, args ...string) running {
	t.Helper()
	r := newRig("")
	r.now = time.Now
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- run(ctx, args, r.env) }()
	stop := func() int {
		cancel()
		c := <-code
		code <- c
		return c
	}
	t.Cleanup(func() { stop() })
	return running{r, stop}
}

// shows waits until a text was printed.
func shows(t *testing.T, o *output, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !strings.Contains(o.String(), text) {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%q does not come:\n%s", text, o)
		}
	}
}

// curlLine is the line to copy from the banner.
func curlLine(t *testing.T, r running) string {
	t.Helper()
	shows(t, r.out, "Ctrl-C stops.")
	for line := range strings.Lines(r.out.String()) {
		if strings.HasPrefix(line, "curl ") {
			return strings.TrimSpace(line)
		}
	}
	t.Fatalf("there is no curl line:\n%s", r.out)
	return ""
}

// TestDev is a newcomer's first minute: the line of the banner, pasted into sh,
// and the event below it.
func TestDev(t *testing.T) {
	t.Parallel()
	r := runBus(t, "dev", "--memory", "--listen", "127.0.0.1:0")
	line := curlLine(t, r)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", line+" -sS").CombinedOutput(); err != nil || !strings.Contains(string(out), `"accepted"`) {
		t.Fatalf("%s\n%v: %s", line, err, out)
	}
	shows(t, r.out, "order.created  /shop  id 1\n    {\n      \"order\": 42,\n      \"total\": 9.90\n    }\n")
	if code := r.stop(); code != exitOK {
		t.Errorf("exit code %d: %s", code, r.err)
	}
	contains(t, r.out, "stopped: 1 event printed")
	if strings.Contains(r.out.String(), "\x1b") {
		t.Error("colours without a terminal")
	}
}

func TestDevKeepsEvents(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := runBus(t, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
	shows(t, r.out, "Ctrl-C stops.")
	contains(t, r.out, dir)
	second := newRig("")
	second.run(t, exitFailure, "dev", "--dir", dir, "--listen", "127.0.0.1:0")
	contains(t, second.err, "is in use by", "sluice dev --memory")
}

func TestDevWithConfig(t *testing.T) {
	t.Parallel()
	fn := &function{statuses: []int{204}}
	path := filepath.Join(t.TempDir(), "sluice.yaml")
	text := `
server: {listen: 127.0.0.1:0}
sinks: {fn: {http: {url: "` + serve(t, fn.ServeHTTP).URL + `"}}}
rules: {orders: {match: {type: [order]}, to: [fn]}}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runBus(t, "dev", "--memory", "--config", path)
	line := curlLine(t, r)
	contains(t, r.out, path+", 1 rule and 1 sink")
	url := strings.Fields(line)[1]
	newRig(strings.TrimSuffix(url, "/")).run(t, exitOK, "publish", "--type", "order", "--source", "me", "--id", "e1", "--data", "text", "--content-type", "text/plain")
	shows(t, r.out, "order  me  id e1  rules orders\n    text\n")
	shows(t, r.out, "orders → fn  id e1  delivered\n")
	newRig(strings.TrimSuffix(url, "/")).run(t, exitOK, "publish", "--type", "other", "--source", "me", "--id", "e2")
	shows(t, r.out, "other  me  id e2  no rule matches\n")
}

func TestPortInUseIsExplained(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	r := newRig("")
	r.run(t, exitFailure, "dev", "--memory", "--listen", l.Addr().String())
	contains(t, r.err, "something listens on "+l.Addr().String()+" already", "--listen")
}

func TestServeRefusals(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r := newRig("")
	r.run(t, exitInvalid, "serve", "--config", write("faults.yaml", "sinks: {a: {htp: {}}}\nrule: {}\n"))
	contains(t, r.err, "faults.yaml:1:13: sinks.a.htp: unknown kind", "faults.yaml:2:1: rule: ")
	r = newRig("")
	r.run(t, exitInvalid, "serve", "--config", write("test.yaml", `
sinks: {a: {stdout: {}}}
rules: {r: {match: {type: [x]}, to: [a]}}
tests: [{event: {type: y, source: s}, expect: [a]}]
`))
	contains(t, r.err, "test.yaml:4:9: tests[0]: the event does not go to a; no rule matches it")
	r = newRig("")
	r.run(t, exitUsage, "serve")
	contains(t, r.err, "--config")
	r = newRig("")
	r.run(t, exitUsage, "serve", "--config", "x", "--log-level", "loud")
	contains(t, r.err, "debug, info, warn or error")
	r = newRig("")
	r.run(t, exitInvalid, "serve", "--config", filepath.Join(dir, "nothing.yaml"))
	contains(t, r.err, "nothing.yaml")
}

// TestServe logs JSON when nobody watches, and ends with 0 when it is told to.
func TestServe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "sluice.yaml")
	text := "server: {listen: 127.0.0.1:0}\nstore: {dir: " + dir + "/data}\nsinks: {a: {stdout: {}}}\nrules: {r: {match: {type: [x]}, to: [a]}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runBus(t, "serve", "--config", path)
	shows(t, r.err, `"msg":"sluice is ready"`)
	if code := r.stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	contains(t, r.err, `"msg":"stopped"`)
}

// A duration in the log is one that people read, not a number of nanoseconds.
func TestLogDurations(t *testing.T) {
	t.Parallel()
	r := newRig("")
	log, err := r.env.logger(logFlags{format: "json", level: "info"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("m", "after", 1500*time.Millisecond, slog.Group("g", "every", time.Minute))
	contains(t, r.err, `"after":"1.5s"`)
	contains(t, r.err, `"every":"1m0s"`)
}
