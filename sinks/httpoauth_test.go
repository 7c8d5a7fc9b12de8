package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sinks"
)

// idp is an identity provider. Its tokens are numbered.
type idp struct {
	srv    *httptest.Server
	asked  atomic.Int64
	life   atomic.Int64 // seconds; 0 is not said
	handle atomic.Pointer[http.HandlerFunc]
	form   atomic.Pointer[string]
}

func newIDP(t testing.TB) *idp {
	t.Helper()
	p := &idp{}
	p.srv = httptest.NewServer(p)
	t.Cleanup(p.srv.Close)
	return p
}

func (p *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := p.asked.Add(1)
	if handle := p.handle.Load(); handle != nil {
		(*handle)(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	user, sent, ok := r.BasicAuth()
	if _ = r.ParseForm(); !ok || user != "me" || sent != "cl1ent%2Fsecret%2Bmarker" || r.Form.Get("grant_type") != "client_credentials" {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(w, `{"error":"invalid_client","error_description":"you sent %s"}`, sent)
		return
	}
	form := r.Form.Encode()
	p.form.Store(&form)
	life := ""
	if s := p.life.Load(); s > 0 {
		life = fmt.Sprintf(`,"expires_in":%d`, s)
	}
	_, _ = fmt.Fprintf(w, `{"access_token":"%s-%d","token_type":"bearer"%s}`, token, n, life)
}

func (p *idp) auth() *sinks.HTTPAuth {
	u, err := value.ParseURL(p.srv.URL + "/token?tenant=1")
	if err != nil {
		panic(err)
	}
	return &sinks.HTTPAuth{OAuth2: &sinks.HTTPOAuth2{TokenURL: u, ClientID: "me", ClientSecret: secret(clientSecret)}}
}

// answers makes the provider say the same to everybody.
func (p *idp) answers(status int, body string, header ...string) {
	handle := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	p.handle.Store(&handle)
}

// TestHTTPOAuth2Shared: attempts that come together ask for one token, and later
// ones use it.
func TestHTTPOAuth2Shared(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	p.life.Store(3600)
	var wrong atomic.Int64
	sink := serve(t, func(s *sinks.HTTP) {
		s.Auth = p.auth()
		s.Auth.OAuth2.Scopes, s.Auth.OAuth2.Audience = []string{"a", "b"}, "fn"
		s.Auth.OAuth2.Params = map[string]value.Text{"resource": value.NewText("x")}
	}, func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token+"-1" {
			wrong.Add(1)
		}
	})
	for range 2 {
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if n := p.asked.Load(); n != 1 || wrong.Load() != 0 {
		t.Errorf("%d tokens were asked for, %d requests had another", n, wrong.Load())
	}
	if got, want := *p.form.Load(), "audience=fn&grant_type=client_credentials&resource=x&scope=a+b&tenant=1"; got != want {
		t.Errorf("asked was %s, want %s", got, want)
	}
}

// TestHTTPOAuth2Revoked: a token that is taken no more is renewed once, and the
// request is sent once more, whole.
func TestHTTPOAuth2Revoked(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	var good atomic.Pointer[string]
	accept := func(n int) {
		text := fmt.Sprintf("Bearer %s-%d", token, n)
		good.Store(&text)
	}
	accept(1)
	var requests, bodies atomic.Int64
	sink := serve(t, func(s *sinks.HTTP) { s.Auth = p.auth() }, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		if len(body) > 2 && r.ContentLength == int64(len(body)) {
			bodies.Add(1)
		}
		if r.Header.Get("Authorization") != *good.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(w, "%s is no more", r.Header.Get("Authorization"))
		}
	})
	deliver := func() error { return sink.Deliver(t.Context(), testDelivery(t, "json")) }
	if err := deliver(); err != nil {
		t.Fatal(err)
	}
	accept(2)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			// A large one goes another way.
			if err := sink.Deliver(t.Context(), testDelivery(t, []string{"json", "large"}[i%2])); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := p.asked.Load(); n != 2 || requests.Load() != bodies.Load() {
		t.Errorf("%d tokens were asked for; %d of %d requests were whole", n, bodies.Load(), requests.Load())
	}
	// The third is refused although it is fresh: no more than one repetition, and
	// the next attempt does not ask for another at once.
	accept(0)
	before := requests.Load()
	for range 3 {
		err := deliver()
		var e *sinks.Error
		if !errors.As(err, &e) || e.Status != 401 || !strings.Contains(err.Error(), "scopes") {
			t.Errorf("a refused token reads %v", err)
		} else if strings.Contains(string(e.Answer), token) {
			t.Errorf("the answer shows the token: %s", e.Answer)
		}
	}
	if n, sent := p.asked.Load(), requests.Load()-before; n != 3 || sent != 4 {
		t.Errorf("%d tokens and %d requests, want 3 and 4", n, sent)
	}
}

