package sources

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/signature"
	"golang.org/x/time/rate"
)

// s3Front stands before the library. It lets nothing through that is not signed,
// compares bodies with what was signed, and bounds sizes and times; the library
// looks at the head of a request only.
type s3Front struct {
	library http.Handler
	keys    *atomic.Pointer[s3Keys] // they may change between two requests
	domain  string                  // that buckets may stand before, or ""
	limits  S3Limits
	log     *slog.Logger
	observe func(Outcome, int)
	warn    rate.Sometimes // strangers must not be able to fill the log
}

// ServeHTTP is http.Handler.
func (f *s3Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pace := &pace{rc: http.NewResponseController(w), stall: time.Duration(f.limits.Stall), rate: int64(f.limits.MinRate)}
	a := &s3Answer{ResponseWriter: w, pace: pace}
	pace.begin()
	keys := *f.keys.Load()
	if result := signature.V4SignVerifyWithLookup(r, keys.lookUp); result != signature.ErrNone {
		refusal := signature.GetAPIError(result)
		f.warn.Do(func() {
			f.log.Warn("a request is refused: it is not signed as it should be; more of these are only counted for a minute",
				"from", r.RemoteAddr, "reason", refusal.Code)
		})
		f.observe(Denied, 1)
		a.fail(r, refusal.HTTPStatusCode, refusal.Code, refusal.Description)
		return
	}
	r = f.pathStyle(r) // after the signature, which is for the path and the host as they were sent
	if err := checkRequest(r); err != nil {
		f.observe(Invalid, 1)
		a.failWith(r, err)
		return
	}
	sig, _ := readSignature(r)
	sig.secret, _ = keys.lookUp(sig.accessKey)
	body, err := newS3Body(r, &pacedReader{r.Body, pace}, &sig)
	outcome := Invalid
	if err == nil && body.left > int64(f.limits.Object) {
		err, outcome = gofakes3.ErrEntityTooLarge, TooLarge
	}
	if err != nil {
		f.observe(outcome, 1)
		a.failWith(r, err)
		return
	}
	a.body = body
	f.library.ServeHTTP(a, forLibrary(r, body))
	a.end()
	if body.failed() {
		f.observe(body.fault, 1)
	}
}

// pathStyle is the request with its bucket in the path, wherever the client wrote it.
func (f *s3Front) pathStyle(r *http.Request) *http.Request {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	bucket, below := strings.CutSuffix(strings.ToLower(host), "."+f.domain)
	if f.domain == "" || !below {
		return r
	}
	moved := *r
	moved.URL = new(url.URL)
	*moved.URL = *r.URL
	moved.URL.Path, moved.URL.RawPath = "/"+bucket+r.URL.Path, ""
	return &moved
}

// checkRequest refuses what the library would take and should not.
func checkRequest(r *http.Request) error {
	_, key, _ := strings.Cut(strings.TrimLeft(r.URL.Path, "/"), "/")
	switch {
	case len(key) > gofakes3.KeySizeLimit:
		return gofakes3.ResourceError(gofakes3.ErrKeyTooLong, key[:gofakes3.KeySizeLimit])
	case !utf8.ValidString(key):
		return gofakes3.ErrorMessage(gofakes3.ErrInvalidURI, "The key is not UTF-8.")
	case r.Method == http.MethodPost && key == "" && !r.URL.Query().Has("delete"):
		return gofakes3.ErrorMessage(gofakes3.ErrMethodNotAllowed, "Uploads by HTML forms are not taken: use PUT.")
	}
	return nil
}

// forLibrary is the request with its body as the client meant it.
func forLibrary(r *http.Request, body *s3Body) *http.Request {
	ctx := context.WithValue(r.Context(), bodyKey{}, body)
	ctx = context.WithValue(ctx, invocationKey{}, r.Header.Get("Amz-Sdk-Invocation-Id"))
	ctx = context.WithValue(ctx, firstKey{}, strings.HasPrefix(r.Header.Get("Amz-Sdk-Request"), "attempt=1;"))
	r = r.Clone(ctx)
	r.Body = struct {
		io.Reader
		io.Closer
	}{body, r.Body}
	if body.chunked {
		r.TransferEncoding = nil
		r.Header.Set("Content-Length", strconv.FormatInt(body.left, 10))
		r.Header.Del("X-Amz-Decoded-Content-Length")
	}
	r.Header.Set("X-Amz-Content-Sha256", unsignedPayload)
	for _, name := range []string{"If-Match", "If-None-Match", "X-Amz-Copy-Source-If-Match", "X-Amz-Copy-Source-If-None-Match"} {
		if tags := r.Header.Get(name); tags != "" {
			r.Header.Set(name, libraryTags(tags))
		}
	}
	return r
}

