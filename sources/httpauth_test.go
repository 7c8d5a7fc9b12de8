package sources_test

import (
	"strings"
	"testing"
	"time"

	"sluice/config/access"
	"sluice/config/value"
	"sluice/sources"
)

const oneEvent = `{"specversion":"1.0","id":"1","source":"/theirs","type":"t","tenant":"mine"}`

// An http source may have callers of its own: then it is the door that knows them.
func TestHTTPAuth(t *testing.T) {
	t.Parallel()
	s := sources.NewHTTP()
	s.Path = "/in/a"
	s.Auth.Tokens = []access.Token{
		{Name: "a", Token: value.NewSecret("a")},
		{Name: "hashed", Hash: access.Hash("b"), Grant: access.Grant{Rate: value.Rate{Count: 1, Per: time.Hour}}},
		{Name: "old", Token: value.NewSecret("old"), Expires: access.NewTime(time.Now().Add(-time.Hour))},
	}
	r := runHook(t, s, "/in/a")
	for _, tc := range []struct {
		authorization string
		status        int
	}{{"", 401}, {"Bearer a", 202}, {"Bearer b", 202}, {"Bearer b", 429}, {"Bearer c", 401}, {"Bearer old", 401}, {"Basic a", 401}} {
		req := post(r.url, oneEvent, "Content-Type", "application/cloudevents+json")
		if tc.authorization != "" {
			req.Header.Set("Authorization", tc.authorization)
		}
		a := r.do(t, req)
		if a.status != tc.status || (a.status == 401) != (a.header.Get("WWW-Authenticate") != "") || (a.status == 429) != (a.header.Get("Retry-After") != "") {
			t.Errorf("%q: %d %s", tc.authorization, a.status, a.body)
		}
		if a.status/100 != 2 && a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%q: %v", tc.authorization, a.header)
		}
	}
	if got := r.Observed(); got[sources.Denied] != 4 || got[sources.Limited] != 1 || got[sources.Accepted] != 2 {
		t.Errorf("observed %v", got)
	}
}

// Who checks the callers: the source when it has an auth, the listener when not.
func TestHTTPVerifies(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		auth access.Auth
		want bool
	}{
		"nothing": {access.Auth{}, false},
		"none":    {access.Auth{None: true}, true},
		"tokens":  {access.Auth{Tokens: []access.Token{{Name: "a", Token: value.NewSecret("a")}}}, true},
	} {
		var got sources.Door
		s := sources.NewHTTP()
		s.Path, s.Auth = "/in/a", tc.auth
		if _, err := s.Open(t.Context(), sources.Env{Handle: func(d sources.Door) error { got = d; return nil }}); err != nil || got.Verifies != tc.want || got.Path != "/in/a" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// What a path sets stands on every event, whatever the sender said.
func TestHTTPSet(t *testing.T) {
	t.Parallel()
	s := sources.NewHTTP()
	s.Path, s.Set = "/in/a", map[string]string{"source": "/tenants/acme", "tenant": "acme"}
	r := runHook(t, s, "/in/a")
	for _, req := range []struct{ body, contentType string }{
		{oneEvent, "application/cloudevents+json"}, {"[" + oneEvent + "]", "application/cloudevents-batch+json"},
	} {
		if a := r.do(t, post(r.url, req.body, "Content-Type", req.contentType)); a.status != 202 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	r.do(t, post(r.url, "{}", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/theirs", "Ce-Type", "t"))
	if got := r.pub.Stored(); len(got) != 3 {
		t.Fatalf("%d events", len(got))
	}
	for _, e := range r.pub.Stored() {
		if e.Source() != "/tenants/acme" || e.Get("tenant") != "acme" || e.ID() != "1" || e.Type() != "t" {
			t.Errorf("got %s", e.AppendJSON(nil))
		}
	}
}

func TestHTTPAuthValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*sources.HTTP){
		"set.id: is the sender's own":             func(s *sources.HTTP) { s.Set = map[string]string{"id": "1"} },
		"set.Tenant: is no attribute of an event": func(s *sources.HTTP) { s.Set = map[string]string{"Tenant": "1"} },
		"set.tenant: is empty":                    func(s *sources.HTTP) { s.Set = map[string]string{"tenant": ""} },
		"auth.tokens[0]: has no name":             func(s *sources.HTTP) { s.Auth.Tokens = []access.Token{{Token: value.NewSecret("x")}} },
		"auth.tokens[0].scopes: has no publish": func(s *sources.HTTP) {
			s.Auth.Tokens = []access.Token{{Name: "a", Token: value.NewSecret("x"), Grant: access.Grant{Scopes: []string{"consume"}}}}
		},
		"handshake.origins: is empty": func(s *sources.HTTP) { s.Handshake = &sources.Handshake{} },
		"handshake.rate: is less than one in a minute": func(s *sources.HTTP) {
			s.Handshake = &sources.Handshake{Origins: []string{"*"}, Rate: value.Rate{Count: 1, Per: time.Hour}}
		},
	} {
		s := sources.NewHTTP()
		s.Path = "/in/a"
		change(s)
		if faults := s.Validate(); len(faults) != 1 || !strings.HasPrefix(faults[0].Key+": "+faults[0].Msg, want) {
			t.Errorf("%s: got %v", want, faults)
		}
	}
}
