package sinks_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"sluice/bus"
	"sluice/config/kafka"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

const orders = "orders"

// kafkaRecord is a record as a broker got it.
type kafkaRecord struct {
	topic      string
	partition  int32
	key, value []byte
	headers    map[string]string
}

// kafkaFar is a cluster that shows what it is sent.
type kafkaFar struct {
	*kfake.Cluster
	got  chan kafkaRecord
	hang atomic.Bool
}

func newKafkaFar(t *testing.T, opts ...kfake.Opt) *kafkaFar {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.SeedTopics(3, orders), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "4194304"}),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	far := &kafkaFar{Cluster: c, got: make(chan kafkaRecord, 2048)}
	c.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		produce := req.(*kmsg.ProduceRequest)
		for _, topic := range produce.Topics {
			name := topic.Topic
			if name == "" {
				name = orders // new versions send an id
			}
			for _, p := range topic.Partitions {
				for _, r := range decodeBatch(t, p.Records) {
					r.topic, r.partition = name, p.Partition
					far.got <- r
				}
			}
		}
		return nil, nil, far.hang.Load()
	})
	return far
}

// decodeBatch reads a batch that is not compressed.
func decodeBatch(t *testing.T, raw []byte) (records []kafkaRecord) {
	var batch kmsg.RecordBatch
	if err := batch.ReadFrom(raw); err != nil {
		t.Errorf("a batch cannot be read: %v", err)
		return nil
	}
	in := batch.Records
	for range batch.NumRecords {
		var r kmsg.Record
		length, n := binaryVarint(in)
		if err := r.ReadFrom(in[:n+length]); err != nil {
			t.Errorf("a record cannot be read: %v", err)
			return records
		}
		in = in[n+length:]
		headers := map[string]string{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		records = append(records, kafkaRecord{key: bytes.Clone(r.Key), value: bytes.Clone(r.Value), headers: headers})
	}
	return records
}

func binaryVarint(in []byte) (value, n int) {
	var u uint64
	for shift := 0; ; shift += 7 {
		u |= uint64(in[n]&0x7f) << shift
		n++
		if in[n-1] < 0x80 {
			return int(int64(u>>1) ^ -int64(u&1)), n
		}
	}
}

// event is the CloudEvent of a record.
func (r kafkaRecord) event() (bus.Event, error) {
	if r.headers["content-type"] == bus.TypeStructured {
		return bus.ParseJSON(r.value)
	}
	var attrs []bus.Attr
	for key, text := range r.headers {
		if name, ok := strings.CutPrefix(key, "ce_"); ok {
			attrs = append(attrs, bus.Attr{Name: name, Value: text})
		}
	}
	if ct := r.headers["content-type"]; ct != "" {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: ct})
	}
	return bus.NewEvent(attrs, r.value)
}

func kafkaSettings(far *kafkaFar) *sinks.Kafka {
	s := sinks.NewKafka()
	s.Brokers, s.Topic, s.MaxBytes = far.ListenAddrs(), orders, 4<<20
	return s
}

// A broker wants certificates, of another authority than when the sink was opened: the
// files were replaced since.
func TestKafkaTLS(t *testing.T) {
	t.Parallel()
	old, fresh := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	far := newKafkaFar(t, kfake.TLS(fresh.MutualServer("127.0.0.1")))
	s, dir := kafkaSettings(far), t.TempDir()
	cert, key := old.Client("sluice")
	s.TLS = &kafka.TLS{}
	s.TLS.CA, s.TLS.Cert, s.TLS.Key = old.Install(dir, cert, key)
	sink := open(t, s)
	cert, key = fresh.Client("sluice")
	fresh.Install(dir, cert, key)
	if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
		t.Error(err)
	}
}

func TestKafkaContract(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"binary", "structured"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
				far := newKafkaFar(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", password))
				s := kafkaSettings(far)
				s.Mode = mode
				s.SASL = &kafka.SASL{Mechanism: "scram-sha-256", User: value.NewText("u"), Password: value.NewSecret(password)}
				got := make(chan sinktest.Got, 2048)
				go func() {
					for {
						select {
						case r := <-far.got:
							e, err := r.event()
							if err != nil {
								t.Errorf("the record is no CloudEvent: %v", err)
							}
							attempt, _ := strconv.Atoi(r.headers["sluice-attempt"])
							got <- sinktest.Got{Event: e, ID: r.headers["sluice-delivery-id"], Rule: r.headers["sluice-rule"], Attempt: attempt}
						case <-t.Context().Done():
							return
						}
					}
				}()
				return &sinktest.Subject{
					Sink: openIn(t, s, env), Received: got, Faulty: kafkaFaulty(env),
					Elsewhere: func(t *testing.T, addr string, tls *tls.Config) sinks.Sink {
						other := *s
						if other.Brokers = []string{addr}; tls != nil {
							other.TLS = &value.TLS{}
						}
						return openIn(t, &other, env)
					},
					Hang:    func() { far.hang.Store(true) },
					Carries: true, KeepsKinds: mode == "structured", Secrets: []string{password},
				}
			})
		})
	}
}

