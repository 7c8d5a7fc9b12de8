package bustest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"sluice/bus"
)

func testBytes(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprint("record ", i)
	}
	packs := [][]string{
		{"one"},
		{""},
		{"", "", ""},
		{string(all), "\r\n", "NATS/1.0\r\n\r\n", "\x00"},
		{"a", "", "b"},
		many,
		{strings.Repeat("x", 60_000)},
	}
	for i, p := range packs {
		if seq := add(t, s, "", p...); seq != uint64(i+1) {
			t.Fatalf("pack %d got number %d", i, seq)
		}
	}
	check := func(s bus.Stream) {
		r := read(t, s, "", 0)
		for i, p := range packs {
			wantNext(t, r, uint64(i+1), "", p...)
			got, err := s.Get(within(t), uint64(i+1))
			if err != nil {
				t.Fatalf("Get(%d): %v", i+1, err)
			}
			wantPack(t, got, uint64(i+1), "", p...)
			if got.Time.IsZero() {
				t.Errorf("pack %d has no time", i+1)
			}
		}
		wantNothing(t, r)
	}
	check(s)
	check(h.Reopen().Stream(bus.Events))
}

// oddKeys are keys that a store could be tempted to read as syntax.
func oddKeys() []string {
	return []string{
		"", " ", ".", "*", ">", "a.b", "a b", "a/b", "_", "=", "=41", "$JS", "Ünïcode ✓", "tab\there",
		"thumbs", "Thumbs", "thumbs-2", strings.Repeat("k", 255),
	}
}

func testAppendKeys(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Backlog)
	want := map[string]int{}
	for i, key := range oddKeys() {
		for n := range i%3 + 1 {
			add(t, s, key, fmt.Sprint(key, n))
			want[key]++
		}
	}
	check := func(s bus.Stream) {
		got, err := s.Keys(within(t))
		if err != nil {
			t.Fatalf("Keys: %v", err)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("Keys: got %v, want %v", got, want)
		}
		for key := range want {
			if key == "" {
				continue // reads every key
			}
			if p := next(t, read(t, s, key, 0)); p.Key != key || text(p)[0] != key+"0" {
				t.Fatalf("the first pack of %q is %q of %q", key, text(p), p.Key)
			}
		}
	}
	check(s)
	check(h.Reopen().Stream(bus.Backlog))
	_, err := s.Append(within(t), strings.Repeat("k", 256), raw([]string{"x"}))
	if err == nil {
		t.Fatal("a key of 256 bytes was taken")
	}
}

func testNumbersAscend(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	wantInfo(t, s, 0, 0, 0)
	for i := range uint64(100) {
		if seq := add(t, s, "", "x"); seq != i+1 {
			t.Fatalf("append %d got number %d", i, seq)
		}
	}
	wantInfo(t, s, 1, 100, 100)
}

func testNumbersNotReused(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Retries)
	addN(t, s, "a", "r", 10)
	if err := s.Remove(within(t), 9, 10); err != nil {
		t.Fatal(err)
	}
	if seq := add(t, s, "a", "x"); seq != 11 {
		t.Fatalf("after removing 9 and 10: got %d, want 11", seq)
	}
	if err := s.Trim(within(t), "", 12); err != nil {
		t.Fatal(err)
	}
	if seq := add(t, s, "a", "x"); seq != 12 {
		t.Fatalf("after trimming below 12: got %d, want 12", seq)
	}
	if err := s.Remove(within(t), 12); err != nil {
		t.Fatal(err)
	}
	s = h.Reopen().Stream(bus.Retries)
	wantInfo(t, s, 13, 12, 0)
	if seq := add(t, s, "a", "x"); seq != 13 {
		t.Fatalf("after emptying and reopening: got %d, want 13", seq)
	}
}

func testRecordsNotKept(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	record := []byte("before")
	seq, err := s.Append(within(t), "", [][]byte{record, record})
	if err != nil {
		t.Fatal(err)
	}
	copy(record, "AFTER!")
	wantNext(t, read(t, s, "", 1), seq, "", "before", "before")
}

func testTooLarge(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	_, err := s.Append(within(t), "", [][]byte{make([]byte, 1<<20+1)})
	wantErr(t, "a record above MaxPack", err, bus.ErrTooLarge)
	_, err = s.Append(within(t), "", [][]byte{make([]byte, 1<<20), make([]byte, 1<<20)})
	wantErr(t, "records above MaxPack together", err, bus.ErrTooLarge)
	wantErr(t, "a state value above MaxPack", h.Log.PutState(within(t), "k", make([]byte, 1<<20+1)), bus.ErrTooLarge)
	wantInfo(t, s, 0, 0, 0)
	add(t, s, "", strings.Repeat("x", 60_000))
}

// testFull fills EVENTS: deliveries and state still fit, and trimming makes room.
func testFull(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Events), within(t)
	record := [][]byte{bytes.Repeat([]byte("x"), 60_000)}
	var last uint64
	var err error
	for n := h.Log.Usage().Limit/60_000 + 1; n >= 0 && err == nil; n-- {
		var seq uint64
		if seq, err = s.Append(ctx, "", record); err == nil {
			last = seq
		}
	}
	wantErr(t, "appending beyond the limit", err, bus.ErrFull)
	if last == 0 {
		t.Fatal("nothing fitted")
	}
	for _, name := range []string{bus.Backlog, bus.Retries, bus.DeadLetters} {
		if _, err := h.Log.Stream(name).Append(ctx, "k", [][]byte{make([]byte, 1000)}); err != nil {
			t.Errorf("%s when EVENTS is full: %v", name, err)
		}
	}
	if err := h.Log.PutState(ctx, "floor", []byte("1.0")); err != nil {
		t.Errorf("state when EVENTS is full: %v", err)
	}
	wantInfo(t, s, 1, last, last)
	if err := s.Trim(ctx, "", last); err != nil {
		t.Fatal(err)
	}
	if seq, err := s.Append(ctx, "", record); err != nil || seq != last+1 {
		t.Fatalf("after trimming: got %d, %v; want %d", seq, err, last+1)
	}
}

// testManyWriters appends from several goroutines to every stream at once.
func testManyWriters(t *testing.T, h Harness) {
	const writers, each = 4, 25
	ctx := within(t)
	var wg sync.WaitGroup
	for _, name := range bus.StreamNames() {
		for w := range writers {
			wg.Go(func() { writeAscending(ctx, t, h.Log.Stream(name), fmt.Sprint("w", w), each) })
		}
	}
	wg.Wait()
	for _, name := range bus.StreamNames() {
		s := h.Log.Stream(name)
		wantInfo(t, s, 1, writers*each, writers*each)
		r, count := read(t, s, "", 1), map[string]int{}
		for i := range uint64(writers * each) {
			p := next(t, r)
			wantPack(t, p, i+1, p.Key, fmt.Sprint(count[p.Key]))
			count[p.Key]++
		}
	}
}

func writeAscending(ctx context.Context, t *testing.T, s bus.Stream, key string, n int) {
	var last uint64
	for i := range n {
		seq, err := s.Append(ctx, key, raw([]string{fmt.Sprint(i)}))
		if err != nil || seq <= last {
			t.Errorf("writer %s: number %d after %d, error %v", key, seq, last, err)
			return
		}
		last = seq
	}
}
