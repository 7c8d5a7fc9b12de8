package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var h histogram
	for n := range 1000 {
		h.record(time.Duration(n+1) * 10 * time.Microsecond)
	}
	got := h.latency()
	for _, c := range []struct{ got, want float64 }{{got.P50, 5.01}, {got.P99, 9.91}, {got.Max, 10}} {
		if math.Abs(c.got-c.want) > c.want/100 {
			t.Errorf("%v ms, want %v", c.got, c.want)
		}
	}
	if got.Count != 1000 {
		t.Errorf("counted %d", got.Count)
	}
	var sum histogram
	sum.add(&h)
	if sum.latency() != got {
		t.Errorf("added to nothing it is %v, not %v", sum.latency(), got)
	}
	if l := new(histogram).latency(); l != (Latency{}) {
		t.Errorf("nothing is %v", l)
	}
}

func TestHistogramBuckets(t *testing.T) {
	t.Parallel()
	for n := uint64(0); n < 1<<62; n += n/3 + 1 {
		b := bucketOf(n)
		if low, high := bottom(b), bottom(b+1); n < low || n >= high || high-low > 1+low/100 {
			t.Fatalf("%d is in [%d, %d)", n, low, high)
		}
	}
}

func TestTally(t *testing.T) {
	t.Parallel()
	books := newTally(2, 3)
	for range 3 {
		books.slots <- struct{}{}
	}
	first, _ := books.take(4)
	for id := first; id < first+3; id++ {
		books.accept(id)
	}
	books.arrive(0, first)
	books.arrive(1, first)
	books.arrive(1, first) // twice
	books.arrive(0, first+1)
	books.refuse(first + 3) // and yet
	books.arrive(0, first+3)
	if lost := books.missing(); lost != 3 {
		t.Errorf("%d are missing, want 3", lost)
	}
	if d := books.duplicates.Load(); d != 1 {
		t.Errorf("%d duplicates, want 1", d)
	}
	if n := len(books.slots); n != 1 {
		t.Errorf("%d events hold a slot, want 1: the first is done, the last was refused", n)
	}
	books.arrive(0, 1000)
	books.arrive(2, first)
	books.arrive(0, -1)
	if n := books.strangers.Load(); n != 3 {
		t.Errorf("%d strangers, want 3", n)
	}
}

// TestTallyManyAtOnce has each event arrive at each sink once, while it grows.
func TestTallyManyAtOnce(t *testing.T) {
	t.Parallel()
	books := newTally(2, 0)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 3 * chunkEvents / 80 {
				first, ok := books.take(10)
				for id := first; ok && id < first+10; id++ {
					books.accept(id)
					books.arrive(0, id)
					books.arrive(1, id)
				}
			}
		})
	}
	all.Wait()
	if books.missing() != 0 || books.duplicates.Load() != 0 || books.strangers.Load() != 0 || books.arrived.Load() != 2*books.accepted.Load() {
		t.Errorf("%d missing, %d duplicates, %d strangers, %d accepted, %d arrived", books.missing(), books.duplicates.Load(),
			books.strangers.Load(), books.accepted.Load(), books.arrived.Load())
	}
}

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, all := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 2.5: {4, 1, 2, 3}} {
		if got := median(all); got != want {
			t.Errorf("the median of %v is %v, want %v", all, got, want)
		}
	}
}

func TestCompareAndSummary(t *testing.T) {
	t.Parallel()
	r := &Report{}
	for i, rate := range []float64{10, 20, 60} {
		r.Measures = append(r.Measures,
			Measure{Load: "x", System: "a", Round: i + 1, DeliveriesPerSecond: rate, Delivery: Latency{P50: rate}, Lost: 1, PeakBytes: int64(rate)},
			Measure{Load: "x", System: "b", Round: i + 1, DeliveriesPerSecond: 20, Delivery: Latency{P50: 5}})
	}
	r.compare(side{"x", "a"}, side{"x", "b"}, deliveryRate(), deliveryP50())
	r.compare(side{"x", "a"}, side{"x", "nobody"}, deliveryRate())
	if len(r.Comparisons) != 2 {
		t.Fatalf("%d comparisons, want 2", len(r.Comparisons))
	}
	if c := r.Comparisons[0]; !slices.Equal(c.Rounds, []float64{.5, 1, 3}) || c.Median != 1 || c.Kind != Ratio {
		t.Errorf("ratios: %+v", c)
	}
	if c := r.Comparisons[1]; !slices.Equal(c.Rounds, []float64{5, 15, 55}) || c.Median != 15 || c.Kind != Difference {
		t.Errorf("differences: %+v", c)
	}
	sums := r.Summary()
	if len(sums) != 2 || sums[0].DeliveriesPerSecond != 20 || sums[0].Lost != 3 || sums[0].PeakBytes != 60 {
		t.Errorf("summary: %+v", sums)
	}
	if r.Lost() != 3 {
		t.Errorf("lost %d", r.Lost())
	}
}

