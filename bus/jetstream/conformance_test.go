package jetstream_test

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/bustest"
	"sluice/bus/jetstream"
)

// small are options under which the conformance suite does not take long to fill a log.
func small(dir string) jetstream.Options {
	return jetstream.Options{Dir: dir, MaxBytes: 4 << 20, MaxPack: 256 << 10, Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, opts jetstream.Options) *jetstream.Log {
	t.Helper()
	l, err := jetstream.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func TestConformance(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) bustest.Harness {
		dir := t.TempDir()
		l := open(t, small(dir))
		return bustest.Harness{Log: l, Reopen: func() bus.Log {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			l = open(t, small(dir))
			return l
		}}
	})
}

// TestConformanceAfterCrash reopens from a copy of the directory that is taken while
// the log runs, with nothing synced: what a process finds whose predecessor was killed.
func TestConformanceAfterCrash(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(t *testing.T) bustest.Harness {
		dir := t.TempDir()
		opts := func() jetstream.Options {
			o := small(dir)
			o.Sync = time.Hour
			return o
		}
		l := open(t, opts())
		return bustest.Harness{Log: l, Reopen: func() bus.Log {
			crashed := dir
			dir = t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(crashed)); err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			l = open(t, opts())
			return l
		}}
	})
}
