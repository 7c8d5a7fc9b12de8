package sinks_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
)

// checkStandard verifies a request with the official library, and what that does
// not know, v1a, with the standard library.
func checkStandard(h http.Header, body []byte) error {
	official, err := standardwebhooks.NewWebhook(hmacSecret)
	if err != nil {
		return err
	}
	if err := official.Verify(body, h); err != nil {
		return err
	}
	private, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(privateKey, "whsk_"))
	public := ed25519.PrivateKey(private).Public().(ed25519.PublicKey)
	text := h.Get("webhook-id") + "." + h.Get("webhook-timestamp") + "." + string(body)
	for _, one := range strings.Fields(h.Get("webhook-signature")) {
		if encoded, ok := strings.CutPrefix(one, "v1a,"); ok {
			signature, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && ed25519.Verify(public, []byte(text), signature) {
				return nil
			}
		}
	}
	return errors.New("no signature v1a is right")
}

// signedRequest is a request as the far side saw it.
type signedRequest struct {
	header http.Header
	body   []byte
}

// signedForms are requests of every form, signed with secrets, by name.
func signedForms(t *testing.T, secrets value.Secrets) map[string]signedRequest {
	t.Helper()
	forms := map[string]signedRequest{}
	for _, mode := range []string{"binary", "structured"} {
		got := make(chan signedRequest, 1)
		sink := serve(t, func(s *sinks.HTTP) {
			s.Mode, s.Sign = mode, &sinks.HTTPSign{Standard: secrets}
		}, func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			got <- signedRequest{r.Header, body}
		})
		for name := range sinktest.Events(t) {
			if err := sink.Deliver(t.Context(), testDelivery(t, name)); err != nil {
				t.Fatal(err)
			}
			forms[mode+" "+name] = <-got
		}
		transformed := testDelivery(t, "json")
		transformed.Payload = &sinks.Payload{Body: []byte("made\x00of it"), ContentType: "text/plain"}
		if err := sink.Deliver(t.Context(), transformed); err != nil {
			t.Fatal(err)
		}
		forms[mode+" transformed"] = <-got
		batch := []sinks.Delivery{testDelivery(t, "json"), testDelivery(t, "binary")}
		batch[1].ID = "d-2"
		if _, err := sink.(sinks.BatchSink).DeliverBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		forms[mode+" batch"] = <-got
	}
	return forms
}

func TestHTTPSign(t *testing.T) {
	t.Parallel()
	other := "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	seed := "whsk_" + base64.StdEncoding.EncodeToString([]byte("ed25519-marker-0123456789abcdefg")) // the same key, in 32 bytes
	for name, secrets := range map[string]value.Secrets{
		"two":           {secret(hmacSecret), secret(privateKey)},
		"rotated":       {secret(other), secret(seed), secret(hmacSecret)},
		"without whsec": {secret(strings.TrimPrefix(hmacSecret, "whsec_")), secret(privateKey)},
	} {
		for form, r := range signedForms(t, secrets) {
			if err := checkStandard(r.header, r.body); err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
			}
			if n := len(strings.Fields(r.header.Get("webhook-signature"))); n != len(secrets) {
				t.Errorf("%s, %s: %d signatures", name, form, n)
			}
			r.body = append(r.body, ' ')
			if checkStandard(r.header, r.body) == nil {
				t.Errorf("%s, %s: another body passes", name, form)
			}
		}
	}
}

// TestHTTPSignAttempts: the id stays the same over the attempts, the time is that of
// each. A batch has an id of its own.
func TestHTTPSignAttempts(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	sink := serve(t, func(s *sinks.HTTP) {
		s.Sign = &sinks.HTTPSign{Standard: value.Secrets{secret(hmacSecret)}}
	}, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header })
	d := testDelivery(t, "json")
	for d.Attempt = 1; d.Attempt < 4; d.Attempt++ {
		before := time.Now().Unix()
		if err := sink.Deliver(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		h := <-got
		at, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
		if h.Get("webhook-id") != d.ID || err != nil || at < before || at > time.Now().Unix() {
			t.Errorf("attempt %d: %v", d.Attempt, h)
		}
	}
	ids := map[string]bool{}
	for _, batch := range [][]string{{"d-1"}, {"d-1", "d-2"}, {"d-1", "d-2"}, {"d-2", "d-1"}, {"d-1", "d-2", "d-3"}} {
		var ds []sinks.Delivery
		for _, id := range batch {
			d.ID = id
			ds = append(ds, d)
		}
		if _, err := sink.(sinks.BatchSink).DeliverBatch(t.Context(), ds); err != nil {
			t.Fatal(err)
		}
		ids[(<-got).Get("webhook-id")] = true
	}
	if len(ids) != 4 || !ids["d-1"] {
		t.Errorf("the ids of the batches are %v", slices.Collect(maps.Keys(ids)))
	}
}

// TestIntegrationStandardWebhooksJS verifies what the sink signs with the official
// JavaScript library. SLUICE_STANDARDWEBHOOKS names the directory in which `npm ci` was
// run with the package.json of testdata/standardwebhooks.
func TestIntegrationStandardWebhooksJS(t *testing.T) {
	t.Parallel()
	if os.Getenv("SLUICE_INTEGRATION") == "" {
		t.Skip("set SLUICE_INTEGRATION=1 to run it; it needs node")
	}
	modules := filepath.Join(os.Getenv("SLUICE_STANDARDWEBHOOKS"), "node_modules")
	node, err := exec.LookPath("node")
	if _, gone := os.Stat(filepath.Join(modules, "standardwebhooks")); err != nil || gone != nil {
		const missing = "the JavaScript library needs node in PATH and SLUICE_STANDARDWEBHOOKS, the directory of `npm ci` with sinks/testdata/standardwebhooks/package-lock.json"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	program, err := os.ReadFile(filepath.Join("testdata", "standardwebhooks", "verify.mjs"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "verify.mjs"), program, 0o600)
	}
	if err == nil {
		err = os.Symlink(modules, filepath.Join(dir, "node_modules"))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	type task struct {
		Form    string            `json:"form"`
		Secret  string            `json:"secret"`
		Headers map[string]string `json:"headers"`
		Body    []byte            `json:"body"`
	}
	var tasks []task
	// While a secret is rotated there are two, and a far side knows either.
	other := "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	for _, known := range []struct {
		secrets  value.Secrets
		farSides []string
	}{
		{value.Secrets{secret(privateKey), secret(hmacSecret)}, []string{hmacSecret}},
		{value.Secrets{secret(other), secret(hmacSecret)}, []string{hmacSecret, other}},
	} {
		for form, r := range signedForms(t, known.secrets) {
			if form == "binary binary" || form == "binary latin1" || form == "binary empty" || form == "binary kinds" {
				continue // the library takes text, and JSON at that
			}
			headers := map[string]string{}
			for _, name := range []string{"webhook-id", "webhook-timestamp", "webhook-signature"} {
				headers[name] = r.header.Get(name)
			}
			for _, one := range known.farSides {
				tasks = append(tasks, task{form, one, headers, r.body})
			}
		}
	}
	in, err := json.Marshal(tasks)
	if err != nil {
		t.Fatal(err)
	}
	verify := exec.CommandContext(ctx, node, "verify.mjs")
	verify.Dir, verify.Stdin = dir, bytes.NewReader(in)
	out, err := verify.CombinedOutput()
	if want := strconv.Itoa(len(tasks)) + " verified, " + strconv.Itoa(len(tasks)) + " changed ones refused\n"; err != nil || string(out) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}