// kafkaRefusedLogin is a cluster that says why it refuses the login, as Apache Kafka does;
// kfake hangs up.
func kafkaRefusedLogin(t *testing.T) sinks.Settings {
	far := newKafkaFar(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", password))
	far.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		far.KeepControl()
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		return resp, nil, true
	})
	s := kafkaSettings(far)
	s.SASL = &kafka.SASL{Mechanism: "scram-sha-256", User: value.NewText("u"), Password: value.NewSecret(password)}
	return s
}

func kafkaFaulty(env sinks.Env) func(*testing.T, sinktest.Fault) sinks.Sink {
	return func(t *testing.T, f sinktest.Fault) sinks.Sink {
		var s sinks.Settings
		switch f {
		case sinktest.FaultCredentials:
			s = kafkaRefusedLogin(t)
		case sinktest.FaultDenied:
			s = kafkaFault(t, kerr.TopicAuthorizationFailed)
		case sinktest.FaultLarge:
			s = kafkaFault(t, kerr.MessageTooLarge)
		case sinktest.FaultUnknown:
			s = kafkaFault(t, kerr.UnknownTopicOrPartition)
		default:
			s = kafkaFault(t, kerr.NotEnoughReplicas)
		}
		return openIn(t, s, env)
	}
}

func kafkaEvent(t *testing.T, data string, attrs ...bus.Attr) bus.Event {
	t.Helper()
	e, err := bus.NewEvent(append([]bus.Attr{{Name: "id", Value: "i"}, {Name: "source", Value: "/s"}, {Name: "type", Value: "made"}}, attrs...), []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// What becomes of an event: topic, key, headers, and a payload in its place.
func TestKafkaSinkRecords(t *testing.T) {
	t.Parallel()
	far := newKafkaFar(t, kfake.SeedTopics(1, "orders-made", "made.eu.x"))
	for name, c := range map[string]struct {
		change func(*sinks.Kafka)
		event  bus.Event
		then   func(*sinks.Delivery)
		want   string
	}{
		"default":        {nil, kafkaEvent(t, `{}`, bus.Attr{Name: "partitionkey", Value: "k"}), nil, "key=k value={} content-type=application/json"},
		"no key":         {nil, kafkaEvent(t, `{}`), nil, "key= value={} content-type=application/json"},
		"key in data":    {func(s *sinks.Kafka) { s.Key = "data.a.0" }, kafkaEvent(t, `{"a":[7]}`), nil, `key=7 value={"a":[7]} content-type=application/json`},
		"no data":        {nil, kafkaEvent(t, ""), nil, "key= value=null content-type="},
		"transformed":    {nil, kafkaEvent(t, `{}`, bus.Attr{Name: "dataschema", Value: "http://x/y"}), func(d *sinks.Delivery) { d.Payload = &sinks.Payload{Body: []byte("new"), ContentType: "text/plain"} }, "key= value=new content-type=text/plain"},
		"own header":     {func(s *sinks.Kafka) { s.Headers = map[string]value.Text{"team": value.NewText("blue")} }, kafkaEvent(t, `1`), nil, "key= value=1 content-type=application/json team=blue"},
		"compressed off": {func(s *sinks.Kafka) { s.Balancer = "round_robin" }, kafkaEvent(t, `1`), nil, "key= value=1 content-type=application/json"},
	} {
		s := kafkaSettings(far)
		if c.change != nil {
			c.change(s)
		}
		d := sinks.Delivery{Event: c.event, ID: "d", Rule: "r", Sink: "s", Attempt: 2}
		if c.then != nil {
			c.then(&d)
		}
		if err := open(t, s).Deliver(t.Context(), d); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := <-far.got
		text := string(r.value)
		if r.value == nil {
			text = "null"
		}
		got := fmt.Sprintf("key=%s value=%s content-type=%s", r.key, text, r.headers["content-type"])
		if team := r.headers["team"]; team != "" {
			got += " team=" + team
		}
		if got != c.want || r.headers["ce_id"] != "i" || r.headers["sluice-attempt"] != "2" || r.headers["ce_dataschema"] != "" {
			t.Errorf("%s: %s, want %s; headers %v", name, got, c.want, r.headers)
		}
	}
}

func TestKafkaTopics(t *testing.T) {
	t.Parallel()
	far := newKafkaFar(t)
	for topic, c := range map[string]struct{ data, want string }{
		"{type}-{data.region}":  {`{"region": "a/b"}`, `data.region is "a/b"`},
		"x{data.region}":        {`{}`, "the event has no data.region"},
		"{subject}":             {`{}`, "the event has no subject"},
		"orders-{data.missing}": {`nothing`, "the event has no data.missing"},
	} {
		s := kafkaSettings(far)
		s.Topic = topic
		err := open(t, s).Deliver(t.Context(), sinks.Delivery{Event: kafkaEvent(t, c.data), Attempt: 1})
		var e *sinks.Error
		if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a permanent error with %q", topic, err, c.want)
		}
	}
	for _, topic := range []string{"a b", "{", "{}", "a{{b}}", ".", strings.Repeat("x", 250), "ö"} {
		s := kafkaSettings(far)
		s.Topic = topic
		if faults := s.Validate(); len(faults) != 1 || faults[0].Key != "topic" {
			t.Errorf("topic %q: %v", topic, faults)
		}
	}
}

// Each kind of failure has its own words and its own verdict.
func TestKafkaSinkVerdicts(t *testing.T) {
	t.Parallel()
	sasl := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "u", password)}
	fault := func(err *kerr.Error) func(*kafkaFar) {
		return func(far *kafkaFar) {
			far.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1})
		}
	}
	for name, c := range map[string]struct {
		opts      []kfake.Opt
		far       func(*kafkaFar)
		change    func(*sinks.Kafka)
		data      string
		status    int
		permanent bool
		want      string
	}{
		"unknown topic":    {change: func(s *sinks.Kafka) { s.Topic = "nothing" }, status: 404, want: "there is no such topic"},
		"too large for us": {change: func(s *sinks.Kafka) { s.MaxBytes = 10 << 10 }, data: strings.Repeat("x", 20<<10), status: 413, permanent: true, want: "larger than"},
		"too large for it": {far: fault(kerr.MessageTooLarge), status: 413, permanent: true, want: "max.message.bytes"},
		"invalid":          {far: fault(kerr.InvalidRecord), status: 400, permanent: true, want: "does not take the record"},
		"denied":           {far: fault(kerr.TopicAuthorizationFailed), status: 403, want: "may not use the topic"},
		"too few replicas": {far: fault(kerr.NotEnoughReplicas), want: "Not Enough Replicas"},
		"nobody there":     {change: func(s *sinks.Kafka) { s.Brokers = []string{"127.0.0.1:1"} }, want: "connection refused"},
		"no login":         {opts: sasl, want: "SASL/TLS settings"},
		"wrong password": {opts: sasl, change: func(s *sinks.Kafka) {
			s.SASL = &kafka.SASL{Mechanism: "scram-sha-256", User: value.NewText("u"), Password: value.NewSecret(password + "x")}
		}, want: "SASL/TLS settings"},
		"login not offered": {opts: sasl, change: func(s *sinks.Kafka) {
			s.SASL = &kafka.SASL{Mechanism: "scram-sha-512", User: value.NewText("u"), Password: value.NewSecret(password)}
		}, want: "SASL/TLS settings"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			far := newKafkaFar(t, c.opts...)
			if c.far != nil {
				c.far(far)
			}
			s := kafkaSettings(far)
			if c.change != nil {
				c.change(s)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			err := open(t, s).Deliver(ctx, sinks.Delivery{Event: kafkaEvent(t, c.data), Attempt: 1})
			var e *sinks.Error
			if !errors.As(err, &e) || e.Status != c.status || e.Permanent != c.permanent || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v (%+v), want status %d, permanent %v, %q", err, e, c.status, c.permanent, c.want)
			}
			if strings.Contains(fmt.Sprintf("%v %+v %q", err, err, err), password) {
				t.Errorf("the password shows in %v", err)
			}
		})
	}
}

// A batch is written in order, and each of its deliveries has its own fate.
func TestKafkaSinkBatch(t *testing.T) {
	t.Parallel()
	far := newKafkaFar(t)
	s := kafkaSettings(far)
	s.MaxBytes = 10 << 10
	sink := open(t, s).(sinks.BatchSink)
	var ds []sinks.Delivery
	for i := range 100 {
		data := fmt.Sprint(i)
		if i == 50 {
			data = `"` + strings.Repeat("x", 20<<10) + `"`
		}
		ds = append(ds, sinks.Delivery{Event: kafkaEvent(t, data, bus.Attr{Name: "partitionkey", Value: "k"}), Attempt: 1})
	}
	failed, err := sink.DeliverBatch(t.Context(), ds)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ds {
		if (failed[i] != nil) != (i == 50) {
			t.Errorf("delivery %d: %v", i, failed[i])
		}
		if i != 50 {
			if r := <-far.got; string(r.value) != fmt.Sprint(i) {
				t.Fatalf("record %d holds %s", i, r.value)
			}
		}
	}
	far.hang.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if failed, err := sink.DeliverBatch(ctx, ds[:10]); failed != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("of a cluster that does not answer: %v, %v", failed, err)
	}
}
