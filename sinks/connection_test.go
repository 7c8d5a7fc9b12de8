package sinks_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/config/kafka"
	"sluice/config/nats/natstest"
	"sluice/config/value"
	"sluice/sinks"
)

// What a connection should be after a delivery.
const (
	idle = "idle"
	up   = "connected"
	down = "disconnected"
)

func connectionOf(t *testing.T, s sinks.Sink) string {
	t.Helper()
	c, ok := s.(sinks.Connector)
	if !ok {
		t.Fatal("the sink cannot tell of its connection")
	}
	switch now := c.Connection(); {
	case now.Since.IsZero():
		return idle
	case now.Up && now.Err == nil:
		return up
	case !now.Up && now.Err != nil:
		return down
	default:
		t.Fatalf("a connection that is neither up nor down: %+v", now)
		return ""
	}
}

// A sink that holds connections tells whether its far side is reached, whatever that
// answers.
func TestConnections(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		open func(*testing.T) sinks.Settings
		want string
	}{
		"kafka": {func(t *testing.T) sinks.Settings { return kafkaSettings(newKafkaFar(t)) }, up},
		"kafka, nobody there": {func(*testing.T) sinks.Settings {
			s := sinks.NewKafka()
			s.Brokers, s.Topic = []string{"127.0.0.1:1"}, orders
			return s
		}, down},
		"kafka, wrong login":  {kafkaWrongLogin, down},
		"kafka, no replicas":  {func(t *testing.T) sinks.Settings { return kafkaFault(t, kerr.NotEnoughReplicas) }, up},
		"kafka, not allowed":  {func(t *testing.T) sinks.Settings { return kafkaFault(t, kerr.TopicAuthorizationFailed) }, up},
		"nats":                {func(t *testing.T) sinks.Settings { return natsCore(natstest.Start(t).URL) }, up},
		"nats, nobody there":  {func(*testing.T) sinks.Settings { return natsCore("nats://127.0.0.1:1") }, down},
		"nats, wrong login":   {natsWrongLogin, down},
		"sqs":                 {func(t *testing.T) sinks.Settings { return sqsSettings(t, newSQSFar(t).URL+"/1/q") }, up},
		"sqs, nobody there":   {func(t *testing.T) sinks.Settings { return sqsSettings(t, "http://127.0.0.1:1/1/q") }, down},
		"sqs, wrong login":    {func(t *testing.T) sinks.Settings { return sqsFault(t, 403, "InvalidClientTokenId") }, up},
		"sqs, unavailable":    {func(t *testing.T) sinks.Settings { return sqsFault(t, 503, "ServiceUnavailable") }, up},
		"sqs, one message":    {sqsEntryFault, up},
		"sluice":              {func(t *testing.T) sinks.Settings { return sluiceAnswering(t, 202) }, up},
		"sluice, wrong token": {func(t *testing.T) sinks.Settings { return sluiceAnswering(t, 401) }, up},
		"sluice, nobody there": {func(t *testing.T) sinks.Settings {
			s := sinks.NewSluice()
			s.URL = parse(t, "http://127.0.0.1:1")
			return s
		}, down},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := open(t, c.open(t))
			if got := connectionOf(t, sink); got != idle {
				t.Errorf("before the first delivery: %s", got)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			err := sink.Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Attempt: 1})
			if got := connectionOf(t, sink); got != c.want {
				t.Errorf("after a delivery with the error %v: %s, want %s", err, got, c.want)
			}
		})
	}
}

func kafkaWrongLogin(t *testing.T) sinks.Settings {
	s := kafkaSettings(newKafkaFar(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", password)))
	s.SASL = &kafka.SASL{Mechanism: "scram-sha-256", User: value.NewText("u"), Password: value.NewSecret("wrong" + password)}
	return s
}

func kafkaFault(t *testing.T, err *kerr.Error) sinks.Settings {
	far := newKafkaFar(t)
	far.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1})
	return kafkaSettings(far)
}

func natsCore(url string) sinks.Settings {
	s := natsSettings(url)
	s.JetStream = false
	return s
}

func natsWrongLogin(t *testing.T) sinks.Settings {
	return natsCore(natstest.Start(t, func(o *server.Options) { o.Username, o.Password = "u", password }).URL)
}

func sqsFault(t *testing.T, status int, code string) sinks.Settings {
	far := newSQSFar(t)
	far.fault = func() (int, string) { return status, code }
	return sqsSettings(t, far.URL+"/1/q")
}

func sqsEntryFault(t *testing.T) sinks.Settings {
	far := newSQSFar(t)
	far.entryFault = func(string) (string, bool) { return "InternalError", false }
	return sqsSettings(t, far.URL+"/1/q")
}

func sluiceAnswering(t *testing.T, status int) sinks.Settings {
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(far.Close)
	s := sinks.NewSluice()
	s.URL = parse(t, far.URL)
	return s
}

// A connection that is lost is seen before the next delivery, and so is its return.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	s := natstest.Start(t)
	sink := open(t, natsCore(s.URL))
	if err := sink.Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, `1`), ID: "d", Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	become := func(want string) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for connectionOf(t, sink) != want {
			select {
			case <-limit:
				t.Fatalf("it is %s, want %s", connectionOf(t, sink), want)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	become(up)
	s.Stop()
	become(down)
	s.Resume(t)
	become(up)
}
