package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	segmentio "github.com/segmentio/kafka-go"
	"github.com/tidwall/gjson"

	"sluice/bus"
	"sluice/config/kafka"
	"sluice/config/value"
)

// Kafka are the settings of the kafka sink.
//
// It writes with kafka-go: what made the source take franz-go is about reading only, see
// sources.Kafka. Of kafka-go it uses the transport and produce requests, and not the
// Writer: each record has a verdict of its own, and nothing is kept beyond the call.
type Kafka struct {
	kafka.Connection `yaml:",inline"`

	Topic       string                `yaml:"topic" doc:"The topic; {name} in it stands for an attribute, {data.path} for what a gjson path finds in the data."`
	Key         string                `yaml:"key" doc:"What becomes the record's key: an attribute, or data. and a gjson path. Records with the same key are in one partition. Default: what order_by says, or partitionkey without order_by."`
	Mode        string                `yaml:"mode" enum:"binary,structured" doc:"binary: the data as the value and the attributes as headers; structured: all of it as one JSON document."`
	Headers     map[string]value.Text `yaml:"headers" doc:"More headers for each record."`
	Balancer    string                `yaml:"balancer" enum:"key,round_robin" doc:"How records are spread: key, by the hash that Java clients use and in batches where there is none; or round_robin."`
	Compression string                `yaml:"compression" enum:"none,gzip,snappy,lz4,zstd" doc:"How batches are compressed."`
	MaxBytes    value.Bytes           `yaml:"max_bytes" doc:"The size of a batch, and so of a record, at most. It must not be more than the broker's max.message.bytes."`
}

// The values of Kafka.Balancer and the default of Kafka.Compression.
const (
	balancerKey        = "key"
	balancerRoundRobin = "round_robin"
	compressionNone    = "none"
)

// NewKafka returns the settings with their defaults.
func NewKafka() *Kafka {
	return &Kafka{
		Connection: kafka.Defaults(), Mode: modeBinary,
		Balancer: balancerKey, Compression: compressionNone, MaxBytes: 1 << 20,
	}
}

// Validate is Settings.Validate.
func (s *Kafka) Validate() value.Faults {
	faults := s.Connection.Validate()
	if s.Topic == "" {
		faults.Add("topic", "is missing: name the topic, such as orders or orders-{type}")
	} else if _, err := parseTopic(s.Topic); err != nil {
		faults.Add("topic", "%v", err)
	}
	if s.Mode != modeBinary && s.Mode != modeStructured {
		faults.Add("mode", "%q is not a mode: write %q or %q", s.Mode, modeBinary, modeStructured)
	}
	if s.Balancer != balancerKey && s.Balancer != balancerRoundRobin {
		faults.Add("balancer", "%q is not a way to spread records: write %s or %s", s.Balancer, balancerKey, balancerRoundRobin)
	}
	if _, ok := kafkaCodecs()[s.Compression]; !ok {
		faults.Add("compression", "%q is not a compression: write none, gzip, snappy, lz4 or zstd", s.Compression)
	}
	if s.MaxBytes < 1<<10 || s.MaxBytes > 1<<30 {
		faults.Add("max_bytes", "is out of range: write 1KiB to 1GiB")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		if own := strings.ToLower(name); name == "" || own == kafkaContentType || strings.HasPrefix(own, "ce_") || strings.HasPrefix(own, "sluice-") {
			faults.Add("headers."+name, "is a header of the event or the delivery itself: leave it out")
		}
	}
	return faults
}

// CheckOrder is Orderer.CheckOrder: a topic keeps the order of a partition only.
func (s *Kafka) CheckOrder(orderBy string) value.Faults {
	var faults value.Faults
	if s.Key != "" && s.Key != orderBy {
		faults.Add("key", "is %s, and order_by is %s: events with the same %s may end up in several partitions, which keep no order among them; leave key out to have the key of order_by", s.Key, orderBy, orderBy)
	}
	if s.Balancer == balancerRoundRobin {
		faults.Add("balancer", "spreads events with the same %s over all partitions, which keep no order among them: write %s, or leave order_by out", orderBy, balancerKey)
	}
	return faults
}

func kafkaCodecs() map[string]segmentio.Compression {
	return map[string]segmentio.Compression{
		compressionNone: 0, "gzip": segmentio.Gzip, "snappy": segmentio.Snappy, "lz4": segmentio.Lz4, "zstd": segmentio.Zstd,
	}
}

// Open is Settings.Open. The sink connects with the first delivery.
func (s *Kafka) Open(_ context.Context, env Env) (Sink, error) {
	if err := env.unguarded("kafka"); err != nil {
		return nil, err
	}
	if err := s.Validate().Err(); err != nil {
		return nil, err
	}
	topic, err := parseTopic(s.Topic)
	if err != nil {
		return nil, err
	}
	var known []string // all topics, where they come from the events
	if len(topic.parts) == 0 {
		known = []string{s.Topic}
	}
	sink := &kafkaSink{
		contact: contact{answered: kafkaAnswered, login: true},
		topic:   topic, key: lookUp(cmp.Or(s.Key, env.OrderBy, partitionKey)), ordered: s.Key == "" && env.OrderBy != "", structured: s.Mode == modeStructured,
		roundRobin: s.Balancer == balancerRoundRobin, codec: kafkaCodecs()[s.Compression], maxBytes: int(s.MaxBytes),
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		sink.headers = append(sink.headers, segmentio.Header{Key: name, Value: []byte(s.Headers[name].Value())})
	}
	if sink.cluster, err = s.Transport(env.logger(), known...); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return sink, nil
}

