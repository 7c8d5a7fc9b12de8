package api_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
	"sluice/config/access"
)

// What each scope lets its holder do, over real HTTP.
func TestScopes(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	n := apptest.Start(t, `
sinks: {hook: {http: {url: "`+f.URL+`"}}}
rules: {all: {match: {type: [order]}, to: [hook]}}
sources: {orders: {http: {path: /in/orders}}, other: {http: {path: /in/other}}}
server:
  auth:
    tokens:
      - {name: shop, hash: `+access.Hash("shop")+`, scopes: [publish], paths: [/in/orders], rate: 3/h}
      - {name: reader, token: "${env:READER}", scopes: [consume]}
      - {name: prometheus, token: "${env:PROM}", scopes: [metrics]}
`, func(o *app.Options) {
		o.Kinds.Env = func(name string) (string, bool) { return strings.ToLower(name), true }
	})
	for _, c := range []struct {
		method, path, token string
		want                int
	}{
		{"POST", "/in/orders", "shop", 202},
		{"POST", "/in/orders", access.Hash("shop"), 401},
		{"POST", "/in/other", "shop", 403},
		{"POST", "/", "shop", 403},
		{"POST", "/in/orders", "shop", 202},
		{"POST", "/in/orders", "shop", 202},
		{"POST", "/in/orders", "shop", 429},
		{"POST", "/in/orders", "reader", 403},
		{"GET", "/api/v1/events", "reader", 200},
		{"GET", "/api/v1/events", "shop", 403},
		{"GET", "/api/v1/story?id=none", "reader", 404},
		{"GET", "/api/v1/story?id=none", "shop", 403},
		{"GET", "/api/v1/status", "reader", 403},
		{"GET", "/metrics", "reader", 403},
		{"GET", "/metrics", "prom", 200},
		{"GET", "/api/v1/events", "prom", 403},
		{"GET", "/livez", "", 200},
	} {
		n.Token = c.token
		a := n.Do(c.method, c.path, `{}`, "Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/t", "Ce-Type", "order")
		if a.Status != c.want {
			t.Errorf("%s %s with %q: %d %s", c.method, c.path, c.token, a.Status, a.Body)
		}
		if header := a.Header.Get("Retry-After"); (a.Status == http.StatusTooManyRequests) != (header == "1200") {
			t.Errorf("%d with Retry-After %q", a.Status, header)
		}
	}
}

// Pages of the origins that are named may send events, and may do nothing else.
func TestCORS(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	const config = `
sinks: {hook: {http: {url: "http://127.0.0.1:1"}}}
rules: {all: {match: {type: [order]}, to: [hook]}}
sources: {orders: {http: {path: /in/orders}}}
`
	closed := apptest.Start(t, strings.Replace(config, "http://127.0.0.1:1", f.URL, 1))
	open := apptest.Start(t, strings.Replace(config, "http://127.0.0.1:1", f.URL, 1)+`
server:
  cors: {origins: ["https://shop.example.com"]}
  auth: {tokens: [{name: shop, hash: `+access.Hash("shop")+`, scopes: [admin]}]}
`)
	for _, c := range []struct {
		n                    *apptest.Node
		method, path, origin string
		status               int
		allowed              bool
	}{
		{open, "OPTIONS", "/", "https://shop.example.com", 204, true},
		{open, "OPTIONS", "/events", "https://shop.example.com", 204, true},
		{open, "OPTIONS", "/in/orders", "https://shop.example.com", 204, true},
		{open, "OPTIONS", "/in/orders", "https://evil.example", 204, false},
		{open, "OPTIONS", "/api/v1/reload", "https://shop.example.com", 405, false},
		{open, "OPTIONS", "/nowhere", "https://shop.example.com", 404, false},
		{closed, "OPTIONS", "/in/orders", "https://shop.example.com", 204, false},
		{open, "POST", "/in/orders", "https://shop.example.com", 401, true},
		{open, "POST", "/events", "https://shop.example.com", 401, true},
		{open, "POST", "/events", "https://evil.example", 401, false},
		{open, "GET", "/api/v1/status", "https://shop.example.com", 401, false},
	} {
		a := c.n.Do(c.method, c.path, "", "Origin", c.origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "ce-id, authorization")
		if got := a.Header.Get("Access-Control-Allow-Origin"); a.Status != c.status || (got == c.origin) != c.allowed || got != "" && !c.allowed {
			t.Errorf("%s %s from %s: %d, allowed %q", c.method, c.path, c.origin, a.Status, got)
		}
		if c.method == http.MethodOptions && (a.Header.Get("Access-Control-Allow-Headers") == "ce-id, authorization") != c.allowed {
			t.Errorf("%s %s from %s: %v", c.method, c.path, c.origin, a.Header)
		}
	}
}
