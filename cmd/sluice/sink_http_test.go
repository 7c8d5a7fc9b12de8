package main

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestProcessHTTPSinkToSluice sends from one bus to another: signed as Standard
// Webhooks, with consent asked for first, while the other is not there yet and while
// it is killed.
func TestProcessHTTPSinkToSluice(t *testing.T) {
	t.Parallel()
	key := func(seed string) string {
		return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(seed, 32)))
	}
	env := []string{"OLD=" + key("o"), "NEW=" + key("n")}
	f := newFunction(t, nil)
	there := newProgram(t, t.TempDir(), "", `sources:
  hooks: {webhook: {path: /in/hooks, verify: {standard: "${env:NEW}"}, handshake: {origins: [here.example.com], rate: 6000/m}}}
sinks:
`+sinkYAML("fn", f.URL, "")+fmt.Sprintf(everythingTo, "fn"))
	here := newProgram(t, t.TempDir(), "", fmt.Sprintf(`sinks:
  there:
    http:
      url: %q
      sign: {standard: ["${env:OLD}", "${env:NEW}"]}
      validate: {origin: here.example.com}
      keep_warm: 1s
    retry: {initial: 50ms, max: 200ms}
    concurrency: 4
`, there.base+"/in/hooks")+fmt.Sprintf(everythingTo, "there"))
	here.env, there.env = env, env

	here.start()
	n := scale(60, 400)
	publish := func(from, to int) {
		for i := from; i < to; i++ {
			if ok, code := here.publish(http.DefaultClient, fmt.Sprint("e", i), 200); !ok {
				t.Fatalf("publish answered %d", code)
			}
		}
	}
	publish(0, n/3) // nobody is there to give consent
	there.start()
	publish(n/3, 2*n/3)
	there.until(30*time.Second, "something arrived", func() bool { return f.distinct() > 0 })
	there.kill()
	publish(2*n/3, n)
	there.start()
	here.settled(60 * time.Second)
	there.settled(60 * time.Second)
	if got := f.distinct(); got != n {
		t.Errorf("%d of %d events arrived", got, n)
	}
	for _, p := range []*program{here, there} {
		for _, secret := range env {
			if _, secret, _ := strings.Cut(secret, "whsec_"); strings.Contains(p.log.String(), secret) {
				t.Error("a log shows a secret")
			}
		}
	}
}

// TestProcessHTTPSinkTokens delivers with tokens that an identity provider takes
// back again and again, and kills the bus meanwhile.
func TestProcessHTTPSinkTokens(t *testing.T) {
	t.Parallel()
	const secret = "cl1ent-secret-marker"
	var valid, asked atomic.Int64
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if _, sent, _ := r.BasicAuth(); sent != secret {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":"t0ken-marker-%d","token_type":"Bearer","expires_in":3600}`, valid.Load())
	}))
	t.Cleanup(provider.Close)
	f := newFunction(t, nil)
	f.set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != fmt.Sprintf("Bearer t0ken-marker-%d", valid.Load()) {
			http.Error(w, "not "+r.Header.Get("Authorization"), http.StatusUnauthorized)
			return
		}
		f.took(r.Header.Get("ce-id"))
	})
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf(`sinks:
  fn:
    http:
      url: %q
      auth: {oauth2: {token_url: %q, client_id: me, client_secret: "${env:CLIENT_SECRET}"}}
    retry: {initial: 50ms, max: 200ms}
`, f.URL, provider.URL)+fmt.Sprintf(everythingTo, "fn"))
	p.env = []string{"CLIENT_SECRET=" + secret}
	rounds, each := scale(3, 10), 40
	for round := range rounds {
		p.start()
		for i := range each {
			if i == each/2 {
				p.until(30*time.Second, "the token worked", func() bool { return f.distinct() > round*each })
				valid.Add(1)
			}
			if ok, code := p.publish(http.DefaultClient, fmt.Sprintf("r%d.%d", round, i), 200); !ok {
				t.Fatalf("publish answered %d", code)
			}
		}
		p.kill()
	}
	p.start()
	p.settled(60 * time.Second)
	if got := f.distinct(); got != rounds*each {
		t.Errorf("%d of %d events arrived", got, rounds*each)
	}
	if dead := p.deadLetters(); len(dead) > 0 {
		t.Errorf("%d dead letters", len(dead))
	}
	// One at each start and one for each that was taken back.
	if n := asked.Load(); n > int64(2*rounds+1) {
		t.Errorf("%d tokens were asked for", n)
	}
	for _, marker := range []string{secret, "t0ken-marker"} {
		if strings.Contains(p.log.String(), marker) {
			t.Errorf("the log shows %s", marker)
		}
	}
}
