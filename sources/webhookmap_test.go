package sources_test

import (
	"crypto/sha1" //nolint:gosec // as Twilio signs
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/bus"
	"sluice/sources"
)

// describe is what an event is, but for the time that it came in.
func attributesOf(e bus.Event) string {
	var b strings.Builder
	for _, name := range []string{"type", "source", "id", "subject"} {
		fmt.Fprintf(&b, "%s=%s ", name, e.Get(name))
	}
	return strings.TrimSpace(b.String())
}

// What the event of each sender is, by itself. The bodies are cut down to what the
// services document.
func TestWebhookDefaults(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	github := func(body, event string, headers ...string) func(string) *http.Request {
		return func(url string) *http.Request {
			headers = append([]string{"X-GitHub-Event", event, "X-GitHub-Delivery", "d-1",
				"X-Hub-Signature-256", "sha256=" + hex.EncodeToString(mac(sha256.New, secret, body))}, headers...)
			return post(url, body, headers...)
		}
	}
	slack := func(body, contentType string) func(string) *http.Request {
		return func(url string) *http.Request {
			at := unix(time.Now())
			return post(url, body, "Content-Type", contentType, "X-Slack-Request-Timestamp", at,
				"X-Slack-Signature", "v0="+hex.EncodeToString(mac(sha256.New, secret, "v0:"+at+":"+body)))
		}
	}
	twilio := func(body, signed string) func(string) *http.Request {
		return func(url string) *http.Request {
			return post(url, body, "Content-Type", form, "I-Twilio-Idempotency-Token", "tok-1",
				"X-Twilio-Signature", base64.StdEncoding.EncodeToString(mac(sha1.New, secret, url+signed)))
		}
	}
	stripe := func(body string) func(string) *http.Request {
		return func(url string) *http.Request {
			at := unix(time.Now())
			return post(url, body, "Stripe-Signature", "t="+at+",v1="+hex.EncodeToString(mac(sha256.New, secret, at+"."+body)))
		}
	}
	gitlab := func(body string, headers ...string) func(string) *http.Request {
		return func(url string) *http.Request { return post(url, body, append(headers, "X-Gitlab-Token", secret)...) }
	}
	plain := func(body string, headers ...string) func(string) *http.Request {
		return func(url string) *http.Request { return post(url, body, headers...) }
	}
	for name, tc := range map[string]struct {
		verify  sources.Verify
		request func(url string) *http.Request
		want    string
	}{
		"github push": {sources.Verify{GitHub: one(secret)}, github(`{"ref": "refs/heads/main", "repository": {"full_name": "octo/hello"}}`, "push"),
			"type=com.github.push source=https://github.com/octo/hello id=d-1 subject=refs/heads/main"},
		"github pull request": {sources.Verify{GitHub: one(secret)}, github(`{"action": "opened", "pull_request": {"number": 7}, "repository": {"full_name": "octo/hello"}}`, "pull_request"),
			"type=com.github.pull_request.opened source=https://github.com/octo/hello id=d-1 subject=7"},
		"github organization": {sources.Verify{GitHub: one(secret)}, github(`{"action": "member_added", "organization": {"login": "octo"}}`, "organization"),
			"type=com.github.organization.member_added source=https://github.com/octo id=d-1 subject="},
		"github ping of an app": {sources.Verify{GitHub: one(secret)}, github(`{"zen": "x", "hook_id": 1}`, "ping"),
			"type=com.github.ping source=https://github.com id=d-1 subject="},
		"github as a form": {sources.Verify{GitHub: one(secret)}, github("payload="+url.QueryEscape(`{"action": "closed", "issue": {"number": 9}, "repository": {"full_name": "o/r"}}`), "issues", "Content-Type", form),
			"type=com.github.issues.closed source=https://github.com/o/r id=d-1 subject=9"},
		"gitlab merge request": {sources.Verify{GitLab: one(secret)}, gitlab(
			`{"object_kind": "merge_request", "project": {"web_url": "https://gitlab.example.com/a/b"}, "object_attributes": {"iid": 3, "action": "open"}}`,
			"Idempotency-Key", "i-1", "X-Gitlab-Event-UUID", "u-1"),
			"type=com.gitlab.merge_request.open source=https://gitlab.example.com/a/b id=i-1 subject=3"},
		"gitlab of old": {sources.Verify{GitLab: one(secret)}, gitlab(`{"event_name": "project_create"}`, "X-Gitlab-Event-UUID", "u-1", "X-Gitlab-Webhook-UUID", "w-1", "X-Gitlab-Instance", "https://gl.example.com"),
			"type=com.gitlab.project_create source=https://gl.example.com id=w-1 subject="},
		"stripe": {sources.Verify{Stripe: one(secret)}, stripe(`{"id": "evt_1", "type": "invoice.paid", "created": 1735787045, "account": "acct_1", "data": {"object": {"id": "in_1"}}}`),
			"type=com.stripe.invoice.paid source=https://api.stripe.com/accounts/acct_1 id=evt_1 subject=in_1"},
		"stripe thin": {sources.Verify{Stripe: one(secret)}, stripe(`{"id": "evt_2", "type": "v1.billing.meter.error", "created": "2025-01-02T03:04:05.000Z", "related_object": {"id": "mtr_1"}}`),
			"type=com.stripe.v1.billing.meter.error source=https://api.stripe.com id=evt_2 subject=mtr_1"},
		"slack event": {sources.Verify{Slack: one(secret)}, slack(`{"type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event": {"type": "message", "channel": "C1"}}`, "application/json"),
			"type=com.slack.message source=https://slack.com/T1 id=Ev1 subject=C1"},
		"slack button": {sources.Verify{Slack: one(secret)}, slack("payload="+url.QueryEscape(`{"type": "block_actions", "team": {"id": "T1"}, "trigger_id": "t.1", "channel": {"id": "C2"}}`), form),
			"type=com.slack.block_actions source=https://slack.com/T1 id=t.1 subject=C2"},
		"slack command": {sources.Verify{Slack: one(secret)}, slack("team_id=T1&command=%2Fweather&trigger_id=t.2&channel_id=C3", form),
			"type=com.slack.command source=https://slack.com/T1 id=t.2 subject=C3"},
		"shopify": {sources.Verify{Shopify: one(secret)}, plain(`{"id": 820982911946154508}`, "X-Shopify-Topic", "orders/create", "X-Shopify-Shop-Domain", "a.myshopify.com",
			"X-Shopify-Webhook-Id", "w-1", "X-Shopify-Hmac-Sha256", base64.StdEncoding.EncodeToString(mac(sha256.New, secret, `{"id": 820982911946154508}`))),
			"type=com.shopify.orders/create source=https://a.myshopify.com id=w-1 subject=820982911946154508"},
		"twilio message": {sources.Verify{Twilio: &sources.Twilio{Token: one(secret)}}, twilio("MessageSid=SM1&MessageStatus=delivered&AccountSid=AC1", "AccountSidAC1MessageSidSM1MessageStatusdelivered"),
			"type=com.twilio.message.delivered source=https://api.twilio.com/AC1 id=tok-1 subject=SM1"},
		"twilio call": {sources.Verify{Twilio: &sources.Twilio{Token: one(secret)}}, twilio("CallSid=CA1&CallStatus=ringing&B=2&B=1&B=2", "B1B2CallSidCA1CallStatusringing"),
			"type=com.twilio.call.ringing source=https://api.twilio.com id=tok-1 subject=CA1"},
		"standard": {sources.Verify{Standard: one(standardSecret)}, func(url string) *http.Request {
			return standardRequest(url, "webhook", "msg_1", `{"type": "contact.created", "timestamp": "2026-01-02T03:04:05Z"}`, time.Now(), v1)
		}, "type=contact.created source=/in/hook id=msg_1 subject="},
		"anything":      {sources.Verify{None: true}, plain(`<a/>`, "Content-Type", "text/xml"), "type=webhook.received source=/in/hook id=" + digestOf("", `<a/>`) + " subject="},
		"anything else": {sources.Verify{None: true}, plain(`{}`, "Idempotency-Key", "k"), "type=webhook.received source=/in/hook id=k subject="},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runHook(t, (&sender{verify: tc.verify}).settings(), "/in/hook")
			req := tc.request(r.url)
			want, err := req.GetBody()
			if err != nil {
				t.Fatal(err)
			}
			body := make([]byte, req.ContentLength)
			if _, err := want.Read(body); err != nil {
				t.Fatal(err)
			}
			if a := r.do(t, req); a.status/100 != 2 || len(r.pub.Stored()) != 1 {
				t.Fatalf("%d %s, rejected %+v", a.status, a.body, r.Rejected())
			}
			e := r.pub.Stored()[0]
			if diff := cmp.Diff(tc.want, attributesOf(e)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if string(e.Data()) != string(body) || e.Get("datacontenttype") != req.Header.Get("Content-Type") || e.Time().IsZero() {
				t.Errorf("the event is %s", e.AppendJSON(nil))
			}
			if strings.HasPrefix(name, "stripe") && e.Time().Year() != 2025 {
				t.Errorf("the time is %s", e.Time())
			}
		})
	}
}

