package sources

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // Twilio signs with HMAC-SHA1, which still stands
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"sluice/config/value"
)

// signs tells whether any of the sent signatures is that of the parts under any of
// the keys. Every pair is compared, each in constant time.
func signs(algorithm func() hash.Hash, keys [][]byte, sent [][]byte, parts ...string) bool {
	right := 0
	for _, key := range keys {
		mac := hmac.New(algorithm, key)
		for _, part := range parts {
			_, _ = io.WriteString(mac, part) // a hash always takes it
		}
		sum := mac.Sum(nil)
		for _, s := range sent {
			if hmac.Equal(sum, s) {
				right++
			}
		}
	}
	return right > 0
}

// keysOf are the bytes of secrets that are keys as they stand.
func keysOf(secrets value.Secrets) (keys [][]byte) {
	for _, s := range secrets {
		keys = append(keys, []byte(s.Value()))
	}
	return keys
}

// unixTime reads the seconds since 1970, which are all that the schemes sign.
func unixTime(text string) (time.Time, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(n, 0), true
}

// verifyGitHub: X-Hub-Signature-256 is sha256= and the hex of the body's HMAC.
func verifyGitHub(secrets value.Secrets) func(*hook) (proof, error) {
	h := HMAC{Algorithm: "sha256", Header: "X-Hub-Signature-256", Encoding: encodingHex, Prefix: "sha256=", Secret: secrets}
	return h.verifier()
}

// verifyShopify: X-Shopify-Hmac-Sha256 is the base64 of the body's HMAC.
func verifyShopify(secrets value.Secrets) func(*hook) (proof, error) {
	h := HMAC{Algorithm: "sha256", Header: "X-Shopify-Hmac-Sha256", Encoding: encodingBase64, Secret: secrets}
	return h.verifier()
}

// verifySlack: X-Slack-Signature is v0= and the hex of the HMAC of v0:time:body.
func verifySlack(secrets value.Secrets) func(*hook) (proof, error) {
	h := HMAC{Algorithm: "sha256", Header: "X-Slack-Signature", Encoding: encodingHex, Prefix: "v0=", Secret: secrets,
		Timestamp: "X-Slack-Request-Timestamp", Signed: "v0:<header.X-Slack-Request-Timestamp>:<body>"}
	return h.verifier()
}

// slackChallenge answers Slack, which asks whether the URL is ours.
func slackChallenge(h *hook) ([]byte, bool) {
	doc := h.json()
	if doc.Get("type").String() != "url_verification" || doc.Get("challenge").Type != gjson.String {
		return nil, false
	}
	answer := gjson.AppendJSONString([]byte(`{"challenge":`), doc.Get("challenge").String())
	return append(answer, '}'), true
}

const stripeHeader = "Stripe-Signature"

// verifyStripe: Stripe-Signature is t=time,v1=hex, with a v1 for each secret that is
// in force, of time.body. Other versions are for other purposes.
func verifyStripe(secrets value.Secrets) func(*hook) (proof, error) {
	keys := keysOf(secrets)
	return func(h *hook) (proof, error) {
		header := h.r.Header.Get(stripeHeader)
		if header == "" {
			return proof{}, missing(stripeHeader)
		}
		stamp, sent := parseStripe(header)
		at, ok := unixTime(stamp)
		switch {
		case !ok || len(sent) == 0:
			return proof{}, malformed(stripeHeader, "t=<seconds>,v1=<hex>")
		case !signs(sha256.New, keys, sent, stamp, ".", string(h.body)):
			return proof{}, wrong(stripeHeader)
		}
		return proof{text: header, at: at, clock: stripeHeader}, nil
	}
}

// maxSignatures is how many signatures of one request are looked at: a few secrets
// are in force at a time, and each costs a comparison.
const maxSignatures = 16

func parseStripe(header string) (stamp string, sent [][]byte) {
	for pair := range strings.SplitSeq(header, ",") {
		key, text, _ := strings.Cut(strings.TrimSpace(pair), "=")
		switch {
		case key == "t" && stamp == "":
			stamp = text
		case key == "v1" && len(sent) < maxSignatures:
			if sum, err := hex.DecodeString(text); err == nil {
				sent = append(sent, sum)
			}
		}
	}
	return stamp, sent
}

