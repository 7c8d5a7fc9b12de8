package sinks

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"sluice/bus"
	"sluice/config/aws"
	"sluice/config/value"
)

// SQS are the settings of the sqs sink: a queue of Amazon SQS or of a server with its
// API, such as ElasticMQ, LocalStack or moto.
//
// A message carries the attributes content-type, sluice-delivery-id, sluice-attempt,
// sluice-rule and sluice-sink. In the mode data it carries the event's own too, as
// ce_id, ce_source and so on; of these and the former a message takes ten, and what
// does not fit is left out: extensions and those of the delivery first.
//
// In a FIFO queue a message has the delivery's id for its MessageDeduplicationId, so
// that an attempt which was repeated within five minutes is one message.
type SQS struct {
	aws.Queue `yaml:",inline"`
	Mode      string      `yaml:"mode" enum:"structured,data" doc:"structured: the event as one JSON document; data: its data, which must be text, with the attributes as message attributes."`
	Group     string      `yaml:"group" doc:"What becomes of the MessageGroupId: an attribute, or data. and a gjson path. In a FIFO queue messages of a group keep their order, and the default is what order_by says; without order_by it is partitionkey, and the event's source where there is none. Other queues take it as a fair queue's tenant."`
	MaxBytes  value.Bytes `yaml:"max_bytes" doc:"The size of a message, and of a request, at most. It must not be more than the queue's MaximumMessageSize."`
}

// modeData is a value of SQS.Mode.
const modeData = "data"

// NewSQS returns the settings with their defaults.
func NewSQS() *SQS { return &SQS{Mode: modeStructured, MaxBytes: 1 << 20} }

// Validate is Settings.Validate.
func (s *SQS) Validate() value.Faults {
	faults := s.Queue.Validate()
	if s.Mode != modeStructured && s.Mode != modeData {
		faults.Add("mode", "%q is not a mode: write %q or %q", s.Mode, modeStructured, modeData)
	}
	if s.MaxBytes < 1<<10 || s.MaxBytes > 64<<20 {
		faults.Add("max_bytes", "is out of range: write 1KiB to 64MiB; Amazon SQS takes 1MiB")
	}
	return faults
}

// CheckOrder is Orderer.CheckOrder: a FIFO queue keeps the order of a group only.
func (s *SQS) CheckOrder(orderBy string) value.Faults {
	var faults value.Faults
	if s.FIFO() && s.Group != "" && s.Group != orderBy {
		faults.Add("group", "is %s, and order_by is %s: events with the same %s may end up in several groups, which keep no order among them; leave group out to have the one of order_by", s.Group, orderBy, orderBy)
	}
	return faults
}

// sqsMaxAnswer is more than the answer to ten messages has.
const sqsMaxAnswer = 1 << 20

// Open is Settings.Open.
func (s *SQS) Open(ctx context.Context, env Env) (Sink, error) {
	if err := env.unguarded("sqs"); err != nil {
		return nil, err
	}
	if err := s.Validate().Err(); err != nil {
		return nil, err
	}
	client, err := s.Client(ctx, sqsMaxAnswer, env.guard)
	if err != nil {
		return nil, err
	}
	sink := &sqsSink{
		contact: contact{answered: sqsAnswered},
		client:  client, queue: s.QueueURL.URL.String(), name: s.Name(), fifo: s.FIFO(), max: int(s.MaxBytes), structured: s.Mode == modeStructured,
	}
	switch {
	case s.Group != "":
		sink.group = lookUp(s.Group)
	case sink.fifo:
		sink.group, sink.ordered = lookUp(cmp.Or(env.OrderBy, partitionKey)), env.OrderBy != ""
	}
	return sink, nil
}

// sqsSink sends messages in requests of up to ten.
type sqsSink struct {
	contact
	client     *sqs.Client
	queue      string // the URL
	name       string // for errors
	fifo       bool
	group      func(bus.Event) string // nil: messages have none
	ordered    bool                   // it is the key of order_by, where none is a key like any other
	structured bool
	max        int // bytes of a message and of a request
}

// Deliver is Sink.Deliver.
func (s *sqsSink) Deliver(ctx context.Context, d Delivery) error {
	failed := s.send(ctx, []Delivery{d})
	s.heard(failed...)
	return failed[0]
}

// sqsAnswered tells an error that the server answered with.
func sqsAnswered(err error) bool {
	var api smithy.APIError
	var entry *sqsEntryError
	return errors.As(err, &api) || errors.As(err, &entry)
}

// DeliverBatch is BatchSink.DeliverBatch. Each message has its own fate.
func (s *sqsSink) DeliverBatch(ctx context.Context, ds []Delivery) ([]error, error) {
	failed := s.send(ctx, ds)
	s.heard(failed...)
	return together(failed)
}

// sqsMessages are how many messages a request may have.
const sqsMessages = 10

// send sends messages in as many requests as it takes, one after the other. What
// fails as a whole ends it in a FIFO queue: later messages must not overtake.
func (s *sqsSink) send(ctx context.Context, ds []Delivery) []error {
	failed := make([]error, len(ds))
	var request []sqsMessage
	size := 0
	held := sqsHeld{groups: map[string]error{}}
	flush := func() {
		s.request(ctx, request, failed, &held)
		request, size = request[:0], 0
	}
	for i := range ds {
		m, err := s.message(i, ds[i])
		if err != nil {
			failed[i] = Permanent(err)
			continue
		}
		if len(request) == sqsMessages || size+m.size > s.max {
			flush()
		}
		request, size = append(request, m), size+m.size
	}
	flush()
	return failed
}

// requestPatience is how long a request may take when ctx has no end.
const requestPatience = 30 * time.Second

// request sends one request, and notes what failed. Of what the queue will never take,
// maybe since its limit is lower than ours, it gets the halves: so the message that is
// the reason ends up alone.
func (s *sqsSink) request(ctx context.Context, messages []sqsMessage, failed []error, held *sqsHeld) {
	if s.fifo {
		messages = held.back(messages, failed)
	}
	if len(messages) == 0 {
		return
	}
	whole := ctx.Err()
	if whole != nil {
		whole = s.verdict(ctx, whole)
	} else {
		whole = s.post(ctx, messages, failed)
	}
	if n := len(messages); n > 1 && permanent(whole) {
		s.request(ctx, messages[:n/2], failed, held)
		s.request(ctx, messages[n/2:], failed, held)
		return
	}
	for i := range messages {
		if whole != nil {
			failed[messages[i].at] = whole
		}
	}
	held.note(messages, failed, whole)
}

// permanent tells an error that another attempt does not change.
func permanent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Permanent
}
