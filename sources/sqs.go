package sources

import (
	"context"
	"sync/atomic"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"sluice/bus"
	"sluice/config/aws"
	"sluice/config/value"
)

// SQS are the settings of the sqs source: the messages of a queue of Amazon SQS or of
// a server with its API, such as ElasticMQ, LocalStack or moto.
//
// A message that is a CloudEvent is taken as it is: one whose body is a JSON object
// with a specversion (or whose attribute content-type says application/cloudevents+json),
// and one with the attributes ce_specversion, ce_id and so on beside its data. Any
// other is mapped: its id is the MessageId, which stays the same when the message is
// received again, its source sqs://host/account/queue, its time the SentTimestamp. Its
// message attributes of the types String and Number become extensions where
// CloudEvents allows the name, and any as headers says; its MessageGroupId is partitionkey and subject, its
// SequenceNumber sequence.
type SQS struct {
	aws.Queue   `yaml:",inline"`
	Wait        value.Duration    `yaml:"wait" doc:"How long a request waits for messages: 0 to 20s."`
	Visibility  value.Duration    `yaml:"visibility" doc:"How long others do not see a message that is in hand. It is extended for as long as that takes. When it is over, a message comes again that was in hand at a crash, or that the queue handed out at the very moment when the source stopped."`
	MaxInFlight int               `yaml:"max_in_flight" doc:"The most messages in hand, received and not deleted yet."`
	MaxBytes    value.Bytes       `yaml:"max_bytes" doc:"How many bytes of messages in hand are enough: no more are asked for at a time while there are as many."`
	Unwrap      string            `yaml:"unwrap" enum:"none,sns" doc:"sns: of a notification of Amazon SNS only the message becomes the data; none: the body as it came."`
	Source      string            `yaml:"source" doc:"The source of messages that are no CloudEvents, in place of sqs://host/account/queue."`
	Type        string            `yaml:"type" doc:"The type of messages that are no CloudEvents."`
	ContentType string            `yaml:"content_type" doc:"The content type of messages that are no CloudEvents; found out when left out."`
	Headers     map[string]string `yaml:"headers" doc:"Message attributes that become attributes of such events, by name, such as X-Tenant: tenant; what is no text becomes base64. One whose name is that of an extension attribute already is kept under it, the others are left out."`
}

// The values of SQS.Unwrap.
const (
	unwrapNone = "none"
	unwrapSNS  = "sns"
)

// NewSQS returns the settings with their defaults.
func NewSQS() *SQS {
	return &SQS{
		Wait: value.Duration(20 * time.Second), Visibility: value.Duration(time.Minute),
		MaxInFlight: 200, MaxBytes: 64 << 20, Unwrap: unwrapNone, Type: "sqs.message",
	}
}

// What the API allows.
const (
	sqsBatch         = 10 // messages in one request
	sqsMaxWait       = 20 * time.Second
	sqsMinVisibility = 2 * time.Second // so that it can be extended in time
	sqsMaxVisibility = 12 * time.Hour
)

// Validate is Settings.Validate.
func (s *SQS) Validate() value.Faults {
	faults := s.Queue.Validate()
	if d := time.Duration(s.Wait); d < 0 || d > sqsMaxWait || d%time.Second != 0 {
		faults.Add("wait", "is %s: write whole seconds from 0s to 20s", d)
	}
	if d := time.Duration(s.Visibility); d < sqsMinVisibility || d > sqsMaxVisibility || d%time.Second != 0 {
		faults.Add("visibility", "is %s: write whole seconds from 2s to 12h", d)
	}
	if s.MaxInFlight < sqsBatch || s.MaxInFlight > 10_000 {
		faults.Add("max_in_flight", "is %d: write 10 to 10000", s.MaxInFlight)
	}
	if s.MaxBytes < 1<<20 || s.MaxBytes > 1<<30 {
		faults.Add("max_bytes", "is out of range: write 1MiB to 1GiB")
	}
	if s.Unwrap != unwrapNone && s.Unwrap != unwrapSNS {
		faults.Add("unwrap", "is %q: write %s or %s", s.Unwrap, unwrapNone, unwrapSNS)
	}
	m := s.mapping("sqs://host/account/queue")
	_, err := m.plain(&types.Message{MessageId: sdk.String("1")}, "", []byte("{}"))
	faults = append(faults, headerFaults(s.Headers)...)
	return append(faults, sampleFaults(s.ContentType, err)...)
}

// Open is Settings.Open.
func (s *SQS) Open(ctx context.Context, env Env) (Source, error) {
	client, err := s.Client(ctx, sqsMaxAnswer, nil)
	if err != nil {
		return nil, err
	}
	queue := s.QueueURL.URL.String()
	return &sqsSource{
		env: env, settings: s, client: client, queue: queue,
		mapping: s.mapping(s.Name()),
	}, nil
}

func (s *SQS) mapping(queue string) sqsMapping {
	return sqsMapping{queue: queue, source: s.Source, typ: s.Type, contentType: s.ContentType, headers: newHeaderNames(s.Headers), sns: s.Unwrap == unwrapSNS}
}

// sqsMaxAnswer is enough for ten messages of 1 MiB with every byte escaped.
const sqsMaxAnswer = 64 << 20

type sqsSource struct {
	env      Env
	settings *SQS
	client   *sqs.Client
	queue    string // the URL
	mapping  sqsMapping

	waiting atomic.Int64 // messages that the queue has for us, and 1; 0 while that is not known
	oldest  atomic.Int64 // when the oldest message of the last answer was sent, in ms; 0 when there was none
}

// Lag is Lagger.Lag: what the queue said last, and the age of what it gave last.
func (s *sqsSource) Lag() (Lag, bool) {
	records := s.waiting.Load() - 1
	if records < 0 {
		return Lag{}, false
	}
	lag := Lag{Records: records}
	if sent := s.oldest.Load(); sent > 0 {
		lag.Age = max(0, time.Since(time.UnixMilli(sent)))
	}
	return lag, true
}

// Run is Source.Run. It goes on by itself when the queue cannot be reached; what only
// a person can mend is an error.
func (s *sqsSource) Run(ctx context.Context, pub bus.Publisher) error {
	run, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &sqsRun{source: s, feed: feed{&s.env, pub}, fail: fail, held: map[string]*sqsHeld{}}
	defer s.waiting.Store(0)
	r.run(run)
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(run)
}
