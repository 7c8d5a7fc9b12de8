package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bus"
	"sluice/bus/jetstream"
)

// rawName is what a queue is compared with: the log alone. The events of a round are
// appended in packs as large as those that the bus made of them, one pack after the
// other, each fsynced, and read back and decoded meanwhile. There is no HTTP, no
// rule, no lease and no acknowledgement in it. A queue writes each message three
// times: when it is published, received and acknowledged.
const rawName = "raw log"

const (
	receiveMost = 10   // messages in one receive, and in one ack
	receiveWait = "1s" // of each long poll
	queueSink   = "s0" // the name of the queue
	depthEvery  = 10 * time.Millisecond
)

// queue publishes to a queue over HTTP, and has consumers receive and acknowledge
// its messages, also over HTTP.
func (r *runner) queue(ctx context.Context) error {
	load := fmt.Sprintf("queue, %d consumers", r.Consumers)
	for round := 1; round <= r.Rounds; round++ {
		if err := r.next(ctx, "%s, round %d of %d", load, round, r.Rounds); err != nil {
			return err
		}
		m, err := r.queueBus(ctx, Measure{Load: load, System: sluiceName, Round: round})
		if err != nil {
			return err
		}
		r.report.Measures = append(r.report.Measures, m)
		if err := r.next(ctx, "%s, round %d of %d", rawName, round, r.Rounds); err != nil {
			return err
		}
		raw, err := r.rawLog(ctx, Measure{Load: load, System: rawName, Round: round}, m)
		if err != nil {
			return err
		}
		r.report.Measures = append(r.report.Measures, raw)
	}
	r.report.compare(side{load, sluiceName}, side{load, rawName}, deliveryRate())
	return nil
}

func queueSteps(s *Settings) int { return 2 * s.Rounds }

// queueBus measures one bus with a queue. A message counts as delivered when its
// acknowledgement was answered; its latency ends when a consumer has received it.
func (r *runner) queueBus(ctx context.Context, m Measure) (Measure, error) {
	books := newTally(1, r.Outstanding)
	f, err := newFarm(books, 1)
	if err != nil {
		return m, err
	}
	defer f.close()
	b, err := r.startBus(ctx, busOf{load: m.Load, farm: f, kind: "queue: {visibility: 1m}"})
	if err != nil {
		return m, err
	}
	defer b.stop()
	q := &consumers{base: "http://" + b.address + "/api/v1/queues/" + queueSink, sink: f.sinks[0]}
	stop := q.begin(ctx, r.Consumers)
	t := trial{
		server: b.process, bus: true, farm: f, warmup: r.Warmup, during: r.Duration,
		load: &load{connections: r.Connections, size: r.Size, tally: books},
	}
	m, err = t.run(ctx, m)
	stop()
	m.Depth = q.depth()
	if fault := q.fault.Load(); fault != nil && m.Fault == "" {
		m.Fault = *fault
	}
	return m, err
}

// consumers are those of a queue.
type consumers struct {
	base     string
	sink     *sink
	received atomic.Int64
	depths   []float64
	fault    atomic.Pointer[string]
}

// begin starts n consumers; stop ends them.
func (q *consumers) begin(ctx context.Context, n int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}, Timeout: patience}
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				if err := q.consume(ctx, client); err != nil && ctx.Err() == nil {
					text := err.Error()
					q.fault.CompareAndSwap(nil, &text)
					pause(ctx, redial)
				}
			}
		})
	}
	all.Go(func() { q.watch(ctx) })
	return func() {
		cancel()
		all.Wait()
		client.CloseIdleConnections()
	}
}

// watch looks at how many messages wait.
func (q *consumers) watch(ctx context.Context) {
	books := q.sink.farm.tally
	for ctx.Err() == nil {
		if books.recording.Load() {
			q.depths = append(q.depths, float64(max(0, books.accepted.Load()-q.received.Load())))
		}
		pause(ctx, depthEvery)
	}
}

func (q *consumers) depth() float64 { return median(q.depths) }

type receivedMessages struct {
	Messages []struct {
		Receipt string
		Event   struct{ ID string }
	}
}

