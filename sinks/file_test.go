package sinks_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// follow reads the lines of a file as they come, until the test ends.
func follow(t *testing.T, path string) <-chan sinktest.Got {
	t.Helper()
	got := make(chan sinktest.Got, 4096)
	over, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(over); <-done })
	go func() {
		defer close(done)
		look := time.NewTicker(2 * time.Millisecond)
		defer look.Stop()
		seen := 0
		for {
			text, _ := os.ReadFile(path) // it may not be there yet
			for {
				line, _, whole := bytes.Cut(text[seen:], []byte("\n"))
				if !whole {
					break
				}
				seen += len(line) + 1
				e, err := bus.ParseJSON(bytes.Clone(line))
				if err != nil {
					t.Errorf("%v in %.200q", err, line)
				}
				got <- sinktest.Got{Event: e}
			}
			select {
			case <-look.C:
			case <-over:
				return
			}
		}
	}()
	return got
}

func TestFile(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
		s := sinks.NewFile()
		s.Path = filepath.Join(t.TempDir(), "deep", "events.ndjson")
		var hang atomic.Bool
		over := make(chan struct{})
		s.SetSync(func(f *os.File) error {
			if hang.Load() {
				<-over
			}
			return f.Sync()
		})
		sink := openIn(t, s, env)
		t.Cleanup(func() { close(over) }) // before the sink is closed
		return &sinktest.Subject{
			Sink: sink, Received: follow(t, s.Path), Hang: func() { hang.Store(true) }, KeepsKinds: true, OneLine: true, Local: true,
		}
	})
}

func fileSettings(t *testing.T, change ...func(*sinks.File)) *sinks.File {
	t.Helper()
	s := sinks.NewFile()
	s.Path = filepath.Join(t.TempDir(), "events.ndjson")
	for _, c := range change {
		c(s)
	}
	return s
}

func numberedDelivery(t testing.TB, n int) sinks.Delivery {
	t.Helper()
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: fmt.Sprint(n)}, {Name: "source", Value: "/s"}, {Name: "type", Value: "t"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return sinks.Delivery{Event: e, ID: fmt.Sprint(n), Rule: "r", Sink: "s", Attempt: 1}
}

func mustDeliver(t *testing.T, sink sinks.Sink, numbers ...int) {
	t.Helper()
	for _, n := range numbers {
		if err := sink.Deliver(t.Context(), numberedDelivery(t, n)); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
	}
}

