package sources

import (
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	natsgo "github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"sluice/bus"
)

// The messages of NATS as events: the CloudEvents NATS protocol binding in its
// structured mode (1.0.2) and its binary mode (1.0.3, which headers came with), and a
// mapping of our own for the rest.

// natsMapping makes events of messages.
type natsMapping struct {
	source      string // of plain messages, without the stream or the subject
	typ         string // the same
	contentType string // the same; "" to find out
	headers     headerNames
}

// natsMessage is one message with what it is known by.
type natsMessage struct {
	subject string
	header  natsgo.Header
	data    []byte
	id      string // the same when it comes again, within where
	where   string // its stream, or its subject
	place   string // where it stood, for people
	time    time.Time
}

// sequence names a message of a stream. Its time is in the id too: the sequences of a
// stream that was deleted and made again begin anew.
func (m *natsMessage) sequence(stream string, n uint64, at time.Time) {
	text := strconv.FormatUint(n, 10)
	m.where, m.place, m.time = stream, stream+"/"+text, at
	m.id = text + "/" + strconv.FormatInt(at.UnixNano(), 10)
}

// unnumbered names a message of core NATS: by the id that its publisher gave it,
// if any.
func (m *natsMessage) unnumbered() {
	m.where, m.place, m.time = m.subject, m.subject, time.Now()
	if m.id = m.header.Get(natsgo.MsgIdHdr); !isText(m.id) {
		m.id = uuid.NewString()
	}
}

const (
	natsPrefix      = "ce-"
	natsContentType = "content-type"
)

// event is the event of a message. It keeps the message's data.
func (m *natsMapping) event(msg *natsMessage) (bus.Event, error) {
	contentType, attributes := "", http.Header{}
	for key, values := range msg.header {
		name := strings.ToLower(key)
		switch {
		case len(values) == 0:
		case name == natsContentType:
			contentType = values[0]
		case strings.HasPrefix(name, natsPrefix):
			name = textproto.CanonicalMIMEHeaderKey(name)
			attributes[name] = append(attributes[name], values...)
		}
	}
	var e bus.Event
	var err error
	switch {
	case hasPrefixFold(contentType, "application/cloudevents"):
		e, err = structured(contentType, msg.data)
	case len(attributes) > 0:
		e, err = binaryMessage(attributes, contentType, msg.data)
	default:
		// Before there were headers an event was its JSON form.
		if e, ok := unmarked(msg, contentType); ok {
			return e, nil
		}
		return m.plain(msg, contentType)
	}
	if err != nil {
		return bus.Event{}, err
	}
	return bus.Stamp(e, msg.time), nil
}

// binaryMessage is the binding's §3.1: headers as those of HTTP, but that the type of
// the data is an attribute like the others. Content-Type is understood too, since
// senders use both.
func binaryMessage(attributes http.Header, contentType string, data []byte) (bus.Event, error) {
	const typeHeader = "Ce-Datacontenttype"
	if types := attributes[typeHeader]; len(types) > 0 {
		contentType = types[0]
		delete(attributes, typeHeader)
	}
	e, err := bus.FromHTTP(attributes, nil)
	if err != nil {
		return bus.Event{}, err
	}
	attrs := slices.Clone(e.Attrs())
	if contentType != "" {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: contentType})
	}
	return bus.NewEvent(attrs, data)
}

// unmarked is the event in a message that does not say that it is one.
func unmarked(msg *natsMessage, contentType string) (bus.Event, bool) {
	if contentType != "" && !bus.IsJSON(contentType) || len(msg.data) == 0 || msg.data[0] != '{' {
		return bus.Event{}, false
	}
	if gjson.GetBytes(msg.data, "specversion").Type != gjson.String {
		return bus.Event{}, false
	}
	e, err := bus.ParseJSON(msg.data)
	if err != nil {
		return bus.Event{}, false
	}
	return bus.Stamp(e, msg.time), true
}

// plain is the event of a message that is no CloudEvent.
func (m *natsMapping) plain(msg *natsMessage, contentType string) (bus.Event, error) {
	attrs := make([]bus.Attr, 0, 8+len(msg.header))
	attrs = append(attrs,
		bus.Attr{Name: "id", Value: msg.id},
		bus.Attr{Name: "source", Value: m.sourceOf(msg)},
		bus.Attr{Name: "type", Value: m.typ},
		bus.Attr{Name: "time", Value: msg.time.UTC().Format(time.RFC3339Nano)},
	)
	if isText(msg.subject) {
		attrs = append(attrs, bus.Attr{Name: "subject", Value: msg.subject})
	}
	for _, key := range slices.Sorted(maps.Keys(msg.header)) {
		values := msg.header[key]
		if made, ok := m.headers.of(key, []byte(strings.Join(values, ","))); ok && (len(values) == 1 || made.Name != key) {
			attrs = appendNew(attrs, made)
		}
	}
	if len(msg.data) == 0 {
		return bus.NewEvent(attrs, nil)
	}
	made := func(contentType string) (bus.Event, error) {
		return bus.NewEvent(append(slices.Clone(attrs), bus.Attr{Name: "datacontenttype", Value: contentType}), msg.data)
	}
	if m.contentType != "" {
		return made(m.contentType)
	}
	if contentType != "" {
		if e, err := made(contentType); err == nil {
			return e, nil
		} // a header that says what is not so: the data counts
	}
	return made(detect(msg.data))
}

func (m *natsMapping) sourceOf(msg *natsMessage) string {
	return m.source + "/" + url.PathEscape(msg.where)
}

// reject is the dead letter of a message that claims to be an event and is none.
func (m *natsMapping) reject(msg *natsMessage, err error) Rejected {
	rejected := Rejected{
		ID: m.sourceOf(msg) + "/" + msg.id, Where: fmt.Sprintf("%s (%s)", msg.place, msg.subject),
		Reason: "the message is no valid CloudEvent: " + err.Error(), Data: msg.data,
	}
	for _, key := range slices.Sorted(maps.Keys(msg.header)) {
		values := msg.header[key]
		for _, v := range values {
			rejected.Headers = append(rejected.Headers, Header{key, []byte(v)})
		}
		if strings.EqualFold(key, natsContentType) && len(values) > 0 && isText(values[0]) {
			rejected.ContentType = values[0]
		}
	}
	return rejected
}
