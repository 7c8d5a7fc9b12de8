package sources

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func headers(pairs ...string) (all []kgo.RecordHeader) {
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, kgo.RecordHeader{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	return all
}

func TestKafkaRecords(t *testing.T) {
	t.Parallel()
	ce := func(more ...string) []kgo.RecordHeader {
		return headers(append([]string{"ce_specversion", "1.0", "ce_id", "i", "ce_source", "/s", "ce_type", "t"}, more...)...)
	}
	const plain = "id=3/4711/1767225600123 source=kafka://c/clicks type=kafka.record "
	for name, c := range map[string]struct {
		record kgo.Record
		typ    string // content_type of the settings
		want   string // attributes, or the start of an error
	}{
		"json":               {kgo.Record{Value: []byte(`{"a": 1}`)}, "", plain + "datacontenttype=application/json time=2026-01-01T00:00:00.123Z"},
		"bytes":              {kgo.Record{Value: []byte{0, 255}}, "", plain + "datacontenttype=application/octet-stream time=2026-01-01T00:00:00.123Z"},
		"declared":           {kgo.Record{Value: []byte("a"), Headers: headers("Content-Type", "text/plain")}, "", plain + "datacontenttype=text/plain time=2026-01-01T00:00:00.123Z"},
		"declared falsely":   {kgo.Record{Value: []byte("a"), Headers: headers("content-type", "application/json")}, "", plain + "datacontenttype=application/octet-stream time=2026-01-01T00:00:00.123Z"},
		"configured":         {kgo.Record{Value: []byte("a"), Headers: headers("content-type", "text/plain")}, "application/avro", plain + "datacontenttype=application/avro time=2026-01-01T00:00:00.123Z"},
		"configured falsely": {kgo.Record{Value: []byte("a")}, "application/json", "error: data: is not valid JSON"},
		"empty":              {kgo.Record{Value: []byte{}}, "", plain + "time=2026-01-01T00:00:00.123Z"},
		"tombstone":          {kgo.Record{Key: []byte("k")}, "", strings.Replace(plain, "record", "record.tombstone", 1) + "partitionkey=k subject=k time=2026-01-01T00:00:00.123Z"},
		"key":                {kgo.Record{Key: []byte("k é")}, "", strings.Replace(plain, "record", "record.tombstone", 1) + "partitionkey=k é subject=k é time=2026-01-01T00:00:00.123Z"},
		"binary key":         {kgo.Record{Key: []byte{0, 255}}, "", strings.Replace(plain, "record", "record.tombstone", 1) + "partitionkey=AP8= subject=AP8= time=2026-01-01T00:00:00.123Z"},
		"headers": {
			kgo.Record{Value: []byte{}, Headers: headers("tenant", "a", "X-Odd", "b", "id", "c", "tenant", "d", "bin", "\xff", "traceparent", "00-1", "data", "e", "none", "", "under_score", "f")},
			"", plain + "tenant=a time=2026-01-01T00:00:00.123Z traceparent=00-1",
		},
		"binary mode":         {kgo.Record{Key: []byte("k"), Value: []byte("{}"), Headers: ce("content-type", "application/json", "ce_tenant", "50% é", "other", "x")}, "text/plain", "id=i source=/s type=t datacontenttype=application/json tenant=50% é time=2026-01-01T00:00:00.123Z"},
		"binary mode, null":   {kgo.Record{Headers: ce("ce_time", "2020-01-01T00:00:00Z")}, "", "id=i source=/s type=t time=2020-01-01T00:00:00Z"},
		"binary, own type":    {kgo.Record{Value: []byte("{}"), Headers: ce("ce_datacontenttype", "text/plain")}, "", "id=i source=/s type=t datacontenttype=text/plain time=2026-01-01T00:00:00.123Z"},
		"binary, two types":   {kgo.Record{Headers: ce("ce_datacontenttype", "text/plain", "content-type", "text/plain")}, "", "error: datacontenttype: given twice"},
		"binary, no version":  {kgo.Record{Key: []byte("k"), Headers: headers("ce_id", "i", "x", "\xff")}, "", "error: specversion: missing"},
		"binary, old version": {kgo.Record{Headers: headers("ce_specversion", "0.3", "ce_id", "i", "ce_source", "/s", "ce_type", "t")}, "", "error: specversion:"},
		"binary, no id":       {kgo.Record{Headers: headers("ce_specversion", "1.0", "ce_source", "/s", "ce_type", "t")}, "", "error: id: missing"},
		"binary, twice":       {kgo.Record{Headers: ce("ce_id", "j")}, "", "error: id: given twice"},
		"binary, name":        {kgo.Record{Headers: ce("ce_my-name", "j")}, "", "error: my-name: attribute names"},
		"binary, no UTF-8":    {kgo.Record{Headers: ce("ce_x", "\xff")}, "", "error: x: is not valid UTF-8"},
		"binary, no JSON":     {kgo.Record{Value: []byte("{"), Headers: ce("content-type", "application/json")}, "", "error: data: is not valid JSON"},
		"structured":          {kgo.Record{Value: []byte(`{"specversion":"1.0","id":"i","source":"/s","type":"t","data":1}`), Headers: headers("content-type", "application/cloudevents+json; charset=UTF-8")}, "", "id=i source=/s type=t time=2026-01-01T00:00:00.123Z"},
		"structured, broken":  {kgo.Record{Value: []byte(`{"specversion":`), Headers: headers("content-type", "application/cloudevents+json")}, "", "error: "},
		"structured, null":    {kgo.Record{Headers: headers("content-type", "application/cloudevents+json")}, "", "error: "},
		"structured, avro":    {kgo.Record{Value: []byte(`x`), Headers: headers("content-type", "application/cloudevents+avro")}, "", "error: the event format"},
		"batch":               {kgo.Record{Value: []byte(`[]`), Headers: headers("content-type", "application/cloudevents-batch+json")}, "", "error: a batch is not one event"},
	} {
		m := kafkaMapping{source: "kafka://c", typ: "kafka.record", contentType: c.typ}
		r := c.record
		r.Topic, r.Partition, r.Offset, r.Timestamp = "clicks", 3, 4711, time.UnixMilli(1767225600123)
		e, err := m.event(&r)
		if err != nil {
			if got := "error: " + err.Error(); !strings.HasPrefix(c.want, "error: ") || !strings.HasPrefix(got, c.want) {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
			if d := m.reject(&r, err); d.ID == "" || d.Where != "clicks/3/4711" || !bytes.Equal(d.Data, r.Value) ||
				!bytes.Equal(d.Key, r.Key) || fmt.Sprint(d.Headers) != fmt.Sprint(r.Headers) {
				t.Errorf("%s: the dead letter is %+v", name, d)
			}
			continue
		}
		var attrs []string
		for _, a := range e.Attrs()[1:] {
			attrs = append(attrs, a.Name+"="+a.Value)
		}
		if got := strings.Join(attrs, " "); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, c.want)
		}
	}
}

