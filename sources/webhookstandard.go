package sources

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"

	"sluice/config/value"
)

// Standard Webhooks (https://www.standardwebhooks.com), and Svix, whose own headers
// begin with svix-: the signature header is a list of version,base64 with spaces in
// between, of id.time.body. v1 is an HMAC-SHA256, v1a an Ed25519 signature.

// standardKey is a secret of v1 or a public key of v1a.
type standardKey struct {
	secret []byte
	public ed25519.PublicKey
}

const (
	standardSecret = "whsec_"
	standardPublic = "whpk_"
)

// standardKeyOf reads a secret. Without a prefix it is one of v1, in base64 as with.
func standardKeyOf(s value.Secret) (standardKey, error) {
	text, public := strings.CutPrefix(s.Value(), standardPublic)
	if !public {
		text = strings.TrimPrefix(text, standardSecret)
	}
	raw, ok := decodeBase64(text)
	switch {
	case !ok || len(raw) == 0:
		return standardKey{}, errors.New("is not whsec_ or whpk_ and base64: copy the signing secret whole")
	case !public:
		return standardKey{secret: raw}, nil
	case len(raw) != ed25519.PublicKeySize:
		return standardKey{}, errors.New("is no Ed25519 public key: whpk_ and the base64 of 32 bytes")
	}
	return standardKey{public: raw}, nil
}

func verifyStandard(secrets value.Secrets) func(*hook) (proof, error) {
	var keys []standardKey
	for _, s := range secrets {
		if key, err := standardKeyOf(s); err == nil { // Validate has seen the others
			keys = append(keys, key)
		}
	}
	return func(h *hook) (proof, error) { return checkStandard(h, keys) }
}

func checkStandard(h *hook, keys []standardKey) (proof, error) {
	prefix := "Webhook-"
	if h.r.Header.Get("Webhook-Signature") == "" && h.r.Header.Get("Svix-Signature") != "" {
		prefix = "Svix-"
	}
	id, stamp, sent := h.r.Header.Get(prefix+"Id"), h.r.Header.Get(prefix+"Timestamp"), h.r.Header.Get(prefix+"Signature")
	at, ok := unixTime(stamp)
	v1, v1a := parseStandard(sent)
	switch {
	case id == "":
		return proof{}, missing(prefix + "Id")
	case stamp == "":
		return proof{}, missing(prefix + "Timestamp")
	case sent == "":
		return proof{}, missing(prefix + "Signature")
	case !ok:
		return proof{}, malformed(prefix+"Timestamp", "<seconds since 1970>")
	case len(v1)+len(v1a) == 0:
		return proof{}, malformed(prefix+"Signature", "v1,<base64> or v1a,<base64>")
	case !provenBy(keys, v1, v1a, id, ".", stamp, ".", string(h.body)):
		return proof{}, wrong(prefix + "Signature")
	}
	return proof{text: sent, at: at, clock: prefix + "Timestamp"}, nil
}

func provenBy(keys []standardKey, v1, v1a [][]byte, parts ...string) bool {
	var secrets [][]byte
	right := false
	for _, key := range keys {
		if key.public == nil {
			secrets = append(secrets, key.secret)
			continue
		}
		for _, sig := range v1a {
			// It takes the signature and the public key, and nothing that is secret.
			right = ed25519.Verify(key.public, []byte(strings.Join(parts, "")), sig) || right
		}
	}
	return signs(sha256.New, secrets, v1, parts...) || right
}

// parseStandard reads the signatures of each version. Others are passed over.
func parseStandard(header string) (v1, v1a [][]byte) {
	for one := range strings.FieldsSeq(header) {
		version, text, _ := strings.Cut(one, ",")
		raw, ok := decodeBase64(text)
		switch {
		case !ok || len(raw) == 0 || len(v1)+len(v1a) == maxSignatures:
		case version == "v1":
			v1 = append(v1, raw)
		case version == "v1a":
			v1a = append(v1a, raw)
		}
	}
	return v1, v1a
}

const gitlabToken = "X-Gitlab-Token"

// verifyGitLab: a signing token signs as Standard Webhooks do; the older secret
// token is sent as it is.
func verifyGitLab(secrets value.Secrets) func(*hook) (proof, error) {
	var keys []standardKey
	var tokens value.Secrets
	for _, s := range secrets {
		key, err := standardKeyOf(s)
		if err != nil || !strings.HasPrefix(s.Value(), standardSecret) {
			tokens = append(tokens, s)
			key = standardKey{secret: []byte(s.Value())}
		}
		keys = append(keys, key)
	}
	return func(h *hook) (proof, error) {
		token := h.r.Header.Get(gitlabToken)
		switch {
		case h.r.Header.Get("Webhook-Signature") != "" || token == "" && len(tokens) == 0:
			return checkStandard(h, keys)
		case token == "":
			return proof{}, &unverified{gitlabToken, "the header is missing, and Webhook-Signature too: give the webhook a signing token or a secret token"}
		case !tokens.Contain(token):
			return proof{}, &unverified{gitlabToken, "is not the secret token of the webhook"}
		}
		return proof{}, nil
	}
}
