package jetstream_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/bus/jetstream"
)

func TestOpenFails(t *testing.T) {
	t.Parallel()
	inTheWay := t.TempDir()
	if err := os.WriteFile(filepath.Join(inTheWay, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "streams.json"), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		opts jetstream.Options
		want string
	}{
		"no directory":      {t.Context(), jetstream.Options{}, "no data directory"},
		"a file in the way": {t.Context(), small(inTheWay), "jetstream"},
		"a newer version":   {t.Context(), small(newer), "newer release"},
		"a cancelled start": {over, small(t.TempDir()), "canceled"},
		"a pack too large":  {t.Context(), jetstream.Options{Dir: t.TempDir(), MaxPack: 1 << 30}, "31 MiB at most"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the lock is not left behind
				l, err := jetstream.Open(c.ctx, c.opts)
				if err == nil {
					t.Fatal("it opened", l.Close())
				}
				if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "in use") {
					t.Errorf("the error does not say %q: %v", c.want, err)
				}
			}
		})
	}
}

// TestLargestPack stores a pack as large as may be by default and reads it from disk.
func TestLargestPack(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	opts := small(t.TempDir())
	opts.MaxBytes, opts.MaxPack = 1<<30, 0
	pack := [][]byte{bytes.Repeat([]byte("x"), size/2-8), bytes.Repeat([]byte("y"), size/2-8)}
	l := open(t, opts)
	if _, err := l.Stream(bus.Events).Append(t.Context(), "", pack); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Stream(bus.Events).Append(t.Context(), "", append(pack, nil)); !errors.Is(err, bus.ErrTooLarge) {
		t.Errorf("a pack of more than %d bytes: %v, want ErrTooLarge", size, err)
	}
	mustClose(t, l)
	p, err := open(t, opts).Stream(bus.Events).Get(t.Context(), 1)
	if err != nil || !slices.EqualFunc(p.Records, pack, bytes.Equal) {
		t.Fatalf("what is read is not what was stored: %d records, %v", len(p.Records), err)
	}
}

// TestLowerLimit opens a log with a lower limit than what it holds.
func TestLowerLimit(t *testing.T) {
	t.Parallel()
	opts := small(t.TempDir())
	opts.MaxBytes = 64 << 20
	pack := [][]byte{bytes.Repeat([]byte("x"), 200_000)}
	l := open(t, opts)
	for range 25 {
		if _, err := l.Stream(bus.Events).Append(t.Context(), "", pack); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, l)
	opts.MaxBytes = 4 << 20
	s := open(t, opts).Stream(bus.Events)
	if got := readAll(t, s, ""); len(got) != 25 {
		t.Errorf("%d of 25 packs are left", len(got))
	}
	if _, err := s.Append(t.Context(), "", pack); !errors.Is(err, bus.ErrFull) {
		t.Errorf("appending above the limit: %v, want ErrFull", err)
	}
	if err := s.Trim(t.Context(), "", 20); err != nil {
		t.Fatal(err)
	}
	if seq, err := s.Append(t.Context(), "", pack); err != nil || seq != 26 {
		t.Errorf("appending below the limit: %d, %v", seq, err)
	}
}

// TestLostStream takes a stream away with all its files.
func TestLostStream(t *testing.T) {
	t.Parallel()
	opts, log := logged(t)
	l := open(t, opts)
	lost, kept := l.Stream(bus.Events).ID(), l.Stream(bus.Retries).ID()
	mustAppend(t, l.Stream(bus.Events), "k", "x")
	mustClose(t, l)
	if err := os.RemoveAll(filepath.Dir(streamFiles(t, opts.Dir, bus.Events, "meta.inf")[0])); err != nil {
		t.Fatal(err)
	}
	l = open(t, opts)
	if id := l.Stream(bus.Events).ID(); id == lost {
		t.Error("a stream that was made anew has the id of the one that was lost")
	}
	if id := l.Stream(bus.Retries).ID(); id != kept {
		t.Error("the others have other ids too")
	}
	if !strings.Contains(log.String(), "lost with all its content") {
		t.Errorf("the log does not tell of it:\n%s", log.String())
	}
}
