package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"sluice/bus"
	"sluice/sources/sourcetest"
)

const sqsSecret = "marker-secret-sqs"

// queueWriter sends numbered messages, and notes the ids that the server gave them.
type queueWriter struct {
	server *sourcetest.ElasticMQ
	queue  string
	mu     sync.Mutex
	ids    map[string]bool
	failed int // requests that were not answered: their messages may be there or not
}

// write sends n messages, ten in a request, and goes on when the server is away.
func (w *queueWriter) write(t *testing.T, n int) {
	for sent := 0; sent < n && t.Context().Err() == nil; {
		in := &sqs.SendMessageBatchInput{QueueUrl: &w.queue}
		for i := range min(10, n-sent) {
			body := fmt.Sprintf(`{"n": %d, "fill": %q}`, sent+i, strings.Repeat("x", 200))
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), MessageBody: &body})
		}
		out, err := w.server.SendMessageBatch(t.Context(), in, func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
		w.mu.Lock()
		if err != nil {
			w.failed++
		} else {
			sent += len(out.Successful)
			for i := range out.Successful {
				w.ids[aws.ToString(out.Successful[i].MessageId)] = true
			}
		}
		w.mu.Unlock()
		if err != nil {
			<-time.After(50 * time.Millisecond)
		}
	}
}

// known are the ids so far.
func (w *queueWriter) known() (ids []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.ids {
		ids = append(ids, id)
	}
	return ids
}

// TestProcessSQS kills sluice and the server while 5,000 messages go from one queue
// through sluice to a function and into another queue. Every message that the server
// accepted arrives at both, with its MessageId for an id.
func TestProcessSQS(t *testing.T) {
	t.Parallel()
	const total, rounds = 5000, 5
	server := sourcetest.NewElasticMQ(t)
	in, out := server.Queue(t, "in"), server.Queue(t, "out")
	f := newFunction(t, nil)
	const login = `credentials: {access_key: key, secret_key: "${env:SQS_SECRET}"}`
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf("sources:\n  jobs: {sqs: {queue_url: %q, wait: 1s, visibility: 5s, %s}}\nsinks:\n  out: {sqs: {queue_url: %q, %s}, batch: {max: 10}}\n",
		in, login, out, login)+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f, out"))
	p.env = append(p.env, "SQS_SECRET="+sqsSecret)
	p.start()
	w := &queueWriter{server: server, queue: in, ids: map[string]bool{}}
	for round := range rounds {
		var writing sync.WaitGroup
		writing.Go(func() { w.write(t, total/rounds) })
		goal := f.distinct() + total/rounds/4
		p.until(time.Minute, "messages come", func() bool { return f.distinct() >= goal })
		if round == 2 {
			server.Crash()
			server.Start(t)
		} else {
			p.kill()
			p.start()
		}
		writing.Wait()
	}
	missing := func() (n int) {
		for _, id := range w.known() {
			if f.times(id) == 0 {
				n++
			}
		}
		return n
	}
	p.until(2*time.Minute, "every message at the function", func() bool { return missing() == 0 && server.Left(t, in) == 0 })
	p.settled(time.Minute)
	got := drainQueue(t, server, out)
	noted := w.known()
	lost := 0
	for _, id := range noted {
		if got[id] == 0 {
			lost++
		}
	}
	copies := 0
	for _, n := range got {
		copies += n - 1
	}
	again := p.stored() - f.distinct()
	t.Logf("%d kill -9 of sluice, 1 of the server: %d messages accepted by the server, %d requests without an answer; missing at the function: %d, in the other queue: %d; %d ids in all; with the same id, %d were published again, %d came twice into the other queue",
		rounds-1, len(noted), w.failed, missing(), lost, f.distinct(), again, copies)
	if lost > 0 || len(noted) < total {
		t.Errorf("%d of %d messages are missing in the other queue", lost, len(noted))
	}
	// A kill repeats what was in hand. The messages of a request that was not answered
	// may be there under ids that nobody knows.
	if most := rounds * 200; again > most || f.distinct() > len(noted)+10*w.failed {
		t.Errorf("%d messages were published again, at most %d were expected; %d ids of %d messages", again, most, f.distinct(), len(noted))
	}
	p.stop()
	if strings.Contains(p.log.String(), sqsSecret) {
		t.Error("the log shows the secret key")
	}
}

// drainQueue takes every message out of a queue, and counts them by the id of the event.
func drainQueue(t *testing.T, server *sourcetest.ElasticMQ, queue string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for server.Left(t, queue) > 0 {
		received, err := server.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: 10, WaitTimeSeconds: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(received.Messages) == 0 {
			continue
		}
		done := &sqs.DeleteMessageBatchInput{QueueUrl: &queue}
		for i := range received.Messages {
			m := &received.Messages[i]
			e, err := bus.ParseJSON([]byte(aws.ToString(m.Body)))
			if err != nil {
				t.Fatalf("%v: %s", err, aws.ToString(m.Body))
			}
			got[e.ID()]++
			done.Entries = append(done.Entries, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle})
		}
		if _, err := server.DeleteMessageBatch(t.Context(), done); err != nil {
			t.Fatal(err)
		}
	}
	return got
}
