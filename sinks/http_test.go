package sinks_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/event"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

const (
	password = "pa55word-marker"
	token    = "t0ken-marker"
)

// far is the far side of an HTTP sink.
type far struct {
	got    chan sinktest.Got
	answer atomic.Pointer[sinktest.Answer]
	hang   atomic.Bool
	over   chan struct{}
}

func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sink went away
	}
	e, err := bus.FromHTTP(r.Header, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	attempt, _ := strconv.Atoi(r.Header.Get("Sluice-Attempt"))
	f.got <- sinktest.Got{Event: e, ID: r.Header.Get("Sluice-Delivery-Id"), Rule: r.Header.Get("Sluice-Rule"), Attempt: attempt}
	if f.hang.Load() {
		select {
		case <-r.Context().Done():
		case <-f.over:
		}
		return
	}
	a := f.answer.Load()
	if a.RetryAfter != "" {
		w.Header().Set("Retry-After", a.RetryAfter)
	}
	if a.Status >= 300 && a.Status < 400 {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body)
}

func parse(t testing.TB, text string) value.URL {
	t.Helper()
	u, err := value.ParseURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func open(t testing.TB, s sinks.Settings) sinks.Sink {
	t.Helper()
	return openIn(t, s, sinks.Env{})
}

// openIn opens a sink in an environment that is special in some way.
func openIn(t testing.TB, s sinks.Settings, env sinks.Env) sinks.Sink {
	t.Helper()
	if faults := s.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	env.Name = "test"
	sink, err := s.Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	if closer, ok := sink.(io.Closer); ok {
		t.Cleanup(func() {
			if err := closer.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return sink
}

// httpSubject is a sink and its far side, which speaks HTTP/2 when it has TLS.
func httpSubject(mode string) sinktest.Factory {
	return func(t *testing.T, env sinks.Env) *sinktest.Subject {
		f := &far{got: make(chan sinktest.Got, 1024), over: make(chan struct{})}
		f.answer.Store(&sinktest.Answer{Status: http.StatusNoContent})
		srv := httptest.NewServer(f)
		t.Cleanup(srv.Close)
		t.Cleanup(func() { close(f.over) })
		s := sinks.NewHTTP()
		s.URL = parse(t, strings.Replace(srv.URL, "http://", "http://user:"+password+"@", 1)+"/fn?code=1")
		s.Mode = mode
		var auth value.Text
		resolver := value.Resolver{Env: func(string) (string, bool) { return token, true }}
		if err := auth.Resolve("Bearer ${env:TOKEN}", resolver); err != nil {
			t.Fatal(err)
		}
		s.Headers = map[string]value.Text{"X-Auth": auth}
		return &sinktest.Subject{
			Sink:       openIn(t, s, env),
			Elsewhere:  httpElsewhere(s, env),
			Received:   f.got,
			Hang:       func() { f.hang.Store(true) },
			Answer:     func(a sinktest.Answer) { f.answer.Store(&a) },
			Carries:    true,
			KeepsKinds: mode == "structured",
			Secrets:    []string{password, token},
		}
	}
}

// httpElsewhere opens a sink with the same settings for another address.
func httpElsewhere(s *sinks.HTTP, env sinks.Env) func(*testing.T, string, *tls.Config) sinks.Sink {
	return func(t *testing.T, addr string, tls *tls.Config) sinks.Sink {
		other, target := *s, *s.URL.URL
		target.Scheme, target.Host = schemeOf(tls), addr
		other.URL.URL = &target
		return openIn(t, &other, env)
	}
}

func schemeOf(tls *tls.Config) string {
	if tls != nil {
		return "https"
	}
	return "http"
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"binary", "structured"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			sinktest.Run(t, httpSubject(mode))
		})
	}
}

// serve answers each request with what handle writes, and gives the sink for it.
func serve(t testing.TB, change func(*sinks.HTTP), handle http.HandlerFunc) sinks.Sink {
	t.Helper()
	srv := httptest.NewServer(handle)
	t.Cleanup(srv.Close)
	s := sinks.NewHTTP()
	s.URL = parse(t, srv.URL+"/fn")
	if change != nil {
		change(s)
	}
	return open(t, s)
}

func testDelivery(t testing.TB, name string) sinks.Delivery {
	t.Helper()
	return sinks.Delivery{Event: sinktest.Events(t)[name], ID: "d-1", Rule: "r", Sink: "s", Attempt: 2}
}

func TestHTTPRequest(t *testing.T) {
	t.Parallel()
	seen := make(chan *http.Request, 1)
	sink := serve(t, func(s *sinks.HTTP) {
		s.URL.User = url.UserPassword("me", "secret")
		s.Headers = map[string]value.Text{"x-extra": value.NewText("1"), "host": value.NewText("fn.example")}
	}, func(_ http.ResponseWriter, r *http.Request) { seen <- r })
	if err := sink.Deliver(t.Context(), testDelivery(t, "traceparent")); err != nil {
		t.Fatal(err)
	}
	r := <-seen
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": "traceparent", "Ce-Source": "/suite",
		"Ce-Type": "t", "Ce-Time": "2026-01-02T03:04:05.000+02:00", "Sluice-Delivery-Id": "d-1", "Sluice-Attempt": "2",
		"Sluice-Rule": "r", "Sluice-Sink": "s", "X-Extra": "1", "Authorization": "Basic bWU6c2VjcmV0",
		"Ce-Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"Traceparent":    "", "Accept-Encoding": "", "Content-Length": "2",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if agent := r.Header.Get("User-Agent"); !strings.HasPrefix(agent, "sluice") {
		t.Errorf("User-Agent: %q", agent)
	}
	if r.Method != http.MethodPost || r.URL.Path != "/fn" || r.Host != "fn.example" {
		t.Errorf("%s %s, host %s", r.Method, r.URL, r.Host)
	}
}

