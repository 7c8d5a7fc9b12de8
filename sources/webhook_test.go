package sources_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // as Twilio signs
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// sender signs requests as one service does, with code of its own.
type sender struct {
	name   string
	verify sources.Verify
	event  sources.EventMap
	// request is what the service sends for an event with that id.
	request func(url, id string, at time.Time) *http.Request
	// stamped says that a time is signed.
	stamped bool
	// status is what the service is answered.
	status int
}

const secret = "It's a Secret to Everybody"

var (
	standardSecret = "whsec_" + base64.StdEncoding.EncodeToString([]byte("a secret of standard webhooks"))
	ed25519Key     = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	ed25519Public  = "whpk_" + base64.StdEncoding.EncodeToString(ed25519Key.Public().(ed25519.PublicKey))
)

func mac(algorithm func() hash.Hash, key string, parts ...string) []byte {
	m := hmac.New(algorithm, []byte(key))
	for _, p := range parts {
		_, _ = io.WriteString(m, p)
	}
	return m.Sum(nil)
}

func post(url, body string, headers ...string) *http.Request {
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		panic(err) // only of a URL that is none
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func one(s string) value.Secrets { return value.Secrets{value.NewSecret(s)} }

func standardRequest(url, prefix, id, body string, at time.Time, sign func(signed string) string) *http.Request {
	return post(url, body, prefix+"-id", id, prefix+"-timestamp", unix(at), prefix+"-signature", sign(id+"."+unix(at)+"."+body))
}

func v1(signed string) string {
	return "v1," + base64.StdEncoding.EncodeToString(mac(sha256.New, "a secret of standard webhooks", signed))
}

func v1a(signed string) string {
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519Key, []byte(signed)))
}

func twilioForm(id string) string {
	return "To=%2B18005551212&MessageSid=" + id + "&SmsStatus=received"
}

