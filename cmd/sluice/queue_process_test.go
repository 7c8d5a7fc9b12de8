package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// queueUsers are the publishers and consumers of a queue over HTTP, and what they
// know of each message.
type queueUsers struct {
	p          *program
	client     *http.Client
	visibility time.Duration
	dies       int // of so many consumers with messages in hand one dies; 0 for none
	processes  int // so many more consumers are processes that are killed
	cuts       int // so many receives lose their connection

	mu    sync.Mutex
	all   map[string]*queued
	tally queueTally
}

// queued is what is known of one message.
type queued struct {
	accepted, acked, unsure bool
	until                   time.Time // somebody has it at least so long
}

// queueTally is what the test prints.
type queueTally struct {
	accepted, received, again, acked, unanswered, late, died int
	killed, cut, cutWaiting                                  int
	afterAck, twoHands, refusedInTime, strangers, ackedTwice int // none of these may happen
}

func newQueueUsers(p *program, consumers int, visibility time.Duration, dies int) *queueUsers {
	return &queueUsers{
		p: p, visibility: visibility, dies: dies, all: map[string]*queued{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: consumers + 8}, Timeout: 30 * time.Second},
	}
}

// poster is a way to send a request: by a connection of the test, or by a process.
type poster func(path string, body, into any) error

func (q *queueUsers) post(path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodPost, q.p.base+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if path == "/events" {
		req.Header.Set("Content-Type", "application/cloudevents-batch+json")
	}
	resp, err := q.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("POST %s: %s: %s", path, resp.Status, text)
	}
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// publish publishes messages in batches, again until each is accepted.
func (q *queueUsers) publish(ctx context.Context, prefix string, n int) {
	const batch = 100
	for i := 0; i < n && ctx.Err() == nil; {
		var events []map[string]any
		for j := range min(batch, n-i) {
			events = append(events, map[string]any{
				"specversion": "1.0", "id": fmt.Sprintf("%s.%d", prefix, i+j), "source": "/test", "type": "made", "datacontenttype": "application/json",
				"data": map[string]any{"n": i + j, "fill": "0123456789012345678901234567890123456789"},
			})
		}
		q.mu.Lock()
		for _, e := range events {
			q.all[e["id"].(string)] = &queued{unsure: true} // it may come before the answer
		}
		q.mu.Unlock()
		err := q.post("/events", events, nil)
		q.mu.Lock()
		for _, e := range events {
			if err == nil {
				m := q.all[e["id"].(string)]
				m.accepted, m.unsure = true, false
				q.tally.accepted++
			}
		}
		q.mu.Unlock()
		if err != nil {
			prefix += "+" // what may be stored already keeps its id to itself
			<-time.After(20 * time.Millisecond)
			continue
		}
		i += len(events)
	}
}

type queueAnswer struct {
	Messages []struct {
		Receipt  string
		Receives int
		Event    struct{ ID string }
	}
}

// consume receives and acknowledges ten messages at a time until ctx ends.
func (q *queueUsers) consume(ctx context.Context) {
	for ctx.Err() == nil {
		got := q.receive(q.post)
		if len(got.Messages) == 0 {
			continue
		}
		if q.dies > 0 && rand.IntN(q.dies) == 0 {
			q.mu.Lock()
			q.tally.died++
			q.mu.Unlock()
			continue // and another consumer takes its place
		}
		q.ack(q.post, got)
	}
}

// receive receives by a way to post, and checks what comes.
func (q *queueUsers) receive(post poster) (got queueAnswer) {
	asked := time.Now()
	err := post("/api/v1/queues/q/receive", map[string]any{"max": 10, "wait": "500ms", "visibility": q.visibility.String()}, &got)
	if err != nil {
		<-time.After(20 * time.Millisecond) // it is being started again
		return queueAnswer{}
	}
	q.received(got, asked)
	return got
}

// received checks that each message may be received now. A lease lasts from when the
// receive was asked for at least.
func (q *queueUsers) received(got queueAnswer, asked time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for _, g := range got.Messages {
		m := q.all[g.Event.ID]
		q.tally.received++
		switch {
		case m == nil:
			q.tally.strangers++
			continue
		case m.acked:
			q.tally.afterAck++
			q.p.t.Errorf("%s was received after its ack was answered", g.Event.ID)
		case now.Before(m.until):
			q.tally.twoHands++
			q.p.t.Errorf("%s was received while somebody had it for %v more", g.Event.ID, m.until.Sub(now))
		}
		if g.Receives > 1 {
			q.tally.again++
		}
		m.until = asked.Add(q.visibility)
	}
}

