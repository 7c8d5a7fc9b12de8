package sinks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

// HTTP are the settings of the http sink.
type HTTP struct {
	URL       value.URL             `yaml:"url" doc:"Where events are POSTed to. With each goes Sluice-Delivery-Id (the same on each attempt), Sluice-Attempt, Sluice-Rule and Sluice-Sink; and, where the sink may take a lease, Sluice-Callback and Sluice-Lease-Token. An answer may have Sluice-Retry: no, Sluice-Retry-At: <RFC 3339>, which holds up to 12 hours ahead, or Retry-After, up to one hour; and with 202 Sluice-Lease: 10m, for a job whose end is told to Sluice-Callback."`
	Mode      string                `yaml:"mode" doc:"binary: the data as the body and the attributes as headers; structured: all of it as one JSON document."`
	Headers   map[string]value.Text `yaml:"headers" doc:"More headers for each request. A secret belongs into a reference: ${env:NAME} or ${file:/path}."`
	Auth      *HTTPAuth             `yaml:"auth" doc:"How the sink proves who it is: one of the keys below."`
	TLS       *HTTPTLS              `yaml:"tls" doc:"How an https far side is known, and the sink to it (mTLS)."`
	Sign      *HTTPSign             `yaml:"sign" doc:"Sign each request, so that the far side knows who sent it and that nobody changed it."`
	Consent   *HTTPConsent          `yaml:"validate" doc:"Ask by OPTIONS whether the far side takes deliveries, before the first one: the abuse protection of CloudEvents web hooks."`
	KeepWarm  *HTTPWarm             `yaml:"keep_warm" doc:"Keep the function warm while nothing is delivered: a time such as 5m, or a mapping."`
	MaxAnswer value.Bytes           `yaml:"max_answer" doc:"How much of an answer is read."`
	Metadata  bool                  `yaml:"metadata_service" doc:"Lets the sink reach the metadata service of a cloud, such as 169.254.169.254, which hands out credentials to whoever asks. Nothing else that is sent may go there."`
}

// The values of HTTP.Mode.
const (
	modeBinary     = "binary"
	modeStructured = "structured"
)

// NewHTTP returns the settings with their defaults.
func NewHTTP() *HTTP { return &HTTP{Mode: modeBinary, MaxAnswer: 64 << 10} }

// Validate is Settings.Validate.
func (s *HTTP) Validate() value.Faults {
	var faults value.Faults
	if s.URL.IsZero() {
		faults.Add("url", "is missing: write where events are POSTed to, such as http://127.0.0.1:9000/")
	}
	if s.Mode != modeBinary && s.Mode != modeStructured {
		faults.Add("mode", "%q is not a mode: write %q or %q", s.Mode, modeBinary, modeStructured)
	}
	if s.MaxAnswer <= 0 {
		faults.Add("max_answer", "must be at least 1 byte: write a size such as 64KiB")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		if msg := headerFault(name, s.Headers[name].Value()); msg != "" {
			faults.Add("headers."+name, "%s", msg)
		} else if s.Auth != nil && strings.EqualFold(name, "Authorization") {
			faults.Add("headers."+name, "stands beside auth: a request has one proof, write one of the two")
		}
	}
	if s.Auth != nil && !s.URL.IsZero() && s.URL.User != nil {
		faults.Add("url", "has a user in it, and stands beside auth: a request has one proof, write one of the two")
	}
	return slices.Concat(faults, s.Auth.validate().Under("auth"), s.TLS.validate(s.URL).Under("tls"),
		s.Sign.validate().Under("sign"), s.Consent.validate().Under("validate"), s.KeepWarm.validate().Under("keep_warm"))
}

// headerFault says why a header cannot be set, never with its value.
func headerFault(name, text string) string {
	const token = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	if name == "" || strings.Trim(name, token) != "" {
		return "is not the name of a header"
	}
	switch key := http.CanonicalHeaderKey(name); {
	case strings.HasPrefix(key, "Ce-"), strings.HasPrefix(key, "Sluice-"):
		return "is a header of the delivery itself: leave it out"
	case key == "Content-Type", key == "Content-Length", key == "Transfer-Encoding", key == "Content-Encoding",
		key == "Connection", key == "Keep-Alive", key == "Upgrade", key == "Te", key == "Trailer", key == "Expect":
		return "follows from the event and the connection: leave it out"
	case key == "Webhook-Id", key == "Webhook-Timestamp", key == "Webhook-Signature":
		return "is made by sign: {standard: …}: leave it out"
	case key == headerOrigin, key == headerRate:
		return "is made by validate: {origin: …}: leave it out"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return "has a value with a line break or another control character, which no header can have"
	}
	return ""
}

