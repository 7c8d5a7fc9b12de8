package sinks_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

const clientSecret = "cl1ent/secret+marker"

// hmacSecret and privateKey are secrets of Standard Webhooks.
var (
	hmacSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("hmac-marker-0123456789abcdefghij"))
	privateKey = "whsk_" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed([]byte("ed25519-marker-0123456789abcdefg")))
)

// authModes are the ways to prove who sends. need is what a request has to show.
var authModes = map[string]struct {
	set  func(t *testing.T, s *sinks.HTTP)
	need func(r *http.Request, body []byte) bool
	// secrets are what the settings hold that must not show.
	secrets []string
}{
	"bearer": {
		func(_ *testing.T, s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Bearer: value.NewSecret(token)} },
		func(r *http.Request, _ []byte) bool { return r.Header.Get("Authorization") == "Bearer "+token },
		[]string{token},
	},
	"basic": {
		func(_ *testing.T, s *sinks.HTTP) {
			s.Auth = &sinks.HTTPAuth{Basic: &sinks.HTTPBasic{User: "me", Password: value.NewSecret(password)}}
		},
		func(r *http.Request, _ []byte) bool {
			user, got, ok := r.BasicAuth()
			return ok && user == "me" && got == password
		},
		[]string{password, "bWU6cGE1NXdvcmQtbWFya2Vy"},
	},
	"oauth2": {
		func(t *testing.T, s *sinks.HTTP) { s.Auth = newIDP(t).auth() },
		func(r *http.Request, _ []byte) bool {
			return strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "+token)
		},
		[]string{token + "-1", clientSecret},
	},
	"sigv4": {
		func(_ *testing.T, s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{SigV4: sigV4("execute-api")} },
		func(r *http.Request, body []byte) bool { return checkSigV4(r, body) == "" },
		[]string{secretKey},
	},
	"sign": {
		func(_ *testing.T, s *sinks.HTTP) {
			s.Sign = &sinks.HTTPSign{Standard: value.Secrets{value.NewSecret(hmacSecret), value.NewSecret(privateKey)}}
		},
		func(r *http.Request, body []byte) bool { return checkStandard(r.Header, body) == nil },
		[]string{hmacSecret, strings.TrimPrefix(hmacSecret, "whsec_"), strings.TrimPrefix(privateKey, "whsk_")},
	},
	"validate": {
		func(_ *testing.T, s *sinks.HTTP) { s.Consent = &sinks.HTTPConsent{Origin: "events.example.com"} },
		func(r *http.Request, _ []byte) bool {
			return r.Header.Get("WebHook-Request-Origin") == "events.example.com"
		},
		nil,
	},
	"keep warm": {
		func(_ *testing.T, s *sinks.HTTP) { s.KeepWarm = &sinks.HTTPWarm{Every: value.Duration(time.Hour)} },
		func(*http.Request, []byte) bool { return true },
		nil,
	},
}

// TestHTTPAuth runs the suite with each way to prove who sends.
func TestHTTPAuth(t *testing.T) {
	t.Parallel()
	for name, mode := range authModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
				f := &far{got: make(chan sinktest.Got, 1024), over: make(chan struct{})}
				f.answer.Store(&sinktest.Answer{Status: http.StatusNoContent})
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						return // the sink went away
					}
					if r.Method == http.MethodOptions {
						w.Header().Set("WebHook-Allowed-Origin", "*")
						return
					}
					if !mode.need(r, body) {
						t.Errorf("the request does not prove who sends: %v", r.Header)
					}
					r.Body = io.NopCloser(bytes.NewReader(body))
					f.ServeHTTP(w, r)
				}))
				t.Cleanup(srv.Close)
				t.Cleanup(func() { close(f.over) })
				s := sinks.NewHTTP()
				s.URL = parse(t, srv.URL+"/fn?b=2&a=1")
				mode.set(t, s)
				sink := openIn(t, s, env)
				if !sinks.Fast(sink) {
					t.Error("the fast way is not taken")
				}
				return &sinktest.Subject{
					Sink: sink, Received: f.got, Hang: func() { f.hang.Store(true) },
					Answer: func(a sinktest.Answer) { f.answer.Store(&a) }, Carries: true,
					Secrets: mode.secrets, Renews: name == "oauth2", Elsewhere: httpElsewhere(s, env),
				}
			})
		})
	}
}

func secret(text string) value.Secret { return value.NewSecret(text) }

