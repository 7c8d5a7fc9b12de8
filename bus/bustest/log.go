package bustest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bus"
)

func put(t *testing.T, l bus.Log, key string, value []byte) {
	t.Helper()
	if err := l.PutState(within(t), key, value); err != nil {
		t.Fatalf("PutState(%s): %v", key, err)
	}
}

func wantState(t *testing.T, l bus.Log, key, want string) {
	t.Helper()
	got, err := l.State(within(t), key)
	if err != nil || got == nil || string(got) != want {
		t.Fatalf("State(%s): got %q, %v; want %q", key, got, err, want)
	}
}

func wantStateKeys(t *testing.T, l bus.Log, prefix string, want ...string) {
	t.Helper()
	if got, err := l.StateKeys(within(t), prefix); err != nil || !slices.Equal(got, want) {
		t.Fatalf("StateKeys(%q): got %v, %v; want %v", prefix, got, err, want)
	}
}

func testState(t *testing.T, h Harness) {
	l := h.Log
	_, err := l.State(within(t), "floor")
	wantErr(t, "State of a key that never was", err, bus.ErrNotFound)
	put(t, l, "floor", nil) // removing what is not there
	put(t, l, "floor", []byte("1.0"))
	put(t, l, "floor", []byte("2.0"))
	put(t, l, "a.b-c_D.9", []byte("\x00\xff\r\n"))
	put(t, l, "empty", []byte{})
	wantState(t, l, "floor", "2.0")
	wantState(t, l, "a.b-c_D.9", "\x00\xff\r\n")
	wantState(t, l, "empty", "")
	value := []byte("mine")
	put(t, l, "copy", value)
	copy(value, "LOST")
	wantState(t, l, "copy", "mine")
	put(t, l, "floor", nil)
	_, err = l.State(within(t), "floor")
	wantErr(t, "State of a removed key", err, bus.ErrNotFound)
	put(t, l, "floor", []byte("3.0"))
	wantState(t, l, "floor", "3.0")
}

func testStateKeys(t *testing.T, h Harness) {
	wantStateKeys(t, h.Log, "")
	for _, key := range []string{"lane.b", "lane.a", "lane", "lanes.x", "replay.1", "Z"} {
		put(t, h.Log, key, []byte("v"))
	}
	put(t, h.Log, "lane.gone", []byte("v"))
	put(t, h.Log, "lane.gone", nil)
	for range 2 {
		wantStateKeys(t, h.Log, "", "Z", "lane", "lane.a", "lane.b", "lanes.x", "replay.1")
		wantStateKeys(t, h.Log, "lane", "lane", "lane.a", "lane.b", "lanes.x")
		wantStateKeys(t, h.Log, "lane.", "lane.a", "lane.b")
		wantStateKeys(t, h.Log, "nothing")
		h.Log = h.Reopen()
	}
}

func testStateReopen(t *testing.T, h Harness) {
	for i := range 50 {
		put(t, h.Log, fmt.Sprint("k", i%10), fmt.Append(nil, i))
	}
	put(t, h.Log, "k3", nil)
	l := h.Reopen()
	for i := range 10 {
		if i != 3 {
			wantState(t, l, fmt.Sprint("k", i), fmt.Sprint(40+i))
		}
	}
	_, err := l.State(within(t), "k3")
	wantErr(t, "State of a key removed before reopening", err, bus.ErrNotFound)
}

func testStateBadKeys(t *testing.T, h Harness) {
	for _, key := range []string{"", ".", "a.", ".a", "a..b", "a b", "a*", ">", "ü", strings.Repeat("k", 300)} {
		if err := h.Log.PutState(within(t), key, []byte("v")); err == nil {
			t.Errorf("PutState took the key %q", key)
		}
		if _, err := h.Log.State(within(t), key); err == nil {
			t.Errorf("State took the key %q", key)
		}
	}
	wantStateKeys(t, h.Log, "")
}

