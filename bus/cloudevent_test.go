package bus_test

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"pgregory.net/rapid"

	"sluice/bus"
)

func TestCloudEventIdentity(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := anyEvent().Draw(t, "event")
		back, err := bus.FromCloudEvent(e.CloudEvent())
		if err != nil {
			t.Fatal(err)
		}
		want := e
		if e.Source() == "HTTP://Upper.Example" { // documented: the SDK prints schemes in lower case
			if want, err = e.With(attr("source", "http://Upper.Example")); err != nil {
				t.Fatal(err)
			}
		}
		same(t, want, back)
	})
}

// Both encoders and both decoders understand each other.
func TestCloudEventJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, err := anyEvent().Draw(t, "event").With(attr("source", "/s")) // the SDK spells some URIs differently
		if err != nil {
			t.Fatal(err)
		}
		if !sdkReads(e) {
			t.Skip("not in the way of the JSON format")
		}
		doc, err := json.Marshal(e.CloudEvent())
		if err != nil {
			t.Fatal(err)
		}
		fromSDK, err := bus.ParseJSON(doc)
		if err != nil {
			t.Fatalf("%v in the SDK's %s", err, doc)
		}
		var sdk event.Event
		if err := json.Unmarshal(e.AppendJSON(nil), &sdk); err != nil {
			t.Fatalf("the SDK says %v to %s", err, e.AppendJSON(nil))
		}
		fromUs, err := bus.FromCloudEvent(sdk)
		if err != nil {
			t.Fatal(err)
		}
		if e.DataIsJSON() {
			// encoding/json compacts what the SDK writes, and the SDK reads the space
			// around data as part of it.
			fromSDK, fromUs, e = withoutData(t, fromSDK), withoutData(t, fromUs), withoutData(t, e)
		}
		same(t, e, fromSDK)
		same(t, e, fromUs)
	})
}

// sdkReads tells whether the SDK treats the data in JSON as the JSON format asks
// for: v2.16.2 takes types with +json, or in upper case, for text.
func sdkReads(e bus.Event) bool {
	ct := e.Get("datacontenttype")
	mt, _, _ := strings.Cut(ct, ";")
	return !bus.IsJSON(ct) || mt == "application/json" || mt == "text/json"
}

func withoutData(t fatal, e bus.Event) bus.Event {
	t.Helper()
	out, err := bus.NewEvent(append([]bus.Attr(nil), e.Attrs()...), nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

func TestFromCloudEvent(t *testing.T) {
	t.Parallel()
	sdk := event.New()
	sdk.SetID("1")
	sdk.SetSource("/s")
	sdk.SetType("t")
	sdk.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)))
	sdk.SetExtension("n", 7)
	sdk.SetExtension("b", false)
	sdk.SetExtension("bytes", []byte{0, 255})
	sdk.SetExtension("when", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	sdk.SetExtension("uri", &url.URL{Scheme: "urn", Opaque: "x"})
	e, err := bus.FromCloudEvent(sdk)
	if err != nil {
		t.Fatal(err)
	}
	want := mustEvent(t, "", attr("time", "2026-01-02T02:04:05Z"), bus.Attr{Name: "n", Value: "7", Kind: bus.Integer},
		bus.Attr{Name: "b", Value: "false", Kind: bus.Boolean}, attr("bytes", "AP8="), attr("when", "2026-01-02T03:04:05Z"), attr("uri", "urn:x"))
	same(t, want, e)
}

func TestFromCloudEventFaults(t *testing.T) {
	t.Parallel()
	with := func(change func(*event.Event)) event.Event {
		e := event.New()
		e.SetID("1")
		e.SetSource("/s")
		e.SetType("t")
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		in event.Event
		at string
	}{
		"zero":          {event.Event{}, "specversion"},
		"old":           {with(func(e *event.Event) { e.SetSpecVersion("0.3") }), "specversion"},
		"no type":       {with(func(e *event.Event) { e.SetType("") }), "type"},
		"failed setter": {with(func(e *event.Event) { e.SetSource("http://[::1") }), "source"},
		"bad extension": {with(func(e *event.Event) { e.SetExtension("a_b", "1") }), "a_b"},
		"odd extension": {with(func(e *event.Event) { e.Context.(*event.EventContextV1).Extensions = map[string]any{"x": struct{}{}} }), "x"},
		"bad text":      {with(func(e *event.Event) { e.SetExtension("x", "a\nb") }), "x"},
		"bad data": {with(func(e *event.Event) {
			e.SetDataContentType("application/json")
			e.DataEncoded = []byte("{")
		}), "data"},
	} {
		_, err := bus.FromCloudEvent(c.in)
		var e *bus.AttributeError
		if !errors.As(err, &e) || e.Name != c.at {
			t.Errorf("%s: %v, want a fault of %s", name, err, c.at)
		}
	}
}
