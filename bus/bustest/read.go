package bustest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"sluice/bus"
)

func testGetNotFound(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Events), within(t)
	for _, seq := range []uint64{0, 1, 99} {
		_, err := s.Get(ctx, seq)
		wantErr(t, fmt.Sprint("Get of an empty stream, ", seq), err, bus.ErrNotFound)
	}
	addN(t, s, "", "e", 3)
	if err := s.Remove(ctx, 2); err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{0, 2, 4} {
		_, err := s.Get(ctx, seq)
		wantErr(t, fmt.Sprint("Get of a missing pack, ", seq), err, bus.ErrNotFound)
	}
}

// arrival is what a Next in another goroutine came back with.
type arrival struct {
	pack bus.Pack
	err  error
}

func nextLater(ctx context.Context, r bus.Reader) <-chan arrival {
	c := make(chan arrival, 1)
	go func() {
		p, err := r.Next(ctx)
		c <- arrival{p, err}
	}()
	return c
}

func testReadWaits(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	r := read(t, s, "", 0)
	for i := range 20 {
		c := nextLater(within(t), r)
		if i%2 == 0 {
			wantNothing(t, read(t, s, "", uint64(i+1))) // gives the other time to begin
		}
		seq := add(t, s, "", fmt.Sprint(i))
		a := <-c
		if a.err != nil {
			t.Fatal(a.err)
		}
		wantPack(t, a.pack, seq, "", fmt.Sprint(i))
	}
}

func testReadFrom(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	addN(t, s, "", "e", 10)
	wantSeqs(t, s, "", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	wantSeqs(t, s, "", 8, 8, 9, 10)
	wantSeqs(t, s, "", 10, 10)
	wantSeqs(t, s, "", 11)
	ahead := read(t, s, "", 13)
	addN(t, s, "", "later", 3)
	wantNext(t, ahead, 13, "", "later2")
}

func testTryNext(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Backlog)
	addN(t, s, "a", "e", 3)
	addN(t, s, "b", "f", 2)
	if err := s.Remove(within(t), 2, 5); err != nil {
		t.Fatal(err)
	}
	drain := func(r bus.Reader) (seqs []uint64) {
		for {
			p, ok, err := r.TryNext(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return seqs
			}
			seqs = append(seqs, p.Seq)
		}
	}
	all, one, none := read(t, s, "", 0), read(t, s, "a", 2), read(t, s, "c", 0)
	if got := fmt.Sprint(drain(all), drain(one), drain(none)); got != "[1 3 4] [3] []" {
		t.Fatalf("TryNext gave the packs %s, want [1 3 4] [3] []", got)
	}
	seq := add(t, s, "a", "later")
	wantNext(t, one, seq, "a", "later")
	if got := fmt.Sprint(drain(all), drain(one)); got != fmt.Sprintf("[%d] []", seq) {
		t.Fatalf("TryNext after an append gave the packs %s, want [%d] []", got, seq)
	}
}

func testReadKey(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Backlog)
	want := map[string][]uint64{}
	for i := range 30 {
		key := []string{"a", "b", "a.b", "*"}[i%4]
		want[key] = append(want[key], add(t, s, key, fmt.Sprint(i)))
	}
	for key, seqs := range want {
		wantSeqs(t, s, key, 0, seqs...)
		wantSeqs(t, s, key, seqs[2]+1, seqs[3:]...)
	}
	wantSeqs(t, s, "nobody", 0)
}

func testReadKeyWaits(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Backlog)
	add(t, s, "b", "other")
	c := nextLater(within(t), read(t, s, "a", 0))
	for i := range 5 {
		add(t, s, "b", fmt.Sprint(i))
	}
	select {
	case a := <-c:
		t.Fatalf("a reader of a got %d of %q, %v", a.pack.Seq, a.pack.Key, a.err)
	default:
	}
	seq := add(t, s, "a", "mine")
	a := <-c
	if a.err != nil {
		t.Fatal(a.err)
	}
	wantPack(t, a.pack, seq, "a", "mine")
}

func testManyReaders(t *testing.T, h Harness) {
	const n, keys = 120, 3
	s, ctx := h.Log.Stream(bus.Backlog), within(t)
	var wg sync.WaitGroup
	for i := range 6 {
		key := []string{"", "k0", "k1", "k2", "", "k0"}[i]
		wg.Go(func() {
			if err := readAscending(ctx, s, key, n, keys); err != nil {
				t.Errorf("reader %d of %q: %v", i, key, err)
			}
		})
	}
	for i := range n {
		add(t, s, fmt.Sprint("k", i%keys), fmt.Sprint(i))
	}
	wg.Wait()
}

