package sinks_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// What a sink makes of each rogue.
const (
	delivered = "delivered"
	again     = "plain error" // which is tried again
	answered  = "answered"    // with a status that decides
	refused   = "for good"    // which is not tried again
)

type rogueCase struct {
	want   string
	status int
	says   string // a part of the error's text
	secure string // the same over https, where it is another
	long   bool   // it ends long before the timeout
	whole  string // the same where the body of a success counts
	reads  int64  // how much of an answer is read, where that is more than a little
}

var rogueCases = map[string]rogueCase{
	"never answers":            {want: again, says: "deadline exceeded"},
	"garbage":                  {want: again, says: "malformed HTTP"},
	"echo":                     {want: again, says: "malformed HTTP"},
	"a line without end":       {want: again, says: "head of the answer", secure: "headers exceeded"},
	"reset at once":            {want: again, says: "reset"},
	"reset in the head":        {want: again, says: "reset", secure: "transport connection broken"},
	"reset in the body":        {want: answered, status: 500},
	"1 GiB of success":         {want: delivered},
	"1 GiB of failure":         {want: answered, status: 500},
	"a head without end":       {want: again, says: "head of the answer", secure: "headers exceeded"},
	"1xx without end":          {want: again, says: "informational", secure: "headers exceeded"},
	"drips its head":           {want: again, says: "deadline exceeded"},
	"drips its body":           {want: delivered, long: true, whole: again},
	"bogus chunks of success":  {want: delivered, whole: again},
	"bogus chunks of failure":  {want: answered, status: 503},
	"drips its error":          {want: answered, status: 503, long: true},
	"an endless chunk":         {want: answered, status: 503},
	"unknown encoding":         {want: again, says: "transfer encoding"},
	"two lengths":              {want: again, says: "Content-Length"},
	"closes every second time": {want: delivered},
}

// TestHTTPRogues lets far sides misbehave over HTTP and HTTPS: the verdict is
// right, it comes in time, and little is read.
func TestHTTPRogues(t *testing.T) {
	t.Parallel()
	authority := sinktest.NewAuthority(t)
	for _, scheme := range []string{"http", "https"} {
		for _, rogue := range sinktest.Rogues() {
			t.Run(scheme+"/"+rogue.Name, func(t *testing.T) {
				t.Parallel()
				c, ok := rogueCases[rogue.Name]
				if !ok {
					t.Fatal("nothing is expected of it")
				}
				conf := authority.Server("127.0.0.1", time.Hour)
				if scheme == "http" {
					conf = nil
				}
				m := rogue.Listen(t, conf)
				s := sinks.NewHTTP()
				s.URL = parse(t, scheme+"://u:"+password+"@"+m.Addr+"/fn?key="+token)
				sink := open(t, s)
				if conf != nil {
					sinks.Trust(sink, authority.Pool())
					c.says = cmp.Or(c.secure, c.says)
				}
				c.check(t, m, func(ctx context.Context) error { return sink.Deliver(ctx, testDelivery(t, "json")) })
			})
		}
	}
}

// TestHTTPRoguesThatAreReadWhole lets far sides misbehave where the body of their answer
// counts: in it may be the events of a batch that failed, or events to publish.
func TestHTTPRoguesThatAreReadWhole(t *testing.T) {
	t.Parallel()
	pour := func(head, start string) func(net.Conn, int64) bool {
		return func(conn net.Conn, _ int64) bool {
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n"+head+"Content-Length: 1073741824\r\n\r\n"+start)
			for more := strings.Repeat("x", 64<<10); err == nil; {
				_, err = io.WriteString(conn, more)
			}
			return false
		}
	}
	object := sinktest.Rogue{Name: "1 GiB of an object", Talk: pour("", `{"log":"`)}
	event := sinktest.Rogue{Name: "1 GiB of an event", Talk: pour("Content-Type: application/cloudevents+json\r\n", `{"id":"`)}
	for way, deliver := range map[string]func(context.Context, sinks.Sink, sinks.Delivery) error{
		"batch": func(ctx context.Context, s sinks.Sink, d sinks.Delivery) error {
			failed, err := s.(sinks.BatchSink).DeliverBatch(ctx, []sinks.Delivery{d, d})
			return cmp.Or(err, errors.Join(failed...))
		},
		"reply": func(ctx context.Context, s sinks.Sink, d sinks.Delivery) error {
			d.Ask = sinks.Ask{Events: true, Body: true}
			_, err := s.(sinks.Replier).DeliverReply(ctx, d)
			return err
		},
	} {
		for _, rogue := range append(sinktest.Rogues(), object, event) {
			t.Run(way+"/"+rogue.Name, func(t *testing.T) {
				t.Parallel()
				c := rogueCases[rogue.Name]
				switch {
				case rogue.Name == object.Name && way == "batch":
					c = rogueCase{want: refused, says: "batchItemFailures", reads: 8 << 20}
				case rogue.Name == event.Name && way == "reply":
					c = rogueCase{want: refused, says: "not valid"}
				case rogue.Name == object.Name:
					c = rogueCase{want: delivered} // the start of it is kept
				case rogue.Name == event.Name:
					c = rogueCase{want: refused, says: "batchItemFailures", reads: 8 << 20}
				case c.whole != "":
					c.want, c.long = c.whole, false
				}
				m := rogue.Listen(t, nil)
				s := sinks.NewHTTP()
				s.URL = parse(t, "http://u:"+password+"@"+m.Addr+"/fn?key="+token)
				sink, d := open(t, s), testDelivery(t, "json")
				c.check(t, m, func(ctx context.Context) error { return deliver(ctx, sink, d) })
			})
		}
	}
}