func digestOf(query, body string) string {
	sum := sha256.Sum256([]byte(query + "\n" + body))
	return hex.EncodeToString(sum[:20])
}

// The language of templates, by what comes out.
func TestWebhookTemplates(t *testing.T) {
	t.Parallel()
	const body = `{"kind": "order", "n": 1.10, "big": 12345678901234567890, "yes": true, "null": null, "list": [{"k": "a", "v": "1"}, {"k": "b", "v": "2"}],
		"object": {"x": 1}, "empty": "", "a.b": "dotted", "when": "2026-01-02T03:04:05+01:00"}`
	for _, tc := range []struct{ template, want string }{
		{`fixed`, `fixed`},
		{`<body.kind>`, `order`},
		{`com.example.<body.kind>.v<query.v>`, `com.example.order.v2`},
		{`<header.x-topic>`, `a/b`},
		{`<header.X-None ?? body.none ?? body.kind>`, `order`},
		{`<body.none ?? "a > \"b\"">`, `a > "b"`},
		{`<body.n>`, `1.10`},
		{`<body.big>`, `12345678901234567890`},
		{`<body.yes>`, `true`},
		{`<body.a\.b>`, `dotted`},
		{`<body.list.1.v>`, `2`},
		{`<body.list.#(k=="b").v>`, `2`},
		{`<body.list.#(v>"1").k>`, `b`},
		{`<path>`, `/in/hook`},
		{`<digest>`, digestOf("v=2", body)},
		{`\<body.kind\> \[x\] \\`, `<body.kind> [x] \`},
		{`a]b`, `a]b`},
		{`x[-<body.none>]`, `x`},
		{`x[-<body.kind>]`, `x-order`},
		{`x[-<body.kind>-<body.none>]y`, `xy`},
		{`<body.null>`, ``},
		{`<body.object>`, ``},
		{`<body.empty>`, ``},
		{`<body.none>`, ``},
		{`<form.kind>`, ``},
	} {
		s := (&sender{verify: sources.Verify{None: true}, event: sources.EventMap{ID: "1", Subject: tc.template}}).settings()
		r := runHook(t, s, "/in/hook")
		if a := r.do(t, post(r.url+"?v=2", body, "X-Topic", "a/b")); a.status != 202 {
			t.Fatalf("%s: %d %s", tc.template, a.status, a.body)
		}
		if got := r.pub.Stored()[0].Subject(); got != tc.want {
			t.Errorf("%s\n got %q\nwant %q", tc.template, got, tc.want)
		}
	}
}

// What the attributes that are needed cannot be made of is the sender's fault.
func TestWebhookMappingFaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		event sources.EventMap
		body  string
		want  string
	}{
		"type":      {sources.EventMap{Type: "a.<body.kind>"}, `{}`, `type: is made of <body.kind>, which the request does not have`},
		"no JSON":   {sources.EventMap{ID: "<body.id>"}, ``, `id: is made of <body.id>`},
		"time":      {sources.EventMap{Time: "<body.at>"}, `{"at": "soon"}`, `time: is neither RFC 3339 nor a number`},
		"late":      {sources.EventMap{Time: "<body.at>"}, `{"at": 1e300}`, `time: is neither`},
		"bad value": {sources.EventMap{Subject: "<body.s>"}, `{"s": "a\u0001"}`, `subject`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runHook(t, (&sender{verify: sources.Verify{None: true}, event: tc.event}).settings(), "/in/hook")
			if a := r.do(t, post(r.url, tc.body)); a.status != 400 || !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(a.body, `\u003c`, "<"), `\u003e`, ">"), tc.want) || len(r.pub.Stored()) != 0 {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

func TestWebhookTimes(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		`1735787045`: "2025-01-02T03:04:05Z", `1735787045.25`: "2025-01-02T03:04:05.25Z", `"1735787045250"`: "2025-01-02T03:04:05.25Z",
		`"2025-01-02T04:04:05+01:00"`: "2025-01-02T04:04:05+01:00",
	} {
		s := (&sender{verify: sources.Verify{None: true}, event: sources.EventMap{Time: "<body.at>", Extensions: map[string]string{"tenant": "<body.t ?? \"none\">", "left": "<body.out>"}}}).settings()
		r := runHook(t, s, "/in/hook")
		r.do(t, post(r.url, `{"at": `+at+`}`))
		if got := r.pub.Stored(); len(got) != 1 || got[0].Get("time") != want || got[0].Get("tenant") != "none" || got[0].Get("left") != "" {
			t.Errorf("%s: %v, want %s", at, got, want)
		}
	}
}

// Every fault of the settings says what to write.
func TestWebhookValidate(t *testing.T) {
	t.Parallel()
	good := func() *sources.Webhook { return (&sender{verify: sources.Verify{None: true}}).settings() }
	for name, tc := range map[string]struct {
		change func(*sources.Webhook)
		want   string
	}{
		"good":         {func(*sources.Webhook) {}, ""},
		"no path":      {func(s *sources.Webhook) { s.Path = "" }, "path: is missing"},
		"no verify":    {func(s *sources.Webhook) { s.Verify = nil }, `verify: is missing: say how senders prove who they are`},
		"empty verify": {func(s *sources.Webhook) { s.Verify = &sources.Verify{} }, "verify: says nothing"},
		"two":          {func(s *sources.Webhook) { s.Verify = &sources.Verify{GitHub: one("a"), Stripe: one("b")} }, "verify.stripe: stands beside github"},
		"no secret":    {func(s *sources.Webhook) { s.Verify = &sources.Verify{Stripe: one("")[:0]} }, "verify.stripe: has no secret"},
		"no twilio":    {func(s *sources.Webhook) { s.Verify = &sources.Verify{Twilio: &sources.Twilio{}} }, "verify.twilio.token: has no secret"},
		"basic": {func(s *sources.Webhook) {
			s.Verify = &sources.Verify{Basic: &sources.Basic{User: "a:b", Password: one("x")}}
		}, "verify.basic.user: must be a name"},
		"standard":    {func(s *sources.Webhook) { s.Verify = &sources.Verify{Standard: one("whsec_!")} }, "verify.standard[0]: is not whsec_ or whpk_"},
		"public key":  {func(s *sources.Webhook) { s.Verify = &sources.Verify{Standard: one("whpk_AAAA")} }, "verify.standard[0]: is no Ed25519 public key"},
		"hmac header": {hmacOf(sources.HMAC{}), "verify.hmac.header: is no header"},
		"hmac body":   {hmacOf(sources.HMAC{Header: "X-S", Signed: "<header.X-T>"}), "verify.hmac.signed: has no <body>"},
		"hmac time":   {hmacOf(sources.HMAC{Header: "X-S", Timestamp: "X-T"}), "verify.hmac.signed: has no <header.X-T>"},
		"hmac maybe":  {hmacOf(sources.HMAC{Header: "X-S", Timestamp: "X-T", Signed: "[<header.X-T>]<body>"}), "verify.hmac.signed: has no <header.X-T>"},
		"tolerance":   {func(s *sources.Webhook) { s.Tolerance = 0 }, "tolerance: must be more than 0"},
		"size":        {func(s *sources.Webhook) { s.Limits.Event = -1 }, "limits.event: is negative"},
		"variable":    {func(s *sources.Webhook) { s.Event.Type = "<boddy.x>" }, "event.type: <boddy.x> is no variable: write one of header.X-Name"},
		"header":      {func(s *sources.Webhook) { s.Event.Type = "<header.X Y>" }, "event.type: <header.X Y> is no variable"},
		"open":        {func(s *sources.Webhook) { s.Event.ID = "<body.x" }, "event.id: has a < that is never closed"},
		"bracket":     {func(s *sources.Webhook) { s.Event.ID = "a[b" }, "event.id: has a [ that is never closed"},
		"nested":      {func(s *sources.Webhook) { s.Event.ID = "a[b[c]]" }, "event.id: has a [ inside of brackets"},
		"text":        {func(s *sources.Webhook) { s.Event.ID = `<body.a ?? "b>` }, "event.id: has a < that is never closed"},
		"extension":   {func(s *sources.Webhook) { s.Event.Extensions = map[string]string{"Bad-Name": "x"} }, "event.extensions.Bad-Name: is no name for an attribute"},
		"core":        {func(s *sources.Webhook) { s.Event.Extensions = map[string]string{"type": "x"} }, "event.extensions.type: is no name for an attribute"},
		"origins":     {func(s *sources.Webhook) { s.Handshake = &sources.Handshake{} }, "handshake.origins: is empty"},
		"origin":      {func(s *sources.Webhook) { s.Handshake = &sources.Handshake{Origins: []string{"https://a"}} }, "handshake.origins[0]: is not a host name"},
	} {
		s := good()
		tc.change(s)
		var got []string
		for _, f := range s.Validate() {
			got = append(got, f.Key+": "+f.Msg)
		}
		if text := strings.Join(got, "\n"); !strings.HasPrefix(text, tc.want) || (tc.want == "") != (text == "") {
			t.Errorf("%s\n got %s\nwant %s", name, text, tc.want)
		}
	}
}

func hmacOf(h sources.HMAC) func(*sources.Webhook) {
	return func(s *sources.Webhook) {
		h.Secret = one("x")
		s.Verify = &sources.Verify{HMAC: &h}
	}
}
