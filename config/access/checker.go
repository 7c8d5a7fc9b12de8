package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Denied is why a request may not be served. Its text is for the caller.
type Denied struct {
	Status int
	Detail string
	After  int // seconds for Retry-After; 0 for none
}

func (d *Denied) Error() string { return d.Detail }

// Challenge is the WWW-Authenticate header of a 401.
const Challenge = `Bearer realm="sluice"`

// SetHeader sets the headers that go with the status.
func (d *Denied) SetHeader(h http.Header) {
	if d.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", Challenge)
	}
	if d.After > 0 {
		h.Set("Retry-After", fmt.Sprint(d.After))
	}
}

func unauthorized(format string, args ...any) *Denied {
	return &Denied{Status: http.StatusUnauthorized, Detail: fmt.Sprintf(format, args...)}
}

// Checker is an Auth at work. Without any token or certificate it lets everybody
// in. It may be used from several goroutines.
type Checker struct {
	where  string // the auth's place in the config
	tokens []tokenCaller
	certs  map[string]*caller
	now    func() time.Time
}

// caller is somebody who is known.
type caller struct {
	what    string // for messages: the token ci
	grant   Grant
	expires time.Time
	limit   *rate.Limiter // nil for none
}

// tokenCaller is a caller with a token, which is kept as a hash: all comparisons
// take the same time, whatever the length and the content of what was sent.
type tokenCaller struct {
	hash [sha256.Size]byte
	caller
}

// NewChecker is the check of a valid auth, which stands at where in the config.
// Who has no scopes has those of always. In a new one all rates begin anew, but for
// those that Follow takes over.
func NewChecker(auth Auth, where string, always ...Scope) *Checker {
	c := &Checker{where: where, certs: map[string]*caller{}, now: time.Now}
	for _, t := range auth.Tokens {
		known := tokenCaller{caller: newCaller("token "+t.Name, t.Grant, always)}
		known.expires = t.Expires.Time()
		if raw, err := hex.DecodeString(t.hash()); err == nil {
			copy(known.hash[:], raw)
			c.tokens = append(c.tokens, known)
		}
	}
	for _, cert := range auth.Certificates {
		known := newCaller("certificate "+cert.Name, cert.Grant, always)
		c.certs[cert.Match] = &known
	}
	return c
}

func newCaller(what string, g Grant, always []Scope) caller {
	if len(g.Scopes) == 0 {
		g.Scopes = nil
		for _, s := range always {
			g.Scopes = append(g.Scopes, string(s))
		}
	}
	c := caller{what: what, grant: g}
	if !g.Rate.Unlimited() {
		// Of 100/m a hundred may come at once.
		c.limit = rate.NewLimiter(rate.Limit(g.Rate.PerSecond()), max(1, int(min(g.Rate.Count, math.MaxInt32))))
	}
	return c
}

// Follow lets the checker take the place of another: who has the same
// token or certificate there, and the same rate, has spent what they have spent.
func (c *Checker) Follow(before *Checker) *Checker {
	for i := range c.tokens {
		for _, old := range before.tokens {
			if old.hash == c.tokens[i].hash {
				c.tokens[i].follow(&old.caller)
			}
		}
	}
	for match, who := range c.certs {
		if old := before.certs[match]; old != nil {
			who.follow(old)
		}
	}
	return c
}

func (c *caller) follow(old *caller) {
	if c.grant.Rate == old.grant.Rate {
		c.limit = old.limit
	}
}

// Check is why a request may not be served: a *Denied, or nil when it may.
func (c *Checker) Check(r *http.Request, scope Scope) error {
	who, err := c.permitted(r, scope)
	if who == nil {
		return err
	}
	return who.spend(c.now())
}

// Allows tells whether Check would let a request through, but for the caller's rate,
// of which it takes nothing.
func (c *Checker) Allows(r *http.Request, scope Scope) bool {
	_, err := c.permitted(r, scope)
	return err == nil
}

// permitted finds the caller who may do that; nil without an error when everybody may.
func (c *Checker) permitted(r *http.Request, scope Scope) (*caller, error) {
	if scope == Anybody || len(c.tokens)+len(c.certs) == 0 {
		return nil, nil
	}
	who, err := c.caller(r)
	if err != nil {
		return nil, err
	}
	now := c.now()
	switch {
	case !who.expires.IsZero() && !now.Before(who.expires):
		return nil, unauthorized("the %s has expired at %s: make a new one with sluice token new", who.what, who.expires.Format(time.RFC3339))
	case !who.may(scope):
		return nil, &Denied{Status: http.StatusForbidden, Detail: fmt.Sprintf(
			"the %s has no scope %s: use one that has, or add it under %s", who.what, scope, c.where)}
	case scope == Publish && !who.reaches(r.URL.Path):
		return nil, &Denied{Status: http.StatusForbidden, Detail: fmt.Sprintf(
			"the %s is not for the path %s: use one that is, or add it to its paths under %s", who.what, r.URL.Path, c.where)}
	}
	return who, nil
}

// caller finds who asks. A token goes before a certificate.
func (c *Checker) caller(r *http.Request) (*caller, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if who := c.certified(r); who != nil {
			return who, nil
		}
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 && len(c.certs) > 0 {
			return nil, unauthorized("no name of the client certificate is known: add one under %s", c.where)
		}
		return nil, unauthorized("this needs a token: send Authorization: Bearer <token>")
	}
	scheme, sent, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, unauthorized("the Authorization header is not of the form Bearer <token>")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(sent)))
	var who *caller
	for i := range c.tokens {
		if subtle.ConstantTimeCompare(c.tokens[i].hash[:], hash[:]) == 1 {
			who = &c.tokens[i].caller
		}
	}
	if who == nil {
		return nil, unauthorized("the token is unknown")
	}
	return who, nil
}

// certified finds who asks with a certificate that was verified, or nil.
func (c *Checker) certified(r *http.Request) *caller {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	for _, name := range namesOf(r.TLS.VerifiedChains[0][0]) {
		if who := c.certs[name]; who != nil {
			return who
		}
	}
	return nil
}

// namesOf are the names of a certificate: the alternative ones first.
func namesOf(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return append(names, cert.Subject.CommonName)
}

func (c *caller) may(scope Scope) bool {
	return slices.Contains(c.grant.Scopes, string(Admin)) || slices.Contains(c.grant.Scopes, string(scope))
}

// reaches tells whether the caller may publish to a path. The paths of an admin do
// not count: it may do everything.
func (c *caller) reaches(path string) bool {
	if len(c.grant.Paths) == 0 || slices.Contains(c.grant.Scopes, string(Admin)) {
		return true
	}
	return slices.ContainsFunc(c.grant.Paths, func(p string) bool {
		below, all := strings.CutSuffix(p, "*")
		return p == path || all && strings.HasPrefix(path, below)
	})
}

// spend takes one request from the caller's rate.
func (c *caller) spend(now time.Time) error {
	if c.limit == nil {
		return nil
	}
	reserved := c.limit.ReserveN(now, 1)
	wait := reserved.DelayFrom(now)
	if wait <= 0 {
		return nil
	}
	reserved.CancelAt(now)
	return &Denied{Status: http.StatusTooManyRequests, After: int(math.Ceil(wait.Seconds())), Detail: fmt.Sprintf(
		"the %s may make %s requests and has made more: send this one again later", c.what, c.grant.Rate)}
}

// Hash is what the config may hold in place of a token: its SHA-256 in hex. Tokens
// are long and random, so nothing slower is needed.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// NewToken makes a token: sluice_ and 260 random bits in base 32.
func NewToken() string { return "sluice_" + rand.Text() + rand.Text() }