// senders are one of each way to verify.
func senders() []sender {
	body := func(id string) string { return `{"id": "` + id + `", "n": 1.10}` }
	byID := sources.EventMap{ID: "<body.id>"}
	return []sender{
		{name: "github", verify: sources.Verify{GitHub: one(secret)}, status: 202, request: func(url, id string, _ time.Time) *http.Request {
			return post(url, body(id), "X-GitHub-Event", "push", "X-GitHub-Delivery", id,
				"X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(sha256.New, secret, body(id))))
		}},
		{name: "gitlab token", verify: sources.Verify{GitLab: one(secret)}, status: 202, request: func(url, id string, _ time.Time) *http.Request {
			return post(url, `{"object_kind": "push"}`, "X-Gitlab-Token", secret, "X-Gitlab-Webhook-UUID", id)
		}},
		{name: "gitlab signed", verify: sources.Verify{GitLab: one(standardSecret)}, stamped: true, status: 202, request: func(url, id string, at time.Time) *http.Request {
			return standardRequest(url, "webhook", id, `{"object_kind": "push"}`, at, v1)
		}},
		{name: "stripe", verify: sources.Verify{Stripe: one("whsec_x")}, stamped: true, status: 202, request: func(url, id string, at time.Time) *http.Request {
			text := `{"id": "` + id + `", "type": "charge.failed"}`
			return post(url, text, "Stripe-Signature", "t="+unix(at)+",v1="+hex.EncodeToString(mac(sha256.New, "whsec_x", unix(at)+"."+text)))
		}},
		{name: "slack", verify: sources.Verify{Slack: one(secret)}, stamped: true, status: 200, request: func(url, id string, at time.Time) *http.Request {
			text := `{"type": "event_callback", "event_id": "` + id + `"}`
			return post(url, text, "X-Slack-Request-Timestamp", unix(at),
				"X-Slack-Signature", "v0="+hex.EncodeToString(mac(sha256.New, secret, "v0:"+unix(at)+":"+text)))
		}},
		{name: "shopify", verify: sources.Verify{Shopify: one(secret)}, status: 202, request: func(url, id string, _ time.Time) *http.Request {
			return post(url, body(id), "X-Shopify-Topic", "orders/create", "X-Shopify-Shop-Domain", "a.myshopify.com", "X-Shopify-Webhook-Id", id,
				"X-Shopify-Hmac-Sha256", base64.StdEncoding.EncodeToString(mac(sha256.New, secret, body(id))))
		}},
		{name: "twilio", verify: sources.Verify{Twilio: &sources.Twilio{Token: one(secret)}}, status: 200, request: func(url, id string, _ time.Time) *http.Request {
			signed := url + "MessageSid" + id + "SmsStatusreceivedTo+18005551212"
			return post(url, twilioForm(id), "Content-Type", "application/x-www-form-urlencoded", "I-Twilio-Idempotency-Token", id,
				"X-Twilio-Signature", base64.StdEncoding.EncodeToString(mac(sha1.New, secret, signed)))
		}},
		{name: "standard v1", verify: sources.Verify{Standard: one(standardSecret)}, stamped: true, status: 202, request: func(url, id string, at time.Time) *http.Request {
			return standardRequest(url, "webhook", id, body(id), at, v1)
		}},
		{name: "standard v1a", verify: sources.Verify{Standard: one(ed25519Public)}, stamped: true, status: 202, request: func(url, id string, at time.Time) *http.Request {
			return standardRequest(url, "webhook", id, body(id), at, v1a)
		}},
		{name: "svix", verify: sources.Verify{Standard: one(standardSecret)}, stamped: true, status: 202, request: func(url, id string, at time.Time) *http.Request {
			return standardRequest(url, "svix", id, body(id), at, v1)
		}},
		{name: "hmac", event: byID, stamped: true, status: 202, verify: sources.Verify{HMAC: &sources.HMAC{
			Algorithm: "sha1", Header: "x-sig", Encoding: "base64", Prefix: "hash ", Secret: one(secret), Timestamp: "X-Time", Signed: "<header.X-Time>|<body>",
		}}, request: func(url, id string, at time.Time) *http.Request {
			return post(url, body(id), "X-Time", unix(at), "X-Sig", "hash "+base64.RawURLEncoding.EncodeToString(mac(sha1.New, secret, unix(at)+"|"+body(id))))
		}},
		{name: "bearer", event: byID, verify: sources.Verify{Bearer: one(secret)}, status: 202, request: func(url, id string, _ time.Time) *http.Request {
			return post(url, body(id), "Authorization", "bearer "+secret)
		}},
		{name: "basic", event: byID, verify: sources.Verify{Basic: &sources.Basic{User: "u", Password: one(secret)}}, status: 202, request: func(url, id string, _ time.Time) *http.Request {
			r := post(url, body(id))
			r.SetBasicAuth("u", secret)
			return r
		}},
		{name: "none", event: byID, verify: sources.Verify{None: true}, status: 202, request: func(url, id string, _ time.Time) *http.Request {
			return post(url, body(id))
		}},
	}
}

func (s *sender) settings() *sources.Webhook {
	w := sources.NewWebhook()
	w.Path, w.Verify, w.Event = "/in/hook", &s.verify, s.event
	return w
}

func TestWebhookSuite(t *testing.T) {
	t.Parallel()
	for _, s := range senders() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, func(t *testing.T) *sourcetest.Subject {
				host := sourcetest.NewHost(t)
				client := &http.Client{Transport: &http.Transport{}}
				t.Cleanup(client.CloseIdleConnections)
				do := func(ctx context.Context, r *http.Request) error {
					resp, err := client.Do(r.WithContext(ctx))
					if err != nil {
						return err
					}
					defer func() { _ = resp.Body.Close() }()
					if resp.StatusCode != s.status {
						return fmt.Errorf("answered %s", resp.Status)
					}
					return nil
				}
				return &sourcetest.Subject{
					Source: host.Open(t, s.settings()),
					Send: func(ctx context.Context, e bus.Event) error {
						return do(ctx, s.request(host.URL+"/in/hook", e.ID(), time.Now()))
					},
					Poison: func(ctx context.Context) {
						_ = do(ctx, post(host.URL+"/in/hook", "{", "X-Hub-Signature-256", "sha256=00", "Authorization", "Bearer "+secret))
					},
				}
			})
		})
	}
}

