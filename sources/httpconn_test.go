package sources_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// serve puts a handler behind a real listener.
func serve(t testing.TB, limits sources.Limits) (*httptest.Server, *sourcetest.Publisher) {
	t.Helper()
	pub := &sourcetest.Publisher{}
	srv := httptest.NewServer(sources.NewHandler(pub, sources.HandlerOptions{Limits: limits}))
	t.Cleanup(srv.Close)
	return srv, pub
}

// sdkEvents are events that the SDK makes, by name.
func sdkEvents(t *testing.T) map[string]event.Event {
	t.Helper()
	made := make(map[string]event.Event)
	for name, set := range map[string]func(*event.Event) error{
		"json":   func(e *event.Event) error { return e.SetData("application/json", map[string]any{"a": 1, "b": "é"}) },
		"text":   func(e *event.Event) error { return e.SetData("text/plain", "line\nbreak \"é\" \x01") },
		"xml":    func(e *event.Event) error { return e.SetData("application/xml", []byte("<a b=\"1\">&amp;</a>")) },
		"binary": func(e *event.Event) error { return e.SetData("application/octet-stream", []byte{0, 1, 255, 254, '\n'}) },
		"empty":  func(*event.Event) error { return nil },
	} {
		e := cloudevents.NewEvent()
		e.SetID(name)
		e.SetSource("https://example.com/a?b=c#d")
		e.SetType("com.example.test")
		e.SetSubject("a/b.txt")
		e.SetDataSchema("https://example.com/schema")
		e.SetTime(time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC))
		e.SetExtension("count", 42)
		e.SetExtension("flag", true)
		if err := set(&e); err != nil {
			t.Fatal(err)
		}
		made[name] = e
	}
	return made
}

// sameAsSent compares what was stored with what the SDK sent. Only JSON carries
// the kinds of attributes.
func sameAsSent(t *testing.T, sent event.Event, stored bus.Event, kinds bool) {
	t.Helper()
	want, err := bus.FromCloudEvent(sent)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range want.Attrs() {
		got := stored.Attrs()[i]
		if !kinds {
			a.Kind = got.Kind
		}
		if got != a {
			t.Errorf("%s: stored %v, sent %v", sent.ID(), got, a)
		}
	}
	if string(stored.Data()) != string(sent.Data()) || len(stored.Attrs()) != len(want.Attrs()) {
		t.Errorf("%s: stored %s", sent.ID(), stored.AppendJSON(nil))
	}
}

func TestSDKClient(t *testing.T) {
	t.Parallel()
	srv, pub := serve(t, sources.Limits{})
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, structured := range []bool{false, true} {
		ctx := cloudevents.WithEncodingBinary(t.Context())
		if structured {
			ctx = cloudevents.WithEncodingStructured(t.Context())
		}
		for _, e := range sdkEvents(t) {
			result := client.Send(ctx, e)
			var res *cehttp.Result
			if !cloudevents.IsACK(result) || !cloudevents.ResultAs(result, &res) || res.StatusCode != http.StatusAccepted {
				t.Fatalf("%s: %v", e.ID(), result)
			}
			sameAsSent(t, e, pub.Stored()[n], structured)
			n++
		}
	}
}

func TestSDKBatch(t *testing.T) {
	t.Parallel()
	srv, pub := serve(t, sources.Limits{})
	var events []event.Event
	for _, e := range sdkEvents(t) {
		events = append(events, e)
	}
	req, err := cehttp.NewHTTPRequestFromEvents(t.Context(), srv.URL, events)
	if err != nil {
		t.Fatal(err)
	}
	res, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.Body.Close() != nil || res.StatusCode != http.StatusAccepted {
		t.Fatalf("%d %s %v", res.StatusCode, body, err)
	}
	for i, e := range pub.Stored() {
		sameAsSent(t, events[i], e, true)
	}
}

// talk sends raw bytes and reads one answer.
func talk(t *testing.T, srv *httptest.Server, send string) (*http.Response, string) {
	t.Helper()
	conn := dial(t, srv)
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.Close { // the server has to do it too
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("the connection is still open: %v", err)
		}
	}
	return res, string(body)
}

const head = "POST / HTTP/1.1\r\nHost: x\r\nce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n"