// Open is Settings.Open.
func (s *HTTP) Open(_ context.Context, env Env) (Sink, error) {
	if err := s.Validate().Err(); err != nil {
		return nil, err
	}
	files, err := s.TLS.open(s.URL, env)
	if err != nil {
		return nil, err
	}
	sink := &httpSink{
		structured: s.Mode == modeStructured,
		maxAnswer:  int(s.MaxAnswer),
		header:     http.Header{"User-Agent": {userAgent()}},
		transport:  newCarrier(s.URL, s.reach(env), files),
		signer:     newStandardSigner(s.Sign),
		secrets:    s.secrets(),
		help:       s.help(),
		log:        env.logger(),
		leaseless:  &sync.Once{},
	}
	if sink.credential, err = s.credential(env); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	s.address(sink)
	if wire, ok := sink.transport.(*wire); ok && sink.credential == nil && sink.signer == nil {
		m := new(message)
		m.begin(sink.request, sink.header)
		sink.wire, sink.common = wire, m.bytes
	}
	sink.consent = newConsent(s.Consent, sink.askConsent)
	sink.warmer = newWarmer(s.KeepWarm, env, sink.keepWarm(s.KeepWarm))
	return sink, nil
}

// address sets what all requests have in common.
func (s *HTTP) address(sink *httpSink) {
	target := *s.URL.URL
	if user := target.User; user != nil {
		// Not left in the URL, so that no error can print it.
		password, _ := user.Password()
		sink.header.Set("Authorization", basicAuth(user.Username(), password))
		target.User = nil
	}
	target.Fragment, target.RawFragment = "", ""
	sink.where = target.Host
	sink.request = &http.Request{
		Method: http.MethodPost, URL: &target, Host: target.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	for name, text := range s.Headers {
		if strings.EqualFold(name, "Host") {
			sink.request.Host = text.Value()
			continue
		}
		sink.header.Set(name, text.Value())
	}
	if proof := s.Auth.static(); proof != "" {
		sink.header.Set("Authorization", proof)
	}
	if s.Consent != nil {
		sink.header.Set(headerOrigin, s.Consent.Origin)
	}
}

// secrets are the texts that a far side might send back and that must not get
// into a dead letter: what references stand for, and the password of the URL.
func (s *HTTP) secrets() [][]byte {
	found := append(s.Auth.secrets(), s.Sign.secrets()...)
	for name, text := range s.Headers {
		if !value.HasReference(text.String()) && !strings.EqualFold(name, "Authorization") {
			continue
		}
		found = append(found, text.Value())
		// Of "Bearer x" the x alone must not show either.
		if words := strings.Fields(text.Value()); len(words) > 1 {
			found = append(found, words[len(words)-1])
		}
	}
	found = append(found, urlSecrets(s.URL)...)
	if user := s.URL.User; user != nil {
		password, _ := user.Password()
		found = append(found, password, strings.TrimPrefix(basicAuth(user.Username(), password), "Basic "))
	}
	return longest(found)
}

// urlSecrets are the parts of a path and a query that references stand for, such as
// the key of a function: a far side that answers with what it was asked shows them.
func urlSecrets(u value.URL) (found []string) {
	written := u.String()
	if !value.HasReference(written) {
		return nil
	}
	parts := strings.Split(u.EscapedPath(), "/")
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		_, text, _ := strings.Cut(pair, "=")
		parts = append(parts, text)
	}
	for _, part := range parts {
		if strings.Contains(written, part) {
			continue
		}
		found = append(found, part)
		if plain, err := url.QueryUnescape(part); err == nil && plain != part {
			found = append(found, plain)
		}
	}
	return found
}

// longest are the texts that are long enough to be secrets: a shorter one would cut
// up an answer. The longest come first: what is left of a text after a part of it
// was replaced would no longer be found.
func longest(texts []string) (found [][]byte) {
	for _, text := range texts {
		if len(text) >= 6 {
			found = append(found, []byte(text))
		}
	}
	slices.SortFunc(found, func(a, b []byte) int { return len(b) - len(a) })
	return found
}

// httpSink POSTs events to one URL. It calls the transport and not an
// http.Client: that keeps no cookies, follows no redirects and puts no URL into
// errors.
type httpSink struct {
	request    *http.Request // what all requests have in common
	header     http.Header   // the same of their headers
	where      string        // the host, for errors: paths and queries may hold keys
	structured bool
	maxAnswer  int
	secrets    [][]byte
	help       string // what to do when it does not take the credentials
	transport  carrier
	signer     standardSigner // of these, nil is none
	credential credential
	// wire is transport where all of a request is known before it is sent, and common is
	// what all of them begin with. With credentials or a signature wire is nil.
	wire      *wire
	common    []byte
	consent   *consent
	warmer    *warmer
	log       *slog.Logger
	leaseless *sync.Once // of the hint that leaseIn logs
}

// Deliver is Sink.Deliver.
func (s *httpSink) Deliver(ctx context.Context, d Delivery) error { return s.attempt(ctx, d, nil) }

// attempt is one attempt; see post for read.
func (s *httpSink) attempt(ctx context.Context, d Delivery, read func(*http.Response) error) error {
	if s.wire == nil || d.Payload != nil || d.Event.Size() > wireBodyMost/2 { // as JSON it is larger
		return s.post(ctx, s.newRequest(ctx, d), read)
	}
	m := newMessage()
	defer m.free()
	s.write(m, d)
	return s.post(ctx, &outgoing{Request: s.request, message: m}, read)
}