// hookHost is a webhook source at work.
type hookHost struct {
	*sourcetest.Host
	url string
	pub *sourcetest.Publisher
}

func runHook(t *testing.T, s sources.Settings, path string) *hookHost {
	t.Helper()
	r := &hookHost{Host: sourcetest.NewHost(t), pub: &sourcetest.Publisher{}}
	r.url = r.URL + path
	src := r.Open(t, s)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := src.Run(ctx, r.pub); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	<-src.(sources.Readier).Ready()
	return r
}

// reply is what a request came to.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r *hookHost) do(t *testing.T, req *http.Request) reply {
	t.Helper()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// A request that is not exactly what was signed is answered 401, with the header
// that is wrong, without what was expected, and never becomes an event.
func TestWebhookTampered(t *testing.T) {
	t.Parallel()
	headers := map[string]string{
		"github": "X-Hub-Signature-256", "gitlab token": "X-Gitlab-Token", "gitlab signed": "Webhook-Signature", "stripe": "Stripe-Signature",
		"slack": "X-Slack-Signature", "shopify": "X-Shopify-Hmac-Sha256", "twilio": "X-Twilio-Signature", "standard v1": "Webhook-Signature",
		"standard v1a": "Webhook-Signature", "svix": "Svix-Signature", "hmac": "X-Sig", "bearer": "Authorization", "basic": "Authorization",
	}
	signsBody := func(name string) bool { return !slices.Contains([]string{"gitlab token", "bearer", "basic"}, name) }
	for _, s := range senders() {
		header := headers[s.name]
		if header == "" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := runHook(t, s.settings(), "/in/hook")
			refused := 0
			refuse := func(what, names string, req *http.Request) {
				t.Helper()
				a := r.do(t, req)
				var p struct{ Detail, Header string }
				if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != http.StatusUnauthorized || !strings.HasPrefix(p.Detail, p.Header+": ") ||
					!strings.EqualFold(p.Header, names) || a.header.Get("Content-Type") != "application/problem+json" || a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s: %d %s", what, a.status, a.body)
				}
				refused++
			}
			good := func() *http.Request { return s.request(r.url, "1", time.Now()) }

			req := good()
			req.Header.Del(header)
			missing := header
			if s.name == "svix" {
				missing = "Webhook-Id" // nothing says Svix any more
			}
			refuse("without the header", missing, req)

			req = good()
			sent := req.Header.Get(header)
			req.Header.Set(header, strings.Repeat("z", 70))
			refuse("with nonsense", header, req)
			req = good()
			req.Header.Set(header, flip(sent))
			refuse("with another signature", header, req)
			if signsBody(s.name) {
				req = good()
				text, err := io.ReadAll(req.Body)
				if err != nil {
					t.Fatal(err)
				}
				changed := post(r.url, strings.Replace(string(text), "1", "2", 1)+" ")
				changed.Header = req.Header
				refuse("with another body", header, changed)
			}
			if s.stamped {
				clock := map[string]string{"gitlab signed": "Webhook-Timestamp", "slack": "X-Slack-Request-Timestamp", "standard v1": "Webhook-Timestamp",
					"standard v1a": "Webhook-Timestamp", "svix": "Svix-Timestamp", "hmac": "X-Time", "stripe": header}[s.name]
				refuse("too old", clock, s.request(r.url, "1", time.Now().Add(-6*time.Minute)))
				refuse("too new", clock, s.request(r.url, "1", time.Now().Add(6*time.Minute)))
				if a := r.do(t, s.request(r.url, "old", time.Now().Add(-4*time.Minute))); a.status != s.status {
					t.Errorf("four minutes old: %d %s", a.status, a.body)
				}
			}
			before := len(r.pub.Stored())
			if a := r.do(t, good()); a.status != s.status || len(r.pub.Stored()) != before+1 {
				t.Errorf("the good one: %d %s", a.status, a.body)
			}
			if got := r.Observed()[sources.Denied]; got != refused {
				t.Errorf("%d denied, want %d", got, refused)
			}
		})
	}
}

