package sources

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"sluice/bus"
)

// The records of a topic as events: the CloudEvents Kafka protocol binding 1.0.2
// in its binary and its structured mode, and a mapping of our own for the rest.

// kafkaMapping makes events of records.
type kafkaMapping struct {
	source      string // of plain records, without the topic
	typ         string // the same
	contentType string // the same; "" to find out
	headers     headerNames
}

const (
	kafkaPrefix      = "ce_"
	kafkaContentType = "content-type"
	keyAttribute     = "partitionkey" // the CloudEvents partitioning extension
)

// event is the event of a record. It keeps the record's value.
func (m *kafkaMapping) event(r *kgo.Record) (bus.Event, error) {
	contentType, binary := "", false
	for i := range r.Headers {
		switch h := &r.Headers[i]; {
		case strings.EqualFold(h.Key, kafkaContentType):
			contentType = string(h.Value)
		case strings.HasPrefix(h.Key, kafkaPrefix):
			binary = true
		}
	}
	var e bus.Event
	var err error
	switch {
	case hasPrefixFold(contentType, "application/cloudevents"):
		e, err = structured(contentType, r.Value)
	case binary:
		e, err = binaryEvent(r, contentType)
	default:
		return m.plain(r, contentType)
	}
	if err != nil {
		return bus.Event{}, err
	}
	return bus.Stamp(e, recordTime(r)), nil
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// recordTime is when a record was made.
func recordTime(r *kgo.Record) time.Time { return inMillis(r.Timestamp.UnixMilli()) }

// inMillis is a time that a message was given by its sender, in milliseconds since
// 1970; now for one that was given none, or one that RFC 3339 cannot say, such as that
// of a sender who counts in microseconds.
func inMillis(ms int64) time.Time {
	const last = 253402300799999 // of the year 9999
	if ms <= 0 || ms > last {
		return time.Now()
	}
	return time.UnixMilli(ms)
}

// structured is Kafka binding §3.3.
func structured(contentType string, value []byte) (bus.Event, error) {
	mode, err := bus.ModeOf(http.Header{"Content-Type": {contentType}})
	switch {
	case err != nil:
		return bus.Event{}, err
	case mode != bus.Structured:
		return bus.Event{}, errors.New("a batch is not one event: write each into a record of its own")
	}
	return bus.ParseJSON(value)
}

// binaryEvent is Kafka binding §3.2: header values are UTF-8 as they are, without
// the escapes of HTTP.
func binaryEvent(r *kgo.Record, contentType string) (bus.Event, error) {
	attrs := make([]bus.Attr, 0, len(r.Headers)+2)
	versioned := false
	for i := range r.Headers {
		name, ok := strings.CutPrefix(r.Headers[i].Key, kafkaPrefix)
		if !ok {
			continue
		}
		versioned = versioned || name == "specversion"
		attrs = append(attrs, bus.Attr{Name: name, Value: string(r.Headers[i].Value)})
	}
	if !versioned {
		return bus.Event{}, &bus.AttributeError{Name: "specversion", Msg: "missing: add the header ce_specversion: " + bus.SpecVersion}
	}
	if contentType != "" {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: contentType})
	}
	return bus.NewEvent(attrs, r.Value)
}

// plain is the event of a record that is no CloudEvent. Its id holds the record's
// time too: the offsets of a topic that was deleted and created again begin anew.
func (m *kafkaMapping) plain(r *kgo.Record, contentType string) (bus.Event, error) {
	attrs := make([]bus.Attr, 0, 8+len(r.Headers))
	typ := m.typ
	if r.Value == nil {
		typ += ".tombstone"
	}
	attrs = append(attrs,
		bus.Attr{Name: "id", Value: recordID(r)},
		bus.Attr{Name: "source", Value: m.source + "/" + r.Topic},
		bus.Attr{Name: "type", Value: typ},
		bus.Attr{Name: "time", Value: recordTime(r).UTC().Format(time.RFC3339Nano)},
	)
	if len(r.Key) > 0 {
		key := attributeText(r.Key)
		attrs = append(attrs, bus.Attr{Name: keyAttribute, Value: key}, bus.Attr{Name: "subject", Value: key})
	}
	if len(r.Value) > 0 {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: m.typeOf(contentType, r.Value)})
	}
	own := len(attrs)
	for i := range r.Headers {
		if made, ok := m.headers.of(r.Headers[i].Key, r.Headers[i].Value); ok {
			attrs = appendNew(attrs, made)
		}
	}
	e, err := bus.NewEvent(slices.Clone(attrs), r.Value)
	if err != nil && m.contentType == "" {
		// A header that says what is not so: the value counts.
		for i := range attrs[:own] {
			if attrs[i].Name == "datacontenttype" {
				attrs[i].Value = detect(r.Value)
			}
		}
		e, err = bus.NewEvent(attrs, r.Value)
	}
	return e, err
}

// recordID is what a record is known by within its topic.
func recordID(r *kgo.Record) string {
	id := make([]byte, 0, 40)
	id = strconv.AppendInt(id, int64(r.Partition), 10)
	id = append(id, '/')
	id = strconv.AppendInt(id, r.Offset, 10)
	id = append(id, '/')
	return string(strconv.AppendInt(id, max(0, r.Timestamp.UnixMilli()), 10))
}

// typeOf is the datacontenttype of a plain record.
func (m *kafkaMapping) typeOf(header string, data []byte) string {
	switch {
	case m.contentType != "":
		return m.contentType
	case header != "":
		return header
	}
	return detect(data)
}

func detect(data []byte) string {
	if bus.ValidJSON(data) {
		return "application/json"
	}
	return "application/octet-stream"
}

// isText tells whether a text may be the value of an attribute (CloudEvents 1.0.2
// §3.1, String).
func isText(text string) bool {
	return text != "" && utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsControl(r) || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef
	})
}

// isExtension tells whether a header may be an attribute of the same name. Others
// are left out: two names must not become one.
func isExtension(name string) bool {
	switch name {
	case "", "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data", keyAttribute:
		return false
	}
	return len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

// reject is the dead letter of a record that claims to be an event and is none.
func (m *kafkaMapping) reject(r *kgo.Record, err error) Rejected {
	where := fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
	rejected := Rejected{
		ID: m.source + "/" + r.Topic + "/" + recordID(r), Where: where,
		Reason: "the record is no valid CloudEvent: " + err.Error(), Data: r.Value, Key: r.Key,
	}
	for _, h := range r.Headers {
		rejected.Headers = append(rejected.Headers, Header{h.Key, h.Value})
		if strings.EqualFold(h.Key, kafkaContentType) && isText(string(h.Value)) {
			rejected.ContentType = string(h.Value)
		}
	}
	return rejected
}
