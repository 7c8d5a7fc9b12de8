package access

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/config/value"
)

func request(path, authorization string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, http.NoBody)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

// status is what a check says, as a status; 200 for nothing.
func status(t *testing.T, err error) int {
	t.Helper()
	var denied *Denied
	switch {
	case err == nil:
		return http.StatusOK
	case !errors.As(err, &denied) || denied.Detail == "":
		t.Fatalf("not a Denied with a text: %v", err)
	}
	return denied.Status
}

func TestCheck(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	secret := NewToken()
	c := NewChecker(Auth{Tokens: []Token{
		{Name: "plain", Token: value.NewSecret("plain"), Grant: Grant{Scopes: []string{"publish"}}},
		{Name: "hashed", Hash: Hash(secret), Grant: Grant{Scopes: []string{"publish"}, Paths: []string{"/in/orders", "/in/eu/*"}}},
		{Name: "ops", Token: value.NewSecret("ops"), Grant: Grant{Scopes: []string{"admin"}, Paths: []string{"/x"}}},
		{Name: "prometheus", Token: value.NewSecret("prom"), Grant: Grant{Scopes: []string{"metrics"}}},
		{Name: "reader", Token: value.NewSecret("reader"), Grant: Grant{Scopes: []string{"consume"}}},
		{Name: "old", Token: value.NewSecret("old"), Expires: NewTime(now), Grant: Grant{Scopes: []string{"admin"}}},
		{Name: "young", Token: value.NewSecret("young"), Expires: NewTime(now.Add(time.Second)), Grant: Grant{Scopes: []string{"admin"}}},
	}}, "server.auth")
	c.now = func() time.Time { return now }
	for _, tc := range []struct {
		authorization, path string
		scope               Scope
		want                int
	}{
		{"", "/", Anybody, 200},
		{"", "/", Publish, 401},
		{"Bearer plain", "/", Publish, 200},
		{"bearer  plain ", "/", Publish, 200},
		{"Basic cGxhaW4=", "/", Publish, 401},
		{"plain", "/", Publish, 401},
		{"Bearer", "/", Publish, 401},
		{"Bearer plainer", "/", Publish, 401},
		{"Bearer " + Hash("plain"), "/", Publish, 401},
		{"Bearer " + Hash(secret), "/in/orders", Publish, 401},
		{"Bearer plain", "/metrics", Metrics, 403},
		{"Bearer plain", "/", Admin, 403},
		{"Bearer " + secret, "/in/orders", Publish, 200},
		{"Bearer " + secret, "/in/orders/x", Publish, 403},
		{"Bearer " + secret, "/", Publish, 403},
		{"Bearer " + secret, "/in/eu/de", Publish, 200},
		{"Bearer " + secret, "/in/eu", Publish, 403},
		{"Bearer ops", "/", Publish, 200},
		{"Bearer ops", "/metrics", Metrics, 200},
		{"Bearer ops", "/x", Consume, 200},
		{"Bearer prom", "/metrics", Metrics, 200},
		{"Bearer prom", "/", Admin, 403},
		{"Bearer prom", "/", Publish, 403},
		{"Bearer reader", "/", Consume, 200},
		{"Bearer reader", "/metrics", Metrics, 403},
		{"Bearer old", "/", Admin, 401},
		{"Bearer young", "/", Admin, 200},
	} {
		if got := status(t, c.Check(request(tc.path, tc.authorization), tc.scope)); got != tc.want {
			t.Errorf("%q for %s at %s: %d, want %d", tc.authorization, tc.scope, tc.path, got, tc.want)
		}
	}
}

func TestCheckRate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	c := NewChecker(Auth{Tokens: []Token{{Name: "a", Token: value.NewSecret("a"), Grant: Grant{Rate: value.Rate{Count: 2, Per: time.Second}}}}}, "auth", Publish)
	c.now = func() time.Time { return now }
	call := func() error { return c.Check(request("/", "Bearer a"), Publish) }
	for i := range 3 {
		err := call()
		var denied *Denied
		if limited := errors.As(err, &denied); limited != (i == 2) {
			t.Fatalf("request %d: %v", i, err)
		}
		if i == 2 && (denied.Status != http.StatusTooManyRequests || denied.After != 1) {
			t.Errorf("got %+v", denied)
		}
	}
	now = now.Add(500 * time.Millisecond)
	if err := call(); err != nil {
		t.Errorf("half a second later: %v", err)
	}
	if err := call(); err == nil {
		t.Error("what was refused has to cost nothing, and what was taken something")
	}
}