// The receiver of the real SDK reads what the sink sends. It does not undo the
// percent-encoding, so the event has plain attributes.
func TestHTTPToSDK(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"binary", "structured"} {
		for name, e := range sinktest.Events(t) {
			if name == "odd" {
				continue
			}
			t.Run(mode+"/"+name, func(t *testing.T) {
				t.Parallel()
				got := make(chan event.Event, 1)
				protocol, err := cloudevents.NewHTTP()
				if err != nil {
					t.Fatal(err)
				}
				receiver, err := cloudevents.NewHTTPReceiveHandler(t.Context(), protocol, func(e event.Event) { got <- e })
				if err != nil {
					t.Fatal(err)
				}
				sink := serve(t, func(s *sinks.HTTP) { s.Mode = mode }, receiver.ServeHTTP)
				if err := sink.Deliver(t.Context(), sinks.Delivery{Event: e, ID: "d", Attempt: 1}); err != nil {
					t.Fatal(err)
				}
				back, err := bus.FromCloudEvent(<-got)
				if err != nil {
					t.Fatal(err)
				}
				// The SDK keeps times in UTC. In binary mode it makes the Sluice-
				// headers no part of the event.
				want, err := e.With(bus.Attr{Name: "time", Value: "2026-01-02T01:04:05Z"})
				if err != nil {
					t.Fatal(err)
				}
				if err := sinktest.Same(want, back, mode == "structured"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestHTTPRefusesMetadata(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"169.254.169.254", "[fe80::a9fe:a9fe%25lo]:80", "169.254.170.2", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200"} {
		s := sinks.NewHTTP()
		s.URL = parse(t, "http://"+host+"/latest")
		err := open(t, s).Deliver(t.Context(), testDelivery(t, "json"))
		var e *sinks.Error
		if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), "metadata") {
			t.Errorf("%s: %v, want a permanent error that says why", host, err)
		}
	}
}

// A function can say when it wants an event again. What it says holds for longer than
// the Retry-After that a proxy may have set, so the two are told apart.
func TestHTTPRetryAt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(after time.Duration) string { return now.Add(after).Format(time.RFC3339Nano) }
	for name, c := range map[string]struct {
		retryAt, retryAfter, retry string
		notBefore, after           time.Duration
		permanent                  bool
	}{
		"nothing":                  {},
		"past":                     {retryAt: at(-time.Minute)},
		"in two seconds":           {retryAt: at(2 * time.Second), notBefore: 2 * time.Second},
		"in three hours":           {retryAt: at(3 * time.Hour), notBefore: 3 * time.Hour},
		"of another zone":          {retryAt: now.Add(3 * time.Hour).In(time.FixedZone("", -7*3600)).Format(time.RFC3339Nano), notBefore: 3 * time.Hour},
		"in spaces":                {retryAt: " " + at(time.Hour) + "\t", notBefore: time.Hour},
		"garbage":                  {retryAt: "tomorrow at three"},
		"seconds":                  {retryAt: "120"},
		"beside Retry-After":       {retryAt: at(2 * time.Second), retryAfter: "90", notBefore: 2 * time.Second, after: 90 * time.Second},
		"garbage, and Retry-After": {retryAt: "3pm", retryAfter: "90", after: 90 * time.Second},
		"never":                    {retryAt: at(time.Hour), retry: "No", permanent: true},
	} {
		sink := serve(t, nil, func(w http.ResponseWriter, _ *http.Request) {
			for header, text := range map[string]string{"Sluice-Retry-At": c.retryAt, "Retry-After": c.retryAfter, "Sluice-Retry": c.retry} {
				if text != "" {
					w.Header().Set(header, text)
				}
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		var e *sinks.Error
		if err := sink.Deliver(t.Context(), testDelivery(t, "e")); !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
			t.Fatalf("%s: %v", name, err)
		}
		if late := time.Since(now); e.Permanent != c.permanent || e.RetryAfter != c.after || e.NotBefore > c.notBefore || e.NotBefore < max(0, c.notBefore-late) {
			t.Errorf("%s: after %s, not before %s, permanent %v: want %s, %s (less %s), %v", name, e.RetryAfter, e.NotBefore, e.Permanent, c.after, c.notBefore, late, c.permanent)
		}
	}
}

func TestHTTPErrorsArePlain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := sinks.NewHTTP()
	s.URL = parse(t, "http://u:"+password+"@"+addr+"/"+token+"?key="+token)
	err = open(t, s).Deliver(t.Context(), testDelivery(t, "json"))
	var e *sinks.Error
	if err == nil || errors.As(err, &e) {
		t.Errorf("a refused connection is %v, want a plain error", err)
	}
	if text := fmt.Sprint(err); strings.Contains(text, password) || strings.Contains(text, token) || !strings.Contains(text, addr) {
		t.Errorf("%q should name the host and nothing else of the URL", text)
	}
	sink := serve(t, nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err == nil || errors.As(err, &e) {
		t.Errorf("a reset connection is %v, want a plain error", err)
	}
}

func TestHTTPAnswerIsCut(t *testing.T) {
	t.Parallel()
	sink := serve(t, func(s *sinks.HTTP) { s.MaxAnswer = 1000 }, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		for r.Context().Err() == nil { // without end
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	err := sink.Deliver(t.Context(), testDelivery(t, "json"))
	var e *sinks.Error
	if !errors.As(err, &e) || len(e.Answer) != 1000 || e.Status != 500 {
		t.Errorf("%v", err)
	}
}

// What a reference in the url stands for is a secret, wherever it stands.
func TestHTTPHidesReferencesOfURL(t *testing.T) {
	t.Parallel()
	const key, hook = "k3y+/of=the function", "T0KEN-in-the-path"
	var asked string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Query().Get("code") + " " + r.URL.Path
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, "cannot POST %s with code %s to %s, public=%s", r.RequestURI, r.URL.Query().Get("code"), r.URL.Path, r.URL.Query().Get("public"))
	}))
	t.Cleanup(srv.Close)
	resolver := value.Resolver{Env: func(name string) (string, bool) {
		return map[string]string{"KEY": url.QueryEscape(key), "HOOK": hook}[name], true
	}}
	s := sinks.NewHTTP()
	if err := s.URL.Resolve(srv.URL+"/hooks/${env:HOOK}/in?public=everybody&code=${env:KEY}", resolver); err != nil {
		t.Fatal(err)
	}
	err := open(t, s).Deliver(t.Context(), testDelivery(t, "json"))
	var answered *sinks.Error
	if !errors.As(err, &answered) || asked != key+" /hooks/"+hook+"/in" {
		t.Fatalf("%v, asked for %q", err, asked)
	}
	for _, secret := range []string{key, url.QueryEscape(key), hook} {
		if strings.Contains(string(answered.Answer), secret) {
			t.Errorf("%q is in the answer that is kept: %s", secret, answered.Answer)
		}
	}
	if !strings.Contains(string(answered.Answer), "public=everybody") {
		t.Errorf("what is no secret is gone: %s", answered.Answer)
	}
}

// The start of an answer that is kept does not end with half a secret.
func TestHTTPHidesSecretsAtTheEnd(t *testing.T) {
	t.Parallel()
	sink := serve(t, func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Bearer: value.NewSecret(token)} }, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", sinks.MaxAnswerBody-len(token)+1)+token)
	}).(sinks.Replier)
	d := testDelivery(t, "json")
	d.Ask.Body = true
	a, err := sink.DeliverReply(t.Context(), d)
	if err != nil || len(a.Body) == 0 || len(a.Body) > sinks.MaxAnswerBody || strings.Contains(string(a.Body), token[:len(token)-1]) {
		t.Errorf("%v, %d bytes that end with %q", err, len(a.Body), a.Body[max(0, len(a.Body)-20):])
	}
}

