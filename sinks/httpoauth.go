package sinks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"sluice/config/value"
)

// HTTPOAuth2 is a client of an identity provider (RFC 6749, section 4.4).
type HTTPOAuth2 struct {
	TokenURL     value.URL             `yaml:"token_url" doc:"Where tokens are had, such as https://idp.example.com/oauth/token."`
	ClientID     string                `yaml:"client_id" doc:"The name of the client."`
	ClientSecret value.Secret          `yaml:"client_secret" doc:"The secret of the client."`
	Scopes       []string              `yaml:"scopes" doc:"What the token is asked for."`
	Audience     string                `yaml:"audience" doc:"For whom the token is; sent as the parameter audience."`
	Params       map[string]value.Text `yaml:"params" doc:"More parameters of the request for a token, such as resource."`
	TLS          *HTTPTLS              `yaml:"tls" doc:"How the identity provider is known, and the sink to it, when token_url is https."`
}

func (o *HTTPOAuth2) validate() value.Faults {
	var faults value.Faults
	switch {
	case o.TokenURL.IsZero():
		faults.Add("token_url", "is missing: write where tokens are had, such as https://idp.example.com/oauth/token")
	case o.TokenURL.User != nil:
		faults.Add("token_url", "has a user in it: write client_id and client_secret")
	}
	if o.ClientID == "" {
		faults.Add("client_id", "is missing: write the name that the identity provider knows this client by")
	}
	faults = append(faults, missing("client_secret", o.ClientSecret)...)
	for _, name := range slices.Sorted(maps.Keys(o.Params)) {
		switch name {
		case "client_id", "client_secret", "grant_type", "scope", "audience":
			faults.Add("params."+name, "has a place of its own, or follows from the protocol: leave it out here")
		}
	}
	return append(faults, o.TLS.validate(o.TokenURL).Under("tls")...)
}

func (o *HTTPOAuth2) secrets() []string {
	id, secret := o.ClientID, o.ClientSecret.Value()
	texts := []string{secret, url.QueryEscape(secret),
		strings.TrimPrefix(basicAuth(url.QueryEscape(id), url.QueryEscape(secret)), "Basic ")}
	for _, text := range o.Params {
		if value.HasReference(text.String()) {
			texts = append(texts, text.Value())
		}
	}
	return texts
}

const (
	tokenTimeout = 10 * time.Second
	maxToken     = 64 << 10 // bytes of an answer of the identity provider
	// tokenPause is how long a refusal stands: many attempts with a wrong secret
	// may lock the client out. A token that never worked is as young as that before
	// another is asked for.
	tokenPause = 5 * time.Second
)

// oauth is a token that all attempts share.
type oauth struct {
	config  clientcredentials.Config
	client  *http.Client
	where   string // the host of the token URL
	secrets [][]byte
	token   shared[string] // the header Authorization

	mu     sync.Mutex
	latest string // the header with the token that was fetched last
	worked bool   // the far side has taken that
	born   time.Time
	sent   [][]byte // the last tokens, which no answer may show
}

func newOAuth(s *HTTPOAuth2, env Env) (*oauth, error) {
	files, err := s.TLS.open(s.TokenURL, env)
	if err != nil {
		return nil, err
	}
	o := &oauth{where: s.TokenURL.Host, secrets: longest(s.secrets())}
	params := url.Values{}
	for name, text := range s.Params {
		params.Set(name, text.Value())
	}
	if s.Audience != "" {
		params.Set("audience", s.Audience)
	}
	o.config = clientcredentials.Config{
		ClientID: s.ClientID, ClientSecret: s.ClientSecret.Value(),
		TokenURL: s.TokenURL.URL.String(), Scopes: s.Scopes, EndpointParams: params,
	}
	o.client = &http.Client{
		Transport: bounded{newTransport(newDialer(env), files)},
		// Elsewhere the secret is nobody's business.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	o.token = shared[string]{fetch: o.fetch, timeout: tokenTimeout, pause: tokenPause}
	return o, nil
}

// bounded cuts off answers that are no token by their size.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("User-Agent", userAgent())
	r.Header.Set("Accept", "application/json")
	res, err := b.Transport.RoundTrip(r)
	if err == nil {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, maxToken), res.Body}
	}
	return res, err
}

// fetch asks for a token.
func (o *oauth) fetch(ctx context.Context) (string, time.Duration, error) {
	token, err := o.config.Token(context.WithValue(ctx, oauth2.HTTPClient, o.client))
	if err != nil {
		return "", 0, o.explain(err)
	}
	if !isToken(token.AccessToken) || !isToken(token.Type()) {
		return "", 0, fmt.Errorf("the token of %s has characters that no header can have", o.where)
	}
	header := token.Type() + " " + token.AccessToken
	var life time.Duration
	if !token.Expiry.IsZero() {
		life = max(time.Until(token.Expiry), time.Second)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.latest, o.worked, o.born = header, false, time.Now()
	o.sent = append(o.sent[max(0, len(o.sent)-3):], []byte(token.AccessToken))
	return header, life, nil
}

// put is credential.put.
func (o *oauth) put(r *http.Request, _ []byte) error {
	header, err := o.token.get(r.Context())
	if err != nil {
		return fmt.Errorf("getting a token from %s: %w", o.where, err)
	}
	r.Header["Authorization"] = []string{header}
	return nil
}

// judged is credential.judged: a token that worked and does so no more is renewed.
// Of one that never did there is no better.
func (o *oauth) judged(r *http.Request, status int) (again bool) {
	used := r.Header.Get("Authorization")
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case status != http.StatusUnauthorized:
		o.worked = o.worked || used == o.latest
		return false
	case used != o.latest:
		return true // another attempt has renewed it already
	case !o.worked && time.Since(o.born) < tokenPause:
		return false
	}
	o.token.drop(used)
	return true
}

// mask is credential.mask.
func (o *oauth) mask(answer []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, token := range slices.Concat(o.sent, o.secrets) {
		answer = bytes.ReplaceAll(answer, token, []byte(value.Stars))
	}
	return answer
}

func (o *oauth) close() {
	o.token.close()
	o.client.CloseIdleConnections()
}

// explain makes an error of the library fit to be shown: that prints the answer,
// which may be the request with its secret, and the URL. A refusal of the client
// has the status 401, whatever the identity provider answered: it is retried
// slowly, as another from the far side is.
func (o *oauth) explain(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		var in *url.Error
		if errors.As(err, &in) {
			err = in.Err
		}
		text := bytes.ReplaceAll(o.mask([]byte(err.Error())), []byte(o.config.TokenURL), []byte(o.where))
		return explained(text, err)
	}
	status, code := refused.Response.StatusCode, refused.ErrorCode
	said := fmt.Sprintf("answered %d", status)
	// The codes of RFC 6749 are words. What is none may be anything.
	if code != "" && len(code) <= 40 && strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_-") == "" {
		said += " (" + string(o.mask([]byte(code))) + ")"
	}
	switch {
	case status == http.StatusTooManyRequests || status >= 500:
		return asked(errors.New(said+", which is no word about the credentials: it is tried again"), refused.Response.Header, time.Now())
	case status >= 300 && status < 400, status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return errors.New(said + ": check token_url, which has to be the place itself and no redirect to it")
	}
	help := "check client_id and client_secret"
	switch code {
	case "invalid_scope":
		help = "check scopes"
	case "invalid_target":
		help = "check audience and params"
	case "unauthorized_client", "access_denied", "unsupported_grant_type":
		help = "allow the client to use client credentials, or check client_id and client_secret"
	}
	return &Error{Err: errors.New(said + ": " + help), Status: http.StatusUnauthorized}
}
