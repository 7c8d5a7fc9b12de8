package sinks

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/config/value"
)

// HTTPSign says how requests are signed, so that the far side knows who sent them
// and that nobody changed them.
type HTTPSign struct {
	Standard value.Secrets `yaml:"standard" doc:"Standard Webhooks: secrets (whsec_…) for v1, private keys (whsk_…) for v1a. Several while one takes the place of another: each makes a signature. Sent are webhook-id (the delivery's id, the same on each attempt), webhook-timestamp (of the attempt) and webhook-signature."`
}

func (s *HTTPSign) validate() value.Faults {
	if s == nil {
		return nil
	}
	if len(s.Standard) == 0 {
		return value.Faults{{Key: "standard", Msg: "is missing: refer to a secret, such as ${env:WEBHOOK_SECRET}"}}
	}
	var faults value.Faults
	for i, secret := range s.Standard {
		if _, err := standardKeyOf(secret); err != nil {
			faults.Add(fmt.Sprintf("standard[%d]", i), "%v", err)
		}
	}
	return faults
}

func (s *HTTPSign) secrets() (texts []string) {
	if s == nil {
		return nil
	}
	for _, secret := range s.Standard {
		_, bare, _ := strings.Cut(secret.Value(), "_")
		texts = append(texts, secret.Value(), bare)
	}
	return texts
}

// standardKey is a secret of v1 or a private key of v1a of Standard Webhooks
// (https://www.standardwebhooks.com).
type standardKey struct {
	secret  []byte
	private ed25519.PrivateKey
}

const (
	standardSecret  = "whsec_"
	standardPrivate = "whsk_"
	standardPublic  = "whpk_"
)

// standardKeyOf reads a secret. Without a prefix it is one of v1, in base64 as with.
func standardKeyOf(s value.Secret) (standardKey, error) {
	if strings.HasPrefix(s.Value(), standardPublic) {
		return standardKey{}, errors.New("is a public key, which only verifies: the private one begins with whsk_")
	}
	text, private := strings.CutPrefix(s.Value(), standardPrivate)
	if !private {
		text = strings.TrimPrefix(text, standardSecret)
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(text, "="))
	switch {
	case err != nil || len(raw) == 0:
		return standardKey{}, errors.New("is not whsec_ or whsk_ and base64: copy the signing secret whole")
	case !private && (len(raw) < 24 || len(raw) > 64):
		// The specification's bounds, which the libraries of receivers check.
		return standardKey{}, errors.New("is no secret of Standard Webhooks, which has 24 to 64 bytes: make one with `openssl rand -base64 32`")
	case !private:
		return standardKey{secret: raw}, nil
	case len(raw) == ed25519.SeedSize:
		return standardKey{private: ed25519.NewKeyFromSeed(raw)}, nil
	case len(raw) == ed25519.PrivateKeySize && string(ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])) == string(raw):
		return standardKey{private: raw}, nil
	}
	return standardKey{}, errors.New("is no Ed25519 private key: whsk_ and the base64 of 32 or 64 bytes")
}

// standardSigner signs as Standard Webhooks do: id.time.body.
type standardSigner []standardKey

func newStandardSigner(s *HTTPSign) (signer standardSigner) {
	if s == nil {
		return nil
	}
	for _, secret := range s.Standard {
		if key, err := standardKeyOf(secret); err == nil { // Validate has seen the others
			signer = append(signer, key)
		}
	}
	return signer
}

// put adds the headers.
func (s standardSigner) put(o *outgoing, now time.Time) {
	stamp := strconv.FormatInt(now.Unix(), 10)
	o.Header["Webhook-Id"] = []string{o.id}
	o.Header["Webhook-Timestamp"] = []string{stamp}
	o.Header["Webhook-Signature"] = []string{s.sign(o.id+"."+stamp+".", o.body)}
}

// sign is the list of the signatures of head and body, one of each key.
func (s standardSigner) sign(head string, body []byte) string {
	var list []byte
	for _, key := range s {
		if list != nil {
			list = append(list, ' ')
		}
		if key.private == nil {
			mac := hmac.New(sha256.New, key.secret)
			_, _ = mac.Write([]byte(head)) // a hash never fails
			_, _ = mac.Write(body)
			list = base64.StdEncoding.AppendEncode(append(list, "v1,"...), mac.Sum(nil))
			continue
		}
		signature := ed25519.Sign(key.private, append([]byte(head), body...))
		list = base64.StdEncoding.AppendEncode(append(list, "v1a,"...), signature)
	}
	return string(list)
}

// batchID names a batch by what is in it: the same when all of it is sent again.
func batchID(ds []Delivery) string {
	if len(ds) == 1 {
		return ds[0].ID
	}
	hash := sha256.New()
	for i := range ds {
		_, _ = fmt.Fprintf(hash, "%q", ds[i].ID)
	}
	return "batch-" + hex.EncodeToString(hash.Sum(nil)[:16])
}