// newRequest is the request of an attempt, without its body.
// A traceparent attribute goes out as ce-traceparent and is never made the
// traceparent header: that one is for the hop's own trace (CloudEvents
// Distributed Tracing extension).
func (s *httpSink) newRequest(ctx context.Context, d Delivery) *outgoing {
	req := s.request.WithContext(ctx)
	h := make(http.Header, len(s.header)+d.Event.NumAttributes()+5)
	maps.Copy(h, s.header) // the values are shared and never written to
	body := d.Event.Data()
	if s.structured && d.Payload == nil {
		body = d.Event.AppendJSON(make([]byte, 0, d.Event.Size()+128))
		h["Content-Type"] = []string{bus.TypeStructured}
	} else {
		d.Event.AppendHTTPHeader(h)
	}
	for name, text := range about(&d) {
		h[name] = []string{text}
	}
	if d.Payload != nil {
		body = d.Payload.apply(req, h, body)
	}
	req.Header = h
	return &outgoing{Request: req, id: d.ID, body: body}
}

// write writes what newRequest makes as the message that it becomes.
func (s *httpSink) write(m *message, d Delivery) {
	m.bytes = append(m.bytes, s.common...)
	body := d.Event.Data()
	if s.structured {
		body = d.Event.AppendJSON(make([]byte, 0, d.Event.Size()+128))
		m.line("Content-Type", bus.TypeStructured)
	} else {
		m.bytes = d.Event.AppendHTTPLines(m.bytes)
	}
	for name, text := range about(&d) {
		m.line(name, text)
	}
	m.body(body)
}

// about are the headers of a delivery itself.
func about(d *Delivery) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		headers := [...][2]string{
			{"Sluice-Delivery-Id", d.ID}, {"Sluice-Attempt", strconv.Itoa(d.Attempt)}, {"Sluice-Rule", d.Rule}, {"Sluice-Sink", d.Sink},
		}
		for _, h := range headers {
			if h[1] != "" && !yield(h[0], h[1]) {
				return
			}
		}
		if l := d.Ask.Lease; l != nil {
			_ = yield(headerCallback, l.URL) && yield(headerLeaseToken, l.Token)
		}
	}
}

// verdict makes an error of an answer that is no success, and leaves the
// connection fit for the next request when the answer is short.
func (s *httpSink) verdict(res *http.Response, read func(*http.Response) error) error {
	defer res.Body.Close() //nolint:errcheck // nothing is lost: the answer was read
	good := res.StatusCode >= 200 && res.StatusCode < 300
	if good && read != nil {
		return read(res)
	}
	if good && res.ContentLength == 0 {
		return nil
	}
	limited := io.LimitReader(res.Body, int64(s.maxAnswer))
	defer hurry(res.Body)()
	if good {
		_, _ = io.Copy(io.Discard, limited) // the status decides
		return nil
	}
	answer, _ := io.ReadAll(limited) // as much as there is: the status decides
	return asked(s.answered(res.StatusCode, s.mask(answer)), res.Header, time.Now())
}

// bodyPatience is how long an answer's body may take once its head is there. The
// head decides: a body that drips must not keep its place among the attempts.
const bodyPatience = time.Second

// hurry ends the reading of a body when its time is over, unless stop is called.
func hurry(body io.ReadCloser) (stop func()) {
	if b, ok := body.(*wireBody); ok {
		b.hurry(bodyPatience)
		return func() {}
	}
	timer := time.AfterFunc(bodyPatience, func() { _ = body.Close() })
	return func() { timer.Stop() }
}

// mask takes the secrets of the settings out of an answer that may send them back.
func (s *httpSink) mask(answer []byte) []byte {
	for _, secret := range s.secrets {
		answer = bytes.ReplaceAll(answer, secret, []byte(value.Stars))
	}
	if s.credential != nil {
		answer = s.credential.mask(answer)
	}
	return answer
}

// The control headers of an answer that is no success.
const (
	headerRetry   = "Sluice-Retry"    // no: another attempt is pointless
	headerRetryAt = "Sluice-Retry-At" // not before that time, RFC 3339
)

// asked adds to the error of an answer what its headers ask for.
func asked(err error, h http.Header, now time.Time) error {
	if strings.EqualFold(h.Get(headerRetry), "no") {
		return Permanent(err)
	}
	if after := retryAfter(h.Get("Retry-After"), now); after > 0 {
		err = RetryAfter(err, after)
	}
	if at, fault := time.Parse(time.RFC3339, strings.TrimSpace(h.Get(headerRetryAt))); fault == nil && at.After(now) {
		err = NotBefore(err, at.Sub(now))
	}
	return err
}

// retryAfter reads the header Retry-After: seconds or a date (RFC 9110 §10.2.3). It
// is 0 for what it cannot read and for times that are past.
func retryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// Close is io.Closer.
func (s *httpSink) Close() error {
	s.warmer.close()
	if s.consent != nil {
		s.consent.given.close()
	}
	if s.credential != nil {
		s.credential.close()
	}
	s.transport.CloseIdleConnections()
	return nil
}
