package dispatch

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

// An event takes at most 48 bytes at any number of them, and every one of them is found
// where it was put last.
func TestSums(t *testing.T) {
	t.Parallel()
	const most, perEvent = 200_000, 48
	random := rand.New(rand.NewPCG(1, 2))
	var s sums
	var all []sum
	for len(all) < most {
		next := sum{max(1, random.Uint64()), random.Uint64()}
		if _, known := s.get(next); known {
			t.Fatalf("%x is known before it was put", next)
		}
		all = append(all, next)
		s.put(next, place(0))
		s.put(next, place(len(all)))
		if n := len(all); n >= 5000 && n%250 == 0 {
			bytes := int(unsafe.Sizeof(s))
			for _, table := range s.tables {
				bytes += cap(table.entries) * int(unsafe.Sizeof(sumEntry{}))
			}
			if bytes > perEvent*n {
				t.Fatalf("%d events take %d bytes, %d each", n, bytes, bytes/n)
			}
		}
	}
	for i, known := range all {
		if at, ok := s.get(known); !ok || at != place(i+1) {
			t.Fatalf("event %d is at %d, %v", i+1, at, ok)
		}
	}
}

func BenchmarkSums(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	var s sums
	for b.Loop() {
		next := sum{max(1, random.Uint64()), random.Uint64()}
		if _, known := s.get(next); !known {
			s.put(next, 1)
		}
	}
}
