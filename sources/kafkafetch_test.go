package sources

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestKafkaFetch(t *testing.T) {
	t.Parallel()
	const most = 4 << 20
	batch := func(fetched, unpacked, records int) kgo.FetchBatchMetrics {
		return kgo.FetchBatchMetrics{CompressedBytes: fetched, UncompressedBytes: unpacked, NumRecords: records}
	}
	f := newKafkaFetch(most)
	asks := func(when string, least, atMost int) {
		t.Helper()
		if n, partition := f.sizes(); int(n) < least || int(n) > atMost || partition != min(n, 1<<20) {
			t.Errorf("%s: asks for %d bytes, %d of a partition; want %d to %d", when, n, partition, least, atMost)
		}
	}
	asks("first", 32<<10, 32<<10)
	for range 100 {
		f.read(batch(1<<20, 1<<20, 64))
	}
	asks("after batches that are not compressed", most, most)
	f.read(batch(10<<10, 1<<20, 64))
	asks("after the first that is, to a hundredth", 2*38<<10, 2*42<<10)
	f.read(batch(1<<20, 1<<20, 64))
	asks("after one that is not", 2*50<<10, 2*60<<10)
	for range 100 {
		f.read(batch(1<<20, 1<<20, 64))
	}
	asks("after many that are not", most, most)
	f.read(batch(1<<20, 1<<20, 1<<18)) // of four bytes each
	asks("after small records", 2*most/50, 2*most/40)
	f.read(batch(100, 100<<20, 1))
	asks("after a bomb", 1<<10, 1<<10)
	f.read(batch(0, 0, 0))
	asks("after a batch that cannot be read", 1<<10, 1<<10)
}
