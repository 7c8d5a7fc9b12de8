package sinks_test

import (
	"io"
	"path/filepath"
	"slices"
	"testing"

	"sluice/config/value"
	"sluice/sinks"
)

// The table of kinds says what the sinks can do: what it lists as ignored is nothing
// that they could use.
func TestKindsSayWhatTheirSinksCan(t *testing.T) {
	t.Parallel()
	fill := map[string]func(sinks.Settings){
		"file":   func(s sinks.Settings) { s.(*sinks.File).Path = filepath.Join(t.TempDir(), "events") },
		"http":   func(s sinks.Settings) { s.(*sinks.HTTP).URL = parse(t, "http://127.0.0.1:1") },
		"sluice": func(s sinks.Settings) { s.(*sinks.Sluice).URL = parse(t, "http://127.0.0.1:1") },
		"kafka": func(s sinks.Settings) {
			s.(*sinks.Kafka).Brokers, s.(*sinks.Kafka).Topic = []string{"127.0.0.1:1"}, "t"
		},
		"lambda": func(s sinks.Settings) {
			l := s.(*sinks.Lambda)
			l.Function, l.Region, l.Endpoint = "fn", "eu-central-1", parse(t, "http://127.0.0.1:1")
			l.Credentials.AccessKey, l.Credentials.SecretKey = value.NewText(accessKey), value.NewSecret(secretKey)
		},
		"nats": func(s sinks.Settings) { *s.(*sinks.NATS) = *natsSettings("nats://127.0.0.1:1") },
		"sqs":  func(s sinks.Settings) { *s.(*sinks.SQS) = *sqsSettings(t, "http://127.0.0.1:1/1/q") },
	}
	for _, kind := range sinks.Kinds() {
		settings := kind.New()
		if f := fill[kind.Name]; f != nil {
			f(settings)
		}
		sink, err := settings.Open(t.Context(), sinks.Env{Name: kind.Name})
		if err != nil {
			t.Errorf("%s: %v", kind.Name, err)
			continue
		}
		_, batches := sink.(sinks.BatchSink)
		_, fetched := sink.(sinks.Puller)
		_, answers := sink.(sinks.Replier)
		if ignored := slices.Contains(kind.Ignores, "batch"); ignored == batches {
			t.Errorf("%s takes batches: %v; ignores batch: %v", kind.Name, batches, ignored)
		}
		for _, option := range []string{"timeout", "retry", "concurrency"} {
			if ignored := slices.Contains(kind.Ignores, option); ignored != fetched {
				t.Errorf("%s is fetched from: %v; ignores %s: %v", kind.Name, fetched, option, ignored)
			}
		}
		for _, option := range []string{"replies", "lease"} {
			if answers && slices.Contains(kind.Ignores, option) {
				t.Errorf("%s has answers, and ignores %s", kind.Name, option)
			}
		}
		if c, ok := sink.(io.Closer); ok {
			if err := c.Close(); err != nil {
				t.Errorf("%s: %v", kind.Name, err)
			}
		}
	}
}
