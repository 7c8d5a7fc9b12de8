package app_test

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/bus/memlog"
	"sluice/cmd/internal/api"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
)

// What the specification of the CloudEvents Subscriptions API has for an HTTP sink is
// taken, as its OpenAPI document writes the names and as its text does.
func TestSubscriptionsByTheSpecification(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	n := apptest.Start(t, strings.Replace(subscribing, "max: 2", "max: 20", 1))
	plain := "Basic " + base64.StdEncoding.EncodeToString([]byte("shop:pass: word"))
	for name, c := range map[string]struct{ doc, authorization string }{
		"nothing": {`{"protocol": "HTTP"`, ""},
		"token": {`{"protocol": "HTTP", "sinkcredential": {"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret",
			"accesstokenexpiresutc": "2099-01-02T03:04:05Z", "accesstokentype": "bearer"}`, "Bearer marker-secret"},
		"camel": {`{"protocol": "HTTP", "sinkCredential": {"credentialType": "ACCESSTOKEN", "accessToken": "marker-secret",
			"accessTokenExpiresUtc": "2099-01-02T03:04:05+02:00", "accessTokenType": "Bearer"}`, "Bearer marker-secret"},
		"plain":  {`{"protocol": "HTTP", "sinkcredential": {"credentialtype": "PLAIN", "identifier": "shop", "secret": "pass: word"}`, plain},
		"null":   {`{"protocol": "HTTP", "sinkcredential": null, "config": null, "filters": []`, ""},
		"config": {`{"protocol": "HTTP", "config": {}, "types": ["order.created"], "source": "/test"`, ""},
		"filters": {`{"protocol": "HTTP", "protocolsettings": {"method": "POST", "headers": {"X-Region": "eu"}}, "filters": [
			{"exact": {"type": "order.created"}}, {"prefix": {"source": "/t"}}, {"suffix": {"type": ".created"}},
			{"all": [{"exact": {"type": "order.created"}}]}, {"any": [{"exact": {"id": "no"}}, {"prefix": {"id": "1"}}]},
			{"not": {"suffix": {"id": "\\"}}}, {"sql": "source LIKE '%test'"}]`, ""},
	} {
		a := n.Do("PUT", "/subscriptions/"+name, fmt.Sprintf(`%s, "id": %q, "sink": "%s/%s"}`, c.doc, name, f.URL, name))
		if a.Status != http.StatusOK || strings.Contains(string(a.Body), "secret") || !strings.Contains(string(a.Body), `"protocol":"HTTP"`) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	n.MustPublish("1", "order.created", "{}")
	apptest.Eventually(t, "all get it", func() bool { return len(f.Requests()) == 7 })
	got := map[string]string{}
	for _, r := range f.Requests() {
		got[strings.TrimPrefix(r.Path, "/")] = r.Header.Get("Authorization")
	}
	want := map[string]string{
		"nothing": "", "token": "Bearer marker-secret", "camel": "Bearer marker-secret", "plain": plain, "null": "", "config": "", "filters": "",
	}
	if !maps.Equal(got, want) {
		t.Errorf("the requests have %q, want %q", got, want)
	}
	var token api.Subscription
	n.Get("/subscriptions/token", &token)
	if want := time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC); token.Credential != nil || !token.CredentialExpires.Equal(want) {
		t.Errorf("shown: %+v", token)
	}
	for _, path := range []string{"/subscriptions", "/subscriptions/plain", "/api/v1/sinks", "/api/v1/doctor"} {
		if body := string(n.Do("GET", path, "").Body); strings.Contains(body, "marker-secret") || strings.Contains(body, "pass: word") {
			t.Errorf("%s shows a secret: %s", path, body)
		}
	}
	if log := n.Logs.String(); strings.Contains(log, "marker-secret") || strings.Contains(log, "pass: word") || !strings.Contains(log, "2099-01-02") {
		t.Errorf("the log shows a secret, or not when a token ends: %s", log)
	}
}

// What can be done with subscriptions can be asked.
func TestSubscriptionFeatures(t *testing.T) {
	t.Parallel()
	n := apptest.Start(t, subscribing)
	for path, want := range map[string]string{"/subscriptions": "GET, POST, OPTIONS", "/subscriptions/any": "GET, PUT, DELETE, OPTIONS"} {
		a := n.Do("OPTIONS", path, "")
		if a.Status != http.StatusOK || a.Header.Get("Allow") != want || !strings.Contains(string(a.Body), `"credentialtypes":["PLAIN","ACCESSTOKEN"]`) {
			t.Errorf("%s: %d, Allow: %s, %s", path, a.Status, a.Header.Get("Allow"), a.Body)
		}
	}
	if a := n.Do("PATCH", "/subscriptions/any", "{}"); a.Status != http.StatusMethodNotAllowed || a.Header.Get("Allow") != "GET, PUT, DELETE, OPTIONS" {
		t.Errorf("%d, Allow: %s", a.Status, a.Header.Get("Allow"))
	}
}

