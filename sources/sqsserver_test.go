package sources_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// elasticSettings are those of a source of a real queue.
func elasticSettings(t *testing.T, queue string) *sources.SQS {
	t.Helper()
	u, err := value.ParseURL(queue)
	if err != nil {
		t.Fatal(err)
	}
	s := sources.NewSQS()
	s.QueueURL, s.Wait = u, value.Duration(time.Second)
	s.Credentials.AccessKey, s.Credentials.SecretKey = value.NewText("key"), value.NewSecret(sqsSecret)
	return s
}

// A real server: what is sent arrives once, its ids are the server's, the groups of a
// FIFO queue keep their order, and a server that crashed gives what it had.
func TestIntegrationSQS(t *testing.T) {
	t.Parallel()
	server := sourcetest.NewElasticMQ(t)
	t.Run("standard", func(t *testing.T) { testElasticStandard(t, server) })
	t.Run("fifo", func(t *testing.T) { testElasticFIFO(t, server) })
	t.Run("trouble", func(t *testing.T) { testElasticTrouble(t, server) })
	t.Run("crash", func(t *testing.T) { testElasticCrash(t, server) })
}

// sendMany sends n messages with a number for a body, and gives their ids by body.
func sendMany(t *testing.T, server *sourcetest.ElasticMQ, queue string, from, n int, change func(i int, e *types.SendMessageBatchRequestEntry)) map[string]string {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	ids := make(map[string]string, n)
	const step = 10
	lanes := make(chan int)
	for range 4 {
		wg.Go(func() {
			for start := range lanes {
				var entries []types.SendMessageBatchRequestEntry
				for i := start; i < min(start+step, from+n); i++ {
					e := types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: aws.String(strconv.Itoa(i))}
					if change != nil {
						change(i, &e)
					}
					entries = append(entries, e)
				}
				out, err := server.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &queue, Entries: entries})
				if err != nil || len(out.Failed) > 0 {
					t.Errorf("%v %+v", err, out)
					return
				}
				mu.Lock()
				for _, s := range out.Successful {
					ids[aws.ToString(s.Id)] = aws.ToString(s.MessageId)
				}
				mu.Unlock()
			}
		})
	}
	for start := from; start < from+n; start += step {
		lanes <- start
	}
	close(lanes)
	wg.Wait()
	return ids
}

func testElasticStandard(t *testing.T, server *sourcetest.ElasticMQ) {
	const n = 1000
	queue := server.Queue(t, "standard")
	ids := sendMany(t, server, queue, 0, n, func(i int, e *types.SendMessageBatchRequestEntry) {
		e.MessageAttributes = map[string]types.MessageAttributeValue{
			"number": {DataType: aws.String("Number"), StringValue: aws.String(strconv.Itoa(i))},
			"bytes":  {DataType: aws.String("Binary"), BinaryValue: []byte{0, 1}},
		}
	})
	pub, host := &sourcetest.Publisher{}, sourcetest.NewHost(t)
	src := host.Open(t, elasticSettings(t, queue))
	stop := runSQS(t, src, pub)
	eventually(t, says("all are published and deleted"), func() bool { return len(pub.Stored()) >= n && server.Left(t, queue) == 0 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for _, e := range pub.Stored() {
		body := string(e.Data())
		if e.ID() != ids[body] || e.Get("number") != body || e.Source() != "sqs://"+strings.TrimPrefix(queue, "http://") {
			t.Fatalf("%v of the message %s", e.Attrs(), ids[body])
		}
		seen[body] = true
	}
	t.Logf("%d messages: %d different ones published, %d twice", n, len(seen), len(pub.Stored())-len(seen))
	if len(seen) != n || len(pub.Stored()) != n {
		t.Error("some are missing or came twice")
	}
}

func testElasticFIFO(t *testing.T, server *sourcetest.ElasticMQ) {
	const groups, each = 8, 50
	queue := server.Queue(t, "ordered.fifo")
	for i := range groups * each {
		body := fmt.Sprintf("%d/%d", i%groups, i/groups)
		_, err := server.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &queue, MessageBody: &body, MessageDeduplicationId: &body, MessageGroupId: aws.String("g" + strconv.Itoa(i%groups)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	pub := &sourcetest.Publisher{}
	stop := runSQS(t, sourcetest.NewHost(t).Open(t, elasticSettings(t, queue)), pub)
	eventually(t, says("all are published and deleted"), func() bool { return len(pub.Stored()) >= groups*each && server.Left(t, queue) == 0 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	next := map[string]int{}
	for _, e := range pub.Stored() {
		group, n, _ := strings.Cut(string(e.Data()), "/")
		if n != strconv.Itoa(next[group]) || e.Get("partitionkey") != "g"+group || e.Get("sequence") == "" {
			t.Fatalf("%s came where %d should: %v", e.Data(), next[group], e.Attrs())
		}
		next[group]++
	}
	t.Logf("%d messages of %d groups, each group in its order", len(pub.Stored()), len(next))
}

func testElasticTrouble(t *testing.T, server *sourcetest.ElasticMQ) {
	src := sourcetest.NewHost(t).Open(t, elasticSettings(t, server.URL+"/000000000000/nothing"))
	if err := src.Run(t.Context(), &sourcetest.Publisher{}); err == nil || !strings.Contains(err.Error(), "there is no such queue") {
		t.Errorf("of a queue that is not there: %v", err)
	}
}

func testElasticCrash(t *testing.T, server *sourcetest.ElasticMQ) {
	const n = 1000
	queue := server.Queue(t, "crash")
	sendMany(t, server, queue, 0, n, nil)
	host := sourcetest.NewHost(t)
	half, once := make(chan struct{}), sync.Once{}
	pub := &sourcetest.Publisher{}
	pub.Before = func(context.Context) error {
		if len(pub.Stored()) > n/2 {
			once.Do(func() { close(half) })
		}
		return nil
	}
	s := elasticSettings(t, queue)
	s.Visibility = value.Duration(5 * time.Second)
	stop := runSQS(t, host.Open(t, s), pub)
	<-half
	server.Crash()
	eventually(t, says("the crash is reported"), func() bool {
		return host.Reported() != nil && strings.Contains(host.Reported().Error(), "the server does not answer")
	})
	server.Start(t)
	seen := map[string]map[string]int{}
	eventually(t, says("every message is published and deleted"), func() bool {
		clear(seen)
		for _, e := range pub.Stored() {
			if seen[string(e.Data())] == nil {
				seen[string(e.Data())] = map[string]int{}
			}
			seen[string(e.Data())][e.ID()]++
		}
		return len(seen) == n && server.Left(t, queue) == 0
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	for body, ids := range seen {
		if len(ids) != 1 {
			t.Errorf("%s came with the ids %v", body, ids)
		}
	}
	t.Logf("%d messages over a kill -9 of the server: none missing, %d published again with the same id", n, len(pub.Stored())-n)
}