func TestCheckCertificates(t *testing.T) {
	t.Parallel()
	c := NewChecker(Auth{
		Tokens: []Token{{Name: "ops", Token: value.NewSecret("ops"), Grant: Grant{Scopes: []string{"admin"}}}},
		Certificates: []Certificate{
			{Name: "cn", Match: "orders", Grant: Grant{Scopes: []string{"publish"}}},
			{Name: "san", Match: "spiffe://acme/reader", Grant: Grant{Scopes: []string{"consume"}}},
		},
	}, "server.auth")
	with := func(verified bool, cert *x509.Certificate, authorization string) *http.Request {
		r := request("/", authorization)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		if verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
		}
		return r
	}
	orders := &x509.Certificate{Subject: pkix.Name{CommonName: "orders"}}
	reader := &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "acme", Path: "/reader"}}}
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "Orders"}}
	for i, tc := range []struct {
		r     *http.Request
		scope Scope
		want  int
	}{
		{with(true, orders, ""), Publish, 200},
		{with(true, orders, ""), Admin, 403},
		{with(false, orders, ""), Publish, 401},
		{with(true, reader, ""), Consume, 200},
		{with(true, stranger, ""), Publish, 401},
		{with(true, stranger, "Bearer ops"), Publish, 200},
		{with(true, orders, "Bearer wrong"), Publish, 401},
		{request("/", ""), Publish, 401},
	} {
		if got := status(t, c.Check(tc.r, tc.scope)); got != tc.want {
			t.Errorf("%d: %d, want %d", i, got, tc.want)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a, b := NewToken(), NewToken()
	if a == b || len(a) < 50 || !isHash(Hash(a)) {
		t.Errorf("made %q and %q", a, b)
	}
	for text, want := range map[string]string{"2027-01-31": "2027-01-31T00:00:00Z", "2027-01-31T12:00:00+02:00": "2027-01-31T10:00:00Z", "soon": ""} {
		var at Time
		err := at.UnmarshalText([]byte(text))
		if got, _ := at.MarshalText(); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
}

// Who is the same in a new checker goes on with what is left of its rate; a new rate,
// or a new token, begins anew.
func TestCheckerFollowsTheOneBefore(t *testing.T) {
	t.Parallel()
	checker := func(secret string, count float64) *Checker {
		return NewChecker(Auth{Tokens: []Token{{Name: "a", Token: value.NewSecret(secret), Grant: Grant{Rate: value.Rate{Count: count, Per: 24 * time.Hour}}}}}, "auth", Publish)
	}
	before := checker("a", 1)
	if err := before.Check(request("/", "Bearer a"), Publish); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret string
		count  float64
		want   bool
	}{{"a", 1, false}, {"a", 2, true}, {"b", 1, true}} {
		err := checker(c.secret, c.count).Follow(before).Check(request("/", "Bearer "+c.secret), Publish)
		if (err == nil) != c.want {
			t.Errorf("token %s, %v a day: %v", c.secret, c.count, err)
		}
	}
}

// Whatever somebody sends as a token, a path and a method, who does not know a token
// gets nowhere, and is told none.
func FuzzCheck(f *testing.F) {
	const token = "sluice_0123456789abcdef"
	c := NewChecker(Auth{Tokens: []Token{{Name: "ci", Token: value.NewSecret(token), Grant: Grant{Scopes: []string{string(Publish)}, Paths: []string{"/in/*"}}}}}, "server.auth")
	f.Add("Bearer "+token, "/in/orders")
	f.Add("bearer  "+token+"\t", "/in/../admin")
	f.Add("Basic Y2k6eA==", "/")
	f.Add("Bearer", "//in/")
	f.Fuzz(func(t *testing.T, authorization, path string) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: path}, Header: http.Header{"Authorization": {authorization}}}
		scheme, sent, _ := strings.Cut(authorization, " ")
		known := strings.EqualFold(scheme, "bearer") && strings.TrimSpace(sent) == token
		for _, scope := range []Scope{Publish, Consume, Admin} {
			err := c.Check(r, scope)
			if want := known && scope == Publish && strings.HasPrefix(path, "/in/"); (err == nil) != want {
				t.Errorf("%q for %s at %q: %v", authorization, scope, path, err)
			}
			if err != nil && strings.Contains(err.Error(), token) && !strings.Contains(path, token) {
				t.Errorf("it tells the token: %v", err)
			}
		}
	})
}
