package sources

import (
	"maps"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	natsgo "github.com/nats-io/nats.go"
	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/bus"
)

// The headers of plain input become the attributes that the settings name, in each of
// the three sources alike.
func TestHeaderNames(t *testing.T) {
	t.Parallel()
	names := newHeaderNames(map[string]string{"trace_id": "traceid", "X-Tenant": "tenant", "bytes": "raw", "none": "nothing", "old": "kept"})
	given := map[string]string{"Trace_ID": "t1", "x-tenant": "acme", "bytes": "\xff\x00", "none": "", "other": "as it is", "no_name": "lost", "old": "new", "kept": "hidden"}
	want := map[string]string{"traceid": "t1", "tenant": "acme", "raw": "/wA=", "other": "as it is", "kept": "new"}
	record := kgo.Record{Topic: "t", Value: []byte("x")}
	message := natsMessage{subject: "s", id: "1", where: "s", data: []byte("x"), header: natsgo.Header{}}
	queued := types.Message{MessageId: sdk.String("1"), Body: sdk.String("x"), MessageAttributes: map[string]types.MessageAttributeValue{}}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		content := []byte(given[name])
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: content})
		message.header[name] = []string{given[name]}
		attribute := types.MessageAttributeValue{BinaryValue: content}
		if name != "bytes" {
			attribute.StringValue = sdk.String(given[name])
		}
		queued.MessageAttributes[name] = attribute
	}
	// As another client may write it: the first one counts.
	message.header["X-TENANT"] = []string{"acme"}
	kafka, nats, sqs := kafkaMapping{source: "s", typ: "t", headers: names}, natsMapping{source: "s", typ: "t", headers: names}, sqsMapping{queue: "q", typ: "t", headers: names}
	for kind, made := range map[string]func() (bus.Event, error){
		"kafka": func() (bus.Event, error) { return kafka.event(&record) },
		"nats":  func() (bus.Event, error) { return nats.event(&message) },
		"sqs":   func() (bus.Event, error) { return sqs.event(&queued) },
	} {
		e, err := made()
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		got := map[string]string{}
		for _, a := range e.Attrs() {
			if isExtension(a.Name) {
				got[a.Name] = a.Value
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: the extensions are %v, want %v", kind, got, want)
		}
	}
}

func TestHeaderFaults(t *testing.T) {
	t.Parallel()
	for want, settings := range map[string]map[string]string{
		"":                                    {"trace_id": "traceid", "X-Tenant": "tenant"},
		`headers.a "trace_id" cannot be`:      {"a": "trace_id"},
		`headers.a "subject" cannot be`:       {"a": "subject"},
		`headers.a "" cannot be`:              {"a": ""},
		"headers.b becomes x, as a does":      {"a": "x", "b": "x"},
		"headers.a is the same header as A":   {"A": "x", "a": "y"},
		`headers.c "partitionkey" cannot be `: {"c": "partitionkey"},
	} {
		var all []string
		for _, f := range headerFaults(settings) {
			all = append(all, f.Key+" "+f.Msg)
		}
		if got := strings.Join(all, "\n"); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", settings, got, want)
		}
	}
}