// consume receives messages and acknowledges them.
func (q *consumers) consume(ctx context.Context, client *http.Client) error {
	var got receivedMessages
	if err := q.post(ctx, client, "/receive", map[string]any{"max": receiveMost, "wait": receiveWait}, &got); err != nil || len(got.Messages) == 0 {
		return err
	}
	books := q.sink.farm.tally
	ids, receipts := make([]int64, len(got.Messages)), make([]string, len(got.Messages))
	q.received.Add(int64(len(ids)))
	for i, m := range got.Messages {
		id, err := strconv.ParseInt(m.Event.ID, 10, 64)
		if err != nil {
			return fmt.Errorf("a message with the id %q", m.Event.ID)
		}
		ids[i], receipts[i] = id, m.Receipt
		if c, n := books.at(id); c != nil && books.recording.Load() {
			q.sink.ages.record(books.now() - time.Duration(c.sent[n].Load()))
		}
	}
	var done struct{ Done int }
	// What was received is acknowledged even when the consumers are to end.
	if err := q.post(context.WithoutCancel(ctx), client, "/ack", map[string]any{"receipts": receipts}, &done); err != nil {
		return err
	}
	if done.Done != len(receipts) {
		return fmt.Errorf("%d of %d acknowledgements were taken", done.Done, len(receipts))
	}
	for _, id := range ids {
		books.arrive(0, id)
	}
	return nil
}

func (q *consumers) post(ctx context.Context, client *http.Client, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, q.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // nothing is lost: the answer was read
	text, err = io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, res.Status, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// rawLog appends and reads in this process what a queue has moved.
func (r *runner) rawLog(ctx context.Context, m, queue Measure) (Measure, error) {
	dir := filepath.Join(r.dir, "raw")
	defer os.RemoveAll(dir) //nolint:errcheck // it goes with the run's directory
	store, err := jetstream.Open(ctx, jetstream.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return m, err
	}
	defer store.Close() //nolint:errcheck // it was only measured
	event, err := rawEvent(r.Size)
	if err != nil {
		return m, err
	}
	pack := slices.Repeat([][]byte{event}, max(1, int(queue.RecordsPerPack+.5)))
	stream := store.Stream(bus.Events)
	reader, err := stream.Read(ctx, "", 1)
	if err != nil {
		return m, err
	}
	defer reader.Close() //nolint:errcheck // it was only read
	read := make(chan error, 1)
	go func() { read <- readRaw(ctx, reader) }()
	began, cpu, total := time.Now(), cpuTime(os.Getpid()), 0
	for ; time.Since(began) < r.Duration; total++ {
		if _, err := stream.Append(ctx, "", pack); err != nil {
			return m, err
		}
	}
	if _, err := stream.Append(ctx, rawEnd, pack[:1]); err != nil {
		return m, err
	}
	if err := <-read; err != nil {
		return m, err
	}
	m.rate(float64(total*len(pack)), time.Since(began), cpuTime(os.Getpid())-cpu)
	m.Accepted, m.Deliveries, m.DeliveriesPerSecond = m.Events, m.Events, m.EventsPerSecond
	m.RecordsPerPack = float64(len(pack))
	return m, nil
}

// rawEnd is the key of the pack after the last one.
const rawEnd = "end"

// readRaw reads and decodes everything up to the end.
func readRaw(ctx context.Context, reader bus.Reader) error {
	for {
		p, err := reader.Next(ctx)
		if err != nil || p.Key == rawEnd {
			return err
		}
		for _, rec := range p.Records {
			if _, err := bus.DecodeRecord(rec); err != nil {
				return err
			}
		}
	}
}

// rawEvent is the record of an event as the load publishes them.
func rawEvent(size int) ([]byte, error) {
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: noID}, {Name: "source", Value: "/bench"}, {Name: "type", Value: "bench.made"},
		{Name: "time", Value: "2026-01-02T15:04:05.678Z"}, {Name: "datacontenttype", Value: "application/json"},
	}, payload(size))
	if err != nil {
		return nil, err
	}
	return e.AppendRecord(nil), nil
}
