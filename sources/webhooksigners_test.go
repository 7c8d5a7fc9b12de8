package sources_test

import (
	"bufio"
	"cmp"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // as Twilio signs
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/sources"
)

// signers is a program in testdata/signers, which signs and verifies with the
// libraries of the services.
type signers struct {
	t   *testing.T
	in  *json.Encoder
	out *bufio.Scanner
}

// task is a line for the program: with headers to be verified, without to be signed.
type signersTask struct {
	Scheme  string            `json:"scheme"`
	Secret  string            `json:"secret"`
	ID      string            `json:"id"`
	Time    int64             `json:"time"`
	URL     string            `json:"url"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers,omitempty"`
}

type signersResult struct {
	Headers map[string]string
	URL     string // when it is another than that of the task
	Error   string
}

// integration skips a test, or fails it where it has to run.
func integration(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("SLUICE_INTEGRATION") == "" {
		t.Skip("set SLUICE_INTEGRATION=1 to run it; it needs " + what)
	}
}

func startSigners(t *testing.T) *signers {
	t.Helper()
	program := filepath.Join(t.TempDir(), "signers")
	if out, err := exec.Command("go", "build", "-C", "testdata/signers", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("cannot build testdata/signers, a module of its own: %v\n%s", err, out)
	}
	return talkTo(t, exec.Command(program))
}

// startNodeSigners starts sign.mjs where its packages are installed.
func startNodeSigners(t *testing.T) *signers {
	t.Helper()
	dir := os.Getenv("SLUICE_SIGNERS")
	if dir == "" && os.Getenv("CI") == "" {
		t.Skip("SLUICE_SIGNERS names no directory: npm ci in one with the package.json of sources/testdata/signers")
	}
	script, err := os.ReadFile(filepath.Join("testdata", "signers", "sign.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "--input-type=module", "--eval", string(script))
	cmd.Dir = dir
	return talkTo(t, cmd)
}

// talkTo starts a program that answers each line with one.
func talkTo(t *testing.T, cmd *exec.Cmd) *signers {
	t.Helper()
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", cmd.Path, err)
		}
	})
	return &signers{t, json.NewEncoder(in), bufio.NewScanner(out)}
}