// TestRequests reads what the load sends with net/http, and with the reader of the
// sinks.
func TestRequests(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3} {
		req := newRequest(n, 200)
		req.number(41)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(req.text)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		text := r.Header.Get("Ce-Id") + string(body)
		for id := 41; id < 41+n; id++ {
			if want := "0000000000" + string(rune('0'+id/10)) + string(rune('0'+id%10)); strings.Count(text, want) != 1 {
				t.Errorf("%s is not once in %s", want, text)
			}
		}
		if n == 1 && len(body) != 200 {
			t.Errorf("the data has %d bytes, want 200", len(body))
		}
	}
}

func TestMessages(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]message{
		string(newRequest(1, 100).text):                                            {event: 0, length: 100},
		"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\n\r\nabc":                    {event: -1, status: 202, length: 3},
		"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n":                     {event: -1, status: 204, close: true},
		"HTTP/1.1 207 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n": {event: -1, status: 207, chunked: true},
	} {
		r := bufio.NewReader(strings.NewReader(text + "rest"))
		var got message
		if err := got.read(r); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "rest" {
			t.Errorf("%q: %q is left", text, rest)
		}
	}
	var m message
	for _, text := range []string{"", "HTTP/1.1 200 OK\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "a\r\nb\r\n\r\n"} {
		if m.read(bufio.NewReader(strings.NewReader(text))) == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func TestLogTail(t *testing.T) {
	t.Parallel()
	tail := &logTail{ready: make(chan string, 1)}
	for _, part := range []string{`{"msg":"starting"}` + "\n", `{"msg":"sluice is ready","li`, `sten":"127.0.0.1:1"}` + "\nmore\n"} {
		_, _ = tail.Write([]byte(part))
	}
	if got := <-tail.ready; got != "127.0.0.1:1" {
		t.Errorf("listens on %q", got)
	}
	if !strings.HasSuffix(tail.String(), "\nmore") {
		t.Errorf("the tail is %q", tail)
	}
}

// TestWritesPerEvent reads two answers of /metrics: what is written to the log, to all
// streams, and to save what is settled are three figures.
func TestWritesPerEvent(t *testing.T) {
	t.Parallel()
	text := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
	defer server.Close()
	p := &process{name: "bus", address: strings.TrimPrefix(server.URL, "http://")}
	at := func(accepted, events, backlog, state int) snapshot {
		text = fmt.Sprintf("sluice_events_accepted_total{source=\"http\"} %d\nsluice_store_records_total{stream=\"EVENTS\"} %d\n"+
			"sluice_store_writes_total{stream=\"EVENTS\"} %d\nsluice_store_writes_total{stream=\"BACKLOG\"} %d\nsluice_store_writes_total{stream=\"STATE\"} %d\n",
			accepted, accepted, events, backlog, state)
		c, err := p.counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return snapshot{at: time.Duration(accepted), counters: c}
	}
	var m Measure
	m.between(at(100, 100, 1, 50), at(200, 110, 6, 100))
	if m.WritesPerEvent != 0.1 || m.AllWritesPerEvent != 0.15 || m.SavesPerEvent != 0.5 || m.RecordsPerPack != 10 {
		t.Errorf("%v writes, %v packs, %v saves per event and %v events per pack, want 0.1, 0.15, 0.5 and 10",
			m.WritesPerEvent, m.AllWritesPerEvent, m.SavesPerEvent, m.RecordsPerPack)
	}
	if sum := summarize([]Measure{m, m, m}); sum.SavesPerEvent != 0.5 {
		t.Errorf("in the summary %v saves per event", sum.SavesPerEvent)
	}
}