func TestHTTPAuthFaults(t *testing.T) {
	t.Parallel()
	basic := &sinks.HTTPBasic{User: "me", Password: secret(password)}
	for name, c := range map[string]struct {
		change func(*sinks.HTTP)
		faults string // keys
	}{
		"nothing":    {func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{} }, "auth"},
		"two":        {func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Bearer: secret(token), Basic: basic} }, "auth.basic"},
		"bearer":     {func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Bearer: secret(token + "\n")} }, "auth.bearer"},
		"basic":      {func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Basic: &sinks.HTTPBasic{User: "a:b"}} }, "auth.basic.user auth.basic.password"},
		"beside url": {func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Basic: basic}; s.URL = parse(t, "http://u:p@h/") }, "url"},
		"beside header": {func(s *sinks.HTTP) {
			s.Auth = &sinks.HTTPAuth{Basic: basic}
			s.Headers = map[string]value.Text{"authorization": {}}
		}, "headers.authorization"},
		"oauth2": {func(s *sinks.HTTP) {
			s.Auth = &sinks.HTTPAuth{OAuth2: &sinks.HTTPOAuth2{Params: map[string]value.Text{"grant_type": {}}}}
		}, "auth.oauth2.token_url auth.oauth2.client_id auth.oauth2.client_secret auth.oauth2.params.grant_type"},
		"sigv4": {func(s *sinks.HTTP) {
			s.Auth = &sinks.HTTPAuth{SigV4: &sinks.HTTPSigV4{Region: "eu/1", SessionToken: secret("a b")}}
		}, "auth.sigv4.region auth.sigv4.service auth.sigv4.access_key auth.sigv4.secret_key auth.sigv4.session_token"},
		"tls of http":     {func(s *sinks.HTTP) { s.TLS = &sinks.HTTPTLS{} }, "tls"},
		"half a pair":     {func(s *sinks.HTTP) { s.URL = parse(t, "https://h/"); s.TLS = &sinks.HTTPTLS{Cert: "x"} }, "tls.cert"},
		"checked and not": {func(s *sinks.HTTP) { s.URL = parse(t, "https://h/"); s.TLS = &sinks.HTTPTLS{CA: "x", Insecure: true} }, "tls.insecure"},
		"no sign":         {func(s *sinks.HTTP) { s.Sign = &sinks.HTTPSign{} }, "sign.standard"},
		"public key":      {func(s *sinks.HTTP) { s.Sign = &sinks.HTTPSign{Standard: value.Secrets{secret("whpk_AAAA")}} }, "sign.standard[0]"},
		"short secret": {func(s *sinks.HTTP) {
			s.Sign = &sinks.HTTPSign{Standard: value.Secrets{secret(hmacSecret), secret("whsec_AAAA")}}
		}, "sign.standard[1]"},
		"no base64":  {func(s *sinks.HTTP) { s.Sign = &sinks.HTTPSign{Standard: value.Secrets{secret("whsk_%")}} }, "sign.standard[0]"},
		"half a key": {func(s *sinks.HTTP) { s.Sign = &sinks.HTTPSign{Standard: value.Secrets{secret(privateKey[:40])}} }, "sign.standard[0]"},
		"origin": {func(s *sinks.HTTP) {
			s.Consent = &sinks.HTTPConsent{Origin: "https://x/", Rate: value.Rate{Count: 1, Per: time.Hour}, Every: -1}
		}, "validate.origin validate.rate validate.every"},
		"warm":             {func(s *sinks.HTTP) { s.KeepWarm = &sinks.HTTPWarm{Method: "POST", Path: "x"} }, "keep_warm.every keep_warm.method keep_warm.path"},
		"signature header": {func(s *sinks.HTTP) { s.Headers = map[string]value.Text{"webhook-id": {}, "webhook-request-rate": {}} }, "headers.webhook-id headers.webhook-request-rate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := sinks.NewHTTP()
			s.URL = parse(t, "http://h/")
			c.change(s)
			var keys []string
			for _, f := range s.Validate() {
				keys = append(keys, f.Key)
				if strings.Contains(f.Msg, token) || strings.Contains(f.Msg, password) {
					t.Errorf("%q shows a secret", f.Msg)
				}
			}
			if got := strings.Join(keys, " "); got != c.faults {
				t.Errorf("faults at %q, want %q", got, c.faults)
			}
		})
	}
}

// TestHTTPDenied tells a refusal of the credentials from an outage.
func TestHTTPDenied(t *testing.T) {
	t.Parallel()
	for says, change := range map[string]func(*sinks.HTTP){
		"give it an auth":    nil,
		"check auth.bearer":  func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{Bearer: secret(token)} },
		"keys of auth.sigv4": func(s *sinks.HTTP) { s.Auth = &sinks.HTTPAuth{SigV4: sigV4("lambda")} },
		"user and password":  func(s *sinks.HTTP) { s.URL = parse(t, strings.Replace(s.URL.String(), "://", "://u:p@", 1)) },
		"sink's headers":     func(s *sinks.HTTP) { s.Headers = map[string]value.Text{"X-Api-Key": value.NewText("1")} },
		"secrets of sign":    func(s *sinks.HTTP) { s.Sign = &sinks.HTTPSign{Standard: value.Secrets{secret(hmacSecret)}} },
	} {
		status := http.StatusUnauthorized
		sink := serve(t, change, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		for _, status = range []int{401, 403} {
			err := sink.Deliver(t.Context(), testDelivery(t, "json"))
			if want := fmt.Sprintf("answered %d, which refuses the credentials: ", status); !strings.Contains(fmt.Sprint(err), want) || !strings.Contains(err.Error(), says) {
				t.Errorf("%v does not say %q and %q", err, want, says)
			}
		}
		status = http.StatusServiceUnavailable
		if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err == nil || err.Error() != "answered 503" {
			t.Errorf("an outage reads %v", err)
		}
	}
}

