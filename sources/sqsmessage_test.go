package sources

import (
	"fmt"
	"testing"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// FuzzSQSMessage looks for a message that is mapped differently each time, and for a
// plain one that is refused.
func FuzzSQSMessage(f *testing.F) {
	f.Add(`{"a":1}`, "content-type", "application/json", "g", "ce_id", "i", false)
	f.Add(`x`, "ce_specversion", "1.0", "", "ce_id", "\xff", true)
	f.Add(`{"specversion":"1.0","id":"i","source":"/s","type":"t"}`, "a", "b", "g", "c", "d", false)
	f.Add(`{"Type":"Notification","MessageId":"n","Message":"m","TopicArn":"arn:x","Timestamp":"2026-01-02T03:04:05Z","MessageAttributes":{"a":{"Type":"String","Value":"v"}}}`, "a", "b", "g", "c", "d", true)
	f.Add(`{"Type":"Notification","MessageId":"n","TopicArn":"arn:x","Message":"{\"specversion\":\"1.0\"}"}`, "a", "b", "g", "c", "d", true)
	f.Fuzz(func(t *testing.T, body, k1, v1, group, k2, v2 string, sns bool) {
		m := sqsMapping{queue: "sqs://h/1/q", typ: "sqs.message", sns: sns}
		msg := &types.Message{
			MessageId: sdk.String("m-1"), Body: &body,
			Attributes: map[string]string{"SentTimestamp": "1767323045000", "MessageGroupId": group},
			MessageAttributes: map[string]types.MessageAttributeValue{
				k1: {DataType: sdk.String("String"), StringValue: &v1}, k2: {DataType: sdk.String("String"), StringValue: &v2},
			},
		}
		e, err := m.event(msg)
		again, errAgain := m.event(msg)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || err == nil && string(e.AppendRecord(nil)) != string(again.AppendRecord(nil)) {
			t.Fatal("a message is not mapped to the same event every time")
		}
		if err == nil {
			return
		}
		if r := m.reject(msg, err); string(r.Data) != body || r.ID == "" || r.Reason == "" {
			t.Fatalf("the dead letter is %+v", r)
		}
		_, binary := msg.MessageAttributes["ce_specversion"]
		inner := []byte(body)
		if n, ok := m.unwrap(inner); ok {
			inner = []byte(*n.Message)
		}
		if !binary && !hasPrefixFold(sqsContentType(msg), "application/cloudevents") && !isStructured([]byte(body)) && !isStructured(inner) {
			t.Fatalf("a plain message is refused: %v", err)
		}
	})
}