// flip changes one character of a signature to another of the same alphabet.
func flip(sent string) string {
	at := len(sent) - 5
	c := byte('a')
	if sent[at] == c {
		c = 'b'
	}
	return sent[:at] + string(c) + sent[at+1:]
}

// While one secret takes the place of another both are good, and one that was taken
// out is not.
func TestWebhookRotation(t *testing.T) {
	t.Parallel()
	const old, fresh = "an old secret", "a new secret"
	whsec := func(s string) string { return "whsec_" + base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tc := range map[string]struct {
		verify sources.Verify
		sign   func(url, with string) *http.Request
	}{
		"github": {sources.Verify{GitHub: append(one(fresh), one(old)...)}, func(url, with string) *http.Request {
			return post(url, "{}", "X-GitHub-Event", "ping", "X-GitHub-Delivery", with, "X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(sha256.New, with, "{}")))
		}},
		"standard": {sources.Verify{Standard: append(one(whsec(fresh)), one(whsec(old))...)}, func(url, with string) *http.Request {
			return standardRequest(url, "webhook", with, "{}", time.Now(), func(signed string) string {
				// As a sender does that rotates: a signature of each of its secrets.
				return "v1,bm90aGluZw== v2,x " + "v1," + base64.StdEncoding.EncodeToString(mac(sha256.New, with, signed))
			})
		}},
		"stripe": {sources.Verify{Stripe: append(one(fresh), one(old)...)}, func(url, with string) *http.Request {
			text, at := `{"id": "`+with+`", "type": "x"}`, unix(time.Now())
			return post(url, text, "Stripe-Signature", "t="+at+",v0=00,v1=00ff,v1="+hex.EncodeToString(mac(sha256.New, with, at+"."+text)))
		}},
		"bearer": {sources.Verify{Bearer: append(one(fresh), one(old)...)}, func(url, with string) *http.Request {
			return post(url, `"`+with+`"`, "Authorization", "Bearer "+with)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runHook(t, (&sender{verify: tc.verify}).settings(), "/in/hook")
			for with, want := range map[string]int{old: 202, fresh: 202, "another secret": 401, "": 401} {
				if a := r.do(t, tc.sign(r.url, with)); a.status != want {
					t.Errorf("signed with %q: %d %s", with, a.status, a.body)
				}
			}
		})
	}
}

func parseHookURL(t *testing.T, text string) value.URL {
	t.Helper()
	u, err := value.ParseURL(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Values that the services publish for everybody to test with.
func TestWebhookPublishedVectors(t *testing.T) {
	t.Parallel()
	const slackBody = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar" +
		"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands" +
		"%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	twilioURL := parseHookURL(t, "https://mycompany.com/myapp.php")
	const form = "application/x-www-form-urlencoded"
	for name, tc := range map[string]struct {
		verify  sources.Verify
		query   string
		body    string
		headers []string
	}{
		"github": {sources.Verify{GitHub: one(secret)}, "", "Hello, World!", []string{"Content-Type", "text/plain", "X-GitHub-Event", "x", "X-GitHub-Delivery", "1",
			"X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}},
		"slack": {sources.Verify{Slack: one("8f742231b10e8888abcd99yyyzzz85a5")}, "", slackBody, []string{"Content-Type", form,
			"X-Slack-Request-Timestamp", "1531420618", "X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"}},
		"twilio": {sources.Verify{Twilio: &sources.Twilio{Token: one("12345"), URL: twilioURL}}, "?foo=1&bar=2",
			"CallSid=CA1234567890ABCDE&Caller=%2B12349013030&Digits=1234&From=%2B12349013030&To=%2B18005551212",
			[]string{"Content-Type", form, "X-Twilio-Signature", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="}},
		"standard": {sources.Verify{Standard: one("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}, "", `{"test": 2432232314}`, []string{
			"webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp", "1614265330", "webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := (&sender{verify: tc.verify}).settings()
			s.Tolerance = value.Duration(100 * 365 * 24 * time.Hour) // these were signed long ago
			r := runHook(t, s, "/in/hook")
			req := post(r.url+tc.query, tc.body, tc.headers...)
			if a := r.do(t, req); a.status/100 != 2 || len(r.pub.Stored()) != 1 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if got := r.pub.Stored()[0]; string(got.Data()) != tc.body || got.Get("datacontenttype") != req.Header.Get("Content-Type") {
				t.Errorf("the event is %s", got.AppendJSON(nil))
			}
		})
	}
}

// Slack is told the challenge once it has proven who it is, and nobody else.
func TestSlackChallenge(t *testing.T) {
	t.Parallel()
	r := runHook(t, (&sender{verify: sources.Verify{Slack: one(secret)}}).settings(), "/in/hook")
	const body = `{"token": "x", "challenge": "3eZ\"bR", "type": "url_verification"}`
	at := unix(time.Now())
	req := post(r.url, body, "X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0="+hex.EncodeToString(mac(sha256.New, secret, "v0:"+at+":"+body)))
	if a := r.do(t, req); a.status != 200 || a.body != `{"challenge":"3eZ\"bR"}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	req = post(r.url, body, "X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0=00")
	if a := r.do(t, req); a.status != 401 || strings.Contains(a.body, "3eZ") {
		t.Errorf("not signed: %d %s", a.status, a.body)
	}
	if n := len(r.pub.Stored()); n != 0 {
		t.Errorf("%d events", n)
	}
}

// Twilio signs the hash of a body that is no form, with or without the port.
func TestTwilioJSON(t *testing.T) {
	t.Parallel()
	public := parseHookURL(t, "https://hooks.example.com/in/hook")
	r := runHook(t, (&sender{verify: sources.Verify{Twilio: &sources.Twilio{Token: one(secret), URL: public}}}).settings(), "/in/hook")
	const body = `{"a": 1}`
	sum := sha256.Sum256([]byte(body))
	query := "?bodySHA256=" + hex.EncodeToString(sum[:])
	for name, tc := range map[string]struct {
		signed, query, body string
		want                int
	}{
		"as configured": {"https://hooks.example.com/in/hook", query, body, 200},
		"with the port": {"https://hooks.example.com:443/in/hook", query, body + "", 200},
		"another host":  {"https://evil.example.com/in/hook", query, body, 401},
		"another body":  {"https://hooks.example.com/in/hook", query, body + " ", 401},
		"no hash":       {"https://hooks.example.com/in/hook", "", body, 401},
	} {
		signature := base64.StdEncoding.EncodeToString(mac(sha1.New, secret, tc.signed+tc.query))
		if a := r.do(t, post(r.url+tc.query, tc.body, "X-Twilio-Signature", signature)); a.status != tc.want {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// Twilio signs the fields of a form: what is in the body besides would be unsigned.
func TestTwilioForm(t *testing.T) {
	t.Parallel()
	r := runHook(t, (&sender{verify: sources.Verify{Twilio: &sources.Twilio{Token: one(secret)}}}).settings(), "/in/hook")
	signature := base64.StdEncoding.EncodeToString(mac(sha1.New, secret, r.url+"BodyhiFrom+49"))
	for body, want := range map[string]int{
		"Body=hi&From=%2B49":              200,
		"Body=hi&From=%2B49&":             200,
		"Body=hi&From=%2B49&Body=bye":     401,
		"Body=hi&From=%2B49&Body=bye;a=b": 401,
		"Body=hi&From=%2B49&Body=bye%":    401,
	} {
		a := r.do(t, post(r.url, body, "Content-Type", "application/x-www-form-urlencoded", "X-Twilio-Signature", signature))
		if a.status != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

// The log names the header, tells it once, and holds nothing that was sent.
func TestWebhookLog(t *testing.T) {
	t.Parallel()
	settings := (&sender{verify: sources.Verify{GitHub: one("marker-of-the-secret")}}).settings()
	r := runHook(t, settings, "/in/hook")
	for range 20 {
		a := r.do(t, post(r.url, `{"x": "marker-of-the-body"}`, "X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(sha256.New, "other", "marker"))))
		if a.status != 401 || strings.Contains(a.body, "marker") {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if strings.Contains(fmt.Sprintf("%+v %#v %s", settings, settings.Verify, settings.Verify.GitHub), "marker") {
		t.Error("the settings print the secret")
	}
	if r.Observed()[sources.Denied] != 20 {
		t.Errorf("observed %v", r.Observed())
	}
}

// What is signed and cannot be an event is kept, and the service is not told to
// send it again; a caller of one's own is told what is wrong.
func TestWebhookPoison(t *testing.T) {
	t.Parallel()
	r := runHook(t, (&sender{verify: sources.Verify{GitHub: one(secret)}}).settings(), "/in/hook")
	const body = `{"not": json`
	signed := func() *http.Request {
		return post(r.url, body, "X-GitHub-Event", "push", "X-GitHub-Delivery", "1", "X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(sha256.New, secret, body)))
	}
	r.Fail(io.ErrUnexpectedEOF)
	if a := r.do(t, signed()); a.status != 503 || len(r.Rejected()) != 0 {
		t.Errorf("without a place for dead letters: %d %s", a.status, a.body)
	}
	r.Fail(nil)
	if a := r.do(t, signed()); a.status != 202 || a.body != `{"status":"dead_letter"}` {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := r.Rejected(); len(got) != 1 || string(got[0].Data) != body || got[0].ContentType != "application/json" || got[0].ID == "" || !strings.Contains(got[0].Reason, "not valid JSON") {
		t.Errorf("rejected %+v", got)
	}
	own := runHook(t, (&sender{verify: sources.Verify{Bearer: one(secret)}}).settings(), "/in/hook")
	if a := own.do(t, post(own.url, body, "Authorization", "Bearer "+secret)); a.status != 400 || !strings.Contains(a.body, `"attribute":"data"`) || len(own.Rejected()) != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A signed CloudEvent stays the event that it is.
func TestWebhookOfCloudEvents(t *testing.T) {
	t.Parallel()
	s := (&sender{verify: sources.Verify{Bearer: one(secret)}, event: sources.EventMap{Source: "/partners/<header.X-Partner>"}}).settings()
	r := runHook(t, s, "/in/hook")
	for _, req := range []*http.Request{
		post(r.url, `{"specversion":"1.0","id":"a","source":"/theirs","type":"t","data":{"n":1}}`, "Content-Type", "application/cloudevents+json"),
		post(r.url, `{"n":1}`, "Ce-Specversion", "1.0", "Ce-Id", "b", "Ce-Source", "/theirs", "Ce-Type", "t"),
		post(r.url, `[]`, "Content-Type", "application/cloudevents-batch+json"),
	} {
		req.Header.Set("Authorization", "Bearer "+secret)
		req.Header.Set("X-Partner", "acme")
		want := 202
		if strings.Contains(req.Header.Get("Content-Type"), "batch") {
			want = 415
		}
		if a := r.do(t, req); a.status != want {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if got := r.pub.Stored(); len(got) != 2 || got[0].ID() != "a" || got[1].ID() != "b" || got[1].Source() != "/partners/acme" || got[0].Type() != "t" || string(got[0].Data()) != `{"n":1}` {
		t.Errorf("stored %v", got)
	}
}

func TestWebhookMethods(t *testing.T) {
	t.Parallel()
	r := runHook(t, (&sender{verify: sources.Verify{None: true}}).settings(), "/in/hook")
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodOptions} {
		req := httptest.NewRequest(method, r.url, http.NoBody)
		req.RequestURI = ""
		if a := r.do(t, req); a.status != 405 || a.header.Get("Allow") != "POST" {
			t.Errorf("%s: %d %v", method, a.status, a.header)
		}
	}
	if a := r.do(t, post(r.url, "x", "Content-Encoding", "gzip")); a.status != 415 {
		t.Errorf("compressed: %d %s", a.status, a.body)
	}
	if a := r.do(t, post(r.url, strings.Repeat("x", 1<<20+1), "Content-Type", "text/plain")); a.status != 413 {
		t.Errorf("too large: %d %s", a.status, a.body)
	}
}