func TestSlowClients(t *testing.T) {
	t.Parallel()
	short, long := value.Duration(30*time.Millisecond), value.Duration(time.Hour)
	for name, c := range map[string]struct {
		limits sources.Limits
		send   string
	}{
		"silent":             {sources.Limits{Stall: short, BodyTimeout: long}, "Content-Length: 100\r\n\r\n"},
		"stops":              {sources.Limits{Stall: short, BodyTimeout: long, MinRate: 1 << 20}, "Content-Length: 100\r\n\r\nabc"},
		"stops, chunked":     {sources.Limits{Stall: short, BodyTimeout: long, MinRate: 1 << 20}, "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
		"takes all its time": {sources.Limits{Stall: long, BodyTimeout: short}, "Content-Length: 100\r\n\r\nabc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, pub := serve(t, c.limits)
			res, body := talk(t, srv, head+c.send)
			if res.StatusCode != http.StatusRequestTimeout || !res.Close || !strings.Contains(body, "in time") {
				t.Errorf("%d %s", res.StatusCode, body)
			}
			if len(pub.Stored()) != 0 {
				t.Error("a part of an event was published")
			}
		})
	}
	t.Run("refused unread", func(t *testing.T) {
		t.Parallel()
		srv, _ := serve(t, sources.Limits{Stall: short, BodyTimeout: long})
		res, _ := talk(t, srv, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
		if res.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%d", res.StatusCode)
		}
	})
}

// dial is a connection to the server.
func dial(t *testing.T, srv *httptest.Server) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

func TestCutRequest(t *testing.T) {
	t.Parallel()
	srv, pub := serve(t, sources.Limits{})
	conn := dial(t, srv)
	if _, err := io.WriteString(conn, head+"Content-Length: 10\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusBadRequest || len(pub.Stored()) != 0 {
		t.Errorf("%v, %v, stored %d", res, err, len(pub.Stored()))
	}
}

// What is too large is refused on the word of its Content-Length, at once, and
// the connection does not wait for it long.
func TestTooLargeIsNotAwaited(t *testing.T) {
	t.Parallel()
	hour := value.Duration(time.Hour)
	patient, _ := serve(t, sources.Limits{Event: 10, Stall: hour, BodyTimeout: hour})
	conn := dial(t, patient)
	if _, err := io.WriteString(conn, head+"Content-Length: 11\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%v, %v", res, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	srv, _ := serve(t, sources.Limits{Event: 10, Stall: value.Duration(50 * time.Millisecond)})
	res, body := talk(t, srv, head+"Content-Length: 11\r\n\r\n")
	if res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close || !strings.Contains(body, "10 bytes") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// The deadline of the body ends with the body: the event may take longer to be
// stored, and the connection is used again.
func TestDeadlineEndsWithBody(t *testing.T) {
	t.Parallel()
	stall := 30 * time.Millisecond
	pub := &sourcetest.Publisher{Before: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(3 * stall):
			return nil
		}
	}}
	srv := httptest.NewServer(sources.NewHandler(pub, sources.HandlerOptions{Limits: sources.Limits{Stall: value.Duration(stall)}}))
	t.Cleanup(srv.Close)
	res, body := talk(t, srv, head+"Content-Length: 2\r\n\r\n{}")
	if res.StatusCode != http.StatusAccepted || res.Close {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	srv, pub := serve(t, sources.Limits{Event: 10})
	conn := dial(t, srv)
	r := bufio.NewReader(conn)
	for _, step := range []struct {
		send string
		want int
	}{
		{head + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n", http.StatusContinue},
		{"{}", http.StatusAccepted},
		{head + "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n", http.StatusRequestEntityTooLarge}, // without a 100
	} {
		if _, err := io.WriteString(conn, step.send); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != step.want {
			t.Fatalf("%d %v, want %d", res.StatusCode, err, step.want)
		}
	}
	if len(pub.Stored()) != 1 {
		t.Errorf("%d events are stored", len(pub.Stored()))
	}
}

func TestBodySizes(t *testing.T) {
	t.Parallel()
	srv, pub := serve(t, sources.Limits{Event: 1 << 20})
	for i, size := range []int{0, 1, 4095, 4096, 4097, 64 << 10, 64<<10 + 1, 1 << 20} {
		data := strings.Repeat("x", size)
		chunks := ""
		if size > 0 {
			chunks = strconv.FormatInt(int64(size), 16) + "\r\n" + data + "\r\n"
		}
		for j, rest := range []string{
			fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, data),
			"Transfer-Encoding: chunked\r\n\r\n" + chunks + "0\r\n\r\n",
		} {
			res, body := talk(t, srv, head+"Content-Type: text/plain\r\n"+rest)
			if res.StatusCode != http.StatusAccepted {
				t.Fatalf("%d bytes: %d %s", size, res.StatusCode, body)
			}
			if got := pub.Stored()[2*i+j].Data(); string(got) != data {
				t.Errorf("%d bytes became %d", size, len(got))
			}
		}
	}
	over := strings.Repeat("x", 1<<20+1)
	if res, _ := talk(t, srv, head+"Transfer-Encoding: chunked\r\n\r\n"+fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(over), over)); res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a chunked body over the limit: %d", res.StatusCode)
	}
}