func testReopen(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	id := s.ID()
	if id == "" || s.ID() != id {
		t.Fatalf("the id of a stream is %q, then %q", id, s.ID())
	}
	addN(t, s, "a", "e", 5)
	s = h.Reopen().Stream(bus.Events)
	if s.ID() != id {
		t.Fatalf("the id changed from %s to %s", id, s.ID())
	}
	wantSeqs(t, s, "", 0, 1, 2, 3, 4, 5)
	if seq := add(t, s, "a", "after"); seq != 6 {
		t.Fatalf("the first number after reopening is %d, want 6", seq)
	}
	p, err := s.Get(within(t), 6)
	if err != nil {
		t.Fatal(err)
	}
	wantPack(t, p, 6, "a", "after")
}

func testClose(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Events), within(t)
	add(t, s, "", "x")
	r := read(t, s, "", 0)
	for range 2 {
		if err := h.Log.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	_, err := s.Append(ctx, "", raw([]string{"x"}))
	wantErr(t, "Append", err, bus.ErrClosed)
	_, err = r.Next(ctx)
	wantErr(t, "Next", err, bus.ErrClosed)
	_, _, err = r.TryNext(ctx)
	wantErr(t, "TryNext", err, bus.ErrClosed)
	_, err = s.Read(ctx, "", 0)
	wantErr(t, "Read", err, bus.ErrClosed)
	_, err = s.Get(ctx, 1)
	wantErr(t, "Get", err, bus.ErrClosed)
	wantErr(t, "Remove", s.Remove(ctx, 1), bus.ErrClosed)
	wantErr(t, "Trim", s.Trim(ctx, "", 2), bus.ErrClosed)
	_, err = s.Info(ctx)
	wantErr(t, "Info", err, bus.ErrClosed)
	_, err = s.Keys(ctx)
	wantErr(t, "Keys", err, bus.ErrClosed)
	_, err = s.Since(ctx, time.Time{})
	wantErr(t, "Since", err, bus.ErrClosed)
	wantErr(t, "PutState", h.Log.PutState(ctx, "k", []byte("v")), bus.ErrClosed)
	_, err = h.Log.State(ctx, "k")
	wantErr(t, "State", err, bus.ErrClosed)
	_, err = h.Log.StateKeys(ctx, "")
	wantErr(t, "StateKeys", err, bus.ErrClosed)
	h.Log.Usage() // says something or other, and does not panic
	if err := r.Close(); err != nil {
		t.Errorf("closing a reader after its log: %v", err)
	}
}

func testUnknownStream(t *testing.T, h Harness) {
	defer func() {
		if recover() == nil {
			t.Error("Stream(\"OTHER\") did not panic")
		}
	}()
	h.Log.Stream("OTHER")
}

func testCancelled(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Append(ctx, "", raw([]string{"x"}))
	wantErr(t, "Append", err, context.Canceled)
	_, err = s.Get(ctx, 1)
	wantErr(t, "Get", err, context.Canceled)
	wantErr(t, "Remove", s.Remove(ctx, 1), context.Canceled)
	wantErr(t, "PutState", h.Log.PutState(ctx, "k", []byte("v")), context.Canceled)
	wantInfo(t, s, 0, 0, 0)
}

func testUsage(t *testing.T, h Harness) {
	u := h.Log.Usage()
	if u.Limit < 1<<20 || u.Limit > 16<<20 {
		t.Fatalf("the suite needs a limit of 1 to 16 MiB, not %d", u.Limit)
	}
	if u.Free == 0 {
		t.Error("the volume is full before the test begins")
	}
	before := u.Stored
	add(t, h.Log.Stream(bus.Events), "", strings.Repeat("x", 60_000))
	add(t, h.Log.Stream(bus.Backlog), "k", strings.Repeat("x", 60_000))
	if grown := h.Log.Usage().Stored - before; grown < 120_000 || grown > 200_000 {
		t.Errorf("120 kB more are stored, Usage says %d", grown)
	}
}
