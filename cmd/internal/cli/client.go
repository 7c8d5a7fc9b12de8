package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/config/value"
)

// defaultServer is where `sluice dev` and `sluice serve` listen unless told.
const defaultServer = "http://127.0.0.1:8484"

// patience is how long one request may take, streams excepted.
const patience = time.Minute

// client speaks to the HTTP API of a server.
type client struct {
	base  *url.URL
	token value.Secret
	http  *http.Client
	now   func() time.Time
}

// client makes the client that the global flags ask for.
func (e *env) client() (*client, error) {
	base, err := e.serverURL()
	if err != nil {
		return nil, err
	}
	token, err := e.bearer()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: patience,
		ForceAttemptHTTP2:     true,
	}
	return &client{base: base, token: token, now: e.now, http: &http.Client{
		Transport: transport,
		// A POST would become a GET, and the token go who knows where.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (e *env) serverURL() (*url.URL, error) {
	from, text := "--server", e.server
	if text == "" {
		from = "$SLUICE_SERVER"
		text, _ = e.lookupEnv("SLUICE_SERVER")
	}
	if text == "" {
		text = defaultServer
	}
	base, err := url.Parse(text)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, usagef("%s %q is not a URL: write one such as %s", from, text, defaultServer)
	}
	return base, nil
}

// bearer is the token of --token, a reference since anybody on the machine can
// read the command line, or else of the environment.
func (e *env) bearer() (value.Secret, error) {
	if e.token == "" {
		if text, _ := e.lookupEnv("SLUICE_TOKEN"); text != "" {
			return value.NewSecret(text), nil
		}
		return value.Secret{}, nil
	}
	return e.secret("--token", e.token, ", or set SLUICE_TOKEN")
}

// secret is what a flag refers to. A secret itself has no place on the command line.
func (e *env) secret(flag, text, or string) (value.Secret, error) {
	if !value.HasReference(text) {
		return value.Secret{}, usagef("%s is no reference: write '${env:NAME}' or '${file:/path}'%s", flag, or)
	}
	resolver := value.OSResolver()
	resolver.Env = e.lookupEnv
	var secret value.Secret
	if err := secret.Resolve(text, resolver); err != nil {
		return secret, usagef("%s: %w", flag, err)
	}
	return secret, nil
}

// apiError is an answer that says no.
type apiError struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`

	body  []byte
	after time.Duration // from Retry-After; 0 when it was not given
}

func (e *apiError) Error() string {
	said := e.Detail
	if said == "" {
		said = e.Title
	}
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		said += ": name a token that may do this with --token or SLUICE_TOKEN"
	}
	return fmt.Sprintf("the server says no (%d): %s", e.Status, said)
}

// get asks for a document of the API.
func (c *client) get(ctx context.Context, path string, query url.Values) (json.RawMessage, error) {
	return c.call(ctx, http.MethodGet, path, query, nil)
}

// post sends a document to the API; nil sends none.
func (c *client) post(ctx context.Context, path string, doc any) (json.RawMessage, error) {
	if doc == nil {
		doc = struct{}{}
	}
	return c.call(ctx, http.MethodPost, path, nil, doc)
}

func (c *client) call(ctx context.Context, method, path string, query url.Values, doc any) (json.RawMessage, error) {
	var body []byte
	if doc != nil {
		var err error
		if body, err = json.Marshal(doc); err != nil {
			return nil, err
		}
	}
	return c.exchange(ctx, method, path, query, "application/json", body)
}

// exchange sends one request and reads the whole answer.
func (c *client) exchange(ctx context.Context, method, path string, query url.Values, mediaType string, body []byte) (json.RawMessage, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := c.send(limited, method, path, query, mediaType, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.unreachable(limited, err)
	}
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	if !json.Valid(answer) {
		return nil, fmt.Errorf("what answers at %s is no Sluice server: name the right one with --server", c.base)
	}
	return answer, nil
}

// send sends a request; the answer is a good one, and the caller closes its body.
func (c *client) send(ctx context.Context, method, path string, query url.Values, mediaType string, body []byte) (*http.Response, error) {
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sluice-cli")
	if len(body) > 0 {
		req.Header.Set("Content-Type", mediaType)
	}
	if !c.token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+c.token.Value())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	return nil, c.refusal(resp)
}

// refusal is what the server said, or what can be said when it said nothing.
func (c *client) refusal(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<20)) // what was read is what can be told
	no := &apiError{Title: http.StatusText(resp.StatusCode), after: retryAfter(resp.Header.Get("Retry-After"), c.now())}
	if mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mt == "application/problem+json" {
		// A broken document leaves the status line, which says enough.
		_ = json.Unmarshal(body, no)
		no.body = body
	} else if resp.StatusCode == http.StatusNotFound || resp.StatusCode < 400 {
		return fmt.Errorf("what answers at %s is no Sluice server, or an older one (%s): name the right one with --server", c.base, resp.Status)
	}
	no.Status = resp.StatusCode
	return no
}

// unreachable explains an error of the connection.
func (c *client) unreachable(ctx context.Context, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the method and the URL, which are said here
	}
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return errInterrupted
	case errors.Is(err, syscall.ECONNREFUSED):
		return &connError{fmt.Errorf("no server at %s: start one with `sluice serve` or `sluice dev`, or name another with --server", c.base)}
	case ctx.Err() != nil, errors.As(err, &timeout) && timeout.Timeout():
		return &connError{fmt.Errorf("the server at %s does not answer: try again, or name another with --server", c.base)}
	}
	return &connError{fmt.Errorf("cannot reach the server at %s: %w", c.base, err)}
}

// connError says that the server was not reached, or was lost.
type connError struct{ err error }

func (e *connError) Error() string { return e.err.Error() }
func (e *connError) Unwrap() error { return e.err }

// errInterrupted ends a verb on Ctrl-C.
var errInterrupted = errors.New("interrupted")

// retryAfter reads the header of that name, in seconds or as a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n > 0 {
		return time.Duration(min(n, 24*60*60)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// decode reads an answer of the API.
func decode[T any](doc json.RawMessage, err error) (T, error) {
	var v T
	if err == nil {
		if err = json.Unmarshal(doc, &v); err != nil {
			err = fmt.Errorf("the server's answer is not understood: is it another version? %w", err)
		}
	}
	return v, err
}
