// Package bustest is the conformance suite of bus.Log: what bus/jetstream and
// bus/memlog both must do, and what everything above them may rely on.
//
// It asks only for what package bus promises. What one log does beyond that
// (locks, torn files, full volumes, injected faults) is tested beside that log. It
// cannot cut the power: Reopen is at most a crash of the process.
package bustest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"sluice/bus"
)

// Harness is one log under test.
type Harness struct {
	Log bus.Log
	// Reopen closes or crashes the log that was opened last and opens it again
	// over the same durable content. The suite closes the last one itself.
	Reopen func() bus.Log
}

// patience bounds every wait of the suite: no log is slower, but for one that hangs.
const patience = 20 * time.Second

// Run tests the logs that open gives: each empty, with a MaxPack of 64 KiB to
// 1 MiB and a Limit of 1 to 16 MiB.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"append/order and bytes", testBytes},
		{"append/keys", testAppendKeys},
		{"append/numbers ascend", testNumbersAscend},
		{"append/numbers are never used again", testNumbersNotReused},
		{"append/records are not kept", testRecordsNotKept},
		{"append/too large", testTooLarge},
		{"append/full", testFull},
		{"append/many writers", testManyWriters},
		{"get/not found", testGetNotFound},
		{"read/waits", testReadWaits},
		{"read/from the middle", testReadFrom},
		{"read/what is there now", testTryNext},
		{"read/of one key", testReadKey},
		{"read/of one key waits", testReadKeyWaits},
		{"read/many readers", testManyReaders},
		{"read/leaves gaps out", testReadGaps},
		{"read/without waiting", testTryNextFollows},
		{"read/cancelled", testNextCancelled},
		{"read/closed", testReaderClose},
		{"read/more than one fetch", testReadLong},
		{"remove/some", testRemove},
		{"remove/last", testRemoveLast},
		{"trim/all keys", testTrim},
		{"trim/of one key", testTrimKey},
		{"trim/everything", testTrimAll},
		{"info/times", testSince},
		{"info/streams are apart", testStreamsApart},
		{"state/put, replace, remove", testState},
		{"state/list", testStateKeys},
		{"state/survives", testStateReopen},
		{"state/bad keys", testStateBadKeys},
		{"check/nothing is wrong", testCheck},
		{"log/reopen", testReopen},
		{"log/close", testClose},
		{"log/close wakes readers", testCloseWakes},
		{"log/everything at once", testEverything},
		{"log/unknown stream", testUnknownStream},
		{"log/cancelled", testCancelled},
		{"log/usage", testUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := open(t)
			last, again := h.Log, h.Reopen
			h.Reopen = func() bus.Log { last = again(); return last }
			t.Cleanup(func() {
				if err := last.Close(); err != nil {
					t.Errorf("closing the log: %v", err)
				}
			})
			c.test(t, h)
		})
	}
}

// within gives a context that ends when the suite loses its patience.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func add(t *testing.T, s bus.Stream, key string, records ...string) uint64 {
	t.Helper()
	seq, err := s.Append(within(t), key, raw(records))
	if err != nil {
		t.Fatalf("Append(%q): %v", key, err)
	}
	return seq
}

// addN appends packs of one record each: prefix and a number from 0.
func addN(t *testing.T, s bus.Stream, key, prefix string, n int) []uint64 {
	t.Helper()
	seqs := make([]uint64, n)
	for i := range seqs {
		seqs[i] = add(t, s, key, fmt.Sprint(prefix, i))
	}
	return seqs
}

func raw(records []string) [][]byte {
	out := make([][]byte, len(records))
	for i, r := range records {
		out[i] = []byte(r)
	}
	return out
}

func text(p bus.Pack) []string {
	out := make([]string, len(p.Records))
	for i, r := range p.Records {
		out[i] = string(r)
		if r == nil {
			out[i] = "<damaged>"
		}
	}
	return out
}

func read(t *testing.T, s bus.Stream, key string, from uint64) bus.Reader {
	t.Helper()
	r, err := s.Read(within(t), key, from)
	if err != nil {
		t.Fatalf("Read(%q, %d): %v", key, from, err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("closing a reader: %v", err)
		}
	})
	return r
}

func next(t *testing.T, r bus.Reader) bus.Pack {
	t.Helper()
	p, err := r.Next(within(t))
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return p
}

// wantNext reads a pack and compares all of it but the time.
func wantNext(t *testing.T, r bus.Reader, seq uint64, key string, records ...string) {
	t.Helper()
	wantPack(t, next(t, r), seq, key, records...)
}

func wantPack(t *testing.T, p bus.Pack, seq uint64, key string, records ...string) {
	t.Helper()
	if p.Seq != seq || p.Key != key || !slices.Equal(text(p), records) {
		t.Fatalf("got pack %d of %q with %.60q, want %d of %q with %.60q", p.Seq, p.Key, text(p), seq, key, records)
	}
}

// wantSeqs reads the whole stream as far as it goes now.
func wantSeqs(t *testing.T, s bus.Stream, key string, from uint64, want ...uint64) {
	t.Helper()
	r := read(t, s, key, from)
	for _, seq := range want {
		if p := next(t, r); p.Seq != seq {
			t.Fatalf("reading %q from %d: got %d, want %d of %v", key, from, p.Seq, seq, want)
		}
	}
	wantNothing(t, r)
}

// wantNothing checks that a reader is at the end.
func wantNothing(t *testing.T, r bus.Reader) {
	t.Helper()
	if p, ok, err := r.TryNext(within(t)); ok || err != nil {
		t.Fatalf("a reader at the end got pack %d and error %v", p.Seq, err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

func info(t *testing.T, s bus.Stream) bus.StreamInfo {
	t.Helper()
	i, err := s.Info(within(t))
	if err != nil {
		t.Fatalf("Info: %v", err)
	}
	return i
}

// wantInfo compares First, Last and Packs.
func wantInfo(t *testing.T, s bus.Stream, first, last, packs uint64) {
	t.Helper()
	if i := info(t, s); i.First != first || i.Last != last || i.Packs != packs {
		t.Fatalf("got %d packs, %d to %d; want %d, %d to %d", i.Packs, i.First, i.Last, packs, first, last)
	}
}
