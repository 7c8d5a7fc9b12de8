package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"sluice/bus"
	"sluice/bus/jetstream"
)

func openBench(b *testing.B, sync time.Duration) *jetstream.Log {
	b.Helper()
	l, err := jetstream.Open(b.Context(), jetstream.Options{Dir: b.TempDir(), Sync: sync, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := l.Close(); err != nil {
			b.Error(err)
		}
	})
	return l
}

func records(n int) [][]byte {
	out := make([][]byte, n)
	for i := range out {
		out[i] = bytes.Repeat([]byte{byte(i)}, 1024)
	}
	return out
}

func reportRecords(b *testing.B, perOp int) {
	b.ReportMetric(float64(b.N*perOp)/b.Elapsed().Seconds(), "records/s")
}

func BenchmarkAppend(b *testing.B) {
	for _, sync := range []time.Duration{0, time.Minute} {
		for _, n := range []int{1, 64, 512} {
			name := fmt.Sprintf("sync=always/pack=%d", n)
			if sync > 0 {
				name = fmt.Sprintf("sync=%v/pack=%d", sync, n)
			}
			b.Run(name, func(b *testing.B) {
				s, pack := openBench(b, sync).Stream(bus.Events), records(n)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Append(b.Context(), "", pack); err != nil {
						b.Fatal(err)
					}
				}
				reportRecords(b, n)
			})
		}
	}
}

// BenchmarkAppendParallel appends to the four streams at once.
func BenchmarkAppendParallel(b *testing.B) {
	l, pack := openBench(b, 0), records(64)
	names := bus.StreamNames()
	next := make(chan string, len(names))
	for _, name := range names {
		next <- name
	}
	b.SetParallelism(len(names))
	b.RunParallel(func(pb *testing.PB) {
		name := <-next
		defer func() { next <- name }()
		for pb.Next() {
			if _, err := l.Stream(name).Append(b.Context(), "sink", pack); err != nil {
				b.Error(err)
				return
			}
		}
	})
	reportRecords(b, len(pack))
}

// BenchmarkRead reads packs back that are far behind the tail, and packs just
// appended.
func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("stored/pack=%d", n), func(b *testing.B) {
			l, pack := openBench(b, time.Minute), records(n)
			s := l.Stream(bus.Events)
			const size = 64 << 20
			packs := size / 1024 / n
			for range packs {
				if _, err := s.Append(b.Context(), "", pack); err != nil {
					b.Fatal(err)
				}
			}
			r := mustRead(b, s)
			left := packs * 3 / 4 // the rest is in memory
			for b.Loop() {
				if left == 0 {
					r, left = mustRead(b, s), packs*3/4
				}
				left--
				if _, err := r.Next(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			reportRecords(b, n)
		})
	}
	b.Run("following/pack=64", func(b *testing.B) {
		s, pack := openBench(b, time.Minute).Stream(bus.Events), records(64)
		r := mustRead(b, s)
		for b.Loop() {
			if _, err := s.Append(b.Context(), "", pack); err != nil {
				b.Fatal(err)
			}
			if _, err := r.Next(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		reportRecords(b, 64)
	})
}

func mustRead(b *testing.B, s bus.Stream) bus.Reader {
	b.Helper()
	r, err := s.Read(context.WithoutCancel(b.Context()), "", 1)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// BenchmarkRemove removes groups of packs: the oldest of a stream, some between
// others that stay, and the oldest of one key.
func BenchmarkRemove(b *testing.B) {
	const group = 100
	for name, remove := range map[string]func(s bus.Stream, mine, others []uint64) error{
		"oldest": func(s bus.Stream, mine, others []uint64) error {
			return s.Remove(b.Context(), append(mine, others...)...)
		},
		"scattered": func(s bus.Stream, mine, _ []uint64) error { return s.Remove(b.Context(), mine...) },
		"trim of a key": func(s bus.Stream, mine, _ []uint64) error {
			return s.Trim(b.Context(), "mine", mine[len(mine)-1]+1)
		},
	} {
		b.Run(name, func(b *testing.B) {
			s := openBench(b, 0).Stream(bus.Backlog)
			mine, others := make([]uint64, group), make([]uint64, group)
			for b.Loop() {
				b.StopTimer()
				for i := range group {
					for key, seqs := range map[string][]uint64{"mine": mine, "others": others} {
						seq, err := s.Append(b.Context(), key, records(1))
						if err != nil {
							b.Fatal(err)
						}
						seqs[i] = seq
					}
				}
				b.StartTimer()
				if err := remove(s, mine, others); err != nil {
					b.Fatal(err)
				}
			}
			reportRecords(b, group)
		})
	}
}

func BenchmarkState(b *testing.B) {
	l := openBench(b, 0)
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			if err := l.PutState(b.Context(), "floor", []byte("1042.7")); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, err := l.State(b.Context(), "floor"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