// A credential that cannot be used is refused with what to send, never with itself.
func TestBadSinkCredential(t *testing.T) {
	t.Parallel()
	n := apptest.Start(t, subscribing)
	for credential, want := range map[string]string{
		`{}`:                           "sinkcredential.credentialtype: is missing",
		`"ACCESSTOKEN"`:                "sinkcredential: ",
		`{"credentialtype": "COOKIE"}`: `"COOKIE" is not supported: write PLAIN`,
		`{"credentialtype": "PLAIN"}`:  "sinkcredential.identifier: must be",
		`{"credentialtype": "PLAIN", "identifier": "a:b", "secret": "marker-secret"}`:                                        "without a colon",
		`{"credentialtype": "PLAIN", "identifier": "a"}`:                                                                     "sinkcredential.secret: is missing",
		`{"credentialtype": "PLAIN", "identifier": "a", "secret": "marker-secret", "accesstoken": "x"}`:                      "and nothing else",
		`{"credentialtype": "ACCESSTOKEN"}`:                                                                                  "sinkcredential.accesstoken: is missing",
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "secret": "x"}`:                                   "and nothing else",
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "accesstokentype": "mac"}`:                        `"mac" is not supported: write bearer`,
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "accesstokenexpiresutc": "soon"}`:                 "accesstokenexpiresutc: is no time",
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "accesstokenexpiresutc": 1}`:                      "sinkcredential",
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "accesstokenexpiresutc": "2001-01-01T00:00:00Z"}`: "2001-01-01T00:00:00Z is over",
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret\r\nX: y"}`:                                          "no token has",
		`{"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "scope": "x"}`:                                    `unknown field "scope"`,
		`{"credentialtype": "REFRESHTOKEN", "accesstoken": "marker-secret", "accesstokenexpiresutc": "2099-01-01T00:00:00Z",
			"accesstokentype": "bearer", "refreshtoken": "marker-secret", "refreshtokenendpoint": "https://id.example.com/token"}`: "REFRESHTOKEN is not supported",
	} {
		a := n.Do("POST", "/subscriptions", `{"protocol": "HTTP", "sink": "http://127.0.0.1:9/", "sinkcredential": `+credential+`}`)
		if a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), strings.ReplaceAll(want, `"`, `\"`)) || strings.Contains(string(a.Body), "marker") {
			t.Errorf("%s: %d %s, want %q", credential, a.Status, a.Body, want)
		}
	}
	if a := n.Do("POST", "/subscriptions", `{"sink": "queue:", "config": {"interval": 5}}`); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), `interval`) {
		t.Errorf("config: %d %s", a.Status, a.Body)
	}
}

// Who gets a subscription, changes it and puts it back does not take its credential from
// it: that he was never shown. It stays with its sink, and null drops it.
func TestCredentialIsKept(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	elsewhere := apptest.NewFunction(t, nil)
	store := memlog.New(memlog.Options{})
	n := apptest.Start(t, subscribing, func(o *app.Options) { o.Store = store })
	put := func(want int, format string, args ...any) string {
		t.Helper()
		a := n.Do("PUT", "/subscriptions/s", fmt.Sprintf(format, args...))
		if a.Status != want || strings.Contains(string(a.Body), "marker-secret") {
			t.Errorf("%s: %d %s", fmt.Sprintf(format, args...), a.Status, a.Body)
		}
		return string(a.Body)
	}
	put(http.StatusOK, `{"sink": %q, "sinkcredential": {"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret", "accesstokenexpiresutc": "2099-01-01T00:00:00Z"}}`, f.URL)
	put(http.StatusOK, "%s", n.Do("GET", "/subscriptions/s", "").Body)
	n.MustPublish("1", "a", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["1"] == 1 })

	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	store = store.Restart()
	n = apptest.Start(t, subscribing, func(o *app.Options) { o.Store = store })
	shown := put(http.StatusOK, `{"sink": %q, "types": ["a", "b"]}`, f.URL) // after a restart
	if !strings.Contains(shown, `"credentialexpires":"2099-01-01T00:00:00Z"`) {
		t.Errorf("the answer does not say when the token ends: %s", shown)
	}
	n.MustPublish("2", "a", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["2"] == 1 })

	if detail := put(http.StatusBadRequest, `{"sink": %q}`, elsewhere.URL); !strings.Contains(detail, "given for another sink") {
		t.Errorf("another sink: %s", detail)
	}
	n.MustPublish("3", "a", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["3"] == 1 })

	put(http.StatusOK, `{"sink": %q, "sinkcredential": null}`, f.URL)
	put(http.StatusOK, `{"sink": %q}`, f.URL)
	n.MustPublish("4", "a", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["4"] == 1 })
	var got []string
	for _, r := range f.Requests() {
		got = append(got, r.Header.Get("Authorization"))
	}
	if token := "Bearer marker-secret"; !slices.Equal(got, []string{token, token, token, ""}) || len(elsewhere.Requests()) > 0 {
		t.Errorf("the requests have %q; %d came elsewhere", got, len(elsewhere.Requests()))
	}
}