// TestHTTPOAuth2Expires: another token comes before the first has expired.
func TestHTTPOAuth2Expires(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	p.life.Store(1)
	got := make(chan string, 1)
	sink := serve(t, func(s *sinks.HTTP) { s.Auth = p.auth() }, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") })
	for n := range 2 {
		if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("Bearer %s-%d", token, n+1); <-got != want {
			t.Errorf("delivery %d has another token", n)
		}
		<-time.After(950 * time.Millisecond)
	}
}

// TestHTTPOAuth2Hangs: an identity provider that never answers holds an attempt no
// longer than its own time, and Close not at all.
func TestHTTPOAuth2Hangs(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	over := make(chan struct{})
	handle := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over })
	p.handle.Store(&handle)
	defer close(over)
	var sent atomic.Int64
	s := sinks.NewHTTP()
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent.Add(1) }))
	t.Cleanup(srv.Close)
	s.URL, s.Auth = parse(t, srv.URL), p.auth()
	sink, err := s.Open(t.Context(), sinks.Env{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = sink.Deliver(ctx, testDelivery(t, "json"))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "getting a token") {
		t.Error(err)
	}
	if err := sink.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second || sent.Load() > 0 {
		t.Errorf("it took %v, and %d requests went out", took, sent.Load())
	}
}

// TestHTTPOAuth2Refused tells what is wrong with the credentials from an outage of
// the identity provider, and shows no secret.
func TestHTTPOAuth2Refused(t *testing.T) {
	t.Parallel()
	echo := `{"error":"%s","error_description":"` + clientSecret + `"}`
	for name, c := range map[string]struct {
		set    func(p *idp, o *sinks.HTTPOAuth2)
		says   string
		status int // 0: an outage
	}{
		"wrong secret":   {func(_ *idp, o *sinks.HTTPOAuth2) { o.ClientSecret = secret("wr0ng-" + password) }, "answered 401 (invalid_client): check client_id and client_secret", 401},
		"with 400":       {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(400, fmt.Sprintf(echo, "invalid_client")) }, "answered 400 (invalid_client): check client_id and client_secret", 401},
		"with 200":       {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(200, fmt.Sprintf(echo, "invalid_client")) }, "check client_id and client_secret", 401},
		"scope":          {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(400, fmt.Sprintf(echo, "invalid_scope")) }, "check scopes", 401},
		"secret as code": {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(403, fmt.Sprintf(echo, clientSecret)) }, "answered 403: check client_id", 401},
		"no JSON":        {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(401, "you sent "+clientSecret) }, "answered 401: check client_id", 401},
		"overloaded":     {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(429, "{}", "Retry-After", "7") }, "answered 429, which is no word about the credentials", 0},
		"broken":         {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(503, clientSecret) }, "answered 503, which is no word about the credentials", 0},
		"redirect":       {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(307, "", "Location", p.srv.URL+"/elsewhere") }, "check token_url", 0},
		"not found":      {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(404, "<html>") }, "check token_url", 0},
		"garbage":        {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(200, clientSecret) }, "", 0},
		"no token":       {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(200, "{}") }, "missing access_token", 0},
		"not a header":   {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(200, `{"access_token":"a\r\nb"}`) }, "no header can have", 0},
		"without end":    {func(p *idp, _ *sinks.HTTPOAuth2) { p.answers(200, `{"access_token":"`+strings.Repeat("x", 1<<20)) }, "", 0},
		"too long": {func(p *idp, _ *sinks.HTTPOAuth2) {
			p.answers(200, `{"access_token":"`+strings.Repeat("x", 100<<10)+`"}`)
		}, "", 0},
		"down":            {func(p *idp, _ *sinks.HTTPOAuth2) { p.srv.Close() }, "refused", 0},
		"no such machine": {func(_ *idp, o *sinks.HTTPOAuth2) { o.TokenURL = parse(t, "http://nowhere.invalid/") }, "getting a token from nowhere.invalid", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newIDP(t)
			auth := p.auth()
			c.set(p, auth.OAuth2)
			var requests atomic.Int64
			sink := serve(t, func(s *sinks.HTTP) { s.Auth = auth }, func(http.ResponseWriter, *http.Request) { requests.Add(1) })
			for range 5 {
				err := sink.Deliver(t.Context(), testDelivery(t, "json"))
				if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "getting a token from ") {
					t.Fatalf("%v, want %q", err, c.says)
				}
				text := fmt.Sprintf("%v %+v %#v", err, err, err)
				e := &sinks.Error{}
				_ = errors.As(err, &e)
				if e.Status != c.status || e.Permanent || name == "overloaded" && e.RetryAfter == 0 {
					t.Errorf("%+v, want the status %d", e, c.status)
				}
				for _, s := range []string{clientSecret, password, "tenant"} {
					if strings.Contains(text+string(e.Answer), s) {
						t.Errorf("a secret shows in %s", text)
					}
				}
				if len(err.Error()) > 600 {
					t.Errorf("the text has %d bytes", len(err.Error()))
				}
			}
			// The library tries two ways to send the secret.
			if n := p.asked.Load(); n > 2 || requests.Load() > 0 {
				t.Errorf("five attempts asked for a token %d times, and %d requests went out without one", n, requests.Load())
			}
		})
	}
}

// TestHTTPOAuth2Guarded: a sink that may not reach this machine does not ask for a
// token here either.
func TestHTTPOAuth2Guarded(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	s := sinks.NewHTTP()
	s.URL, s.Auth = parse(t, "https://8.8.8.8/"), p.auth()
	sink, err := s.Open(t.Context(), sinks.Env{Guarded: true})
	if err != nil {
		t.Fatal(err)
	}
	err = sink.Deliver(t.Context(), testDelivery(t, "json"))
	var e *sinks.Error
	if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), "127.0.0.1") || p.asked.Load() != 0 {
		t.Errorf("%v, and the provider was asked %d times", err, p.asked.Load())
	}
	if err := sink.(io.Closer).Close(); err != nil {
		t.Error(err)
	}
}