func TestHeadersOverTheWire(t *testing.T) {
	t.Parallel()
	srv, pub := serve(t, sources.Limits{})
	for sent, want := range map[string]string{
		"plain": "plain", "a%20b": "a b", "a b": "a b", "100%25": "100%", "100%": "100%", "%zz": "%zz", "%41%": "A%", "%2541": "%41",
		"caf%C3%A9": "café", "café": "café", "%F0%9F%8E%89": "🎉", `"a \"b\" \\ c"`: `a "b" \ c`, `%22q%22`: `"q"`, `"a%20b"`: "a b", "%e2%82%ac": "€",
	} {
		res, body := talk(t, srv, head+"ce-subject: "+sent+"\r\nContent-Length: 0\r\n\r\n")
		if res.StatusCode != http.StatusAccepted {
			t.Errorf("%s: %d %s", sent, res.StatusCode, body)
			continue
		}
		stored := pub.Stored()
		if got := stored[len(stored)-1].Subject(); got != want {
			t.Errorf("%s became %q, want %q", sent, got, want)
		}
	}
	for _, bad := range []string{"%C0%A0", "%ff", "a\xffb", "%ED%A0%80", "%00", "%7F", "a\tb"} {
		if res, body := talk(t, srv, head+"ce-subject: "+bad+"\r\nContent-Length: 0\r\n\r\n"); res.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %d %s", bad, res.StatusCode, body)
		}
	}
}

// drive posts the same request from 64 connections.
func drive(b *testing.B, body string, header http.Header) {
	b.Helper()
	srv := httptest.NewServer(sources.NewHandler(&nothing{}, sources.HandlerOptions{}))
	b.Cleanup(srv.Close)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.Cleanup(client.CloseIdleConnections)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequest(http.MethodPost, srv.URL, strings.NewReader(body))
			if err != nil {
				b.Error(err)
				return
			}
			req.Header = header
			res, err := client.Do(req)
			if err != nil || res.StatusCode != http.StatusAccepted {
				b.Error(res, err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
	})
}

func benchHeader() http.Header {
	return http.Header{
		"Ce-Specversion": {"1.0"}, "Ce-Id": {"0197a3c4-0f4e-7c1a-9d2f-3b1c2d4e5f60"}, "Ce-Source": {"/bench/uploads"},
		"Ce-Type": {"object.created.put"}, "Ce-Time": {"2026-01-02T03:04:05Z"}, "Content-Type": {"application/json"},
	}
}

func benchData() string { return `{"k":"` + strings.Repeat("x", 1015) + `"}` }

// BenchmarkServer is client and server on the same machine.
func BenchmarkServer(b *testing.B) { drive(b, benchData(), benchHeader()) }

// writer is a ResponseWriter that keeps nothing.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header             { return w.header }
func (w *writer) Write(p []byte) (int, error)     { return len(p), nil }
func (w *writer) WriteHeader(int)                 {}
func (w *writer) SetReadDeadline(time.Time) error { return nil }

// BenchmarkHandler is the handler without a network.
func BenchmarkHandler(b *testing.B) {
	structured := `{"specversion":"1.0","id":"0197a3c4-0f4e-7c1a-9d2f-3b1c2d4e5f60","source":"/bench/uploads","type":"object.created.put",` +
		`"time":"2026-01-02T03:04:05Z","datacontenttype":"application/json","data":` + benchData() + `}`
	for _, c := range []struct {
		name, body string
		header     http.Header
		events     int
	}{
		{"binary", benchData(), benchHeader(), 1},
		{"structured", structured, http.Header{"Content-Type": {bus.TypeStructured}}, 1},
		{"batch100", "[" + structured + strings.Repeat(","+structured, 99) + "]", http.Header{"Content-Type": {bus.TypeBatch}}, 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := sources.NewHandler(&nothing{}, sources.HandlerOptions{})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := httptest.NewRequest(http.MethodPost, "/", nil)
				w := &writer{header: make(http.Header)}
				body := strings.NewReader(c.body)
				for pb.Next() {
					body.Reset(c.body)
					r.Header, r.Body, r.ContentLength = c.header, io.NopCloser(body), int64(len(c.body))
					clear(w.header)
					h.ServeHTTP(w, r)
				}
			})
			b.ReportMetric(float64(b.N*c.events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