func (c rogueCase) check(t *testing.T, m *sinktest.Misled, deliver func(context.Context) error) {
	t.Helper()
	timeout := 1500 * time.Millisecond
	if c.long {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	start := time.Now()
	err := deliver(ctx)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	var e *sinks.Error
	switch ok := errors.As(err, &e); {
	case c.want == delivered && err != nil, c.want == again && (err == nil || ok), c.want == answered && !ok:
		t.Errorf("the outcome is %v (%T), want %s", err, err, c.want)
	case c.want == refused && (!ok || !e.Permanent):
		t.Errorf("the outcome is %v (%T), want one that is not tried again", err, err)
	case c.want == answered && (e.Status != c.status || len(e.Answer) > 64<<10):
		t.Errorf("answered %d with %d bytes, want %d", e.Status, len(e.Answer), c.status)
	}
	text := fmt.Sprint(err)
	if !strings.Contains(text, c.says) {
		t.Errorf("%q does not say %q", text, c.says)
	}
	if len(text) > 600 || strings.Contains(text, password) || strings.Contains(text, token) {
		t.Errorf("%d bytes of text, or a secret in it: %.1000s", len(text), text)
	}
	// What is on its way in the buffers of the system counts too.
	if sent := m.Sent.Load(); sent > c.reads+16<<20 {
		t.Errorf("%d bytes of an answer were taken", sent)
	}
}

// TestHTTPClosingConnections delivers to a far side that closes every second time
// a connection just as a request arrives.
func TestHTTPClosingConnections(t *testing.T) {
	t.Parallel()
	rogues := sinktest.Rogues()
	m := rogues[len(rogues)-1].Listen(t, nil)
	s := sinks.NewHTTP()
	s.URL = parse(t, "http://"+m.Addr+"/fn")
	sink := open(t, s)
	failed := 0
	for range 50 {
		if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
			failed++
		}
	}
	// The request goes out again on a connection of its own.
	if failed > 0 {
		t.Errorf("%d of 50 deliveries failed", failed)
	}
}

// TestHTTPCertificates presents wrong certificates. The errors say what to do.
func TestHTTPCertificates(t *testing.T) {
	t.Parallel()
	known, unknown := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	good := sinktest.Rogue{Name: "good", Talk: sinktest.Rogues()[len(sinktest.Rogues())-1].Talk}
	for name, c := range map[string]struct {
		authority *sinktest.Authority
		host      string
		life      time.Duration
		says      []string
	}{
		"right":             {known, "127.0.0.1", time.Hour, nil},
		"expired":           {known, "127.0.0.1", -time.Hour, []string{"expired", "renew"}},
		"not yet valid":     {known, "127.0.0.1", 200 * time.Hour, []string{"not yet valid", "clock"}},
		"wrong host":        {known, "elsewhere.example", time.Hour, []string{"127.0.0.1", "url"}},
		"unknown authority": {unknown, "127.0.0.1", time.Hour, []string{"unknown authority", "SSL_CERT_FILE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := good.Listen(t, c.authority.Server(c.host, c.life))
			s := sinks.NewHTTP()
			s.URL = parse(t, "https://"+m.Addr+"/fn")
			sink := open(t, s)
			sinks.Trust(sink, known.Pool())
			err := sink.Deliver(t.Context(), testDelivery(t, "json"))
			if (err == nil) != (c.says == nil) {
				t.Fatalf("the outcome is %v", err)
			}
			var e *sinks.Error
			if errors.As(err, &e) {
				t.Errorf("%v is not tried again: a certificate can be renewed", err)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if n := m.Requests.Load(); c.says != nil && n != 0 {
				t.Errorf("%d events were sent to a far side that is not the right one", n)
			}
		})
	}
}

// TestHTTPWrongScheme sends HTTP to HTTPS, and the other way round.
func TestHTTPWrongScheme(t *testing.T) {
	t.Parallel()
	far := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	plain, secure := httptest.NewServer(far), httptest.NewTLSServer(far)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	alert := sinktest.Rogue{Talk: func(conn net.Conn, _ int64) bool {
		_, _ = io.WriteString(conn, "\x15\x03\x01\x00\x02\x02\x28\r\n")
		return false
	}}
	for url, says := range map[string]string{
		"https://" + plain.Listener.Addr().String(): "write http://",
		"http://" + secure.Listener.Addr().String(): "answered 400", // which says what was wrong
		"http://" + alert.Listen(t, nil).Addr:       "write https://",
	} {
		s := sinks.NewHTTP()
		s.URL = parse(t, url+"/fn")
		err := open(t, s).Deliver(t.Context(), testDelivery(t, "json"))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want a word about %s", url, err, says)
		}
	}
}