// idsIn are the ids in a file, which has whole lines only.
func idsIn(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, ".gz") {
		zip, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if text, err = io.ReadAll(zip); err != nil {
			t.Fatal(err)
		}
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		t.Errorf("%s ends in the middle of a line", path)
	}
	var ids []string
	for line := range bytes.Lines(text) {
		e, err := bus.ParseJSON(bytes.TrimSpace(line))
		if err != nil {
			t.Fatalf("%s: %v in %q", path, err, line)
		}
		ids = append(ids, e.ID())
	}
	return strings.Join(ids, " ")
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestFileGroups counts: those that wait while the disk is busy share one sync.
// What a transform makes of an event is one line of JSON too, whatever it is.
func TestFileTransformed(t *testing.T) {
	t.Parallel()
	s := fileSettings(t)
	sink := open(t, s)
	for _, p := range []sinks.Payload{
		{Body: []byte("line 1\nline 2\r\n\"<é>\" \\ \x01"), ContentType: "text/plain"},
		{Body: []byte("{\"a\":\n1}"), ContentType: "application/json"},
		{Body: []byte{}, ContentType: "text/plain"},
		{ContentType: "text/plain"}, // the event itself, with headers that a file has not
	} {
		d := numberedDelivery(t, 7)
		d.Payload = &p
		if err := sink.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	want := `"line 1\nline 2\r\n\"<é>\" \\ \u0001"` + "\n" + `{"a": 1}` + "\n" + `""` + "\n" + `{"specversion":"1.0","id":"7","source":"/s","type":"t"}` + "\n"
	if got, err := os.ReadFile(s.Path); err != nil || string(got) != want {
		t.Errorf("the file holds\n%s, want\n%s (%v)", got, want, err)
	}
}

func TestFileGroups(t *testing.T) {
	t.Parallel()
	var syncs atomic.Int64
	s := fileSettings(t, func(s *sinks.File) {
		s.SetSync(func(f *os.File) error {
			syncs.Add(1)
			<-time.After(5 * time.Millisecond)
			return f.Sync()
		})
	})
	sink := open(t, s)
	const senders, each = 32, 10
	var wg sync.WaitGroup
	for n := range senders {
		wg.Go(func() {
			for i := range each {
				if err := sink.Deliver(t.Context(), numberedDelivery(t, n*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(strings.Fields(idsIn(t, s.Path))); got != senders*each {
		t.Errorf("%d lines, want %d", got, senders*each)
	}
	if n := syncs.Load(); n > senders*each/4 {
		t.Errorf("%d syncs for %d deliveries: they do not share them", n, senders*each)
	}
}

// TestFileRotate begins new files by size, compresses the old ones and keeps the
// newest of them.
func TestFileRotate(t *testing.T) {
	t.Parallel()
	line := value.Bytes(numberedDelivery(t, 1).Event.Size())
	s := fileSettings(t, func(s *sinks.File) { s.Rotate = sinks.Rotate{Size: 5 * line, Keep: 2, Compress: true} })
	dir := filepath.Dir(s.Path)
	// What looks similar is nobody's.
	for _, name := range []string{"events-old.ndjson", "events-20260102T030405.000Z.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sink := open(t, s)
	var all []int
	for n := 10; n < 40; n++ {
		all = append(all, n)
	}
	mustDeliver(t, sink, all...)
	if err := sink.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	// One more rotation by a fresh sink does what the end has interrupted.
	again := open(t, s)
	mustDeliver(t, again, 40, 41, 42, 43, 44, 45)
	if err := again.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, name := range filesIn(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasSuffix(name, ".part"):
			t.Errorf("%s was left behind", name)
		case name == "events.ndjson" && info.Size() > int64(5*line):
			t.Errorf("%s has %d bytes", name, info.Size())
		}
		if strings.Contains(name, "T") && !strings.HasSuffix(name, ".txt") || name == "events.ndjson" {
			kept = append(kept, idsIn(t, filepath.Join(dir, name)))
		}
	}
	got := strings.Join(kept, " ")
	if len(kept) != 3 || !strings.HasSuffix(got, "43 44 45") || len(filesIn(t, dir)) != 5 {
		t.Errorf("the files %v hold %q", filesIn(t, dir), kept)
	}
	want := 0
	for i, id := range strings.Fields(got) { // no gap: what is kept is the newest
		if i == 0 {
			_, _ = fmt.Sscan(id, &want)
		}
		if id != fmt.Sprint(want) {
			t.Fatalf("the files hold %q", kept)
		}
		want++
	}
}

// TestFileEvery begins a new file with each period, over a restart too.
func TestFileEvery(t *testing.T) {
	t.Parallel()
	s := fileSettings(t, func(s *sinks.File) { s.Rotate.Every = value.Duration(time.Hour) })
	now := time.Now().Truncate(time.Hour)
	for i, at := range []time.Duration{0, 10 * time.Minute, time.Hour, 90 * time.Minute, 150 * time.Minute} {
		sink := open(t, s)
		sinks.SetNow(sink, func() time.Time { return now.Add(at) })
		mustDeliver(t, sink, i)
		if err := os.Chtimes(s.Path, now.Add(at), now.Add(at)); err != nil {
			t.Fatal(err)
		}
	}
	var held []string
	for _, name := range filesIn(t, filepath.Dir(s.Path)) {
		held = append(held, idsIn(t, filepath.Join(filepath.Dir(s.Path), name)))
	}
	if got := strings.Join(held, ", "); got != "0 1, 2 3, 4" {
		t.Errorf("the files hold %s", got)
	}
}

// TestFileRepair finds what a crash leaves: the part of a line goes, whole lines
// stay.
func TestFileRepair(t *testing.T) {
	t.Parallel()
	whole := `{"specversion":"1.0","id":"0","source":"/s","type":"t"}` + "\n"
	for name, left := range map[string]string{
		"half a line":           whole + `{"specversion":"1.0","id":"lo`,
		"only half a line":      `{"specversion":"1.0","id":"lo`,
		"zeros":                 whole + strings.Repeat("\x00", 100_000),
		"a line but no newline": whole + whole[:len(whole)-1],
		"nothing":               "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fileSettings(t)
			if err := os.WriteFile(s.Path, []byte(left), 0o600); err != nil {
				t.Fatal(err)
			}
			mustDeliver(t, open(t, s), 1, 2)
			want := "1 2"
			if strings.HasPrefix(left, whole) {
				want = "0 1 2"
			}
			if got := idsIn(t, s.Path); got != want {
				t.Errorf("the file holds %q, want %q", got, want)
			}
		})
	}
}

// TestFileMoved is what logrotate does: the file is moved or removed, and the next
// line begins a new one.
func TestFileMoved(t *testing.T) {
	t.Parallel()
	s := fileSettings(t)
	sink := open(t, s)
	mustDeliver(t, sink, 1, 2)
	if err := os.Rename(s.Path, s.Path+".1"); err != nil {
		t.Fatal(err)
	}
	mustDeliver(t, sink, 3)
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	mustDeliver(t, sink, 4)
	if err := os.Truncate(s.Path, 0); err != nil { // copytruncate
		t.Fatal(err)
	}
	mustDeliver(t, sink, 5)
	if moved, now := idsIn(t, s.Path+".1"), idsIn(t, s.Path); moved != "1 2" || now != "5" {
		t.Errorf("moved away: %q, now: %q", moved, now)
	}
}

// TestFileTwo is a reload: two sinks at one file, with rotation, lose nothing.
func TestFileTwo(t *testing.T) {
	t.Parallel()
	s := fileSettings(t, func(s *sinks.File) { s.Rotate.Size = 700 })
	const each = 60
	var wg sync.WaitGroup
	for n := range 2 {
		sink := open(t, s)
		wg.Go(func() {
			for i := range each {
				if err := sink.Deliver(t.Context(), numberedDelivery(t, n*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	ids := map[string]bool{}
	for _, name := range filesIn(t, filepath.Dir(s.Path)) {
		for id := range strings.FieldsSeq(idsIn(t, filepath.Join(filepath.Dir(s.Path), name))) {
			if ids[id] {
				t.Errorf("%s is there twice", id)
			}
			ids[id] = true
		}
	}
	if len(ids) != 2*each {
		t.Errorf("%d lines of %d", len(ids), 2*each)
	}
}

// TestFileFails delivers while the disk says no: the error is plain, so that it is
// tried again, and nothing half written stays.
func TestFileFails(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	s := fileSettings(t, func(s *sinks.File) {
		s.SetSync(func(f *os.File) error {
			if broken.Load() {
				return errors.New("input/output error")
			}
			return f.Sync()
		})
	})
	sink := open(t, s)
	mustDeliver(t, sink, 1)
	broken.Store(true)
	err := sink.Deliver(t.Context(), numberedDelivery(t, 2))
	var described *sinks.Error
	if err == nil || errors.As(err, &described) || !strings.Contains(err.Error(), s.Path) {
		t.Errorf("%v, want a plain error that names the file", err)
	}
	broken.Store(false)
	mustDeliver(t, sink, 2, 3)
	if got := idsIn(t, s.Path); got != "1 2 3" {
		t.Errorf("the file holds %q", got)
	}
	if err := sink.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Deliver(context.Background(), numberedDelivery(t, 4)); err == nil {
		t.Error("delivered after Close")
	}

	s.Path = t.TempDir() // a directory
	if err := open(t, s).Deliver(t.Context(), numberedDelivery(t, 1)); err == nil {
		t.Error("delivered to a directory")
	}
}

func TestFileValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		change func(*sinks.File)
		key    string
	}{
		{func(s *sinks.File) { s.Path = "" }, "path"},
		{func(s *sinks.File) { s.Path = "/var/log/" }, "path"},
		{func(s *sinks.File) { s.Path = ".." }, "path"},
		{func(s *sinks.File) { s.Rotate.Size = -1 }, "rotate.size"},
		{func(s *sinks.File) { s.Rotate.Every = value.Duration(time.Millisecond) }, "rotate.every"},
		{func(s *sinks.File) { s.Rotate.Keep = -1 }, "rotate.keep"},
	} {
		if faults := fileSettings(t, row.change).Validate(); len(faults) != 1 || faults[0].Key != row.key {
			t.Errorf("%v, want one about %s", faults, row.key)
		}
	}
}

// lateContext is a context that ends between two looks at it.
type lateContext struct {
	context.Context
	end  context.CancelFunc
	look chan struct{} // closed when somebody asks for Done
	wait chan struct{}
}

// Done is asked for by who begins to wait.
func (c *lateContext) Done() <-chan struct{} {
	c.end()
	close(c.look)
	<-c.wait
	return c.Context.Done()
}

// A line that was given up before it was written is no delivery, however late the one
// who waits for it looks.
func TestFileGivenUpIsNoDelivery(t *testing.T) {
	t.Parallel()
	for range 20 { // a select with two answers takes either
		held, over := make(chan struct{}), make(chan struct{})
		first := true
		s := fileSettings(t)
		s.SetSync(func(f *os.File) error {
			if first {
				first = false
				close(held)
				<-over
			}
			return f.Sync()
		})
		sink := open(t, s)
		written := make(chan error, 1)
		go func() { written <- sink.Deliver(context.Background(), numberedDelivery(t, 1)) }()
		<-held
		ctx := &lateContext{look: make(chan struct{}), wait: make(chan struct{})}
		ctx.Context, ctx.end = context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- sink.Deliver(ctx, numberedDelivery(t, 2)) }()
		<-ctx.look // the second line waits, and its time is over
		close(over)
		mustDeliver(t, sink, 3) // by then nobody writes the second any more
		close(ctx.wait)
		err := <-result
		if <-written != nil {
			t.Fatal(err)
		}
		if there := strings.Contains(idsIn(t, s.Path), "2"); err == nil && !there {
			t.Fatal("the delivery counts as made, and is not in the file")
		}
	}
}

// While a disk hangs, attempts that have given up leave nothing behind.
func TestFileHangingDiskHoldsNothing(t *testing.T) {
	t.Parallel()
	held, over := make(chan struct{}), make(chan struct{})
	s := fileSettings(t)
	var once sync.Once
	s.SetSync(func(*os.File) error {
		once.Do(func() { close(held) })
		<-over
		return nil
	})
	sink := open(t, s)
	t.Cleanup(func() { close(over) }) // before the sink is closed
	go func() { _ = sink.Deliver(context.Background(), numberedDelivery(t, 0)) }()
	<-held
	for n := range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := sink.Deliver(ctx, numberedDelivery(t, n+1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	if n := sinks.FileWaiting(sink); n > 0 {
		t.Errorf("%d lines wait to be written, for nobody", n)
	}
}
