package main

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// trace begins to write down the system calls of the program, and returns what ends
// that and returns what was written.
func (p *program) trace(strace string, args ...string) (end func() string) {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "trace")
	tracer := exec.Command(strace, append([]string{"-f", "-y", "-o", file, "-p", fmt.Sprint(p.cmd.Process.Pid)}, args...)...)
	said := &lockedBuffer{}
	tracer.Stderr = said
	if err := tracer.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = tracer.Process.Kill() })
	ended := make(chan error, 1)
	go func() { ended <- tracer.Wait() }()
	for !strings.Contains(said.String(), "attached") {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ended:
			p.t.Skipf("strace may not trace here: %s", said)
		}
	}
	return func() string {
		p.t.Helper()
		_ = tracer.Process.Signal(os.Interrupt)
		<-ended
		text, err := os.ReadFile(file)
		if err != nil {
			p.t.Fatal(err)
		}
		return string(text)
	}
}

// systemCall is one end of a system call, or both when nothing came between them.
// The text has what was known by then.
type systemCall struct {
	text         string
	begins, ends bool
}

// systemCalls goes through what strace -f wrote, in the order of time.
func systemCalls(trace string) iter.Seq[systemCall] {
	return func(yield func(systemCall) bool) {
		begun := map[string]string{} // by thread
		for line := range strings.Lines(trace) {
			thread, text, _ := strings.Cut(line, " ")
			call := systemCall{text: strings.TrimSpace(text), begins: true, ends: true}
			if start, cut := strings.CutSuffix(call.text, "<unfinished ...>"); cut {
				begun[thread] = start
				call.ends = false
			} else if _, rest, resumed := strings.Cut(call.text, " resumed>"); resumed {
				call.text, call.begins = begun[thread]+rest, false
			}
			if !yield(call) {
				return
			}
		}
	}
}

// TestProcessIngestFsync reads the system calls of a program that takes events from
// many connections: no 202 begins before an fsync of the block that its event was
// written to has ended, which began after that write. Many answers share an fsync.
func TestProcessIngestFsync(t *testing.T) {
	t.Parallel()
	strace, missing := exec.LookPath("strace")
	needed(t, missing, "install strace")
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.start()
	trace := p.trace(strace, "-s", "65536", "-e", "trace=fsync,fdatasync,read,write,pwrite64")
	const connections, each = 64, 10
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}, Timeout: 30 * time.Second}
	var load sync.WaitGroup
	for c := range connections {
		load.Go(func() {
			for i := range each {
				if ok, code := p.publish(client, fmt.Sprintf("traced-%d-%d-", c, i), 10); !ok {
					t.Errorf("publish answered %d", code)
				}
			}
		})
	}
	load.Wait()
	got, err := checkIngestTrace(trace())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d answers, each after an fsync of its event; %d fsyncs, %d answers after one at the most", got.answers, got.syncs, got.most)
	if got.answers != connections*each {
		t.Errorf("%d answers to %d events are in the trace", got.answers, connections*each)
	}
	if got.syncs == 0 || got.syncs >= got.answers {
		t.Errorf("%d fsyncs for %d answers: they do not share any", got.syncs, got.answers)
	}
	p.stop()
}

// ingestTrace is what checkIngestTrace saw.
type ingestTrace struct {
	answers, syncs int // syncs are those of EVENTS
	most           int // answers that followed one fsync
}

// checkIngestTrace looks at each answer to a request that brought a traced event.
func checkIngestTrace(trace string) (got ingestTrace, err error) {
	var (
		file   = regexp.MustCompile(`^\w+\(\d+(<[^>]*>)`)
		block  = regexp.MustCompile(`/EVENTS/msgs/\d+\.blk>`)
		traced = regexp.MustCompile(`traced-\d+-\d+-`)

		asked   = map[string]string{}          // the event that a connection brought
		written = map[string]map[string]bool{} // by block, the events since the last fsync began
		syncing = map[string]map[string]bool{} // by block, what the fsync that runs is good for
		durable = map[string]bool{}
		since   int // answers since the last fsync ended
	)
	for call := range systemCalls(trace) {
		m := file.FindStringSubmatch(call.text)
		if m == nil {
			continue
		}
		name, _, _ := strings.Cut(call.text, "(")
		on := m[1]
		switch {
		case name == "read" && call.ends:
			if id := traced.FindString(call.text); id != "" {
				asked[on] = id
			}
		case name == "write" && call.begins && strings.Contains(call.text, `"HTTP/1.1 202`) && asked[on] != "":
			if !durable[asked[on]] {
				return got, fmt.Errorf("event %s was answered before an fsync of what it was written to had ended", asked[on])
			}
			delete(asked, on)
			got.answers++
			since++
			got.most = max(got.most, since)
		case !block.MatchString(on):
		case strings.Contains(name, "write") && call.ends:
			if written[on] == nil {
				written[on] = map[string]bool{}
			}
			for _, id := range traced.FindAllString(call.text, -1) {
				written[on][id] = true
			}
		case strings.Contains(name, "sync"):
			if call.begins {
				if syncing[on] != nil {
					return got, errors.New("two fsyncs of one block run at a time, which is not looked at here: " + call.text)
				}
				syncing[on], written[on] = written[on], nil
				if syncing[on] == nil {
					syncing[on] = map[string]bool{}
				}
			}
			if call.ends {
				if !strings.HasSuffix(call.text, "= 0") {
					return got, errors.New("an fsync failed: " + call.text)
				}
				for id := range syncing[on] {
					durable[id] = true
				}
				delete(syncing, on)
				got.syncs++
				since = 0
			}
		}
	}
	return got, nil
}

// TestIngestTrace checks that a trace without a promise is told from one with it.
func TestIngestTrace(t *testing.T) {
	t.Parallel()
	const (
		read   = `1 read(7<socket:[70]>, "POST / HTTP/1.1\r\nCe-Id: traced-0-1-\r\n", 4096) = 99` + "\n"
		write  = `2 pwrite64(9</data/EVENTS/msgs/1.blk>, "..traced-0-1-..", 15, 0) = 15` + "\n"
		begins = `2 fsync(9</data/EVENTS/msgs/1.blk> <unfinished ...>` + "\n"
		ends   = `2 <... fsync resumed>) = 0` + "\n"
		other  = `3 fsync(8</data/STATE/msgs/1.blk>) = 0` + "\n"
		answer = `1 write(7<socket:[70]>, "HTTP/1.1 202 Accepted\r\n", 23) = 23` + "\n"
	)
	for name, c := range map[string]struct {
		trace string
		ok    bool
	}{
		"as it should be":            {read + write + begins + other + ends + answer, true},
		"no fsync":                   {read + write + answer, false},
		"of another stream":          {read + write + other + answer, false},
		"that began before":          {read + begins + write + ends + answer, false},
		"that has not ended":         {read + write + begins + answer + ends, false},
		"that failed":                {read + write + begins + strings.Replace(ends, "= 0", "= -1 EIO (Input/output error)", 1) + answer, false},
		"of the block that is after": {read + write + strings.ReplaceAll(begins+ends, "1.blk", "2.blk") + answer, false},
	} {
		got, err := checkIngestTrace(c.trace)
		if (err == nil) != c.ok {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if c.ok && (got.answers != 1 || got.syncs != 1) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
