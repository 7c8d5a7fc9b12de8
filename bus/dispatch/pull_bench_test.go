package dispatch_test

import (
	"fmt"
	"testing"
	"time"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/sinks"
)

// BenchmarkQueue moves ten messages through a queue, over a log in memory: what it
// costs must not grow with the other queues, nor with the leases that are open.
func BenchmarkQueue(b *testing.B) {
	for _, c := range []struct{ queues, leases int }{{1, 0}, {1000, 0}, {1, 100_000}} {
		b.Run(fmt.Sprintf("queues=%d/leases=%d", c.queues, c.leases), func(b *testing.B) {
			specs := []dispatch.SinkSpec{queueSpec(b, "q", func(q *sinks.Queue) { q.Visibility = lasting(time.Hour) }, nil)}
			for i := range c.queues - 1 {
				specs = append(specs, queueSpec(b, fmt.Sprint("other", i), nil, nil))
			}
			table := one(b, specs...)
			d := start(b, memlog.New(memlog.Options{}), table)
			defer d.stop()
			d.publish(names("before", 2)...)
			for _, s := range specs { // each has a lease beside something that is acknowledged
				got, err := d.Receive(b.Context(), s.Name, 2, time.Hour)
				if err != nil {
					b.Fatal(err)
				}
				d.Ack(b.Context(), got[0].Receipt)
			}
			table.Routes[0].To = []string{"q"}
			for i := range specs {
				table.Sinks[i].Sink = nil
			}
			if err := d.Reload(b.Context(), table); err != nil {
				b.Fatal(err)
			}
			for i := range c.leases / 10 {
				d.publish(names(fmt.Sprint("l", i, "."), 10)...)
				if got := d.receive(10); len(got) == 0 {
					b.Fatal("nothing to receive")
				}
			}
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				d.publish(names(fmt.Sprint("e", i, "."), 10)...)
				for n := 0; n < 10; {
					got := d.receive(10)
					for _, err := range d.Ack(b.Context(), receipts(got)...) {
						if err != nil {
							b.Fatal(err)
						}
					}
					n += len(got)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(10*b.N), "µs/message")
		})
	}
}