// The time of a record is its sender's, and may be none that an event can have.
func TestKafkaOddTimes(t *testing.T) {
	t.Parallel()
	m := kafkaMapping{source: "kafka://c", typ: "kafka.record"}
	for _, ms := range []int64{-1, 0, 253402300800000, 1767225600123000, math.MaxInt64} {
		for name, r := range map[string]*kgo.Record{
			"plain": {Value: []byte("{}")},
			"event": {Headers: headers("ce_specversion", "1.0", "ce_id", "i", "ce_source", "/s", "ce_type", "t")},
		} {
			r.Timestamp = time.UnixMilli(ms)
			e, err := m.event(r)
			if err != nil {
				t.Errorf("%s of %d: %v", name, ms, err)
				continue
			}
			if age := time.Since(e.Time()); age < 0 || age > time.Minute {
				t.Errorf("%s of %d has the time %s", name, ms, e.Get("time"))
			}
		}
	}
}

// Whatever a record holds, it becomes an event whose id is the same every time, or
// a dead letter; its value is kept as it came unless it is a structured event.
func FuzzKafkaRecord(f *testing.F) {
	f.Add([]byte("k"), []byte(`{"a":1}`), "content-type", []byte("application/json"), "ce_id", []byte("i"))
	f.Add([]byte(nil), []byte(nil), "ce_specversion", []byte("1.0"), "ce_id", []byte("\xff"))
	f.Add([]byte{0}, []byte(`{"specversion":"1.0","id":"i","source":"/s","type":"t"}`), "content-type", []byte("application/cloudevents+json"), "x", []byte(nil))
	m := kafkaMapping{source: "kafka://c", typ: "kafka.record"}
	f.Fuzz(func(t *testing.T, key, value []byte, k1 string, v1 []byte, k2 string, v2 []byte) {
		r := &kgo.Record{
			Topic: "clicks", Partition: 1, Offset: 2, Timestamp: time.UnixMilli(1767225600123), Key: key, Value: value,
			Headers: []kgo.RecordHeader{{Key: k1, Value: v1}, {Key: k2, Value: v2}},
		}
		claims := strings.HasPrefix(k1+" "+k2, "ce_") || strings.Contains(" "+k2, " ce_")
		for _, h := range r.Headers {
			claims = claims || strings.EqualFold(h.Key, kafkaContentType) && hasPrefixFold(string(h.Value), "application/cloudevents")
		}
		before := slices.Clone(value)
		e, err := m.event(r)
		again, errAgain := m.event(r)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || err == nil && (e.ID() != again.ID() || e.Source() != again.Source()) {
			t.Fatal("a record is not mapped to the same event every time")
		}
		if !bytes.Equal(before, r.Value) {
			t.Fatal("the value was changed")
		}
		if err != nil {
			if !claims {
				t.Fatalf("a plain record is refused: %v", err)
			}
			if d := m.reject(r, err); d.ID == "" || !bytes.Equal(d.Data, value) {
				t.Fatalf("the dead letter is %+v", d)
			}
			return
		}
		if !claims && !bytes.Equal(e.Data(), value) {
			t.Fatalf("the value %q became %q", value, e.Data())
		}
	})
}
