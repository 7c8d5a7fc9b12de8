package sources

import (
	"reflect"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"sluice/bus"
)

func natsTestMessage(data string, headers ...string) *natsMessage {
	m := &natsMessage{subject: "orders.eu", data: []byte(data), header: natsgo.Header{}}
	for i := 0; i < len(headers); i += 2 {
		m.header[headers[i]] = append(m.header[headers[i]], headers[i+1])
	}
	m.sequence("ORDERS", 7, time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))
	return m
}

func TestNATSMapping(t *testing.T) {
	t.Parallel()
	const (
		source = "nats://c/ORDERS"
		id     = "7/1767323045000000006"
		stored = "2026-01-02T03:04:05.000000006Z"
	)
	for name, c := range map[string]struct {
		msg  *natsMessage
		want map[string]string // "" for an attribute that must not be there
		json bool
	}{
		"json": {natsTestMessage(`{"a":1}`), map[string]string{
			"id": id, "source": source, "type": "nats.message", "subject": "orders.eu", "time": stored, "datacontenttype": "application/json"}, true},
		"bytes":          {natsTestMessage("\xff"), map[string]string{"datacontenttype": "application/octet-stream"}, false},
		"declared":       {natsTestMessage("a", "Content-Type", "text/plain"), map[string]string{"datacontenttype": "text/plain"}, false},
		"declared wrong": {natsTestMessage("a", "content-type", "application/json"), map[string]string{"datacontenttype": "application/octet-stream"}, false},
		"empty":          {natsTestMessage(""), map[string]string{"id": id, "datacontenttype": ""}, false},
		"headers": {natsTestMessage("a", "region", "eu", "Nats-Msg-Id", "x", "type", "no", "twice", "1", "twice", "2", "bad", "\x00"), map[string]string{
			"region": "eu", "type": "nats.message", "twice": "", "bad": ""}, false},
		"binary": {natsTestMessage(`{}`, "ce-specversion", "1.0", "CE-Id", "a%20b", "ce-source", "/s", "ce-type", "t", "ce-count", "\"7\"", "ce-datacontenttype", "application/json"), map[string]string{
			"id": "a b", "source": "/s", "type": "t", "count": "7", "datacontenttype": "application/json", "time": stored, "subject": ""}, true},
		"binary with the type of HTTP": {natsTestMessage("a", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "t", "Content-Type", "text/plain"), map[string]string{
			"datacontenttype": "text/plain"}, false},
		"binary of an event in an event": {natsTestMessage(`{}`, "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s", "ce-type", "t", "ce-datacontenttype", "application/cloudevents+json"), map[string]string{
			"type": "t", "datacontenttype": "application/cloudevents+json"}, true},
		"structured": {natsTestMessage(`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2020-01-01T00:00:00Z"}`, "Content-Type", "application/cloudevents+json; charset=utf-8"), map[string]string{
			"id": "1", "source": "/s", "time": "2020-01-01T00:00:00Z"}, false},
		"structured without headers": {natsTestMessage(`{"specversion":"1.0","id":"1","source":"/s","type":"t"}`), map[string]string{"id": "1", "source": "/s", "time": stored}, false},
		"nearly structured":          {natsTestMessage(`{"specversion":"1.0","id":"1"}`), map[string]string{"id": id, "source": source}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := natsMapping{source: "nats://c", typ: "nats.message"}
			e, err := m.event(c.msg)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range c.want {
				if got := e.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if e.DataIsJSON() != c.json {
				t.Errorf("JSON: %v", e.DataIsJSON())
			}
		})
	}
}

func TestNATSPoison(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		msg  *natsMessage
		want string
	}{
		"no version":   {natsTestMessage("a", "ce-id", "1"), "specversion: missing"},
		"no type":      {natsTestMessage("a", "ce-specversion", "1.0", "ce-id", "1", "ce-source", "/s"), "type: missing"},
		"twice":        {natsTestMessage("a", "ce-specversion", "1.0", "ce-id", "1", "CE-ID", "2", "ce-source", "/s", "ce-type", "t"), "id: the header ce-id is given twice"},
		"not UTF-8":    {natsTestMessage("a", "ce-specversion", "1.0", "ce-id", "%C0%A0", "ce-source", "/s", "ce-type", "t"), "id: is not valid UTF-8"},
		"broken JSON":  {natsTestMessage("{", "Content-Type", "application/cloudevents+json"), "JSON"},
		"a batch":      {natsTestMessage("[]", "Content-Type", "application/cloudevents-batch+json"), "a batch is not one event"},
		"other format": {natsTestMessage("a", "Content-Type", "application/cloudevents+xml"), "is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := natsMapping{source: "nats://c", typ: "nats.message"}
			_, err := m.event(c.msg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			r := m.reject(c.msg, err)
			if r.ID != "nats://c/ORDERS/7/1767323045000000006" || r.Where != "ORDERS/7 (orders.eu)" || string(r.Data) != string(c.msg.data) {
				t.Errorf("the dead letter: %+v", r)
			}
			kept := map[string][]string{}
			for _, h := range r.Headers {
				kept[h.Name] = append(kept[h.Name], string(h.Value))
			}
			if !reflect.DeepEqual(kept, map[string][]string(c.msg.header)) {
				t.Errorf("the dead letter has the headers %v of %v", kept, c.msg.header)
			}
		})
	}
}

// Without a stream the publisher's own id counts, and no two messages are one.
func TestNATSUnnumbered(t *testing.T) {
	t.Parallel()
	a, b, named := natsTestMessage("a"), natsTestMessage("a"), natsTestMessage("a", natsgo.MsgIdHdr, "own")
	for _, m := range []*natsMessage{a, b, named} {
		m.unnumbered()
	}
	if a.id == b.id || a.id == "" || named.id != "own" || a.where != "orders.eu" {
		t.Errorf("the ids are %q, %q and %q", a.id, b.id, named.id)
	}
}

// FuzzNATSMessage: whatever comes is an event, with its data untouched where it is no
// structured one, or an error; and the same both times.
func FuzzNATSMessage(f *testing.F) {
	f.Add("orders.eu", "Content-Type", "application/cloudevents+json", "region", "eu", []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t"}`))
	f.Add("a", "ce-specversion", "1.0", "ce-datacontenttype", "text/plain", []byte("a"))
	f.Add("a", "ce-id", "%2", "CE-ID", "\"\\", []byte{0xff})
	f.Add("", "", "", "x", "\x00", []byte(nil))
	f.Add("a", "Nats-Msg-Id", "7", "content-type", "application/json", []byte("{"))
	f.Fuzz(func(t *testing.T, subject, k1, v1, k2, v2 string, data []byte) {
		m := natsMapping{source: "nats://c", typ: "nats.message"}
		msg := natsTestMessage(string(data), k1, v1, k2, v2)
		msg.subject = subject
		e, err := m.event(msg)
		again, errAgain := m.event(msg)
		if (err == nil) != (errAgain == nil) {
			t.Fatalf("%v, and then %v", err, errAgain)
		}
		if err != nil {
			if r := m.reject(msg, err); r.ID == "" || string(r.Data) != string(data) {
				t.Fatalf("the dead letter: %+v", r)
			}
			return
		}
		if e.ID() != again.ID() || e.Source() != again.Source() || e.ID() == "" {
			t.Fatalf("two events of one message: %v and %v", e, again)
		}
		if e.Type() == m.typ && string(e.Data()) != string(data) {
			t.Fatal("the data was changed")
		}
		if _, err := bus.DecodeRecord(e.AppendRecord(nil)); err != nil {
			t.Fatalf("an event that cannot be stored: %v", err)
		}
	})
}