// HMAC is a signature with a shared secret, however the sender writes it.
type HMAC struct {
	Algorithm string        `yaml:"algorithm" enum:"sha256,sha512,sha1" doc:"The hash; sha256 when left out."`
	Header    string        `yaml:"header" doc:"The header that the signature is in, such as X-Signature."`
	Encoding  string        `yaml:"encoding" enum:"hex,base64" doc:"How the signature is written; hex when left out."`
	Prefix    string        `yaml:"prefix" doc:"What stands before it in the header, such as sha256=."`
	Secret    value.Secrets `yaml:"secret" doc:"The shared secret."`
	Timestamp string        `yaml:"timestamp" doc:"The header with the time that is signed, in seconds since 1970: requests beyond tolerance are refused."`
	Signed    string        `yaml:"signed" doc:"What is signed, as a template: <body> when left out, or such as <header.X-Timestamp>.<body>."`
}

const (
	encodingHex    = "hex"
	encodingBase64 = "base64"
	signedBody     = "<body>"
)

func (h *HMAC) validate() value.Faults {
	var faults value.Faults
	if !isHeaderName(h.Header) {
		faults.Add("header", "is no header: name the one that the signature is in, such as X-Signature")
	}
	if h.Timestamp != "" && !isHeaderName(h.Timestamp) {
		faults.Add("timestamp", "is no header: name the one that the time is in, such as X-Timestamp")
	}
	t, err := parseTemplate(h.signed())
	switch {
	case err != nil:
		faults.Add("signed", "%s", err)
	case !t.uses("body"):
		faults.Add("signed", "has no <body>: whoever sees one request could sign any other")
	case h.Timestamp != "" && !t.uses("header."+h.Timestamp):
		faults.Add("signed", "has no <header.%s>: a time that is not signed proves nothing", h.Timestamp)
	}
	return faults
}

func isHeaderName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		return !letter && c != '-' && c != '_'
	})
}

func (h *HMAC) signed() string {
	if h.Signed == "" {
		return signedBody
	}
	return h.Signed
}

func (h *HMAC) algorithm() func() hash.Hash {
	switch h.Algorithm {
	case "sha512":
		return sha512.New
	case "sha1":
		return sha1.New
	}
	return sha256.New
}

// verifier is the check of valid settings.
func (h *HMAC) verifier() func(*hook) (proof, error) {
	keys, header, clock := keysOf(h.Secret), http.CanonicalHeaderKey(h.Header), http.CanonicalHeaderKey(h.Timestamp)
	signed, err := parseTemplate(h.signed())
	if err != nil { // Validate has seen it
		return func(*hook) (proof, error) { return proof{}, wrong(header) }
	}
	form := h.Prefix + "<" + h.Encoding + ">"
	if h.Encoding == "" {
		form = h.Prefix + "<hex>"
	}
	return func(r *hook) (proof, error) {
		sent := r.r.Header.Get(header)
		if sent == "" {
			return proof{}, missing(header)
		}
		s := proof{clock: clock}
		if clock != "" {
			stamp := r.r.Header.Get(clock)
			at, ok := unixTime(stamp)
			switch {
			case stamp == "":
				return proof{}, missing(clock)
			case !ok:
				return proof{}, malformed(clock, "<seconds since 1970>")
			}
			s.at = at
		}
		sum, ok := h.decode(sent)
		if !ok {
			return proof{}, malformed(header, form)
		}
		text, lacks := signed.fill(r)
		switch {
		case lacks != "":
			return proof{}, &unverified{header, "signs <" + lacks + ">, which the request does not have"}
		case !signs(h.algorithm(), keys, [][]byte{sum}, text):
			return proof{}, wrong(header)
		}
		s.text = string(sum)
		return s, nil
	}
}

// decode reads the signature of a header.
func (h *HMAC) decode(sent string) ([]byte, bool) {
	text, ok := strings.CutPrefix(strings.TrimSpace(sent), h.Prefix)
	if !ok {
		return nil, false
	}
	if h.Encoding == encodingBase64 {
		sum, ok := decodeBase64(text)
		return sum, ok && len(sum) > 0
	}
	sum, err := hex.DecodeString(text)
	return sum, err == nil && len(sum) > 0
}

// decodeBase64 reads either alphabet, padded or not.
func decodeBase64(text string) ([]byte, bool) {
	text = strings.TrimRight(text, "=")
	for _, alphabet := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := alphabet.DecodeString(text); err == nil {
			return raw, true
		}
	}
	return nil, false
}