func (s *signers) do(task signersTask) (r signersResult) {
	s.t.Helper()
	if err := s.in.Encode(task); err != nil {
		s.t.Fatal(err)
	}
	if !s.out.Scan() {
		s.t.Fatalf("testdata/signers does not answer: %v", s.out.Err())
	}
	if err := json.Unmarshal(s.out.Bytes(), &r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// signersURL is what Twilio calls.
const signersURL = "https://hooks.example.com/in/hook"

// signersCase is a scheme of a program.
type signersCase struct {
	scheme string
	secret string
	verify sources.Verify
	event  sources.EventMap
	form   bool
	// ours signs in the way of the service; nil where its library signs.
	ours func(body string) map[string]string
}

// What the libraries of the services sign is taken, and what we sign in their way
// is what their libraries verify; nothing else is, on either side.
func TestIntegrationSigners(t *testing.T) {
	t.Parallel()
	integration(t, "the Go modules of testdata/signers")
	theirs := startSigners(t)
	now := unix(time.Now())
	for _, tc := range []signersCase{
		{scheme: "stripe", secret: "whsec_stripe", verify: sources.Verify{Stripe: one("whsec_stripe")}},
		{scheme: "standard", secret: standardSecret, verify: sources.Verify{Standard: one(standardSecret)}},
		{scheme: "svix", secret: standardSecret, verify: sources.Verify{Standard: one(standardSecret)}},
		{scheme: "github", secret: secret, verify: sources.Verify{GitHub: one(secret)}, ours: func(body string) map[string]string {
			return map[string]string{"Content-Type": "application/json", "X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac(sha256.New, secret, body))}
		}},
		{scheme: "slack", secret: secret, verify: sources.Verify{Slack: one(secret)}, ours: func(body string) map[string]string {
			return map[string]string{"X-Slack-Request-Timestamp": now,
				"X-Slack-Signature": "v0=" + hex.EncodeToString(mac(sha256.New, secret, "v0:"+now+":"+body))}
		}},
		{scheme: "twilio", secret: secret, form: true, verify: twilioVerify(t), ours: func(body string) map[string]string {
			fields := strings.ReplaceAll(strings.ReplaceAll(body, "&", ""), "=", "") // sorted, and without escapes
			return map[string]string{"X-Twilio-Signature": base64.StdEncoding.EncodeToString(mac(sha1.New, secret, signersURL+fields))}
		}},
	} {
		tc.run(t, theirs)
	}
}

// The same with libraries for Node, which sign for services whose Go libraries do not,
// and with the crypto of Node where a service has none.
func TestIntegrationNodeSigners(t *testing.T) {
	t.Parallel()
	integration(t, "node, and in SLUICE_SIGNERS the npm packages of testdata/signers")
	theirs := startNodeSigners(t)
	seed := base64.StdEncoding.EncodeToString(ed25519Key.Seed())
	for _, tc := range []signersCase{
		{scheme: "github", secret: secret, verify: sources.Verify{GitHub: one(secret)}},
		{scheme: "gitlab", secret: standardSecret, verify: sources.Verify{GitLab: one(standardSecret)}},
		{scheme: "shopify", secret: secret, verify: sources.Verify{Shopify: one(secret)}},
		{scheme: "twilio", secret: secret, form: true, verify: twilioVerify(t)},
		{scheme: "twilio JSON", secret: secret, verify: twilioVerify(t)},
		{scheme: "v1a", secret: seed, verify: sources.Verify{Standard: one(ed25519Public)}},
		{scheme: "hmac", secret: secret, event: sources.EventMap{ID: "<body.id>"}, verify: sources.Verify{HMAC: &sources.HMAC{
			Algorithm: "sha512", Header: "X-Signature", Encoding: "base64", Secret: one(secret), Timestamp: "X-Time", Signed: "<header.X-Time>|<body>",
		}}},
	} {
		tc.run(t, theirs)
	}
}

func twilioVerify(t *testing.T) sources.Verify {
	return sources.Verify{Twilio: &sources.Twilio{Token: one(secret), URL: parseHookURL(t, signersURL)}}
}

// run has requests signed, verified and sent, as they are and changed.
func (tc signersCase) run(t *testing.T, theirs *signers) {
	t.Helper()
	const rounds = 50
	now := time.Now().Unix()
	r := runHook(t, (&sender{verify: tc.verify, event: tc.event}).settings(), "/in/hook")
	taken, refused := 0, 0
	for i := range rounds {
		task := signersTask{Scheme: tc.scheme, Secret: tc.secret, ID: fmt.Sprintf("%s-%d", tc.scheme, i), Time: now, URL: signersURL}
		task.Body = fmt.Sprintf(`{"id": "%s", "type": "x", "object_kind": "push", "event_id": "%s", "text": %q}`, task.ID, task.ID, rand.Text()+"äß€")
		contentType := "application/json"
		if tc.form {
			task.Body, contentType = "MessageSid="+rand.Text()+"&SmsStatus=received", "application/x-www-form-urlencoded"
		}
		if tc.ours == nil {
			signed := theirs.do(task)
			if signed.Error != "" {
				t.Fatalf("%s: %s", tc.scheme, signed.Error)
			}
			task.Headers, task.URL = signed.Headers, cmp.Or(signed.URL, task.URL)
		} else {
			task.Headers = tc.ours(task.Body)
		}
		if v := theirs.do(task); v.Error != "" {
			t.Fatalf("%s: its library does not verify %v: %s", tc.scheme, task.Headers, v.Error)
		}
		if a := r.do(t, requestOf(r.url, contentType, task)); a.status/100 != 2 {
			t.Fatalf("%s: %d %s", tc.scheme, a.status, a.body)
		}
		taken++
		task.Body = strings.Replace(task.Body, "i", "I", 1)
		if v := theirs.do(task); v.Error == "" {
			t.Fatalf("%s: its library verifies a changed body", tc.scheme)
		}
		if a := r.do(t, requestOf(r.url, contentType, task)); a.status != http.StatusUnauthorized {
			t.Fatalf("%s: a changed body: %d %s", tc.scheme, a.status, a.body)
		}
		refused++
	}
	if n := len(r.pub.Stored()); n != rounds {
		t.Errorf("%s: %d events of %d requests", tc.scheme, n, rounds)
	}
	t.Logf("%s: %d requests taken, %d changed ones refused, its own library says the same of each", tc.scheme, taken, refused)
}

func requestOf(url, contentType string, task signersTask) *http.Request {
	url += strings.TrimPrefix(task.URL, signersURL) // its query
	req := post(url, task.Body, "Content-Type", contentType, "X-GitHub-Event", "x", "X-GitHub-Delivery", task.ID)
	for name, value := range task.Headers {
		req.Header.Set(name, value)
	}
	return req
}

// The payloads that GitHub's own SDK is tested with, each as an event of its own.
// SLUICE_OCTOKIT_EXAMPLES is where @octokit/webhooks-examples was installed.
func TestIntegrationGitHubPayloads(t *testing.T) {
	t.Parallel()
	integration(t, "the npm package @octokit/webhooks-examples in SLUICE_OCTOKIT_EXAMPLES")
	dir := os.Getenv("SLUICE_OCTOKIT_EXAMPLES")
	if dir == "" && os.Getenv("CI") == "" {
		t.Skip("SLUICE_OCTOKIT_EXAMPLES names no directory")
	}
	text, err := os.ReadFile(filepath.Join(dir, "api.github.com", "index.json")) //nolint:gosec // whoever runs the test says which
	if err != nil {
		t.Fatalf("install @octokit/webhooks-examples and set SLUICE_OCTOKIT_EXAMPLES: %v", err)
	}
	var events []struct {
		Name     string
		Examples []json.RawMessage
	}
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatal(err)
	}
	r := runHook(t, (&sender{verify: sources.Verify{GitHub: one(secret)}}).settings(), "/in/hook")
	sent, repositories, subjects := 0, 0, 0
	types := map[string]bool{}
	for _, e := range events {
		for i, body := range e.Examples {
			id := fmt.Sprintf("%s-%d", e.Name, i)
			a := r.do(t, post(r.url, string(body), "X-GitHub-Event", e.Name, "X-GitHub-Delivery", id,
				"X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac(sha256.New, secret, string(body)))))
			if a.status != http.StatusAccepted {
				t.Fatalf("%s: %d %s", id, a.status, a.body)
			}
			stored := r.pub.Stored()
			got := stored[len(stored)-1]
			var payload struct {
				Action     string
				Repository struct {
					FullName string `json:"full_name"`
				}
			}
			if err := json.Unmarshal(body, &payload); err != nil {
				t.Fatal(err)
			}
			want := strings.TrimSuffix("com.github."+e.Name+"."+payload.Action, ".")
			if got.ID() != id || got.Type() != want || string(got.Data()) != string(body) ||
				payload.Repository.FullName != "" && got.Source() != "https://github.com/"+payload.Repository.FullName {
				t.Errorf("%s: the event is %s", id, attributesOf(got))
			}
			sent++
			types[got.Type()] = true
			if payload.Repository.FullName != "" {
				repositories++
			}
			if got.Subject() != "" {
				subjects++
			}
		}
	}
	if sent < 100 || len(r.pub.Stored()) != sent {
		t.Errorf("%d payloads sent, %d events", sent, len(r.pub.Stored()))
	}
	t.Logf("%d payloads of %d events became %d events of %d types, %d with a repository and %d with a subject",
		sent, len(events), len(r.pub.Stored()), len(types), repositories, subjects)
}