// kafkaSink writes records and waits for all in-sync replicas. It keeps none of them
// beyond the call that brought it. kafka-go cannot tell a broker that it writes a
// record again: where an answer is lost, the next attempt makes a second record,
// with the same sluice-delivery-id.
type kafkaSink struct {
	contact
	cluster    *kafka.Transport
	topic      nameTemplate
	key        func(bus.Event) string
	ordered    bool // the key is that of order_by, where none is a key like any other
	headers    []segmentio.Header
	structured bool
	roundRobin bool
	turns      segmentio.RoundRobin
	codec      segmentio.Compression
	maxBytes   int
	closing    sync.Once
}

// Deliver is Sink.Deliver.
func (s *kafkaSink) Deliver(ctx context.Context, d Delivery) error {
	errs := s.write(ctx, []Delivery{d})
	s.heard(errs...)
	return errs[0]
}

// DeliverBatch is BatchSink.DeliverBatch. Each record has its own fate; records of
// one partition are written in order.
func (s *kafkaSink) DeliverBatch(ctx context.Context, ds []Delivery) ([]error, error) {
	errs := s.write(ctx, ds)
	s.heard(errs...)
	return together(errs)
}

// kafkaAnswered tells an error that a broker answered with; one of the login is none.
func kafkaAnswered(err error) bool {
	var code segmentio.Error
	class, _ := kafka.Explain(err)
	return errors.As(err, &code) && class != kafka.Login
}

// together is the result of a batch: one error when the far side has none of it and
// may take all of it later.
func together(failed []error) ([]error, error) {
	for _, err := range failed {
		var e *Error
		if err == nil || errors.As(err, &e) && e.Permanent {
			return failed, nil
		}
	}
	return nil, failed[0]
}

// verdict is the error of a delivery in the terms of the bus's policy: the status is
// what an HTTP function would have answered.
func (s *kafkaSink) verdict(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	class, explained := kafka.Explain(err)
	e := &Error{Err: fmt.Errorf("write to kafka: %w", explained)}
	switch class {
	case kafka.Login:
		e.Status = http.StatusUnauthorized
	case kafka.Denied:
		e.Status = http.StatusForbidden
	case kafka.Unknown:
		e.Status = http.StatusNotFound
	case kafka.Large:
		e.Status, e.Permanent = http.StatusRequestEntityTooLarge, true
	case kafka.Invalid:
		e.Status, e.Permanent = http.StatusBadRequest, true
	}
	return e
}

// Close is io.Closer.
func (s *kafkaSink) Close() error {
	s.closing.Do(s.cluster.Close)
	return nil
}

const kafkaContentType = "content-type"

// record is the record of a delivery: CloudEvents Kafka protocol binding 1.0.2. An
// event without data has no value, which is a tombstone where the log is compacted.
func (s *kafkaSink) record(d Delivery) (segmentio.Message, error) {
	topic, err := s.topic.of(d.Event)
	if err != nil {
		return segmentio.Message{}, err
	}
	r := segmentio.Message{Topic: topic, Value: d.Event.Data()}
	if key := s.key(d.Event); key != "" || s.ordered {
		r.Key = []byte(key)
	}
	set := func(name, text string) {
		if text != "" {
			r.Headers = append(r.Headers, segmentio.Header{Key: name, Value: []byte(text)})
		}
	}
	r.Headers = make([]segmentio.Header, 0, len(s.headers)+d.Event.NumAttributes()+5)
	r.Headers = append(r.Headers, s.headers...)
	made := d.Payload != nil && d.Payload.Body != nil
	if s.structured && d.Payload == nil {
		r.Value = d.Event.AppendJSON(make([]byte, 0, d.Event.Size()+128))
		set(kafkaContentType, bus.TypeStructured)
	} else {
		contentType := d.Event.Get("datacontenttype")
		switch {
		case made:
			r.Value, contentType = d.Payload.Body, d.Payload.ContentType
		case contentType == "" && d.Event.DataIsJSON():
			contentType = "application/json"
		}
		set(kafkaContentType, contentType)
		for _, a := range d.Event.Attrs() {
			if a.Name != "datacontenttype" && (!made || a.Name != "dataschema") {
				set("ce_"+a.Name, a.Value)
			}
		}
	}
	if d.Payload != nil {
		for _, name := range slices.Sorted(maps.Keys(d.Payload.Header)) {
			set(name, d.Payload.Header[name])
		}
	}
	set("sluice-delivery-id", d.ID)
	set("sluice-attempt", strconv.Itoa(d.Attempt))
	set("sluice-rule", d.Rule)
	set("sluice-sink", d.Sink)
	return r, nil
}

// partitionKey is the attribute of the CloudEvents extension for partitioning.
const partitionKey = "partitionkey"

// lookUp reads an attribute, or what a gjson path finds in the data; "" for
// what an event lacks.
func lookUp(by string) func(bus.Event) string {
	if path, inData := strings.CutPrefix(by, "data."); inData {
		return func(e bus.Event) string {
			if !e.DataIsJSON() {
				return ""
			}
			return gjson.GetBytes(e.Data(), path).String()
		}
	}
	return func(e bus.Event) string { return e.Get(by) }
}