// TestHTTPMutualTLS shows certificates to a far side that wants them, and changes
// the files while the sink runs.
func TestHTTPMutualTLS(t *testing.T) {
	t.Parallel()
	old, fresh := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	install := func(a *sinktest.Authority, client string) *sinks.HTTPTLS {
		cert, key := a.Client(client)
		return &sinks.HTTPTLS{CA: file("ca.pem", a.PEM()), Cert: file("cert.pem", cert), Key: file("key.pem", key)}
	}
	who := make(chan string, 16)
	saw := func(want string) {
		t.Helper()
		select {
		case got := <-who:
			if got != want {
				t.Errorf("the far side saw %q, want %q", got, want)
			}
		default: // it answers after it has seen
			t.Errorf("the far side saw nothing, want %q", want)
		}
	}
	serve := func(a *sinktest.Authority) *httptest.Server {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			who <- fmt.Sprint(r.TLS.PeerCertificates[0].Subject.CommonName, " HTTP/", r.ProtoMajor)
		}))
		srv.TLS = a.Server("127.0.0.1", time.Hour)
		srv.TLS.ClientCAs, srv.TLS.ClientAuth = a.Pool(), 4 // tls.RequireAndVerifyClientCert
		srv.EnableHTTP2 = true
		srv.TLS.NextProtos = []string{"h2", "http/1.1"}
		srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv
	}
	first := serve(old)
	s := sinks.NewHTTP()
	s.URL = parse(t, first.URL)
	deliver := func(sink sinks.Sink) error { return sink.Deliver(t.Context(), testDelivery(t, "json")) }

	if err := deliver(open(t, s)); err == nil || !strings.Contains(err.Error(), "tls.ca") {
		t.Errorf("an unknown authority reads %v", err)
	}
	s.TLS = install(old, "one")
	sink := open(t, s)
	if err := deliver(sink); err != nil {
		t.Fatal(err)
	}
	saw("one HTTP/2")
	bare := *s
	bare.TLS = &sinks.HTTPTLS{CA: s.TLS.CA}
	// What the far side says about it can be overtaken by the end of the connection.
	var err error
	for range 50 {
		if err = deliver(open(t, &bare)); err == nil || strings.Contains(err.Error(), "tls.cert") {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "tls.cert") {
		t.Errorf("a missing certificate reads %v", err)
	}

	// The pair is changed file by file: between the two the old one is in force.
	cert, key := old.Client("two")
	file("cert.pem", cert)
	if err := deliver(sink); err != nil {
		t.Fatalf("between two files: %v", err)
	}
	saw("one HTTP/2")
	file("key.pem", key)
	for range 2 {
		if err := deliver(sink); err != nil {
			t.Fatal(err)
		}
		saw("two HTTP/2")
	}

	// The authority is changed too: what it does not know any more is refused.
	install(fresh, "three")
	if err := deliver(sink); err == nil {
		t.Error("a far side of the old authority is believed")
	}
	third := sinks.NewHTTP()
	third.URL, third.TLS = parse(t, serve(fresh).URL), s.TLS
	if err := deliver(open(t, third)); err != nil {
		t.Error(err)
	}
	saw("three HTTP/2")

	if _, err := s.Open(t.Context(), sinks.Env{Guarded: true}); err == nil || !strings.Contains(err.Error(), "file of this machine") {
		t.Errorf("a sink that was added at run time reads files: %v", err)
	}
	s.TLS = &sinks.HTTPTLS{CA: filepath.Join(dir, "none.pem")}
	if _, err := s.Open(t.Context(), sinks.Env{}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("a missing file reads %v", err)
	}
}

// TestHTTPInsecure trusts anybody, and says so.
func TestHTTPInsecure(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	var logged bytes.Buffer
	s := sinks.NewHTTP()
	s.URL, s.TLS = parse(t, srv.URL), &sinks.HTTPTLS{Insecure: true}
	sink, err := s.Open(context.Background(), sinks.Env{Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer sink.(io.Closer).Close()
	if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
		t.Error(err)
	}
	if !strings.Contains(logged.String(), "level=WARN") || !strings.Contains(logged.String(), "not checked") {
		t.Errorf("logged was %q", logged.String())
	}
}
