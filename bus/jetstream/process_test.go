package jetstream_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/bus/jetstream"
)

// childDir names the directory that a child process of these tests works on.
const childDir = "SLUICE_TEST_JETSTREAM_DIR"

// TestChild is what the other tests run in a process of its own: it appends packs
// and state until it is killed or its input ends, and prints what was acknowledged.
func TestChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("it runs as the child of other tests")
	}
	opts := small(dir)
	opts.MaxBytes = 1 << 30
	l := open(t, opts)
	input := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(input)
	}()
	fmt.Println("ready", os.Getpid())
	for i := 0; ; i++ {
		select {
		case <-input:
			return
		default:
		}
		name := bus.StreamNames()[i%4]
		text := fmt.Sprint(rand.Uint64())
		seq := mustAppend(t, l.Stream(name), "k", text, strings.Repeat("x", rand.IntN(2000)))
		fmt.Println("acked", name, seq, text)
		if i%5 == 0 {
			if err := l.PutState(t.Context(), "floor", []byte(text)); err != nil {
				t.Fatal(err)
			}
			fmt.Println("state", text)
		}
	}
}

type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// startChild runs TestChild and waits until it has the log open.
func startChild(t *testing.T, dir string, wrap ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(wrap, self, "-test.run=^TestChild$", "-test.count=1")
	c := &child{cmd: exec.Command(args[0], args[1:]...)}
	c.cmd.Env = append(os.Environ(), childDir+"="+dir)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.kill() })
	c.lines = bufio.NewScanner(out)
	if !c.lines.Scan() || !strings.HasPrefix(c.lines.Text(), "ready ") {
		t.Fatalf("the child said %q, %v", c.lines.Text(), c.lines.Err())
	}
	return c
}

func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// TestKill kills a process that appends, again and again: all that it was told to
// be stored is there, under the numbers it was told.
func TestKill(t *testing.T) {
	t.Parallel()
	const rounds = 4
	dir := t.TempDir()
	acked := map[string]map[uint64]string{}
	for _, name := range bus.StreamNames() {
		acked[name] = map[uint64]string{}
	}
	var state string
	for range rounds {
		c, left := startChild(t, dir), 10+rand.IntN(200)
		for c.lines.Scan() {
			if left--; left == 0 {
				c.cmd.Process.Kill()
			}
			switch f := strings.Fields(c.lines.Text()); {
			case len(f) == 4 && f[0] == "acked":
				seq, err := strconv.ParseUint(f[2], 10, 64)
				if err != nil || acked[f[1]][seq] != "" {
					t.Fatalf("acknowledged twice or not at all: %q", f)
				}
				acked[f[1]][seq] = f[3]
			case len(f) == 2 && f[0] == "state":
				state = f[1]
			}
		}
		c.kill()
		verify(t, dir, acked, state)
	}
}

func verify(t *testing.T, dir string, acked map[string]map[uint64]string, state string) {
	t.Helper()
	opts := small(dir)
	opts.MaxBytes = 1 << 30
	l := open(t, opts)
	defer mustClose(t, l)
	total := 0
	for name, want := range acked {
		got := readAll(t, l.Stream(name), "")
		for seq, text := range want {
			if first, _, _ := strings.Cut(got[seq], " "); first != text {
				t.Fatalf("%s %d: acknowledged %q, got %q", name, seq, text, first)
			}
		}
		total += len(want)
	}
	t.Logf("%d acknowledged packs are there", total)
	got, err := l.State(t.Context(), "floor")
	if state != "" && (err != nil || len(got) == 0) {
		t.Fatalf("state was acknowledged as %q and is %q, %v", state, got, err)
	}
}

func TestSecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startChild(t, dir)
	_, err := jetstream.Open(t.Context(), small(dir))
	if err == nil {
		t.Fatal("a second process opened the directory")
	}
	for _, want := range []string{dir, fmt.Sprint("process ", c.cmd.Process.Pid), "stop that one"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	c.kill()
	open(t, small(dir)) // nothing is left behind
}

// TestFsyncBeforeAck reads the system calls of a process that appends: between two
// acknowledgements of EVENTS there is a successful fsync of its block.
func TestFsyncBeforeAck(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	dir, trace := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if out, err := exec.Command(strace, "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	c := startChild(t, dir, strace, "-f", "-y", "-s", "64", "-e", "trace=fsync,fdatasync,write", "-o", trace)
	acks := 0
	for acks < 20 && c.lines.Scan() {
		if strings.HasPrefix(c.lines.Text(), "acked EVENTS") {
			acks++
		}
	}
	if err := c.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	for c.lines.Scan() {
	}
	if err := c.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if acks, err = checkTrace(string(b)); err != nil || acks < 20 {
		t.Fatalf("after %d acknowledgements: %v", acks, err)
	}
	t.Logf("%d acknowledgements came after their fsync", acks)
}

// checkTrace counts the acknowledgements of EVENTS, each after an fsync.
func checkTrace(trace string) (acks int, err error) {
	syncing := regexp.MustCompile(`^(\d+) +f(?:data)?sync\(\d+<[^>]*/EVENTS/msgs/\d+\.blk>(.*)`)
	resumed := regexp.MustCompile(`^(\d+) +<\.\.\. f(?:data)?sync resumed>.*= 0`)
	open, synced := map[string]bool{}, false
	for line := range strings.Lines(trace) {
		if m := syncing.FindStringSubmatch(line); m != nil {
			open[m[1]] = strings.Contains(m[2], "unfinished")
			synced = synced || strings.Contains(m[2], "= 0")
		} else if m := resumed.FindStringSubmatch(line); m != nil {
			synced = synced || open[m[1]]
			open[m[1]] = false
		} else if strings.Contains(line, `"acked EVENTS `) {
			if !synced {
				return acks, errors.New("no fsync before: " + line)
			}
			acks, synced = acks+1, false
		}
	}
	return acks, nil
}
