package sinks

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
)

// trouble is why a request has no answer, in words that can be shown: what the far
// side sent may be long, and may be our own request with its secrets.
type trouble struct {
	text string
	err  error
}

func (t *trouble) Error() string { return t.text }

func (t *trouble) Unwrap() error { return t.err }

// maxTrouble is how many bytes of an error are shown.
const maxTrouble = 300

// explain makes an error fit to be shown, and adds what can be done about it.
func (s *httpSink) explain(err error) error {
	text := s.mask([]byte(err.Error()))
	if uri := s.request.URL.RequestURI(); len(uri) > 1 {
		text = bytes.ReplaceAll(text, []byte(uri), []byte("/…"))
	}
	return explained(text, err)
}

// explained is err with the text that is to be shown for it.
func explained(text []byte, err error) error {
	if len(text) > maxTrouble {
		text = append(text[:maxTrouble:maxTrouble], "…"...)
	}
	t := &trouble{text: strings.ToValidUTF8(string(text), "�"), err: err}
	if help := advice(err, t.text); help != "" {
		t.text += ": " + help
	}
	return t
}

// advice is what to do about an error; "" when there is nothing more to say.
func advice(err error, text string) string {
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "name the file of the authority in tls.ca, or install it on this machine or name it in SSL_CERT_FILE and start again"
	case errors.As(err, &host):
		return "write a name into the sink's url that the certificate is for, or have one made for this name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of the far side, or set the clock of this machine if that is wrong"
	case strings.Contains(text, "remote error: tls: ") && strings.Contains(text, "certificate"):
		return "the far side does not take the sink's certificate: check tls.cert and tls.key"
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return "the far side does not speak TLS: write http:// in the sink's url"
	case strings.Contains(text, `\x15\x03`): // a TLS alert where an answer should be
		return "the far side speaks TLS: write https:// in the sink's url"
	}
	return ""
}