// ack acknowledges messages: each once, as the bus answers it.
func (q *queueUsers) ack(post poster, got queueAnswer) {
	ids, receipts := map[string]string{}, []string{}
	for _, m := range got.Messages {
		ids[m.Receipt] = m.Event.ID
		receipts = append(receipts, m.Receipt)
	}
	var answer struct {
		Done   int
		Failed []struct{ Receipt, Error string }
	}
	err := post("/api/v1/queues/q/ack", map[string]any{"receipts": receipts}, &answer)
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range answer.Failed {
		m := q.all[ids[f.Receipt]]
		if time.Now().Before(m.until) {
			q.tally.refusedInTime++
			q.p.t.Errorf("the ack of %s was refused while its lease held: %s", ids[f.Receipt], f.Error)
		}
		q.tally.late++
		delete(ids, f.Receipt)
	}
	if err == nil && answer.Done != len(ids) {
		q.p.t.Errorf("%d of %d acks were done, and %d failed", answer.Done, len(receipts), len(answer.Failed))
	}
	for _, id := range ids {
		m := q.all[id]
		if err != nil { // nobody knows whether it was done
			m.unsure, m.until = true, time.Time{}
			q.tally.unanswered++
			continue
		}
		if m.acked {
			q.tally.ackedTwice++
			q.p.t.Errorf("%s was acknowledged twice", id)
		}
		m.acked, m.unsure, m.until = true, false, time.Time{}
		q.tally.acked++
	}
}

func (q *queueUsers) acked() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.tally.acked
}

// run publishes n messages, consumes them, kills the program so often meanwhile, and
// checks what has come of each.
func (q *queueUsers) run(n, consumers, kills int) {
	t := q.p.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	var users, publishers sync.WaitGroup
	for i := range 2 {
		publishers.Go(func() { q.publish(ctx, fmt.Sprint("p", i), n/2) })
	}
	for range consumers {
		users.Go(func() { q.consume(ctx) })
	}
	for range q.processes {
		users.Go(func() { q.consumeAndDie(ctx) })
	}
	users.Go(func() { q.cut(ctx, q.cuts) })
	for i := range kills {
		q.p.until(5*time.Minute, "enough is acknowledged for the next kill", func() bool { return q.acked() >= n*(i+1)/(kills+1) })
		q.p.kill()
		q.client.CloseIdleConnections()
		q.p.start()
	}
	var published atomic.Bool
	users.Go(func() {
		publishers.Wait()
		published.Store(true)
	})
	q.p.until(5*time.Minute, "all is acknowledged", func() bool {
		if !published.Load() {
			return false
		}
		s := q.p.status()
		return s.Unsettled == 0 && s.Balance.Open == 0
	})
	took := time.Since(began)
	cancel()
	users.Wait()
	q.p.settled(10 * time.Second)
	q.complete(took, consumers, kills)
}

// complete checks what has come of each message: it was acknowledged once, or nobody
// knows, because who asked for that got no answer.

func (q *queueUsers) complete(took time.Duration, consumers, kills int) {
	t := q.p.t
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	lost, unsure, acked := 0, 0, 0
	for id, m := range q.all {
		switch {
		case m.acked:
			acked++
		case !m.accepted:
		case m.unsure:
			unsure++
		default:
			if lost++; lost < 10 {
				t.Errorf("%s was accepted and is lost", id)
			}
		}
	}
	c := q.tally
	t.Logf("%d messages, %d consumers, %d kills of the bus, %v (%.0f/s): %d accepted, %d received (%d of them again), %d acknowledged, %d acks without an answer, "+
		"%d too late, %d deaths of consumers, %d of them killed, %d connections cut, %d of them while they waited; %d lost, %d received after their ack, %d in two hands, %d acknowledged twice",
		len(q.all), consumers, kills, took.Round(time.Millisecond), float64(c.acked)/took.Seconds(), c.accepted, c.received, c.again, c.acked, c.unanswered,
		c.late, c.died+c.killed, c.killed, c.cut, c.cutWaiting, lost, c.afterAck, c.twoHands, c.ackedTwice)
	if c.strangers > 0 {
		t.Errorf("%d messages were received that nobody published", c.strangers)
	}
	if c.acked != acked || unsure > c.unanswered {
		t.Errorf("%d acks were done of %d messages, and %d perhaps, after %d acks without an answer", c.acked, acked, unsure, c.unanswered)
	}
	if kills == 0 && q.processes == 0 && c.acked != c.accepted {
		t.Errorf("%d were acknowledged of %d", c.acked, c.accepted)
	}
	if ended := q.ended(); kills == 0 && ended != c.accepted { // else it has counted since the last kill
		t.Errorf("the bus has counted %d acks of %d messages", ended, c.accepted)
	}
}

const oneQueue = "sinks:\n  q: {queue: {visibility: 2s, max_receives: 0}}\nrules:\n  all: {match: {type: [made]}, to: [q]}\n"

// TestProcessQueueKill has consumers die with messages in hand and lose their
// connections, and the program killed again and again: an ack that was answered is
// never received again, and nothing is lost.
func TestProcessQueueKill(t *testing.T) {
	t.Parallel()
	p := newProgram(t, t.TempDir(), "", oneQueue)
	p.start()
	q := newQueueUsers(p, 8, 2*time.Second, 100)
	q.processes, q.cuts = 2, scale(30, 300)
	q.run(scale(6000, 100_000), 8, scale(2, 5))
	p.stop()
}

