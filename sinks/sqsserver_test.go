package sinks_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"sluice/bus"
	"sluice/sinks"
	"sluice/sinks/sinktest"
	"sluice/sources/sourcetest"
)

// TestIntegrationSQSSink sends to a real server, and reads what it has with the SDK.
func TestIntegrationSQSSink(t *testing.T) {
	t.Parallel()
	server := sourcetest.NewElasticMQ(t)
	t.Run("events", func(t *testing.T) { testElasticEvents(t, server) })
	t.Run("fifo", func(t *testing.T) { testElasticOrder(t, server) })
	t.Run("too large", func(t *testing.T) { testElasticTooLarge(t, server) })
	t.Run("no queue", func(t *testing.T) {
		err := open(t, sqsSettings(t, server.URL+"/000000000000/nothing")).Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), Attempt: 1})
		var e *sinks.Error
		if !errors.As(err, &e) || e.Status != 404 || !strings.Contains(err.Error(), "there is no such queue") {
			t.Errorf("%v (%+v)", err, e)
		}
	})
	t.Run("crash", func(t *testing.T) {
		queue := server.Queue(t, "crash")
		sink := open(t, sqsSettings(t, queue))
		server.Crash()
		if err := sink.Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Attempt: 1}); err == nil || !strings.Contains(err.Error(), "the server does not answer") {
			t.Errorf("of a server that is gone: %v", err)
		}
		server.Start(t)
		if err := sink.Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Attempt: 2}); err != nil || server.Left(t, queue) != 1 {
			t.Errorf("once it is back: %v", err)
		}
	})
}

// drain takes every message out of a queue.
func drain(t *testing.T, server *sourcetest.ElasticMQ, queue string) (all []types.Message) {
	t.Helper()
	for server.Left(t, queue) > 0 {
		out, err := server.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
			QueueUrl: &queue, MaxNumberOfMessages: 10, WaitTimeSeconds: 1, MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range out.Messages {
			all = append(all, out.Messages[i])
			if _, err := server.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: out.Messages[i].ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

// Every event that fits arrives byte for byte.
func testElasticEvents(t *testing.T, server *sourcetest.ElasticMQ) {
	queue := server.Queue(t, "events")
	sink := open(t, sqsSettings(t, queue)).(sinks.BatchSink)
	events := sinktest.Events(t)
	delete(events, "large")
	var ds []sinks.Delivery
	for _, name := range slices.Sorted(maps.Keys(events)) {
		ds = append(ds, sinks.Delivery{Event: events[name], ID: name, Rule: "r", Sink: "s", Attempt: 1})
	}
	if failed, err := sink.DeliverBatch(t.Context(), ds); err != nil || slices.ContainsFunc(failed, func(err error) bool { return err != nil }) {
		t.Fatal(err, failed)
	}
	messages := drain(t, server, queue)
	if len(messages) != len(ds) {
		t.Errorf("%d messages, want %d", len(messages), len(ds))
	}
	for _, m := range messages {
		e, err := bus.ParseJSON([]byte(aws.ToString(m.Body)))
		if err == nil {
			err = sinktest.Same(events[e.ID()], e, true)
		}
		if err != nil || aws.ToString(m.MessageAttributes["sluice-delivery-id"].StringValue) != e.ID() {
			t.Errorf("%s: %v; attributes %v", e.ID(), err, m.MessageAttributes)
		}
	}
}

// The groups of a FIFO queue keep their order, and an attempt that is repeated is
// one message.
func testElasticOrder(t *testing.T, server *sourcetest.ElasticMQ) {
	queue := server.Queue(t, "order.fifo")
	sink := open(t, sqsSettings(t, queue)).(sinks.BatchSink)
	var ds []sinks.Delivery
	for i := range 60 {
		ds = append(ds, sinks.Delivery{Event: kafkaEvent(t, strconv.Itoa(i), bus.Attr{Name: "partitionkey", Value: fmt.Sprint("k", i%3)}), ID: fmt.Sprint("d-", i), Attempt: 1})
	}
	for range 2 {
		if failed, err := sink.DeliverBatch(t.Context(), ds); err != nil || slices.ContainsFunc(failed, func(err error) bool { return err != nil }) {
			t.Fatal(err, failed)
		}
	}
	next, messages := map[string]int{"k0": 0, "k1": 1, "k2": 2}, drain(t, server, queue)
	if len(messages) != 60 {
		t.Errorf("%d messages of 60 that were sent twice", len(messages))
	}
	for _, m := range messages {
		e, err := bus.ParseJSON([]byte(aws.ToString(m.Body)))
		group := m.Attributes["MessageGroupId"]
		if err != nil || group != e.Get("partitionkey") || string(e.Data()) != strconv.Itoa(next[group]) {
			t.Fatalf("%s in the group %s, want %d: %v", e.Data(), group, next[group], err)
		}
		next[group] += 3
	}
	t.Log("60 messages of 3 groups sent twice: each arrived once and in order")
}

func testElasticTooLarge(t *testing.T, server *sourcetest.ElasticMQ) {
	s := sqsSettings(t, server.Queue(t, "large"))
	s.MaxBytes = 8 << 20
	for name, size := range map[string]int{"for the server": 3 << 20, "for us": 9 << 20} {
		err := open(t, s).Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `"`+strings.Repeat("x", size)+`"`), Attempt: 1})
		var e *sinks.Error
		if !errors.As(err, &e) || !e.Permanent {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
}
