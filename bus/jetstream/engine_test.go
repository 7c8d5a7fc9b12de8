package jetstream

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"sluice/bus"
)

// TestEngineFails starts the server again and again under a reader that follows and
// one that reads what is stored.
func TestEngineFails(t *testing.T) {
	t.Parallel()
	opts := Options{Dir: t.TempDir(), MaxBytes: 64 << 20, Log: slog.New(slog.DiscardHandler)}
	l, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, ctx := l.Stream(bus.Backlog), t.Context()
	follows, err := s.Read(ctx, "k", 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if i%10 == 5 {
			l.current().fail(errors.New("a test"))
		}
		text := fmt.Sprint(i)
		for _, err = s.Append(ctx, "k", [][]byte{[]byte(text)}); err != nil; _, err = s.Append(ctx, "k", [][]byte{[]byte(text)}) {
			if !errors.Is(err, bus.ErrUnavailable) {
				t.Fatal(err)
			}
			if _, err := s.Info(ctx); err != nil { // waits for the next engine
				t.Fatal(err)
			}
		}
		for got := ""; got != text; { // an append without an answer may be there twice
			p, err := follows.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			got = string(p.Records[0])
		}
	}
	stored, err := s.Read(ctx, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	s.(*stream).tail.trimmed("k", 1<<60) // out of memory, not off the disk
	for last := ""; last != "39"; {
		p, err := stored.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if last = string(p.Records[0]); last == "20" {
			l.current().fail(errors.New("a test"))
		}
	}
}

// TestNothingIsLeft runs before the parallel tests go on, or it would see theirs.
func TestNothingIsLeft(t *testing.T) { //nolint:paralleltest // see above
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := Open(t.Context(), Options{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range bus.StreamNames() {
		if _, err := l.Stream(name).Append(t.Context(), "k", [][]byte{[]byte("x")}); err != nil {
			t.Fatal(err)
		}
		r, err := l.Stream(name).Read(t.Context(), "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
