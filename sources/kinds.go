package sources

import (
	"context"
	"time"

	"sluice/config/value"
)

// Kind is one kind of source: a row of Kinds. The config schema, the docs and the
// `kinds` command derive from it.
type Kind struct {
	Name string // the key in the config
	Doc  string // one sentence
	// New returns the kind's settings with their defaults filled in, a pointer to
	// a struct with yaml and doc tags that the config loader decodes into.
	New func() Settings
}

// Settings are the decoded settings of one source.
type Settings interface {
	// Validate finds what a single value cannot show.
	Validate() value.Faults
	// Open makes the source. It does not wait for the far side.
	Open(ctx context.Context, env Env) (Source, error)
}

// Warner is Settings that can be valid and yet hardly meant.
type Warner interface {
	// Warnings says what is odd at a time, for whoever checks a config.
	Warnings(now time.Time) value.Faults
}

// Kinds is the table of every kind of source. A new kind is one file, one test
// through sourcetest.Run and one line here.
func Kinds() []Kind {
	return []Kind{
		{"cron", "Makes an event at set times: AWS and five-field cron, rates and single times, in any time zone.", func() Settings { return NewCron() }},
		{"http", "Takes CloudEvents over HTTP on a path of its own.", func() Settings { return NewHTTP() }},
		{"kafka", "Reads topics of Apache Kafka as a member of a consumer group.", func() Settings { return NewKafka() }},
		{"nats", "Reads a stream of NATS JetStream, or listens to subjects of core NATS.", func() Settings { return NewNATS() }},
		{"postgres", "Follows the changes of a PostgreSQL database through logical replication.", func() Settings { return NewPostgres() }},
		{"s3", "Tells what happens to the objects of an S3: by its notifications, by listing a bucket, or as an S3 endpoint itself.", func() Settings { return NewS3() }},
		{"sqs", "Takes the messages of a queue of Amazon SQS, or of a server with its API.", func() Settings { return NewSQS() }},
		{"webhook", "Turns the requests of a sender that proves who it is into events: GitHub, Stripe, Slack and others.", func() Settings { return NewWebhook() }},
	}
}
