package api

import (
	"errors"
	"net/http"

	"sluice/config/access"
)

// Scope is what a route asks of its caller.
type Scope = access.Scope

// The scopes. Admin may do everything.
const (
	Anybody   = access.Anybody
	Publish   = access.Publish
	Consume   = access.Consume
	Subscribe = access.Subscribe
	Metrics   = access.Metrics
	Admin     = access.Admin
)

// Tokens says who may call. Without any, everybody may.
type Tokens = access.Checker

// NewTokens is the auth of a config.
func NewTokens(auth access.Auth) *Tokens { return access.NewChecker(auth, "server.auth") }

// check is why a request may not be served; nil when it may.
func (a *api) check(r *http.Request, scope Scope) error {
	if err := a.checkHost(r); err != nil {
		return err
	}
	err := a.View().Tokens.Check(r, scope)
	var denied *access.Denied
	if !errors.As(err, &denied) {
		return err
	}
	p := refuse(denied.Status, "%s", denied.Detail)
	p.header = http.Header{}
	denied.SetHeader(p.header)
	return p
}

// allow lets those through who have a scope.
func (a *api) allow(scope Scope, h http.Handler) http.Handler {
	if scope == Anybody {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if scope == Publish {
			a.allowOrigin(w, r)
		}
		if err := a.check(r, scope); err != nil {
			a.fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}
