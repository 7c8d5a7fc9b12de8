package sources

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

// wire is a request with a header of any bytes, as it may come.
func wire(contentType, body string, headers ...string) *hook {
	r := httptest.NewRequest(http.MethodPost, "/in/hook?a=b", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return &hook{r: r, body: []byte(body), now: time.Now()}
}

// No template and no request make a text out of nothing, and parsing what was
// parsed goes well.
func FuzzTemplate(f *testing.F) {
	for _, m := range []EventMap{plainMap(), githubMap(), gitlabMap(), stripeMap(), slackMap(), shopifyMap(), twilioMap(), standardMap()} {
		for _, src := range m.written() {
			f.Add(src, `{"id": "1", "type": "x", "repository": {"full_name": "a/b"}}`, "application/json")
		}
	}
	f.Add(`<body.#(a>"<").b ?? "\"">\[[<form.x>]`, "x=1&payload=%7B%7D", "application/x-www-form-urlencoded")
	f.Fuzz(func(t *testing.T, src, body, contentType string) {
		tmpl, err := parseTemplate(src)
		if err != nil {
			if err.Error() == "" {
				t.Error("a fault without a text")
			}
			return
		}
		h := wire(contentType, body, "X-Topic", "a")
		text, lacks := tmpl.fill(h)
		if lacks != "" && text != "" {
			t.Errorf("%q gives %q and lacks %s", src, text, lacks)
		}
		if again, _ := tmpl.fill(h); again != text {
			t.Errorf("%q gives %q and then %q", src, text, again)
		}
		tmpl.digests(h)
	})
}

// Whatever comes as a signature, a time and a body, nothing panics, and nothing is
// verified that was not signed.
func FuzzVerify(f *testing.F) {
	secret := value.Secrets{value.NewSecret("whsec_c2VjcmV0")}
	public := base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey))
	schemes := []Verify{
		{GitHub: secret}, {GitLab: secret}, {Stripe: secret}, {Slack: secret}, {Shopify: secret}, {Twilio: &Twilio{Token: secret}},
		{Standard: secret}, {Standard: value.Secrets{value.NewSecret("whpk_" + public)}},
		{Bearer: secret}, {Basic: &Basic{User: "u", Password: secret}},
		{HMAC: &HMAC{Header: "X-Hub-Signature-256", Secret: secret}},
		{HMAC: &HMAC{Algorithm: "sha512", Header: "Stripe-Signature", Encoding: encodingBase64, Prefix: "v1,", Secret: secret, Timestamp: "Webhook-Timestamp", Signed: "<header.Webhook-Timestamp>.<body>"}},
	}
	f.Add("sha256=00", "1", "{}", "application/json")
	f.Add("t=1,v1=00,v1=,t=2,=", "1e9", "a=b&a=%zz", "application/x-www-form-urlencoded")
	f.Add("v1,AA== v1a,AA== v1", "99999999999999999999", "", "")
	f.Add("v0=00", "-1", "\xff", "application/json;")
	f.Add("Basic dTo=", "", "", "")
	f.Add("v1a,"+strings.Repeat("A", 86)+"== v1,AA==", "1e3", "{}", "application/json")
	f.Fuzz(func(t *testing.T, signature, stamp, body, contentType string) {
		for i := range schemes {
			s := schemes[i].scheme()
			h := wire(contentType, body, "X-Hub-Signature-256", signature, "X-Gitlab-Token", signature, "Webhook-Signature", signature,
				"Webhook-Id", stamp, "Webhook-Timestamp", stamp, "Stripe-Signature", signature, "X-Slack-Signature", signature,
				"X-Slack-Request-Timestamp", stamp, "X-Shopify-Hmac-Sha256", signature, "X-Twilio-Signature", signature, "Authorization", signature)
			if len(body)%2 == 0 { // Svix' own headers count where those of the standard are not there
				h.r.Header.Del("Webhook-Signature")
				h.r.Header.Set("Svix-Id", stamp)
				h.r.Header.Set("Svix-Timestamp", stamp)
				h.r.Header.Set("Svix-Signature", signature)
			}
			if _, err := s.verify(h); err == nil {
				t.Fatalf("scheme %d takes %q with %q", i, signature, stamp)
			} else if strings.Contains(err.Error(), "c2VjcmV0") && !strings.Contains(signature+stamp, "c2VjcmV0") {
				t.Fatalf("scheme %d tells the secret: %v", i, err)
			}
		}
	})
}

// Whatever is sent, by whoever, what becomes an event is one that the bus takes,
// with the body as it came.
func FuzzMapping(f *testing.F) {
	f.Add(`{"type": "event_callback", "event_id": "1", "created": 1e99}`, "application/json", "push", "1")
	f.Add("payload=%7B%22action%22%3A%22x%22%7D&MessageSid=1", "application/x-www-form-urlencoded", "", "")
	f.Add("\xff\xfe", "text/plain", "\x00", " ")
	f.Fuzz(func(t *testing.T, body, contentType, event, id string) {
		for _, m := range []EventMap{plainMap(), githubMap(), gitlabMap(), stripeMap(), slackMap(), shopifyMap(), twilioMap(), standardMap()} {
			h := wire(contentType, body, "X-GitHub-Event", event, "X-GitHub-Delivery", id, "Webhook-Id", id, "X-Shopify-Topic", event,
				"X-Shopify-Shop-Domain", event, "X-Shopify-Webhook-Id", id, "X-Shopify-Triggered-At", id)
			made, err := (&EventMap{}).compile(m).event(h)
			if err != nil {
				continue
			}
			if string(made.event.Data()) != body && len(body) > 0 {
				t.Fatalf("the body %q became %q", body, made.event.Data())
			}
			if _, err := bus.NewEvent(append([]bus.Attr(nil), made.event.Attrs()...), made.event.Data()); err != nil {
				t.Fatalf("an event that is none: %v", err)
			}
		}
	})
}