// invocationKey is where the context of a request has what the SDK sends with each
// attempt of one call.
type invocationKey struct{}

// firstKey is where it has whether the SDK says that this is the first attempt.
type firstKey struct{}

// sentBefore tells whether an earlier attempt of the same call may have been here.
func sentBefore(ctx context.Context) bool {
	first, _ := ctx.Value(firstKey{}).(bool)
	return invocationOf(ctx) != "" && !first
}

// invocationOf is the id of the call, or "".
func invocationOf(ctx context.Context) string {
	const longest = 128
	id, _ := ctx.Value(invocationKey{}).(string)
	if len(id) > longest {
		return ""
	}
	return id
}

// libraryTags writes the ETags of multipart uploads as libraryHash does.
func libraryTags(tags string) string {
	return regexp.MustCompile(`[0-9a-f]{32}-[0-9]{1,5}`).ReplaceAllStringFunc(tags, func(tag string) string {
		return hex.EncodeToString(libraryHash(tag))
	})
}

// plainTags writes them as clients know them.
func plainTags(tags string) string {
	return regexp.MustCompile(`"[0-9a-f]{36}"`).ReplaceAllStringFunc(tags, func(tag string) string {
		sum, err := hex.DecodeString(strings.Trim(tag, `"`))
		if err != nil {
			return tag
		}
		digest, parts := sum[:len(sum)-2], binary.BigEndian.Uint16(sum[len(sum)-2:])
		return fmt.Sprintf(`"%x-%d"`, digest, parts)
	})
}

// s3Answer is an answer of the library, put right on its way out.
type s3Answer struct {
	http.ResponseWriter
	pace  *pace
	body  *s3Body
	begun bool
}

// Unwrap lets an http.ResponseController through.
func (a *s3Answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader is http.ResponseWriter.WriteHeader.
func (a *s3Answer) WriteHeader(status int) {
	if a.begun {
		return
	}
	a.begun = true
	h := a.Header()
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
	h.Set("Server", "Sluice")
	if tag := h.Get("ETag"); tag != "" {
		h.Set("ETag", plainTags(tag))
	}
	if status == http.StatusInternalServerError && a.body != nil && a.body.fault == Denied {
		status = http.StatusForbidden
	}
	if a.body != nil && a.body.failed() {
		h.Set("Connection", "close") // the rest of the body cannot be told from a request
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write is http.ResponseWriter.Write.
func (a *s3Answer) Write(p []byte) (int, error) {
	if !a.begun {
		if a.Header().Get("Content-Type") == "" {
			a.Header().Set("Content-Type", "application/xml")
		}
		a.WriteHeader(http.StatusOK)
	}
	a.pace.write()
	return a.ResponseWriter.Write(p)
}

// end is for an answer without a body.
func (a *s3Answer) end() {
	if !a.begun {
		a.WriteHeader(http.StatusOK)
	}
}

// failWith answers with an error of the library.
func (a *s3Answer) failWith(r *http.Request, err error) {
	code, what := gofakes3.ErrInternal, "Internal error."
	var known gofakes3.Error
	if errors.As(err, &known) {
		code = known.ErrorCode()
		_, what, _ = strings.Cut(known.Error(), ": ")
	}
	a.fail(r, code.Status(), string(code), what)
}

func (a *s3Answer) fail(r *http.Request, status int, code, what string) {
	doc, err := xml.Marshal(struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}{Code: code, Message: what})
	if err != nil { // it is plain text
		doc = nil
	}
	a.Header().Set("Content-Type", "application/xml")
	a.Header().Set("Connection", "close")
	a.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = a.Write(append([]byte(xml.Header), doc...))
	}
}

// pace holds a client to a rate: in each span of time it has to send, or take, its
// share. Without that a few hundred clients that send a byte a minute hold every
// connection.
type pace struct {
	rc    *http.ResponseController
	stall time.Duration
	rate  int64
	due   int64 // bytes until the next span
}

// A ResponseWriter without deadlines, such as a recorder, goes without.
func (p *pace) begin() {
	_ = p.rc.SetReadDeadline(time.Now().Add(p.stall))
	p.due = int64(float64(p.rate) * p.stall.Seconds())
}

func (p *pace) read(n int) {
	if p.due -= int64(n); p.due <= 0 {
		p.begin()
	}
}

func (p *pace) write() { _ = p.rc.SetWriteDeadline(time.Now().Add(p.stall)) }

// pacedReader is a body that has to arrive at a pace.
type pacedReader struct {
	from io.Reader
	pace *pace
}

// Read is io.Reader.
func (p *pacedReader) Read(buf []byte) (int, error) {
	n, err := p.from.Read(buf)
	if err == nil {
		p.pace.read(n)
	}
	return n, err
}
