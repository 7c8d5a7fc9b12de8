package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Program is how this program runs itself: the bus, and what it is compared with.
type Program struct {
	Path string
	Env  []string // nil for that of this process
}

// memoryUse is in bytes; 0 where it is not known.
type memoryUse struct {
	resident, peak int64
	own            int64 // of the resident: without the pages of files, such as the program itself
}

// process is a server under test.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     *logTail
	address string
	ready   time.Duration // from its start to its first answer
	idle    memoryUse     // then
	exited  chan struct{}
}

// startTime is how long a server may take to start; one with a large store reads
// it first.
const startTime = 2 * time.Minute

// start runs the program with args, and waits until it says where it listens.
func (p *Program) start(ctx context.Context, name string, args ...string) (*process, error) {
	cmd := exec.Command(p.Path, args...)
	cmd.Env = p.Env
	cmd.SysProcAttr = attributes()
	tail := &logTail{ready: make(chan string, 1)}
	cmd.Stderr = tail
	// The servers of this package end when this process does, and their input with it.
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s := &process{name: name, cmd: cmd, log: tail, exited: make(chan struct{})}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(s.exited)
		_ = cmd.Wait()
		_ = input.Close()
	}()
	limit := time.NewTimer(startTime)
	defer limit.Stop()
	select {
	case s.address = <-tail.ready:
		s.ready = time.Since(began)
		s.idle = memory(s.pid())
		return s, nil
	case <-s.exited:
		return nil, fmt.Errorf("%s ended at once:\n%s", name, tail)
	case <-limit.C:
		err = fmt.Errorf("%s was not ready after %s:\n%s", name, startTime, tail)
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.kill()
	return nil, err
}

func (s *process) pid() int { return s.cmd.Process.Pid }

// kill ends the process as a crash does.
func (s *process) kill() {
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// stopTime is how long a server may take to end.
const stopTime = 20 * time.Second

// stop ends the process as a service manager does.
func (s *process) stop() {
	if s.cmd.Process.Signal(os.Interrupt) != nil {
		s.kill()
		return
	}
	limit := time.NewTimer(stopTime)
	defer limit.Stop()
	select {
	case <-s.exited:
	case <-limit.C:
		s.kill()
	}
}

// alive tells why the process has ended, if it has.
func (s *process) alive() error {
	select {
	case <-s.exited:
		return fmt.Errorf("%s ended: %s\n%s", s.name, s.cmd.ProcessState, s.log)
	default:
		return nil
	}
}

// get asks the process's API.
func (s *process) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // nothing is lost: the answer was read
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(path + ": " + res.Status)
	}
	return text, err
}

// counters are the metrics of a bus that the bench looks at.
type counters struct {
	accepted, spilled float64
	writes, records   float64 // of EVENTS
	allWrites         float64 // of all streams
	saves             float64 // of what is settled
}

func (s *process) counters(ctx context.Context) (c counters, err error) {
	text, err := s.get(ctx, "/metrics")
	if err != nil {
		return c, fmt.Errorf("%s: %w", s.name, err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		switch {
		case strings.HasPrefix(name, "sluice_events_accepted_total{"):
			c.accepted += n
		case strings.HasPrefix(name, "sluice_deliveries_spilled_total{"):
			c.spilled += n
		case name == `sluice_store_writes_total{stream="EVENTS"}`:
			c.writes += n
			c.allWrites += n
		case name == `sluice_store_writes_total{stream="STATE"}`:
			c.saves += n
		case strings.HasPrefix(name, "sluice_store_writes_total{"):
			c.allWrites += n
		case name == `sluice_store_records_total{stream="EVENTS"}`:
			c.records += n
		}
	}
	return c, nil
}

// logTail finds in a JSON log where the process listens, and keeps the end of it.
type logTail struct {
	ready chan string

	mu   sync.Mutex
	part []byte
	last [][]byte
}

const tailLines = 20

// Write is io.Writer.
func (t *logTail) Write(text []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, text...)
	for {
		line, rest, ok := bytes.Cut(t.part, []byte{'\n'})
		if !ok {
			return len(text), nil
		}
		t.line(bytes.Clone(line))
		t.part = rest
	}
}

func (t *logTail) line(line []byte) {
	t.last = append(t.last[max(0, len(t.last)+1-tailLines):], line)
	var entry struct{ Msg, Listen string }
	if json.Unmarshal(line, &entry) == nil && entry.Listen != "" && strings.HasSuffix(entry.Msg, "ready") {
		select {
		case t.ready <- entry.Listen:
		default:
		}
	}
}

// String is the end of the log.
func (t *logTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.Join(t.last, []byte{'\n'}))
}