func TestHTTPKeepsConnections(t *testing.T) {
	t.Parallel()
	var conns, n atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
	}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	s := sinks.NewHTTP()
	s.URL = parse(t, srv.URL)
	sink := open(t, s)
	for range 20 {
		_ = sink.Deliver(t.Context(), testDelivery(t, "json"))
	}
	if n.Load() != 20 || conns.Load() != 1 {
		t.Errorf("%d deliveries took %d connections, want 20 and 1", n.Load(), conns.Load())
	}
}

func TestHTTPValidate(t *testing.T) {
	t.Parallel()
	s := sinks.NewHTTP()
	s.Mode, s.MaxAnswer = "batch", 0
	s.Headers = map[string]value.Text{
		"Ce-Id": value.NewText("1"), "content-type": value.NewText("a/b"), "a b": value.NewText("1"),
		"X-Key": value.NewText(token + "\r\nX-More: 1"), "Fine": value.NewText("ok"),
	}
	var keys []string
	for _, f := range s.Validate() {
		keys = append(keys, f.Key)
		if strings.Contains(f.Msg, token) {
			t.Errorf("%q shows the value", f.Msg)
		}
	}
	want := "url mode max_answer headers.Ce-Id headers.X-Key headers.a b headers.content-type"
	if got := strings.Join(keys, " "); got != want {
		t.Errorf("faults at %s, want %s", got, want)
	}
	if _, err := s.Open(context.Background(), sinks.Env{}); err == nil {
		t.Error("Open takes what Validate refuses")
	}
}

func BenchmarkHTTP(b *testing.B) {
	for _, mode := range []string{"binary", "structured"} {
		b.Run(mode, func(b *testing.B) {
			sink := serve(b, func(s *sinks.HTTP) { s.Mode = mode }, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
			})
			e, err := bus.NewEvent([]bus.Attr{
				{Name: "id", Value: "1"}, {Name: "source", Value: "/bench"}, {Name: "type", Value: "object.created.put"},
				{Name: "time", Value: "2026-01-02T03:04:05Z"}, {Name: "datacontenttype", Value: "application/json"},
			}, []byte(`{"k":"`+strings.Repeat("x", 1015)+`"}`))
			if err != nil {
				b.Fatal(err)
			}
			d := sinks.Delivery{Event: e, ID: "d-1", Rule: "r", Sink: "s", Attempt: 1}
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := sink.Deliver(b.Context(), d); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
