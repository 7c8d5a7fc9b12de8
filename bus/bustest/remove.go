package bustest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"sluice/bus"
)

func testRemove(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Retries), within(t)
	addN(t, s, "a", "r", 10)
	if err := s.Remove(ctx); err != nil {
		t.Fatalf("removing nothing: %v", err)
	}
	if err := s.Remove(ctx, 1, 2, 5, 5, 0, 77); err != nil {
		t.Fatalf("removing some that are not there: %v", err)
	}
	if err := s.Remove(ctx, 5); err != nil {
		t.Fatalf("removing again: %v", err)
	}
	wantInfo(t, s, 3, 10, 7)
	_, err := s.Get(ctx, 5)
	wantErr(t, "Get of a removed pack", err, bus.ErrNotFound)
	wantGone := func(s bus.Stream) {
		t.Helper()
		gone, err := s.Gone(ctx, 0, 1, 3, 4, 5, 6, 10, 11, 77)
		if want := []uint64{0, 1, 5, 11, 77}; err != nil || !slices.Equal(gone, want) {
			t.Errorf("gone are %v, %v, want %v", gone, err, want)
		}
	}
	wantGone(s)
	s = h.Reopen().Stream(bus.Retries)
	wantGone(s)
	wantInfo(t, s, 3, 10, 7)
	wantSeqs(t, s, "", 0, 3, 4, 6, 7, 8, 9, 10)
}

func testRemoveLast(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Retries), within(t)
	addN(t, s, "a", "r", 3)
	if err := s.Remove(ctx, 3, 2); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, s, 1, 3, 1)
	if err := s.Remove(ctx, 1); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, s, 4, 3, 0)
	if i := info(t, s); i.Bytes != 0 {
		t.Errorf("an empty stream holds %d bytes", i.Bytes)
	}
	wantKeys(t, s, map[string]int{})
	wantNothing(t, read(t, s, "", 0))
}

func testTrim(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Events), within(t)
	if err := s.Trim(ctx, "", 1); err != nil {
		t.Fatalf("trimming an empty stream: %v", err)
	}
	addN(t, s, "", "e", 10)
	for _, below := range []uint64{0, 1} {
		if err := s.Trim(ctx, "", below); err != nil {
			t.Fatal(err)
		}
		wantInfo(t, s, 1, 10, 10)
	}
	if err := s.Trim(ctx, "", 6); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, s, 6, 10, 5)
	if err := s.Trim(ctx, "", 3); err != nil {
		t.Fatalf("trimming what is gone: %v", err)
	}
	s = h.Reopen().Stream(bus.Events)
	wantInfo(t, s, 6, 10, 5)
	wantSeqs(t, s, "", 0, 6, 7, 8, 9, 10)
}

func testTrimKey(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Backlog), within(t)
	for range 5 {
		add(t, s, "a", "x")
		add(t, s, "b", "y")
	}
	if err := s.Trim(ctx, "a", 6); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, s, map[string]int{"a": 2, "b": 5})
	for range 2 { // the second time there is nothing left to do
		if err := s.Trim(ctx, "b", 3); err != nil {
			t.Fatal(err)
		}
	}
	for _, below := range []uint64{0, 1} {
		if err := s.Trim(ctx, "a", below); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Trim(ctx, "nobody", 100); err != nil {
		t.Fatal(err)
	}
	s = h.Reopen().Stream(bus.Backlog)
	wantSeqs(t, s, "", 0, 4, 6, 7, 8, 9, 10)
	wantSeqs(t, s, "a", 0, 7, 9)
	wantKeys(t, s, map[string]int{"a": 2, "b": 4})
}

// testTrimAll empties a stream by trimming at its end, and beyond.
func testTrimAll(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Backlog), within(t)
	addN(t, s, "a", "x", 5)
	if err := s.Trim(ctx, "a", 6); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, s, 6, 5, 0)
	add(t, s, "a", "x")
	if err := s.Trim(ctx, "", 1000); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, s, 7, 6, 0)
	if seq := add(t, s, "a", "x"); seq != 7 {
		t.Fatalf("after trimming far beyond the end: got %d, want 7", seq)
	}
	if err := s.Trim(ctx, "a", 1000); err != nil {
		t.Fatal(err)
	}
	s = h.Reopen().Stream(bus.Backlog)
	if seq := add(t, s, "a", "x"); seq != 8 {
		t.Fatalf("after trimming and reopening: got %d, want 8", seq)
	}
}

func testSince(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Events), within(t)
	wantSince := func(at time.Time, want uint64) {
		t.Helper()
		if got, err := s.Since(ctx, at); err != nil || got != want {
			t.Fatalf("Since: got %d, %v; want %d", got, err, want)
		}
	}
	start := time.Now()
	wantSince(start, 1)
	addN(t, s, "", "e", 5)
	var times []time.Time
	for seq := range uint64(5) {
		p, err := s.Get(ctx, seq+1)
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, p.Time)
		if n := len(times); n > 1 && p.Time.Before(times[n-2]) {
			t.Fatalf("pack %d is older than the one before", p.Seq)
		}
	}
	if first := info(t, s).FirstTime; !first.Equal(times[0]) || first.Sub(start).Abs() > patience {
		t.Fatalf("FirstTime is %v, the first pack is of %v", first, times[0])
	}
	wantSince(time.Time{}, 1)
	wantSince(times[0], 1)
	wantSince(times[4].Add(1), 6)
	if times[3].After(times[2]) {
		wantSince(times[3], 4)
	}
	if err := s.Trim(ctx, "", 3); err != nil {
		t.Fatal(err)
	}
	wantSince(times[0], 3)
	if err := s.Trim(ctx, "", 6); err != nil {
		t.Fatal(err)
	}
	wantSince(times[0], 6)
}

func testStreamsApart(t *testing.T, h Harness) {
	for i, name := range bus.StreamNames() {
		addN(t, h.Log.Stream(name), "k", name, i+1)
	}
	if err := h.Log.Stream(bus.Retries).Trim(within(t), "k", 3); err != nil {
		t.Fatal(err)
	}
	l := h.Reopen()
	ids := map[string]bool{}
	for i, name := range bus.StreamNames() {
		s := l.Stream(name)
		ids[s.ID()] = true
		first, packs := uint64(1), uint64(i+1)
		if name == bus.Retries {
			first, packs = 3, 1
		}
		wantInfo(t, s, first, uint64(i+1), packs)
		if p := next(t, read(t, s, "", 0)); text(p)[0][:len(name)] != name {
			t.Errorf("%s holds %q", name, text(p))
		}
	}
	if len(ids) != 4 || ids[""] {
		t.Errorf("the ids of the streams are %v", ids)
	}
}

func wantKeys(t *testing.T, s bus.Stream, want map[string]int) {
	t.Helper()
	if got, err := s.Keys(within(t)); err != nil || !maps.Equal(got, want) {
		t.Fatalf("Keys: got %v, %v; want %v", got, err, want)
	}
}
