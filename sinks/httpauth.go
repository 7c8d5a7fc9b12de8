package sinks

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"sluice/config/value"
)

// HTTPAuth says how the http sink proves who it is: one of its keys. A certificate
// is in HTTPTLS, and can be had besides.
type HTTPAuth struct {
	Bearer value.Secret `yaml:"bearer" doc:"A token, sent as Authorization: Bearer."`
	Basic  *HTTPBasic   `yaml:"basic" doc:"A user and a password, as HTTP has them."`
	OAuth2 *HTTPOAuth2  `yaml:"oauth2" doc:"A token of an identity provider by OAuth 2 client credentials. It is shared by all attempts, renewed before it expires, and once when the far side answers 401."`
	SigV4  *HTTPSigV4   `yaml:"sigv4" doc:"AWS Signature Version 4 over the request and its body, for Lambda URLs, API Gateway and what else has IAM."`
}

// HTTPBasic is a user of HTTP's basic authentication.
type HTTPBasic struct {
	User     string       `yaml:"user" doc:"The user's name, without a colon."`
	Password value.Secret `yaml:"password" doc:"The user's password."`
}

const authKeys = "bearer, basic, oauth2, sigv4"

// ways are the keys that were written.
func (a *HTTPAuth) ways() (ways []string) {
	for _, way := range []struct {
		key     string
		written bool
	}{
		{"bearer", !a.Bearer.IsZero()}, {"basic", a.Basic != nil}, {"oauth2", a.OAuth2 != nil}, {"sigv4", a.SigV4 != nil},
	} {
		if way.written {
			ways = append(ways, way.key)
		}
	}
	return ways
}

func (a *HTTPAuth) validate() value.Faults {
	if a == nil {
		return nil
	}
	ways := a.ways()
	switch {
	case len(ways) == 0:
		return value.Faults{{Msg: "says nothing: write one of " + authKeys + ", or leave auth out"}}
	case len(ways) > 1:
		return value.Faults{{Key: ways[1], Msg: "stands beside " + ways[0] + ": a request has one proof, write one of the two"}}
	case a.Basic != nil:
		return a.Basic.validate().Under("basic")
	case a.OAuth2 != nil:
		return a.OAuth2.validate().Under("oauth2")
	case a.SigV4 != nil:
		return a.SigV4.validate().Under("sigv4")
	case !isToken(a.Bearer.Value()):
		return value.Faults{{Key: "bearer", Msg: "has a space, a line break or another character that no token has: check what it refers to"}}
	}
	return nil
}

func (b *HTTPBasic) validate() value.Faults {
	var faults value.Faults
	if b.User == "" || strings.Contains(b.User, ":") {
		faults.Add("user", "must be a name without a colon")
	}
	return append(faults, missing("password", b.Password)...)
}

// missing is the fault of a secret that was left out.
func missing(key string, s value.Secret) value.Faults {
	if !s.IsZero() {
		return nil
	}
	return value.Faults{{Key: key, Msg: "is missing: refer to it, such as ${env:NAME} or ${file:/path}"}}
}

// isToken tells whether a text can be sent as a token: US-ASCII that prints, without
// spaces.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// static is the header Authorization of what is the same for all requests; "" when
// there is none.
func (a *HTTPAuth) static() string {
	switch {
	case a == nil:
		return ""
	case !a.Bearer.IsZero():
		return "Bearer " + a.Bearer.Value()
	case a.Basic != nil:
		return basicAuth(a.Basic.User, a.Basic.Password.Value())
	}
	return ""
}

func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// secrets are the texts that may not show anywhere.
func (a *HTTPAuth) secrets() (texts []string) {
	if a == nil {
		return nil
	}
	texts = append(texts, a.Bearer.Value())
	if b := a.Basic; b != nil {
		texts = append(texts, b.Password.Value(), strings.TrimPrefix(basicAuth(b.User, b.Password.Value()), "Basic "))
	}
	if o := a.OAuth2; o != nil {
		texts = append(texts, o.secrets()...)
	}
	if v := a.SigV4; v != nil {
		texts = append(texts, v.SecretKey.Value(), v.SessionToken.Value())
	}
	return texts
}

// credential is a proof that is made for each request.
type credential interface {
	// put adds it to a request whose body is body.
	put(r *http.Request, body []byte) error
	// judged learns how the far side took it, and tells whether another request with
	// a new one is worth it at once.
	judged(r *http.Request, status int) (again bool)
	// mask takes what was sent out of an answer.
	mask(answer []byte) []byte
	close()
}

// credential is nil where the same header goes with every request.
func (s *HTTP) credential(env Env) (credential, error) {
	switch a := s.Auth; {
	case a == nil:
		return nil, nil
	case a.OAuth2 != nil:
		o, err := newOAuth(a.OAuth2, env)
		if err != nil {
			return nil, err // and no *oauth in the interface
		}
		return o, nil
	case a.SigV4 != nil:
		return newSigner(a.SigV4), nil
	}
	return nil, nil
}

// help is what to do when the far side does not take the sink's credentials.
func (s *HTTP) help() string {
	switch a := s.Auth; {
	case a != nil && a.OAuth2 != nil:
		return "it does not take the token: check scopes and audience of auth.oauth2, and what the client may do"
	case a != nil && a.SigV4 != nil:
		return "check region, service and keys of auth.sigv4, what they may do, and the clock of this machine"
	case a != nil:
		return "check auth." + a.ways()[0]
	case s.URL.User != nil:
		return "check user and password in the sink's url"
	case s.TLS != nil && s.TLS.Cert != "":
		return "check tls.cert, and whether the far side wants an auth besides"
	case s.Sign != nil:
		return "check the secrets of sign, the clocks of both sides, and whether the far side wants an auth besides"
	case len(s.Headers) > 0:
		return "check the sink's headers"
	}
	return "the sink has none: give it an auth"
}

// answered is the error of an answer. One about credentials reads other than an
// outage.
func (s *httpSink) answered(status int, answer []byte) error {
	if status != http.StatusUnauthorized && status != http.StatusForbidden {
		return Answered(status, answer)
	}
	err := fmt.Errorf("answered %d, which refuses the credentials: %s", status, s.help)
	return &Error{Err: err, Status: status, Answer: answer}
}
