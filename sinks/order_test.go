package sinks_test

import (
	"fmt"
	"testing"

	"sluice/bus"
	"sluice/sinks"
)

// What the bus keeps in order, a topic and a FIFO queue keep in order too: without a
// key of their own they have that of order_by, also for what has none.
func TestOrderIsKeptOnTheFarSide(t *testing.T) {
	t.Parallel()
	attr := func(name, value string) bus.Attr { return bus.Attr{Name: name, Value: value} }
	partition, subject := attr("partitionkey", "p"), attr("subject", "s")
	const noGroup = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of no text
	for name, c := range map[string]struct {
		written, orderBy string
		event            bus.Event
		key, group       string
	}{
		"order_by":             {"", "subject", kafkaEvent(t, `{}`, partition, subject), `"s"`, "s"},
		"order_by in the data": {"", "data.a.b", kafkaEvent(t, `{"a":{"b":7}}`, partition), `"7"`, "7"},
		"order_by, no key":     {"", "subject", kafkaEvent(t, `{}`, partition), `""`, noGroup},
		"written":              {"type", "subject", kafkaEvent(t, `{}`, partition, subject), `"made"`, "made"},
		"written, no key":      {"data.x", "subject", kafkaEvent(t, `{}`, partition, subject), "none", "/s"},
		"no order":             {"", "", kafkaEvent(t, `{}`, partition, subject), `"p"`, "p"},
		"no order, no key":     {"", "", kafkaEvent(t, `{}`, subject), "none", "/s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, d := sinks.Env{OrderBy: c.orderBy}, sinks.Delivery{Event: c.event, ID: "d", Attempt: 1}
			topic := newKafkaFar(t)
			k := kafkaSettings(topic)
			k.Key = c.written
			if err := openIn(t, k, env).Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			key := "none"
			if r := <-topic.got; r.key != nil {
				key = fmt.Sprintf("%q", r.key)
			}
			queue := newSQSFar(t)
			q := sqsSettings(t, queue.URL+"/1/q.fifo")
			q.Group = c.written
			if err := openIn(t, q, env).Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			got, _ := queue.take()
			if key != c.key || len(got) != 1 || got[0].MessageGroupID != c.group {
				t.Errorf("the key is %s, want %s; the messages %+v, want the group %s", key, c.key, got, c.group)
			}
		})
	}
}
