// Package access says who may call: bearer tokens and client certificates, each
// with what its holder may do. access.go is the settings, checker.go the check. It
// does not listen, and does not know what there is to be called.
package access

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/config/value"
)

// Scope is what a caller may do.
type Scope string

// The scopes. Admin may do everything.
const (
	Anybody   Scope = ""          // what needs no scope
	Publish   Scope = "publish"   // send events
	Consume   Scope = "consume"   // tail and read events, receive from queues
	Subscribe Scope = "subscribe" // make and end subscriptions
	Metrics   Scope = "metrics"   // read /metrics
	Admin     Scope = "admin"
)

// Auth says who may call. The zero value was not configured: it lets everybody in,
// and is refused on an address that other machines reach.
type Auth struct {
	None         bool          `yaml:"-"` // "auth: none": everybody, on purpose
	Tokens       []Token       `yaml:"tokens" doc:"Who may call, with a bearer token each."`
	Certificates []Certificate `yaml:"certificates" doc:"Who may call with a client certificate of server.tls.client_ca. With any of these a certificate is one way to call, and a token another; without, everybody needs one."`
}

// Grant is what a caller may do, and how often.
type Grant struct {
	Scopes []string   `yaml:"scopes" enum:"publish,consume,subscribe,metrics,admin" doc:"What the caller may do: publish, consume (tail and read events, receive from queues), subscribe (make and end subscriptions), metrics (read /metrics) or admin (everything). A source's own auth needs none: it is for publish."`
	Paths  []string   `yaml:"paths" doc:"The paths that publish is for, such as /in/orders, or /in/* for all below; every path when left out."`
	Rate   value.Rate `yaml:"rate" doc:"How many requests the caller may make, such as 100/s: more are answered 429."`
}

// Token is a caller with a bearer token.
type Token struct {
	Name    string       `yaml:"name" doc:"Who this is, for the logs."`
	Token   value.Secret `yaml:"token" doc:"The bearer token."`
	Hash    string       `yaml:"hash" doc:"Instead of token: its SHA-256 in hex, so that the token itself need not be here. sluice token new makes both."`
	Grant   `yaml:",inline"`
	Expires Time `yaml:"expires" doc:"When the token ends, such as 2027-01-31 (00:00 UTC) or 2027-01-31T12:00:00Z."`
}

// Certificate is a caller with a client certificate.
type Certificate struct {
	Name  string `yaml:"name" doc:"Who this is, for the logs."`
	Match string `yaml:"match" doc:"The common name of the certificate's subject, or one of its alternative names: DNS name, e-mail address, URI or IP address."`
	Grant `yaml:",inline"`
}

// IsZero reports that nothing was configured.
func (a Auth) IsZero() bool { return !a.None && len(a.Tokens) == 0 && len(a.Certificates) == 0 }

// UnmarshalText reads the short form "none".
func (a *Auth) UnmarshalText(text []byte) error {
	if string(text) != "none" {
		return fmt.Errorf("%q is no auth: write none, or tokens with a list", text)
	}
	*a = Auth{None: true}
	return nil
}

// Validate finds what single values cannot show.
func (a Auth) Validate() value.Faults { return a.validate(true) }

// ValidatePublish is Validate for what takes events and nothing else: there the
// scope goes without saying.
func (a Auth) ValidatePublish() value.Faults { return a.validate(false) }

func (a Auth) validate(scopes bool) value.Faults {
	var faults faults
	names := map[string]string{}
	for i, t := range a.Tokens {
		at := fmt.Sprintf("tokens[%d]", i)
		faults.name(names, at, t.Name)
		faults.token(at, t)
		for j, other := range a.Tokens[:i] {
			if t.hash() != "" && t.hash() == other.hash() {
				faults.Add(at+".token", "is the same as that of tokens[%d]", j)
			}
		}
		faults.grant(at, t.Grant, scopes)
	}
	for i, c := range a.Certificates {
		at := fmt.Sprintf("certificates[%d]", i)
		faults.name(names, at, c.Name)
		if c.Match == "" {
			faults.Add(at, "has no match: write the common name or an alternative name of the certificate")
		}
		faults.grant(at, c.Grant, scopes)
	}
	return faults.Faults
}

// faults is what is wrong, as far as it was looked at.
type faults struct{ value.Faults }

func (f *faults) name(names map[string]string, at, name string) {
	if name == "" {
		f.Add(at, "has no name: say who this is")
		return
	}
	if other, taken := names[name]; taken {
		f.Add(at+".name", "%q is the name of %s too", name, other)
	}
	names[name] = at
}

func (f *faults) token(at string, t Token) {
	switch {
	case t.Token.IsZero() && t.Hash == "":
		f.Add(at, "has no token: write token: ${env:NAME}, or hash: with what sluice token new prints")
	case !t.Token.IsZero() && t.Hash != "":
		f.Add(at+".hash", "stands beside a token: write one of the two")
	case t.Hash != "" && !isHash(t.Hash):
		f.Add(at+".hash", "is not a SHA-256 in hex, 64 digits: sluice token hash makes one of a token")
	}
}

func (f *faults) grant(at string, g Grant, scopes bool) {
	publish := slices.Contains(g.Scopes, string(Publish))
	switch {
	case scopes && len(g.Scopes) == 0:
		f.Add(at, "has no scopes: write some of publish, consume, metrics, admin")
	case !scopes && len(g.Scopes) > 0 && !publish:
		f.Add(at+".scopes", "has no publish, and nothing else is done here: leave it out")
	case scopes && len(g.Paths) > 0 && !publish:
		f.Add(at+".paths", "is about publish, which is not among the scopes: add it, or leave paths out")
	}
	for i, p := range g.Paths {
		if !strings.HasPrefix(p, "/") {
			f.Add(fmt.Sprintf("%s.paths[%d]", at, i), "%q does not begin with /: write a path such as /in/orders", p)
		}
	}
}

// hash is the SHA-256 of the token in hex; "" when there is none.
func (t Token) hash() string {
	if t.Token.IsZero() {
		return strings.ToLower(t.Hash)
	}
	return Hash(t.Token.Value())
}

func isHash(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == 32
}

// Time is a moment, written as a date (00:00 UTC) or as RFC 3339. The zero value
// never comes.
type Time struct{ at time.Time }

// NewTime is the moment t.
func NewTime(t time.Time) Time { return Time{t.UTC()} }

// Time is the moment.
func (t Time) Time() time.Time { return t.at }

// UnmarshalText reads a date or a time.
func (t *Time) UnmarshalText(text []byte) error {
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, string(text)); err == nil {
			*t = NewTime(at)
			return nil
		}
	}
	return fmt.Errorf("%q is no time: write one such as 2027-01-31 or 2027-01-31T12:00:00Z", text)
}

// MarshalText is the form that is read.
func (t Time) MarshalText() ([]byte, error) {
	if t.at.IsZero() {
		return nil, nil
	}
	return []byte(t.at.Format(time.RFC3339)), nil
}
