package sinks

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"sluice/bus"
	"sluice/config/value"
)

// A delivery that is written as a message is the request that net/http would be given.
func TestMessageIsTheRequest(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{modeBinary, modeStructured} {
		settings := NewHTTP()
		settings.Mode = mode
		settings.URL = value.URL{URL: must(t)(url.Parse("http://user:secret@function.test:8080/a%20b?c=d"))}
		settings.Headers = map[string]value.Text{"X-Team": value.NewText("blue"), "Host": value.NewText("other.test")}
		opened, err := settings.Open(t.Context(), Env{})
		if err != nil {
			t.Fatal(err)
		}
		s := opened.(*httpSink)
		if s.wire == nil {
			t.Fatal("a sink of plain HTTP does not write messages")
		}
		rapid.Check(t, func(t *rapid.T) {
			d := anyDelivery(t)
			var direct, viaRequest message
			s.write(&direct, d)
			o := s.newRequest(context.Background(), d)
			viaRequest.begin(o.Request, o.Header)
			viaRequest.body(o.body)
			got, want := readBack(t, direct), readBack(t, viaRequest)
			if got.first != want.first || got.Host != want.Host || got.body != want.body || !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
				t.Fatalf("the message is\n%+v\nand the request\n%+v", got, want)
			}
			if got.Host != "other.test" || got.first != "POST /a%20b?c=d" || got.Header.Get("X-Team") != "blue" || got.Header.Get("Authorization") == "" {
				t.Fatalf("what all requests have in common is %+v", got)
			}
		})
	}
}

func anyDelivery(t *rapid.T) Delivery {
	attrs := []bus.Attr{
		{Name: "id", Value: rapid.StringMatching(`[a-z"% é]{1,8}`).Draw(t, "id")}, {Name: "source", Value: "/s"}, {Name: "type", Value: "t"},
	}
	data := rapid.SliceOfN(rapid.Byte(), 0, 2*maxCopied).Draw(t, "data")
	if rapid.Bool().Draw(t, "json") {
		attrs = append(attrs, bus.Attr{Name: "datacontenttype", Value: "application/json"})
		data = fmt.Appendf(nil, "%q", strings.Repeat("x", len(data)))
	}
	e, err := bus.NewEvent(attrs, data)
	if err != nil {
		t.Fatal(err)
	}
	d := Delivery{Event: e, ID: "12.3", Attempt: rapid.IntRange(1, 100).Draw(t, "attempt"), Sink: "f"}
	if rapid.Bool().Draw(t, "rule") {
		d.Rule = "r"
	}
	if rapid.Bool().Draw(t, "lease") {
		d.Ask.Lease = &Lease{URL: "http://bus.test/leases/12.3", Token: "token"}
	}
	return d
}

type readRequest struct {
	Header            http.Header
	Host, first, body string
}

func readBack(t *rapid.T, m message) readRequest {
	req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(m.bytes), bytes.NewReader(m.tail))))
	if err != nil {
		t.Fatalf("%v in %q", err, m.bytes)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	return readRequest{req.Header, req.Host, req.Method + " " + req.RequestURI, string(body)}
}

// No value gets out of its line.
func TestMessageLine(t *testing.T) {
	t.Parallel()
	var m message
	m.line("X-A", "1\r\nX-B: 2\n\r")
	m.line("X-C", "")
	if want := "X-A: 1  X-B: 2  \r\nX-C: \r\n"; string(m.bytes) != want {
		t.Errorf("the lines are %q, want %q", m.bytes, want)
	}
}

// far is the other side of a wire. It answers each connection with talk.
func farSide(t *testing.T, talk func(*net.TCPConn)) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				talk(conn.(*net.TCPConn))
			}()
		}
	}()
	return &wire{addr: listener.Addr().String(), large: transport{http.DefaultTransport.(*http.Transport)}, dial: new(net.Dialer).DialContext}
}

// A message that does not fit into the buffers of a connection arrives whole, and so
// does its answer; the connection is used again.
func TestWireLongMessages(t *testing.T) {
	t.Parallel()
	connections := make(chan struct{}, 10)
	w := farSide(t, func(conn *net.TCPConn) {
		connections <- struct{}{}
		in := bufio.NewReaderSize(conn, 512)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, req.Body)
			if err != nil {
				return
			}
			answer := fmt.Sprintf("%d+%d", len(req.Header.Get("X-Long")), n)
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	})
	for _, c := range []struct{ head, body int }{{0, 0}, {8 << 20, 10}, {8 << 20, wireBodyMost}, {10, maxCopied}, {10, maxCopied + 1}, {10, 16 << 20}, {0, 0}} {
		var m message
		m.bytes = append(m.bytes, "POST / HTTP/1.1\r\nHost: x\r\n"...)
		m.line("X-Long", strings.Repeat("h", c.head))
		m.body(bytes.Repeat([]byte("b"), c.body))
		res, err := w.send(t.Context(), &m, nil)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		answer, err := io.ReadAll(res.Body)
		if want := fmt.Sprintf("%d+%d", c.head, c.body); string(answer) != want || err != nil {
			t.Errorf("%s arrived, want %s; %v", answer, want, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(connections) != 1 {
		t.Errorf("%d connections, want 1", len(connections))
	}
}

// What the far side does instead of taking a message shows as what it is.
func TestWireFarSideFails(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("b"), 16<<20)
	for name, c := range map[string]struct {
		talk   func(*net.TCPConn)
		body   []byte
		status int
		want   []error // one of them
	}{
		"closes": {talk: func(conn *net.TCPConn) { _, _ = conn.Read(make([]byte, 4096)) }, want: []error{io.EOF, io.ErrUnexpectedEOF}},
		"resets": {talk: func(conn *net.TCPConn) { _, _ = conn.Read(make([]byte, 4096)); _ = conn.SetLinger(0) }, want: []error{syscall.ECONNRESET}},
		"refuses a message that it has not read": {body: long, status: 413, talk: func(conn *net.TCPConn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
			_ = conn.CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var m message
			m.bytes = append(m.bytes, "POST / HTTP/1.1\r\nHost: x\r\n"...)
			m.body(c.body)
			res, err := farSide(t, c.talk).send(t.Context(), &m, nil)
			if err == nil {
				defer res.Body.Close()
			}
			switch {
			case c.want != nil && !slices.ContainsFunc(c.want, func(want error) bool { return errors.Is(err, want) }):
				t.Errorf("%v, want one of %v", err, c.want)
			case c.want == nil && (err != nil || res.StatusCode != c.status):
				t.Errorf("%+v, %v, want %d", res, err, c.status)
			}
		})
	}
}

// Writing a message for a connection that has a socket costs no memory.
func BenchmarkMessage(b *testing.B) {
	settings := NewHTTP()
	settings.URL = value.URL{URL: must(b)(url.Parse("http://function.test/"))}
	opened, err := settings.Open(b.Context(), Env{})
	if err != nil {
		b.Fatal(err)
	}
	s := opened.(*httpSink)
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/s"}, {Name: "type", Value: "t"}}, bytes.Repeat([]byte("x"), 1024))
	if err != nil {
		b.Fatal(err)
	}
	d := Delivery{Event: e, ID: "12.3", Attempt: 1, Rule: "r", Sink: "f"}
	b.Run("message", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m := newMessage()
			s.write(m, d)
			m.free()
		}
	})
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m := newMessage()
			o := s.newRequest(b.Context(), d)
			m.begin(o.Request, o.Header)
			m.body(o.body)
			m.free()
		}
	})
}
