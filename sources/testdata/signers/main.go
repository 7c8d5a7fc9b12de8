// Program signers signs and verifies requests with the libraries that the services
// publish. It answers each line of JSON on stdin with one on stdout, for the tests
// of the webhook source. It is a module of its own, so that none of these libraries
// is a dependency of Sluice.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"time"

	"github.com/google/go-github/v88/github"
	"github.com/slack-go/slack"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stripe/stripe-go/v85/webhook"
	svix "github.com/svix/svix-webhooks/go"
	"github.com/twilio/twilio-go/client"
)

// task is one line of stdin. With headers they are to be verified, otherwise the
// body is to be signed.
type task struct {
	Scheme  string            `json:"scheme"`
	Secret  string            `json:"secret"`
	ID      string            `json:"id"`
	Time    int64             `json:"time"` // seconds since 1970
	URL     string            `json:"url"`
	Body    string            `json:"body"`
	Headers map[string]string `json:"headers"`
}

// result is one line of stdout.
type result struct {
	Headers map[string]string `json:"headers,omitempty"`
	Error   string            `json:"error,omitempty"`
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t task
		if err := in.Decode(&t); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		var r result
		var err error
		if t.Headers == nil {
			r.Headers, err = t.sign()
		} else {
			err = t.verify()
		}
		if err != nil {
			r.Error = err.Error()
		}
		if err := out.Encode(r); err != nil {
			log.Fatal(err)
		}
	}
}

func (t *task) sign() (map[string]string, error) {
	at := time.Unix(t.Time, 0)
	switch t.Scheme {
	case "stripe":
		signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: []byte(t.Body), Secret: t.Secret, Timestamp: at})
		return map[string]string{"Stripe-Signature": signed.Header}, nil
	case "standard":
		w, err := standardwebhooks.NewWebhook(t.Secret)
		if err != nil {
			return nil, err
		}
		signature, err := w.Sign(t.ID, at, []byte(t.Body))
		return map[string]string{"webhook-id": t.ID, "webhook-timestamp": fmt.Sprint(t.Time), "webhook-signature": signature}, err
	case "svix":
		w, err := svix.NewWebhook(t.Secret)
		if err != nil {
			return nil, err
		}
		signature, err := w.Sign(t.ID, at, []byte(t.Body))
		return map[string]string{"svix-id": t.ID, "svix-timestamp": fmt.Sprint(t.Time), "svix-signature": signature}, err
	}
	return nil, fmt.Errorf("nobody signs %q here", t.Scheme)
}

func (t *task) verify() error {
	header := http.Header{}
	for name, value := range t.Headers {
		header.Set(name, value)
	}
	switch t.Scheme {
	case "github":
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader([]byte(t.Body)))
		r.Header = header
		_, err := github.ValidatePayload(r, []byte(t.Secret))
		return err
	case "stripe":
		return webhook.ValidatePayload([]byte(t.Body), header.Get("Stripe-Signature"), t.Secret)
	case "slack":
		v, err := slack.NewSecretsVerifier(header, t.Secret)
		if err != nil {
			return err
		}
		if _, err := v.Write([]byte(t.Body)); err != nil {
			return err
		}
		return v.Ensure()
	case "standard":
		w, err := standardwebhooks.NewWebhook(t.Secret)
		if err != nil {
			return err
		}
		return w.Verify([]byte(t.Body), header)
	case "svix":
		w, err := svix.NewWebhook(t.Secret)
		if err != nil {
			return err
		}
		return w.Verify([]byte(t.Body), header)
	case "twilio":
		return t.verifyTwilio(header.Get("X-Twilio-Signature"))
	}
	return fmt.Errorf("nobody verifies %q here", t.Scheme)
}

func (t *task) verifyTwilio(signature string) error {
	v := client.NewRequestValidator(t.Secret)
	form, err := url.ParseQuery(t.Body)
	if err != nil {
		return err
	}
	fields := map[string]string{}
	for name := range form {
		fields[name] = form.Get(name)
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		return err
	}
	ok := v.Validate(t.URL, fields, signature)
	if u.Query().Has("bodySHA256") {
		ok = v.ValidateBody(t.URL, []byte(t.Body), signature)
	}
	if !ok {
		return errors.New("the signature is not right")
	}
	return nil
}