// readAscending reads what testManyReaders appends: pack i+1 is record i.
func readAscending(ctx context.Context, s bus.Stream, key string, n, keys int) error {
	r, err := s.Read(ctx, key, 1)
	if err != nil {
		return err
	}
	for i := range n {
		if of := fmt.Sprint("k", i%keys); key != "" && key != of {
			continue
		}
		p, err := r.Next(ctx)
		if err != nil {
			return err
		}
		if p.Seq != uint64(i+1) || text(p)[0] != fmt.Sprint(i) {
			return fmt.Errorf("got %d with %q, want %d", p.Seq, text(p), i+1)
		}
	}
	return r.Close()
}

func testReadGaps(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Backlog), within(t)
	early := read(t, s, "", 0)
	addN(t, s, "a", "e", 20)
	wantNext(t, early, 1, "a", "e0")
	if err := s.Remove(ctx, 1, 3, 4, 5, 9, 20); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, s, "", 0, 2, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
	wantSeqs(t, s, "a", 3, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
	wantSeqs(t, s, "", 20)
	seq := add(t, s, "a", "new")
	// The early reader may have been handed some of them before they were removed.
	var last uint64
	for last < seq {
		p := next(t, early)
		if p.Seq <= last {
			t.Fatalf("%d came after %d", p.Seq, last)
		}
		last = p.Seq
	}
	if err := s.Trim(ctx, "", seq); err != nil {
		t.Fatal(err)
	}
	wantSeqs(t, s, "", 0, seq)
}

func testTryNextFollows(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Backlog), within(t)
	all, one := read(t, s, "", 0), read(t, s, "a", 0)
	for i := range 5 {
		wantNothing(t, all)
		wantNothing(t, one)
		addN(t, s, "b", "e", 2)
		seq := add(t, s, "a", fmt.Sprint(i))
		for got := uint64(0); got < seq; {
			p, ok, err := all.TryNext(ctx)
			if err != nil || !ok {
				t.Fatalf("behind pack %d of %d: %v, %v", got, seq, ok, err)
			}
			got = p.Seq
		}
		p, ok, err := one.TryNext(ctx)
		if err != nil || !ok {
			t.Fatalf("one of a key: %v, %v", ok, err)
		}
		wantPack(t, p, seq, "a", fmt.Sprint(i))
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := all.TryNext(over)
	wantErr(t, "TryNext with a context that is over", err, context.Canceled)
	if err := all.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err = all.TryNext(ctx)
	wantErr(t, "TryNext of a closed reader", err, bus.ErrClosed)
}

func testNextCancelled(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	r := read(t, s, "", 0)
	ctx, cancel := context.WithCancel(within(t))
	c := nextLater(ctx, r)
	cancel()
	wantErr(t, "a cancelled Next", (<-c).err, context.Canceled)
	_, err := r.Next(ctx)
	wantErr(t, "Next with a context that is over", err, context.Canceled)
	seq := add(t, s, "", "after")
	wantNext(t, r, seq, "", "after")
}

func testReaderClose(t *testing.T, h Harness) {
	s := h.Log.Stream(bus.Events)
	add(t, s, "", "x")
	for range 2 {
		r := read(t, s, "", 0)
		wantNext(t, r, 1, "", "x")
		for range 2 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		_, err := r.Next(within(t))
		wantErr(t, "Next of a closed reader", err, bus.ErrClosed)
	}
}

// testReadLong reads more packs, and more bytes, than any log would fetch at once.
func testReadLong(t *testing.T, h Harness) {
	s, ctx := h.Log.Stream(bus.Events), within(t)
	const small, large = 700, 10
	for i := range small {
		if _, err := s.Append(ctx, "", raw([]string{fmt.Sprint(i)})); err != nil {
			t.Fatal(err)
		}
	}
	big := strings.Repeat("x", 60_000)
	for range large {
		add(t, s, "", big)
	}
	r := read(t, h.Reopen().Stream(bus.Events), "", 1)
	for i := range small {
		wantNext(t, r, uint64(i+1), "", fmt.Sprint(i))
	}
	for i := range large {
		wantNext(t, r, uint64(small+i+1), "", big)
	}
	wantNothing(t, r)
}

func testCloseWakes(t *testing.T, h Harness) {
	var waiting []<-chan arrival
	for _, key := range []string{"", "a"} {
		waiting = append(waiting, nextLater(within(t), read(t, h.Log.Stream(bus.Backlog), key, 0)))
	}
	if err := h.Log.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range waiting {
		if a := <-c; !errors.Is(a.err, bus.ErrClosed) {
			t.Errorf("Next of a log that was closed: %v, want ErrClosed", a.err)
		}
	}
}
