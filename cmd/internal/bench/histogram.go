package bench

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets that are less than 1 % wide, without
// keeping them. It is safe for use by many goroutines.
type histogram struct {
	counts [(64 - fineBits) << fineBits]atomic.Int64
	most   atomic.Int64
}

// fineBits is the precision: each power of two is divided into 1<<fineBits.
const fineBits = 7

func (h *histogram) record(d time.Duration) {
	n := max(0, int64(d))
	h.counts[bucketOf(uint64(n))].Add(1)
	for old := h.most.Load(); n > old && !h.most.CompareAndSwap(old, n); old = h.most.Load() {
	}
}

func bucketOf(n uint64) int {
	if n < 1<<fineBits {
		return int(n)
	}
	shift := bits.Len64(n) - 1 - fineBits
	return (shift+1)<<fineBits + int(n>>shift) - 1<<fineBits
}

// bottom is the smallest value of a bucket.
func bottom(bucket int) uint64 {
	if bucket < 1<<fineBits {
		return uint64(bucket)
	}
	shift := bucket>>fineBits - 1
	return (uint64(bucket&(1<<fineBits-1)) | 1<<fineBits) << shift
}

// latency sums the histogram up.
func (h *histogram) latency() Latency {
	var total int64
	counts := make([]int64, len(h.counts))
	for i := range h.counts {
		counts[i] = h.counts[i].Load()
		total += counts[i]
	}
	return Latency{Count: total, P50: quantile(counts, total, .50), P99: quantile(counts, total, .99), Max: milliseconds(time.Duration(h.most.Load()))}
}

// quantile is the value that a share q of all values does not exceed, in
// milliseconds; 0 when there are none.
func quantile(counts []int64, total int64, q float64) float64 {
	rank := int64(q * float64(total))
	for i, n := range counts {
		if rank < n {
			return milliseconds(time.Duration((bottom(i) + bottom(i+1)) / 2))
		}
		rank -= n
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// add adds what another histogram has counted.
func (h *histogram) add(o *histogram) {
	for i := range o.counts {
		if n := o.counts[i].Load(); n > 0 {
			h.counts[i].Add(n)
		}
	}
	h.most.Store(max(h.most.Load(), o.most.Load()))
}
