package sinks_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/bus"
	"sluice/sinks"
)

// request is what a function sees of a delivery.
type request struct {
	URI, Body   string
	ContentType string
	ID, Schema  string
	Extra       []string
}

// TestHTTPPayload sends what a transform made of an event to a real server.
func TestHTTPPayload(t *testing.T) {
	t.Parallel()
	got := make(chan request, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- request{
			URI: r.RequestURI, Body: string(body), ContentType: r.Header.Get("Content-Type"),
			ID: r.Header.Get("Ce-Id"), Schema: r.Header.Get("Ce-Dataschema"), Extra: r.Header["X-Order"],
		}
	}))
	defer server.Close()
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: "1"}, {Name: "source", Value: "/t"}, {Name: "type", Value: "x"},
		{Name: "datacontenttype", Value: "application/json"}, {Name: "dataschema", Value: "https://example.com/x"},
	}, []byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, url, mode string
		payload         sinks.Payload
		want            request
	}{
		{"body", "/in", "binary", sinks.Payload{Body: []byte("hello"), ContentType: "text/plain"},
			request{URI: "/in", Body: "hello", ContentType: "text/plain", ID: "1"}},
		{"empty body", "/in", "binary", sinks.Payload{Body: []byte{}, ContentType: "text/plain"},
			request{URI: "/in", ContentType: "text/plain", ID: "1"}},
		{"structured", "/in", "structured", sinks.Payload{Body: []byte("[1]"), ContentType: "application/json"},
			request{URI: "/in", Body: "[1]", ContentType: "application/json", ID: "1"}},
		{"request", "/in/?key=s&id=old", "binary", sinks.Payload{
			Path: "/a%2Fb/c%20d", Query: map[string]string{"id": "1&2", "é": "%"}, Header: map[string]string{"X-Order": "7"},
		}, request{
			URI: "/in/a%2Fb/c%20d?id=1%262&key=s&%C3%A9=%25", Body: `{"a":1}`, ContentType: "application/json", ID: "1",
			Schema: "https://example.com/x", Extra: []string{"7"},
		}},
		{"root", "", "binary", sinks.Payload{Path: "/a"},
			request{URI: "/a", Body: `{"a":1}`, ContentType: "application/json", ID: "1", Schema: "https://example.com/x"}},
	} {
		s := sinks.NewHTTP()
		s.URL, s.Mode = parse(t, server.URL+c.url), c.mode
		sink := open(t, s)
		// Twice: a payload must not stick to what requests have in common.
		for range 2 {
			if err := sink.Deliver(t.Context(), sinks.Delivery{Event: e, ID: "d", Rule: "r", Sink: "s", Attempt: 1, Payload: &c.payload}); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if diff := cmp.Diff(c.want, <-got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
		if err := sink.Deliver(t.Context(), sinks.Delivery{Event: e, Attempt: 1}); err != nil {
			t.Fatal(err)
		}
		if r := <-got; r.URI != targetOf(c.url) || r.Extra != nil {
			t.Errorf("%s: without a payload the request was %+v", c.name, r)
		}
	}
}

// targetOf is what a request line has of a path.
func targetOf(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func TestStdoutPayload(t *testing.T) {
	t.Parallel()
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/t"}, {Name: "type", Value: "x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s := sinks.NewStdout()
	s.Writer = &out
	sink := open(t, s)
	for _, p := range []*sinks.Payload{
		{Body: []byte("{\n\"a\": 1}"), ContentType: "application/json"},
		{Body: []byte("one\ntwo"), ContentType: "text/plain"},
		{Path: "/x"},
	} {
		if err := sink.Deliver(t.Context(), sinks.Delivery{Event: e, Attempt: 1, Payload: p}); err != nil {
			t.Fatal(err)
		}
	}
	want := "{ \"a\": 1}\none\ntwo\n{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/t\",\"type\":\"x\"}\n"
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}

func TestCheckHeader(t *testing.T) {
	t.Parallel()
	for name, ok := range map[string]bool{
		"X-Order": true, "Accept": true, "host": false, "authorization": false, "Ce-Id": false, "sluice-rule": false,
		"content-type": false, "Transfer-Encoding": false, "a b": false, "": false,
	} {
		if msg := sinks.CheckHeader(name); (msg == "") != ok {
			t.Errorf("%q: %q", name, msg)
		}
	}
}
