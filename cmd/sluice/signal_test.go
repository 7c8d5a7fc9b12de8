package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serving is the program with a config, and the lines that it logs.
type serving struct {
	t      *testing.T
	cmd    *exec.Cmd
	config string
	lines  chan string
	url    string
}

func serveConfig(t *testing.T, text string) *serving {
	t.Helper()
	dir := t.TempDir()
	s := &serving{t: t, config: filepath.Join(dir, "sluice.yaml"), lines: make(chan string, 1000)}
	s.write("server: {listen: 127.0.0.1:0}\nstore: {dir: " + dir + "/data}\n" + text)
	s.cmd = exec.Command(os.Args[0], "serve", "--config", s.config)
	s.cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	go func() {
		defer close(s.lines)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.lines <- lines.Text()
		}
	}()
	ready := s.logs("sluice is ready")
	_, rest, _ := strings.Cut(ready, `"listen":"`)
	address, _, _ := strings.Cut(rest, `"`)
	s.url = "http://" + address
	return s
}

func (s *serving) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// logs waits for a line that holds a text.
func (s *serving) logs(text string) string {
	s.t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("it ended before it logged %q", text)
			}
			if strings.Contains(line, text) {
				return line
			}
		case <-late:
			s.t.Fatalf("it does not log %q", text)
		}
	}
}

func (s *serving) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// exit waits for the end and gives the exit code.
func (s *serving) exit() int {
	s.t.Helper()
	for line := range s.lines {
		s.t.Log(line)
	}
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return s.cmd.ProcessState.ExitCode()
}

const toNowhere = "sinks: {out: {stdout: {}}}\nrules: {all: {match: {type: [a]}, to: [out]}}\n"

func TestSignals(t *testing.T) {
	t.Parallel()
	s := serveConfig(t, toNowhere)
	s.signal(syscall.SIGHUP)
	s.logs("config reloaded")
	s.signal(syscall.SIGTERM)
	s.logs("stopped")
	if code := s.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// The first signal waits for what is under way; a second one does not.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	arrived, gate := make(chan struct{}, 1), make(chan struct{})
	f := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		arrived <- struct{}{}
		<-gate
	}))
	defer f.Close()
	defer close(gate)
	s := serveConfig(t, "sinks: {slow: {http: {url: \""+f.URL+"\"}}}\nrules: {all: {match: {type: [a]}, to: [slow]}}\n")
	resp, err := http.Post(s.url, "application/cloudevents+json", strings.NewReader(`{"specversion":"1.0","id":"1","source":"/a","type":"a"}`))
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Fatalf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	<-arrived
	s.signal(syscall.SIGINT)
	s.logs("shutting down")
	s.signal(syscall.SIGINT) // the same one, sent to the process and to its group
	ended := make(chan int, 1)
	go func() { ended <- s.exit() }()
	tick := time.NewTicker(sameSignal)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = s.cmd.Process.Signal(syscall.SIGINT)
		case code := <-ended:
			if code != 128+int(syscall.SIGINT) {
				t.Errorf("exit code %d", code)
			}
			return
		}
	}
}
