package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"

	"sluice/config"
)

// Scope is what a route asks of its caller.
type Scope string

// The scopes. Admin may do everything.
const (
	Anybody Scope = ""
	Publish Scope = "publish"
	Admin   Scope = "admin"
)

// Tokens says who may call. Without any, everybody may.
type Tokens struct{ all []token }

// token is kept as a hash: all comparisons take the same time, whatever the
// length and the content of what was sent.
type token struct {
	name   string
	hash   [sha256.Size]byte
	scopes []string
}

// NewTokens is the auth of a config.
func NewTokens(auth config.Auth) *Tokens {
	t := &Tokens{}
	for _, c := range auth.Tokens {
		t.all = append(t.all, token{c.Name, sha256.Sum256([]byte(c.Token.Value())), c.Scopes})
	}
	return t
}

// check is why a request may not be served; nil when it may.
func (t *Tokens) check(r *http.Request, scope Scope) error {
	if scope == Anybody || len(t.all) == 0 {
		return nil
	}
	header := r.Header.Get("Authorization")
	if header == "" {
		return unauthorized("this needs a token: send Authorization: Bearer <token>")
	}
	scheme, sent, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return unauthorized("the Authorization header is not of the form Bearer <token>")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(sent)))
	var caller *token
	for i := range t.all {
		if subtle.ConstantTimeCompare(t.all[i].hash[:], hash[:]) == 1 {
			caller = &t.all[i]
		}
	}
	switch {
	case caller == nil:
		return unauthorized("the token is unknown")
	case slices.Contains(caller.scopes, string(Admin)), slices.Contains(caller.scopes, string(scope)):
		return nil
	}
	return refuse(http.StatusForbidden, "the token %s has no scope %s: use one that has, or add it under server.auth.tokens", caller.name, scope)
}

func unauthorized(detail string) error {
	p := refuse(http.StatusUnauthorized, "%s", detail)
	p.header = http.Header{"Www-Authenticate": {`Bearer realm="sluice"`}}
	return p
}

// allow lets those through who have a scope.
func (a *api) allow(scope Scope, h http.Handler) http.Handler {
	if scope == Anybody {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.View().Tokens.check(r, scope); err != nil {
			a.fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}
