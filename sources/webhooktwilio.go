package sources

import (
	"crypto/sha1" //nolint:gosec // Twilio signs with HMAC-SHA1, which still stands
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/url"
	"slices"
	"strings"

	"sluice/config/value"
)

// Twilio is how Twilio signs: X-Twilio-Signature is the base64 of the HMAC-SHA1 of
// the URL that Twilio called and the sorted fields of the form; a body that is no
// form has its hash in the URL, as bodySHA256.
type Twilio struct {
	Token value.Secrets `yaml:"token" doc:"The auth token of the account."`
	URL   value.URL     `yaml:"url" doc:"The URL that Twilio calls, without a query; needed behind a proxy, where the request does not show it."`
}

const twilioHeader = "X-Twilio-Signature"

func (t *Twilio) verify(h *hook) (proof, error) {
	header := h.r.Header.Get(twilioHeader)
	if header == "" {
		return proof{}, missing(twilioHeader)
	}
	sum, ok := decodeBase64(header)
	if !ok || len(sum) != sha1.Size {
		return proof{}, malformed(twilioHeader, "<base64>")
	}
	fields := ""
	if hash := h.r.URL.Query().Get("bodySHA256"); hash != "" {
		body := sha256.Sum256(h.body)
		if !strings.EqualFold(hash, hex.EncodeToString(body[:])) {
			return proof{}, &unverified{twilioHeader, "signs a bodySHA256 that is not that of the body"}
		}
	} else if isForm(h.r.Header) {
		// A part that is no field would be left out here, and may be one to who reads the event.
		if _, err := url.ParseQuery(string(h.body)); err != nil {
			return proof{}, &unverified{twilioHeader, "signs the fields of a form, and the body holds something else"}
		}
		fields = twilioFields(h.fields())
	} else if len(h.body) > 0 {
		return proof{}, &unverified{twilioHeader, "signs neither a form nor a bodySHA256 in the URL, so nothing proves the body"}
	}
	right := false
	for _, u := range t.urls(h) {
		right = signs(sha1.New, keysOf(t.Token), [][]byte{sum}, u, fields) || right
	}
	if !right {
		return proof{}, &unverified{twilioHeader, "does not fit the request: check the auth token, and that twilio.url is what Twilio calls"}
	}
	return proof{text: string(sum)}, nil
}

// urls are what Twilio may have signed as the URL: it is not consistent about the
// port that goes without saying.
func (t *Twilio) urls(h *hook) []string {
	var u url.URL
	if t.URL.URL != nil {
		u = *t.URL.URL
	} else {
		u = url.URL{Scheme: "http", Host: h.r.Host, Path: h.r.URL.Path, RawPath: h.r.URL.RawPath}
		if h.r.TLS != nil {
			u.Scheme = "https"
		}
	}
	u.RawQuery = h.r.URL.RawQuery
	urls := []string{u.String()}
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	switch u.Port() {
	case port:
		u.Host = strings.TrimSuffix(u.Host, ":"+port)
	case "":
		u.Host = net.JoinHostPort(u.Hostname(), port)
	default:
		return urls
	}
	return append(urls, u.String())
}

// twilioFields are the fields of a form as they are signed: sorted, names and
// values without anything in between, and the same value of a name once.
func twilioFields(form url.Values) string {
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		values := slices.Clone(form[name])
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			b.WriteString(name)
			b.WriteString(v)
		}
	}
	return b.String()
}
