package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bus"
)

// smallVolume mounts an empty volume of 64 MiB.
func smallVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("a volume of 64 MiB cannot be mounted here (it takes root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func openVolume(t *testing.T, dir string) (*Log, *lines) {
	t.Helper()
	said := &lines{}
	l, err := Open(t.Context(), Options{Dir: dir, MaxBytes: 1 << 30, Log: slog.New(slog.NewTextHandler(said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, said
}

// fillEvents appends until the store is full and gives what it acknowledged.
func fillEvents(ctx context.Context, t *testing.T, s bus.Stream, size int) uint64 {
	t.Helper()
	pack, last := [][]byte{bytes.Repeat([]byte("x"), size)}, uint64(0)
	for {
		seq, err := s.Append(ctx, "", pack)
		if errors.Is(err, bus.ErrFull) {
			return last
		}
		if err != nil {
			t.Fatalf("after %d: %v", last, err)
		}
		last = seq
	}
}

// TestVolumeFills fills a volume of 64 MiB by appending: publishers are told in
// time, deliveries still fit, and trimming makes room without a restart.
func TestVolumeFills(t *testing.T) {
	t.Parallel()
	l, said := openVolume(t, smallVolume(t))
	s, ctx := l.Stream(bus.Events), t.Context()
	last := fillEvents(ctx, t, s, 500_000)
	t.Logf("full after %d packs of 500 kB, %d KiB of the volume left", last, l.Usage().Free>>10)
	if l.Usage().Free < l.opts.Reserve/2 || last < 80 {
		t.Errorf("%d packs of 500 kB were taken and %d bytes are left of a reserve of %d", last, l.Usage().Free, l.opts.Reserve)
	}
	for _, name := range []string{bus.Backlog, bus.Retries, bus.DeadLetters} {
		if _, err := l.Stream(name).Append(ctx, "k", [][]byte{make([]byte, 100_000)}); err != nil {
			t.Errorf("%s on a volume that is full for EVENTS: %v", name, err)
		}
	}
	if err := l.PutState(ctx, "floor", []byte("1.0")); err != nil {
		t.Errorf("state on a volume that is full for EVENTS: %v", err)
	}
	if err := s.Trim(ctx, "", last-5); err != nil {
		t.Fatal(err)
	}
	seq := untilTaken(t, s)
	if seq != last+1 {
		t.Errorf("after trimming the number is %d, want %d", seq, last+1)
	}
	if strings.Contains(said.String(), "started again") {
		t.Errorf("the server ran into the full volume:\n%s", said.String())
	}
}

// TestVolumeIsEaten lets another fill the volume behind our back, so that the
// server does fail to write and stays so: we start it again.
func TestVolumeIsEaten(t *testing.T) {
	t.Parallel()
	dir := smallVolume(t)
	l, said := openVolume(t, dir)
	s, ctx := l.Stream(bus.Events), t.Context()
	r, err := s.Read(ctx, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := s.Append(ctx, "", [][]byte{fmt.Append(nil, i)}); err != nil {
			t.Fatal(err)
		}
	}
	l.space.mu.Lock() // as if it had looked just now, and long enough
	l.space.checked, l.space.free, l.space.credit = time.Now().Add(time.Hour), 1<<40, 1<<40
	l.space.mu.Unlock()
	other := filepath.Join(dir, "other")
	eat(t, other)
	if _, err := s.Append(ctx, "", [][]byte{make([]byte, 1<<20)}); !errors.Is(err, bus.ErrUnavailable) {
		t.Errorf("appending to a volume that is full: %v, want ErrUnavailable", err)
	}
	l.space.mu.Lock()
	l.space.checked = time.Time{}
	l.space.mu.Unlock()
	if _, err := s.Append(ctx, "", [][]byte{[]byte("x")}); !errors.Is(err, bus.ErrFull) {
		t.Errorf("appending to a volume known to be full: %v, want ErrFull", err)
	}
	if _, err := s.Get(ctx, 5); err != nil {
		t.Errorf("reading from a full volume: %v\n%s", err, said.String())
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	untilTaken(t, s)
	for i := range 10 {
		p, err := r.Next(ctx)
		if err != nil || string(p.Records[0]) != fmt.Sprint(i) {
			t.Fatalf("the reader got %d with %.20q, %v", p.Seq, p.Records, err)
		}
	}
	for p := (bus.Pack{}); len(p.Records) == 0 || string(p.Records[0]) != "taken"; {
		if p, err = r.Next(ctx); err != nil { // the one without an answer may be there too
			t.Fatal(err)
		}
	}
	if !strings.Contains(said.String(), "started again") {
		t.Errorf("nothing was said of it:\n%s", said.String())
	}
}

// TestVolumeComesAndGoes appends to all streams while another takes all of the
// volume and gives it back, again and again. What was acknowledged is there.
func TestVolumeComesAndGoes(t *testing.T) {
	t.Parallel()
	dir := smallVolume(t)
	l, said := openVolume(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	acked, refused := map[string]map[uint64]string{}, atomic.Int64{}
	var wg sync.WaitGroup
	for _, name := range bus.StreamNames() {
		of := map[uint64]string{}
		acked[name] = of
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				text := fmt.Sprint(name, i)
				seq, err := l.Stream(name).Append(t.Context(), "k", [][]byte{[]byte(text), make([]byte, 2000)})
				switch {
				case err == nil:
					of[seq] = text
				case errors.Is(err, bus.ErrFull) || errors.Is(err, bus.ErrUnavailable):
					refused.Add(1)
					runtime.Gosched()
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		other := filepath.Join(dir, "other")
		eat(t, other)
		if err := os.Remove(other); err != nil {
			t.Fatal(err)
		}
		untilTaken(t, l.Stream(bus.DeadLetters))
	}
	stop()
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, _ = openVolume(t, dir)
	total := 0
	for name, of := range acked {
		total += len(of)
		for seq, text := range of {
			if p, err := l.Stream(name).Get(t.Context(), seq); err != nil || string(p.Records[0]) != text {
				t.Fatalf("%s %d was acknowledged as %q and is %.40q, %v", name, seq, text, p.Records, err)
			}
		}
	}
	t.Logf("%d acknowledged packs are there, %d were refused, the server was started again %d times",
		total, refused.Load(), strings.Count(said.String(), "started again"))
}

// untilTaken appends until the store takes it again, for at most 20 s.
func untilTaken(t *testing.T, s bus.Stream) uint64 {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		seq, err := s.Append(t.Context(), "", [][]byte{[]byte("taken")})
		if err == nil {
			return seq
		}
		if !errors.Is(err, bus.ErrFull) && !errors.Is(err, bus.ErrUnavailable) {
			t.Fatal(err)
		}
		<-tick.C
	}
	t.Fatal("the store takes nothing though the volume has room")
	return 0
}

// eat makes a file that takes all that is left of the volume.
func eat(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, size := int64(0), int64(64<<20); size > 0; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, size); {
		case err == nil:
			at += size
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case !errors.Is(err, unix.EINTR):
			t.Fatal(err)
		}
	}
}
