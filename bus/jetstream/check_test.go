package jetstream_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/jetstream"
)

// check lists the faults of a log, a line each.
func check(t *testing.T, l *jetstream.Log) (faults []bus.Fault) {
	t.Helper()
	err := l.Check(t.Context(), func(f bus.Fault) error {
		faults = append(faults, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return faults
}

// TestCheckHealthy checks a log that was used as the bus does: there is nothing.
func TestCheckHealthy(t *testing.T) {
	t.Parallel()
	opts, _ := logged(t)
	l := open(t, opts)
	for range 2 {
		for i := range 40 {
			for _, name := range bus.StreamNames() {
				mustAppend(t, l.Stream(name), fmt.Sprint("k", i%3), "a", "b")
			}
			if err := l.PutState(t.Context(), fmt.Sprint("s", i%3), []byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{bus.Backlog, bus.Retries, bus.DeadLetters} {
			if err := l.Stream(name).Remove(t.Context(), 3, 7, 8, 30); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Stream(bus.Events).Trim(t.Context(), "", 5); err != nil {
			t.Fatal(err)
		}
		if faults := check(t, l); len(faults) > 0 {
			t.Errorf("%v", faults)
		}
		mustClose(t, l)
		l = open(t, opts)
	}
	if faults := check(t, l); len(faults) > 0 {
		t.Errorf("opened again: %v", faults)
	}
	stop := errors.New("stop")
	flipIn(t, opts, l, bus.Events, "a")
	l = open(t, opts)
	if err := l.Check(t.Context(), func(bus.Fault) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the visitor stops with %v", err)
	}
}

// flipIn closes a log and flips a byte of the last record with a text.
func flipIn(t *testing.T, opts jetstream.Options, l *jetstream.Log, stream, text string) {
	t.Helper()
	mustClose(t, l)
	files := streamFiles(t, opts.Dir, stream, "msgs/*.blk")
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(b), text)
	if at < 0 {
		t.Fatalf("%s has no %q", files[0], text)
	}
	b[at] ^= 0x20
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCheckBesideWork checks while packs come and go: what is on its way is no fault.
func TestCheckBesideWork(t *testing.T) {
	t.Parallel()
	opts, _ := logged(t)
	opts.Sync = time.Hour
	l := open(t, opts)
	done := make(chan struct{})
	var work sync.WaitGroup
	for _, name := range []string{bus.Events, bus.Backlog} {
		work.Go(func() {
			s := l.Stream(name)
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				seq := mustAppend(t, s, fmt.Sprint("k", i%3), "x")
				switch {
				case name == bus.Backlog && seq > 20:
					if err := s.Remove(t.Context(), seq-uint64(i%20)); err != nil {
						t.Error(err)
					}
				case seq%50 == 0:
					if err := s.Trim(t.Context(), "", seq-20); err != nil {
						t.Error(err)
					}
				}
				if err := l.PutState(t.Context(), "s", []byte{byte(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		if faults := check(t, l); len(faults) > 0 {
			t.Errorf("%v", faults)
			break
		}
	}
	close(done)
	work.Wait()
}

// TestQuarantine flips a byte of a pack in each stream: Check names it, Quarantine
// saves the block and hides the pack, and everything else stays.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	for _, name := range bus.StreamNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, _ := logged(t)
			l := open(t, opts)
			for i := range 9 {
				text := fmt.Sprint("event ", i)
				if i == 4 {
					text = "victim"
				}
				mustAppend(t, l.Stream(name), fmt.Sprint("k", i%2), text, "other")
			}
			flipIn(t, opts, l, name, "victim")
			l = open(t, opts)
			faults := check(t, l)
			if len(faults) != 1 || faults[0].Stream != name || faults[0].First != 5 || faults[0].Kind != bus.FaultDamaged || !faults[0].Repairable {
				t.Fatalf("a flipped byte in pack 5: %v", faults)
			}
			dir := filepath.Join(opts.Dir, "quarantine")
			files, err := l.Quarantine(t.Context(), faults[0], dir)
			if err != nil || len(files) != 2 {
				t.Fatalf("%v, %v", files, err)
			}
			if saved, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(saved), "Victim") {
				t.Errorf("the saved block lacks what is left of the pack: %v", err)
			}
			for range 2 {
				if faults := check(t, l); len(faults) > 0 {
					t.Errorf("after the quarantine: %v", faults)
				}
				if got := readAll(t, l.Stream(name), ""); len(got) != 8 || got[5] != "" {
					t.Errorf("after the quarantine: %v", got)
				}
				if _, err := l.Stream(name).Get(t.Context(), 5); !errors.Is(err, bus.ErrNotFound) {
					t.Errorf("Get of a pack in quarantine: %v", err)
				}
				keys, err := l.Stream(name).Keys(t.Context())
				if err != nil || keys["k0"] != 4 || keys["k1"] != 4 {
					t.Errorf("keys: %v, %v", keys, err)
				}
				if got := readAll(t, l.Stream(name), "k0"); len(got) != 4 {
					t.Errorf("of the same key: %v", got)
				}
				mustClose(t, l)
				l = open(t, opts)
			}
			if err := l.Stream(name).Trim(t.Context(), "", 7); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, l.Stream(name), ""); len(got) != 3 {
				t.Errorf("after a trim: %v", got)
			}
		})
	}
}

// TestCheckNamesDamage damages files while the log is closed: Check says what.
func TestCheckNamesDamage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		want   string
	}{
		"a torn meta file": {func(t *testing.T, dir string) { truncate(t, streamFiles(t, dir, bus.Events, "meta.inf")[0], 20) },
			"EVENTS: mended: the meta file was damaged; the stream was made again from its blocks, with 9 packs up to 9"},
		"a torn list of streams": {func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, "streams.json"), 30) },
			"store: mended: the list of streams"},
		"a stream that is gone": {func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Dir(streamFiles(t, dir, bus.Events, "meta.inf")[0])); err != nil {
				t.Fatal(err)
			}
		}, "EVENTS: lost: "},
		"a flipped byte, and no index": {func(t *testing.T, dir string) {
			flip(t, streamFiles(t, dir, bus.Events, "msgs/*.blk")[0], "victim")
			remove(t, streamFiles(t, dir, bus.Events, "msgs/index.db")[0])
		}, "EVENTS 5-9: cut: the stream went up to 9 and ends at 4"},
		"a block that is cut off": {func(t *testing.T, dir string) {
			cutEnd(t, streamFiles(t, dir, bus.Events, "msgs/*.blk")[0])
		}, "EVENTS 9: missing: the packs are not there"},
		"a block of the backlog that is cut off": {func(t *testing.T, dir string) {
			cutEnd(t, streamFiles(t, dir, bus.Backlog, "msgs/*.blk")[0])
		}, "BACKLOG: missing: it held 9 packs when it was closed and holds 8"},
		"a state that is damaged": {func(t *testing.T, dir string) {
			path := streamFiles(t, dir, "STATE", "msgs/*.blk")[0]
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[strings.LastIndex(string(b), "the state")] ^= 1
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "STATE: mended: of the 1 entries of the table of state 1 were damaged, old or missing, and are taken from the other copy: x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, _ := logged(t)
			l := open(t, opts)
			for i := range 9 {
				text := fmt.Sprint("event ", i)
				if i == 4 {
					text = "victim"
				}
				mustAppend(t, l.Stream(bus.Events), "k", text)
				mustAppend(t, l.Stream(bus.Backlog), "k", text)
			}
			if err := l.PutState(t.Context(), "x", []byte("the state")); err != nil {
				t.Fatal(err)
			}
			mustClose(t, l)
			c.damage(t, opts.Dir)
			l = open(t, opts)
			faults := check(t, l)
			t.Logf("%v", faults)
			if len(faults) == 0 || !strings.HasPrefix(faults[0].String(), c.want) {
				t.Errorf("%v, want %s", faults, c.want)
			}
		})
	}
}

// cutEnd takes the last bytes off a file.
func cutEnd(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	truncate(t, path, st.Size()-10)
}