// TestProcessQueueDeaths does that to the consumers alone: the bus, which counts what
// was acknowledged, has each message once.
func TestProcessQueueDeaths(t *testing.T) {
	t.Parallel()
	p := newProgram(t, t.TempDir(), "", oneQueue)
	p.start()
	q := newQueueUsers(p, 2, time.Second, 0)
	q.processes, q.cuts = 3, scale(20, 100)
	q.run(scale(1000, 10_000), 2, 0)
	p.stop()
}

// TestProcessQueueShared has fifty consumers on one queue: while its lease holds no
// message is in two hands.
func TestProcessQueueShared(t *testing.T) {
	t.Parallel()
	p := newProgram(t, t.TempDir(), "", oneQueue)
	p.start()
	newQueueUsers(p, 50, time.Minute, 0).run(scale(5000, 50_000), 50, 0)
	p.stop()
}

// TestProcessQueueMany has a consumer wait at each of many queues: that costs next to
// nothing while nothing comes, and a message is there at once.
func TestProcessQueueMany(t *testing.T) {
	t.Parallel()
	queues, messages := scale(50, 1000), scale(50, 1000)
	var sinks, rules strings.Builder
	for i := range queues {
		fmt.Fprintf(&sinks, "  q%d: {queue: {visibility: 1m}}\n", i)
		fmt.Fprintf(&rules, "  r%d: {match: {type: [t%d]}, to: [q%d]}\n", i, i, i)
	}
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinks.String()+"rules:\n"+rules.String())
	p.start()
	alone := p.memory()
	q := newQueueUsers(p, queues, time.Minute, 0)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ages := make(chan time.Duration, messages)
	var all sync.WaitGroup
	for i := range queues {
		path := fmt.Sprintf("/api/v1/queues/q%d/", i)
		all.Go(func() {
			for ctx.Err() == nil {
				var got queueAnswer
				if err := q.post(path+"receive", map[string]any{"max": 10, "wait": "20s"}, &got); err != nil {
					continue
				}
				for _, m := range got.Messages {
					var sent int64
					_, _ = fmt.Sscan(m.Event.ID, &sent)
					ages <- time.Since(time.Unix(0, sent))
					if err := q.post(path+"ack", map[string]any{"receipts": []string{m.Receipt}}, nil); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	p.until(30*time.Second, "all wait", func() bool { return p.metrics()["go_goroutines"] > float64(2*queues) })
	waiting, before := p.memory(), p.cpu()
	idle := time.Duration(scale(1, 10)) * time.Second
	<-time.After(idle)
	share := float64(p.cpu()-before) / float64(idle)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for range messages {
		<-ticker.C
		event := map[string]any{"specversion": "1.0", "id": fmt.Sprint(time.Now().UnixNano()), "source": "/test", "type": fmt.Sprint("t", rand.IntN(queues))}
		if err := q.post("/events", []any{event}, nil); err != nil {
			t.Fatal(err)
		}
	}
	p.until(30*time.Second, "every message is there", func() bool { return len(ages) == messages })
	cancel()
	var took []time.Duration
	for range messages {
		took = append(took, <-ages)
	}
	slices.Sort(took)
	t.Logf("%d queues with a consumer waiting at each: %d MB alone, %d MB with them, %.1f %% of a CPU while nothing comes; from publish to receive p50 %v, p99 %v",
		queues, alone>>20, waiting>>20, 100*share, took[len(took)/2], took[len(took)*99/100])
	if share > 0.2 {
		t.Errorf("consumers that wait cost %.0f %% of a CPU", 100*share)
	}
	p.settled(30 * time.Second)
	p.kill() // the consumers would wait on
	all.Wait()
}

// TestProcessQueueDeep lets messages pile up in a queue: they are on disk, and cost
// little memory. Then it purges them.
func TestProcessQueueDeep(t *testing.T) {
	t.Parallel()
	n := scale(10_000, 1_000_000)
	p := newProgram(t, t.TempDir(), "", oneQueue)
	p.start()
	alone := p.memory()
	q := newQueueUsers(p, 4, time.Minute, 0)
	began := time.Now()
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() { q.publish(t.Context(), fmt.Sprint("p", i), n/4) })
	}
	all.Wait()
	p.until(time.Minute, "all is in the backlog", func() bool { return p.status().Unsettled == 0 })
	took, full := time.Since(began), p.memory()
	p.stop()
	began = time.Now()
	p.start()
	ready, again := time.Since(began), p.memory()
	began = time.Now()
	q.client.Timeout = 5 * time.Minute
	var answer struct{ Discarded int }
	if err := q.post("/api/v1/queues/q/purge", map[string]any{}, &answer); err != nil || answer.Discarded != n {
		t.Fatalf("purged %d of %d: %v", answer.Discarded, n, err)
	}
	t.Logf("%d messages wait: published in %v, %d MB alone, %d MB with them, %d MB after a restart, which took %v; purged in %v",
		n, took.Round(time.Millisecond), alone>>20, full>>20, again>>20, ready.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	p.settled(30 * time.Second)
	p.stop()
}

// cpu is what the program has used so far.
func (p *program) cpu() time.Duration {
	return time.Duration(p.metrics()["process_cpu_seconds_total"] * float64(time.Second))
}
