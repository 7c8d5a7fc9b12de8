package sources

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/tidwall/gjson"

	"sluice/bus"
)

// The messages of a queue as events. CloudEvents has no binding for SQS: the two
// modes are those of the Kafka binding, with message attributes for headers.

// sqsMapping makes events of messages.
type sqsMapping struct {
	queue       string // sqs://host/account/queue
	source      string // of plain messages; "" for that of where they come from
	typ         string // of plain messages
	contentType string // the same; "" to find out
	headers     headerNames
	sns         bool // take notifications of SNS out of their envelope
}

const sqsPrefix = "ce_"

// event is the event of a message.
func (m *sqsMapping) event(msg *types.Message) (bus.Event, error) {
	body := []byte(sdk.ToString(msg.Body))
	contentType := sqsContentType(msg)
	_, binary := msg.MessageAttributes[sqsPrefix+"specversion"]
	var e bus.Event
	var err error
	switch {
	case binary:
		e, err = sqsBinary(msg, contentType, body)
	case hasPrefixFold(contentType, "application/cloudevents"):
		e, err = structured(contentType, body)
	case isStructured(body):
		e, err = bus.ParseJSON(body)
	default:
		return m.plain(msg, contentType, body)
	}
	if err != nil {
		return bus.Event{}, err
	}
	return bus.Stamp(e, sqsTime(msg)), nil
}

// isStructured tells whether a body claims to be a CloudEvent.
func isStructured(body []byte) bool {
	return bus.ValidJSON(body) && gjson.ParseBytes(body).IsObject() && gjson.GetBytes(body, "specversion").Type == gjson.String
}

// sqsContentType is the attribute that senders give a content type in.
func sqsContentType(msg *types.Message) string {
	for _, name := range slices.Sorted(maps.Keys(msg.MessageAttributes)) {
		if strings.EqualFold(name, "content-type") || strings.EqualFold(name, "contenttype") {
			return sqsText(msg.MessageAttributes[name])
		}
	}
	return ""
}

// sqsText is the value of an attribute; "" when it is no text.
func sqsText(a types.MessageAttributeValue) string { return sdk.ToString(a.StringValue) }

// sqsTime is when a message was sent; now for one that does not say so.
func sqsTime(msg *types.Message) time.Time {
	ms, err := strconv.ParseInt(msg.Attributes[string(types.MessageSystemAttributeNameSentTimestamp)], 10, 64)
	if err != nil {
		return time.Now()
	}
	return inMillis(ms)
}

// sqsBinary is an event whose attributes are those of the message.
func sqsBinary(msg *types.Message, contentType string, body []byte) (bus.Event, error) {
	attrs := make([]bus.Attr, 0, len(msg.MessageAttributes))
	for _, key := range slices.Sorted(maps.Keys(msg.MessageAttributes)) {
		if name, ok := strings.CutPrefix(key, sqsPrefix); ok {
			attrs = append(attrs, bus.Attr{Name: name, Value: sqsText(msg.MessageAttributes[key])})
		}
	}
	if contentType != "" {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: contentType})
	}
	return bus.NewEvent(attrs, body)
}

// notification is the envelope of Amazon SNS.
type notification struct {
	Type, MessageID, TopicArn, Subject, Timestamp string
	Message                                       *string
	MessageAttributes                             map[string]struct{ Type, Value string }
}

// plain is the event of a message that is no CloudEvent.
func (m *sqsMapping) plain(msg *types.Message, contentType string, body []byte) (bus.Event, error) {
	id, source, at := sdk.ToString(msg.MessageId), m.queue, sqsTime(msg)
	group := msg.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]
	subject := group
	given := map[string][]byte{}
	for name, a := range msg.MessageAttributes {
		if given[name] = a.BinaryValue; a.StringValue != nil {
			given[name] = []byte(*a.StringValue)
		}
	}
	if n, ok := m.unwrap(body); ok {
		// SNS may send a notification twice, as two messages.
		id, body = n.MessageID, []byte(*n.Message)
		if isText(n.TopicArn) {
			source = n.TopicArn
		}
		subject = cmp.Or(n.Subject, subject)
		if t, err := time.Parse(time.RFC3339Nano, n.Timestamp); err == nil && t.Unix() > 0 {
			at = t
		}
		for name, a := range n.MessageAttributes {
			if given[name] = []byte(a.Value); strings.EqualFold(a.Type, "Binary") {
				given[name], _ = base64.StdEncoding.DecodeString(a.Value) // what is none is left out
			}
		}
		if isStructured(body) {
			e, err := bus.ParseJSON(body)
			if err != nil {
				return bus.Event{}, err
			}
			return bus.Stamp(e, at), nil
		}
	}
	attrs := []bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: cmp.Or(m.source, source)}, {Name: "type", Value: m.typ},
		{Name: "time", Value: at.UTC().Format(time.RFC3339Nano)},
	}
	add := func(name, text string) {
		if isText(text) {
			attrs = appendNew(attrs, bus.Attr{Name: name, Value: text})
		}
	}
	add(keyAttribute, group)
	add("subject", subject)
	add("sequence", msg.Attributes[string(types.MessageSystemAttributeNameSequenceNumber)])
	add("datacontenttype", cmp.Or(m.contentType, contentType, detectText(body)))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if made, ok := m.headers.of(name, given[name]); ok && (made.Name != name || !strings.EqualFold(name, "contenttype")) {
			add(made.Name, made.Value)
		}
	}
	e, err := bus.NewEvent(slices.Clone(attrs), body)
	if err != nil && m.contentType == "" {
		// An attribute that says what is not so: the body counts.
		for i := range attrs {
			if attrs[i].Name == "datacontenttype" {
				attrs[i].Value = detectText(body)
			}
		}
		e, err = bus.NewEvent(attrs, body)
	}
	return e, err
}

// unwrap reads the envelope of SNS, where it is to be taken off.
func (m *sqsMapping) unwrap(body []byte) (n notification, ok bool) {
	if !m.sns || !bus.ValidJSON(body) || json.Unmarshal(body, &n) != nil {
		return n, false
	}
	return n, n.Type == "Notification" && isText(n.MessageID) && n.Message != nil
}

// detectText is the content type of a body, which SQS takes only as text.
func detectText(body []byte) string {
	if bus.ValidJSON(body) {
		return "application/json"
	}
	return "text/plain; charset=utf-8"
}

// reject is the dead letter of a message that claims to be an event and is none.
func (m *sqsMapping) reject(msg *types.Message, err error) Rejected {
	rejected := Rejected{
		ID: m.queue + "/" + sdk.ToString(msg.MessageId), Where: strings.TrimPrefix(m.queue, "sqs://") + "/" + sdk.ToString(msg.MessageId),
		Reason: "the message is no valid CloudEvent: " + err.Error(), Data: []byte(sdk.ToString(msg.Body)),
		Key: []byte(msg.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]),
	}
	if contentType := sqsContentType(msg); isText(contentType) {
		rejected.ContentType = contentType
	}
	for _, name := range slices.Sorted(maps.Keys(msg.MessageAttributes)) {
		v := msg.MessageAttributes[name]
		rejected.Headers = append(rejected.Headers, Header{name, append([]byte(sqsText(v)), v.BinaryValue...)})
	}
	return rejected
}
