package sources

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/config/value"
)

// kafkaFetch bounds what one fetch becomes in memory. The broker counts bytes as they
// are stored, which is compressed: it sends as many of them as it was asked for,
// whatever they become here, and the client unpacks all of a fetch at once. So less is
// asked for the better it is compressed, going by the batches that came last: at once
// where they grow more than those before, and bit by bit where less, as topics differ.
// What nobody has seen yet may grow most, so the first fetch is small.
type kafkaFetch struct {
	most int32 // max_bytes

	mu     sync.Mutex
	client *kgo.Client // nil: there is none yet
	growth float64     // bytes in memory for one that was fetched
}

const (
	kafkaFetchPart     = 1 << 20 // the most of one partition
	kafkaFetchLeast    = 1 << 10 // the broker sends a whole batch all the same
	kafkaFetchUnpacked = 2       // times max_bytes it may become: smaller fetches are slower
	kafkaFetchGrowth   = 256     // is expected of what nobody has seen yet
	kafkaFetchBatch    = 0.3     // how much a batch counts that grows less than expected
	kafkaRecordSize    = 176     // of a record in memory beside its bytes
)

func newKafkaFetch(most value.Bytes) *kafkaFetch {
	return &kafkaFetch{most: int32(most), growth: kafkaFetchGrowth} //nolint:gosec // Validate holds it to 1 GiB
}

// options are those of the client: it may fetch before it is there.
func (f *kafkaFetch) options() []kgo.Opt {
	most, partition := f.sizes()
	return []kgo.Opt{kgo.WithHooks(f), kgo.FetchMaxBytes(most), kgo.FetchMaxPartitionBytes(partition)}
}

// sizes are the bytes to ask for, of all partitions and of one.
func (f *kafkaFetch) sizes() (most, partition int32) {
	most = min(f.most, max(kafkaFetchLeast, int32(kafkaFetchUnpacked*float64(f.most)/f.growth)))
	return most, min(most, kafkaFetchPart)
}

// OnNewClient is kgo.HookNewClient.
func (f *kafkaFetch) OnNewClient(client *kgo.Client) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.client = client
}

// OnFetchBatchRead is kgo.HookFetchBatchRead: it hears of each batch before there is
// another fetch from that broker.
func (f *kafkaFetch) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.read(m)
	if f.client != nil {
		f.client.UpdateFetchMaxBytes(f.sizes())
	}
}

func (f *kafkaFetch) read(m kgo.FetchBatchMetrics) {
	if m.CompressedBytes <= 0 {
		return
	}
	growth := float64(m.UncompressedBytes+m.NumRecords*kafkaRecordSize) / float64(m.CompressedBytes)
	if growth < f.growth {
		growth = f.growth + kafkaFetchBatch*(growth-f.growth)
	}
	f.growth = growth
}
