package sources_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks/sinktest"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

func TestS3ServeValidate(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*sources.S3Serve){
		"serve.buckets":                     func(s *sources.S3Serve) { s.Buckets = nil },
		`"Up" is no name`:                   func(s *sources.S3Serve) { s.Buckets = []string{"Up"} },
		"there twice":                       func(s *sources.S3Serve) { s.Buckets = []string{"one", "one"} },
		"serve.credentials is missing":      func(s *sources.S3Serve) { s.Credentials = nil },
		"credentials[0].access_key":         func(s *sources.S3Serve) { s.Credentials[0].AccessKey = "a/b" },
		"credentials[0].secret_key":         func(s *sources.S3Serve) { s.Credentials[0].SecretKey = value.Secret{} },
		"credentials[1].access_key":         func(s *sources.S3Serve) { s.Credentials = append(s.Credentials, s.Credentials[0]) },
		"serve.listen":                      func(s *sources.S3Serve) { s.Listen = "localhost" },
		`"10.0.0.1" is not the name`:        func(s *sources.S3Serve) { s.Domain = "10.0.0.1" },
		`"s3.example.com:80" is not the`:    func(s *sources.S3Serve) { s.Domain = "s3.example.com:80" },
		"serve.tls":                         func(s *sources.S3Serve) { s.TLS.Cert = "cert.pem" },
		"serve.limits":                      func(s *sources.S3Serve) { s.Limits.Object = -1 },
		"serve.retain":                      func(s *sources.S3Serve) { s.Retain.Age = -1 },
		"serve.forward.secret_key":          func(s *sources.S3Serve) { s.Forward = &sources.S3Remote{Bucket: "x", AccessKey: "a"} },
		"serve.forward.bucket":              func(s *sources.S3Serve) { s.Forward = &sources.S3Remote{} },
		"serve.forward is one bucket":       func(s *sources.S3Serve) { s.Forward = &sources.S3Remote{Bucket: "x"} },
		"serve.retain.age is about objects": func(s *sources.S3Serve) { s.Forward, s.Retain.Age = &sources.S3Remote{}, 1 },
	} {
		s := serveSettings()
		spoil(s.Serve)
		var all []string
		for _, f := range s.Validate() {
			all = append(all, f.Key+" "+f.Msg)
		}
		if got := strings.Join(all, "\n"); !strings.Contains(got, want) {
			t.Errorf("want %q, got %q", want, got)
		}
	}
	if faults := serveSettings().Validate(); len(faults) > 0 {
		t.Errorf("good settings: %v", faults)
	}
}

// signedPut is a PUT with a body and a hash of the test's choice.
func signedPut(t *testing.T, url, secret, payload, body string, header http.Header) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range header {
		req.Header[name] = v
	}
	req.Header.Set("X-Amz-Content-Sha256", payload)
	who := aws.Credentials{AccessKeyID: serveAccess, SecretAccessKey: secret}
	if err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(t.Context(), who, req, payload, "s3", "eu-central-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	return req
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func crc(text string) string {
	sum := crc32.ChecksumIEEE([]byte(text))
	return base64.StdEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// Nothing that is refused leaves an object, a file or an event.
func TestS3ServeRefuses(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	url := e.url() + "/uploads/k"
	const (
		otherSum  = "0000000000000000000000000000000000000000000000000000000000000000"
		streaming = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	)
	unsigned, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	tampered := signedPut(t, url, serveSecret, "UNSIGNED-PAYLOAD", "x", nil)
	tampered.URL.Path = "/uploads/other"
	added := signedPut(t, url, serveSecret, "UNSIGNED-PAYLOAD", "x", nil)
	added.Header.Set("X-Amz-Copy-Source", "other/k")
	trailer := func(sum string) *http.Request {
		frame := "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + sum + "\r\n\r\n"
		return signedPut(t, url, serveSecret, streaming, frame, http.Header{
			"X-Amz-Decoded-Content-Length": {"5"}, "X-Amz-Trailer": {"x-amz-checksum-crc32"}, "Content-Encoding": {"aws-chunked"},
		})
	}
	empty := signedPut(t, url, serveSecret, streaming, "0\r\nx-amz-checksum-crc32:"+crc("other")+"\r\n\r\n", http.Header{
		"X-Amz-Decoded-Content-Length": {"0"}, "X-Amz-Trailer": {"x-amz-checksum-crc32"},
	})
	noTrailer := signedPut(t, url, serveSecret, streaming, "1\r\nx\r\n0\r\n\r\n", http.Header{"X-Amz-Decoded-Content-Length": {"1"}, "X-Amz-Trailer": {"x-amz-checksum-crc32"}})
	form := signedPut(t, e.url()+"/uploads", serveSecret, "UNSIGNED-PAYLOAD", "x", nil)
	form.Method = http.MethodPost
	part := func(sum string) *http.Request {
		return signedPut(t, url+"?partNumber=1&uploadId=none", serveSecret, "UNSIGNED-PAYLOAD", "x", http.Header{"X-Amz-Checksum-Crc32": {sum}})
	}
	for name, tt := range map[string]struct {
		req    *http.Request
		status int
		code   string
	}{
		"no signature":                      {unsigned, 403, "AccessDenied"},
		"another secret":                    {signedPut(t, url, "wrong", "UNSIGNED-PAYLOAD", "x", nil), 403, "SignatureDoesNotMatch"},
		"another path":                      {tampered, 403, "SignatureDoesNotMatch"},
		"a header added":                    {added, 403, "AccessDenied"},
		"another body":                      {signedPut(t, url, serveSecret, otherSum, "x", nil), 400, "BadDigest"},
		"no hash":                           {signedPut(t, url, serveSecret, "nonsense", "x", nil), 400, "InvalidArgument"},
		"another crc32":                     {signedPut(t, url, serveSecret, "UNSIGNED-PAYLOAD", "x", http.Header{"X-Amz-Checksum-Crc32": {crc("y")}}), 400, "BadDigest"},
		"another md5":                       {signedPut(t, url, serveSecret, "UNSIGNED-PAYLOAD", "x", http.Header{"Content-Md5": {"AAAAAAAAAAAAAAAAAAAAAA=="}}), 400, "BadDigest"},
		"another crc32 at the end":          {trailer(crc("other")), 400, "BadDigest"},
		"no trailer":                        {noTrailer, 400, "IncompleteBody"},
		"nothing with a crc32 of something": {empty, 400, "BadDigest"},
		"nothing with a hash of something":  {signedPut(t, url, serveSecret, otherSum, "", nil), 400, "BadDigest"},
		"a form":                            {form, 403, "SignatureDoesNotMatch"},
		"a part of nothing":                 {part(crc("x")), 404, "NoSuchUpload"},
		"a part with no checksum":           {part("?"), 400, "InvalidArgument"},
		"a chunk with a false signature": {signedPut(t, url, serveSecret, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
			"1;chunk-signature="+otherSum+"\r\nx\r\n0;chunk-signature="+otherSum+"\r\n\r\n", http.Header{"X-Amz-Decoded-Content-Length": {"1"}}), 403, "SignatureDoesNotMatch"},
		"a chunk with no signature": {signedPut(t, url, serveSecret, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
			"1\r\nx\r\n0\r\n\r\n", http.Header{"X-Amz-Decoded-Content-Length": {"1"}}), 403, "SignatureDoesNotMatch"},
	} {
		if status, text := do(t, tt.req); status != tt.status || !strings.Contains(text, "<Code>"+tt.code+"</Code>") {
			t.Errorf("%s: %d %s, want %d %s", name, status, text, tt.status, tt.code)
		}
	}
	e.wantTold()
	if files := e.files(); len(files) > 0 {
		t.Errorf("files are left: %v", files)
	}
	if seen := e.host.Observed(); seen[sources.Denied] != 7 || seen[sources.Invalid] == 0 || seen[sources.Accepted] != 0 {
		t.Errorf("what was refused is counted as %v", seen)
	}
	if status, text := do(t, trailer(crc("hello"))); status != 200 {
		t.Errorf("a good trailer: %d %s", status, text)
	}
	if got, err := e.get("k"); string(got) != "hello" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

func TestS3ServePresigned(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	signer := s3.NewPresignClient(e.client())
	put, err := signer.PresignPutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("a b")})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, url, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return do(t, req)
	}
	if status, text := ask(http.MethodPut, put.URL, "hello"); status != 200 {
		t.Errorf("PUT: %d %s", status, text)
	}
	get, err := signer.PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("a b")})
	if err != nil {
		t.Fatal(err)
	}
	if status, text := ask(http.MethodGet, get.URL, ""); status != 200 || text != "hello" {
		t.Errorf("GET: %d %s", status, text)
	}
	if status, _ := ask(http.MethodPut, get.URL, "x"); status != 403 {
		t.Errorf("PUT with what was signed for GET: %d", status)
	}
	if status, _ := ask(http.MethodGet, strings.Replace(get.URL, "X-Amz-Expires=900", "X-Amz-Expires=901", 1), ""); status != 403 {
		t.Errorf("a longer life: %d", status)
	}
	e.wantTold("object.created.put a b 5")
}

// The examples of the specification of signatures of chunks, with and without a
// trailer.
func TestS3ServeChunkSignatures(t *testing.T) {
	t.Parallel()
	const (
		secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
		who    = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host,Signature="
	)
	body := strings.Repeat("a", 66560)
	frame := func(one, two, end, trailers string) string {
		return fmt.Sprintf("10000;chunk-signature=%s\r\n%s\r\n400;chunk-signature=%s\r\n%s\r\n0;chunk-signature=%s\r\n%s\r\n", one, body[:65536], two, body[65536:], end, trailers)
	}
	head := func(payload, seed, trailer string) *http.Request {
		r := &http.Request{Method: http.MethodPut, URL: s3URL(t, "/k"), Header: http.Header{
			"Authorization": {who + seed}, "X-Amz-Date": {"20130524T000000Z"}, "X-Amz-Content-Sha256": {payload}, "X-Amz-Decoded-Content-Length": {"66560"},
		}}
		if trailer != "" {
			r.Header.Set("X-Amz-Trailer", trailer)
		}
		return r
	}
	plain := frame("ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
		"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", "")
	tailed := frame("b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2", "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
		"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
		"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n")
	const (
		seed       = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
		tailedSeed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
		signed     = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	)
	for name, tt := range map[string]struct {
		r     *http.Request
		frame string
		want  string // of the error; "" for none
	}{
		"the example":               {head(signed, seed, ""), plain, ""},
		"with a trailer":            {head(signed+"-TRAILER", tailedSeed, "x-amz-checksum-crc32c"), tailed, ""},
		"a byte changed":            {head(signed, seed, ""), strings.Replace(plain, "aaaa", "aaba", 1), "SignatureDoesNotMatch"},
		"another seed":              {head(signed, tailedSeed, ""), plain, "SignatureDoesNotMatch"},
		"the last chunk cut off":    {head(signed, seed, ""), plain[:strings.LastIndex(plain, "\r\n0;")], "IncompleteBody"},
		"no signature of a trailer": {head(signed+"-TRAILER", tailedSeed, "x-amz-checksum-crc32c"), tailed[:strings.Index(tailed, "x-amz-trailer-sig")], "SignatureDoesNotMatch"},
		"a trailer not announced":   {head(signed+"-TRAILER", tailedSeed, ""), tailed, "IncompleteBody"},
		"a trailer changed":         {head(signed+"-TRAILER", tailedSeed, "x-amz-checksum-crc32c"), strings.Replace(tailed, "sOO8", "sOO9", 1), "SignatureDoesNotMatch"},
		"an algorithm unknown":      {head(signed+"-TRAILER", tailedSeed, "x-amz-checksum-md4"), tailed, "InvalidArgument"},
		"an endless line":           {head(signed, seed, ""), strings.Repeat("0", 1<<16), "IncompleteBody"},
		"a size below nothing":      {head(signed, seed, ""), "-1;chunk-signature=x\r\n", "IncompleteBody"},
	} {
		got, err := sources.ReadS3Body(tt.r, secret, tt.frame)
		switch {
		case tt.want == "" && (err != nil || string(got) != body):
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// The same call again, as SDKs do it, is the same event; another call is another.
func TestS3ServeBusRefuses(t *testing.T) {
	t.Parallel()
	var refuse atomic.Bool
	refuse.Store(true)
	pub := &sourcetest.Publisher{Before: func(context.Context) error {
		if refuse.Load() {
			return bus.ErrFull
		}
		return nil
	}}
	e := serveOn(t, sourcetest.NewHost(t), serveSettings(), pub)
	put := func(invocation string) error {
		c := e.client(func(o *s3.Options) { o.APIOptions = append(o.APIOptions, invokedAs(invocation)) })
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), Body: strings.NewReader("same")})
		return err
	}
	var answer *smithyhttp.ResponseError
	if err := put("call-1"); !errors.As(err, &answer) || answer.HTTPStatusCode() != 503 || !strings.Contains(err.Error(), "SlowDown") {
		t.Fatalf("while the store is full: %v", err)
	}
	if got := e.host.Observed()[sources.Full]; got == 0 {
		t.Errorf("nothing is counted as full: %v", e.host.Observed())
	}
	refuse.Store(false)
	if err := put("call-1"); err != nil {
		t.Fatal(err)
	}
	if err := put("call-2"); err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for _, ev := range pub.Stored() {
		ids[ev.ID()]++
	}
	if len(ids) != 2 {
		t.Errorf("two calls are %d events: %v", len(ids), ids)
	}
	until(t, "the error is gone", func() bool { return e.host.Reported() == nil })
}

// invokedAs sends the invocation id that an SDK gives to each attempt of a call.
func invokedAs(id string) func(*middleware.Stack) error {
	return func(stack *middleware.Stack) error {
		return stack.Finalize.Add(middleware.FinalizeMiddlewareFunc("invoked", func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput, middleware.Metadata, error) {
			in.Request.(*smithyhttp.Request).Header.Set("Amz-Sdk-Invocation-Id", id)
			return next.HandleFinalize(ctx, in)
		}), middleware.Before)
	}
}

// An upload that is on disk while its event is not on the bus is told of after a
// restart, as is a removal.
func TestS3ServeOwesEvents(t *testing.T) {
	t.Parallel()
	host := sourcetest.NewHost(t)
	var refuse atomic.Bool
	e := serveOn(t, host, serveSettings(), &sourcetest.Publisher{Before: func(context.Context) error {
		if refuse.Load() {
			return bus.ErrOverloaded
		}
		return nil
	}})
	if err := e.put("gone", "x"); err != nil {
		t.Fatal(err)
	}
	refuse.Store(true)
	if err := e.put("kept", "hello"); err == nil {
		t.Fatal("acknowledged without its event")
	}
	if _, err := e.client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("gone")}); err == nil {
		t.Fatal("acknowledged without its event")
	}
	e.stop()
	e = serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	until(t, "both events", func() bool { return len(e.told()) == 2 })
	if told := strings.Join(e.told(), "; "); !strings.Contains(told, "object.created.put kept 5") || !strings.Contains(told, "object.removed.delete gone") {
		t.Errorf("the events are %s", told)
	}
	if got, err := e.get("kept"); string(got) != "hello" {
		t.Errorf("it holds %q, %v", got, err)
	}
	e.stop()
	e = serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	if err := e.put("after", "x"); err != nil {
		t.Fatal(err)
	}
	e.wantTold("object.created.put after 1")
}

// raw sends the head of a signed upload and leaves the body to the test.
func raw(t *testing.T, e *endpoint, length int) net.Conn {
	t.Helper()
	req := signedPut(t, e.url()+"/uploads/cut", serveSecret, "UNSIGNED-PAYLOAD", strings.Repeat("x", length), http.Header{"Expect": {"100-continue"}})
	conn, err := net.Dial("tcp", sources.S3Addr(e.src))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "PUT /uploads/cut HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", req.Host, length)
	if err := req.Header.Write(conn); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("the server says %q, %v", line, err)
	}
	return conn
}

func TestS3ServeCutAndSlow(t *testing.T) {
	t.Parallel()
	s := serveSettings()
	s.Serve.Limits.Stall = value.Duration(300 * time.Millisecond)
	e := serveOn(t, sourcetest.NewHost(t), s, &sourcetest.Publisher{})
	cut := raw(t, e, 1<<20)
	fmt.Fprint(cut, strings.Repeat("x", 1<<19))
	until(t, "a file is begun", func() bool { return len(e.files()) == 1 })
	_ = cut.Close()
	until(t, "the file is removed", func() bool { return len(e.files()) == 0 })

	slow := raw(t, e, 1<<20)
	fmt.Fprint(slow, "x")
	_ = slow.SetReadDeadline(time.Now().Add(10 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a sender that stalls gets %v, %v", resp, err)
	}
	until(t, "both are counted", func() bool { seen := e.host.Observed(); return seen[sources.Aborted] == 1 && seen[sources.Slow] == 1 })
	until(t, "the file is removed", func() bool { return len(e.files()) == 0 })
	e.wantTold()
}

func TestS3ServeTooLarge(t *testing.T) {
	t.Parallel()
	s := serveSettings()
	s.Serve.Limits.Object = 1000
	e := serveOn(t, sourcetest.NewHost(t), s, &sourcetest.Publisher{})
	if err := e.put("k", strings.Repeat("x", 1001)); err == nil || !strings.Contains(err.Error(), "EntityTooLarge") {
		t.Errorf("too large: %v", err)
	}
	if err := e.put("k", strings.Repeat("x", 1000)); err != nil {
		t.Error(err)
	}
	e.wantTold("object.created.put k 1000")
}

// What a crash leaves without a record goes at the next start.
func TestS3ServeSweeps(t *testing.T) {
	t.Parallel()
	host := sourcetest.NewHost(t)
	e := serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	if err := e.put("k", "kept"); err != nil {
		t.Fatal(err)
	}
	e.stop()
	stray := filepath.Join(filepath.Dir(e.files()[0]), strings.Repeat("0", 32))
	if err := os.WriteFile(stray, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(stray, old, old); err != nil {
		t.Fatal(err)
	}
	e = serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	until(t, "the stray file is removed", func() bool { return len(e.files()) == 1 })
	if got, err := e.get("k"); string(got) != "kept" {
		t.Errorf("it holds %q, %v", got, err)
	}
}

func TestS3ServeRetain(t *testing.T) {
	t.Parallel()
	host := sourcetest.NewHost(t)
	e := serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	if err := e.put("k", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String(serveBucket), Key: aws.String("m")}); err != nil {
		t.Fatal(err)
	}
	e.stop()
	s := serveSettings()
	s.Serve.Retain = sources.S3Retain{Age: 1, Unfinished: 1}
	e = serveOn(t, host, s, &sourcetest.Publisher{})
	until(t, "the object expires", func() bool { return len(e.told()) == 1 && len(e.files()) == 0 })
	e.wantTold("object.lifecycle_expiration.delete k")
	list, err := e.client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: aws.String(serveBucket)})
	if err != nil || len(list.Uploads) != 0 {
		t.Errorf("the uploads are %+v, %v", list, err)
	}
}

// The certificate is replaced while the endpoint listens.
func TestS3ServeTLS(t *testing.T) {
	t.Parallel()
	first, second := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	dir, s := t.TempDir(), serveSettings()
	cert, key := first.ServerPEM("127.0.0.1", time.Hour)
	_, s.Serve.TLS.Cert, s.Serve.TLS.Key = first.Install(dir, cert, key)
	e := serveOn(t, sourcetest.NewHost(t), s, &sourcetest.Publisher{})
	put := func(trusted *sinktest.Authority) error {
		c := clientOf("https://"+sources.S3Addr(e.src), serveAccess, serveSecret, func(o *s3.Options) {
			o.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted.Pool(), MinVersion: tls.VersionTLS12}}}
		})
		// A body that cannot be read twice goes out in chunks with a trailer over TLS.
		body := struct{ io.Reader }{bytes.NewReader(bytes.Repeat([]byte("0123456789"), 50000))}
		_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), Body: body})
		return err
	}
	if err := put(first); err != nil {
		t.Fatal(err)
	}
	cert, key = second.ServerPEM("127.0.0.1", time.Hour)
	second.Install(dir, cert, key)
	if err := put(second); err != nil {
		t.Errorf("the new certificate is not shown: %v", err)
	}
	if put(first) == nil {
		t.Error("the old certificate is still shown")
	}
	e.wantTold("object.created.put k 500000", "object.created.put k 500000")
}

// Who cannot sign cannot fill the log either.
func TestS3ServeLogsStrangersOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	host := sourcetest.NewHost(t)
	host.Log = slog.New(slog.NewTextHandler(&log, nil))
	e := serveOn(t, host, serveSettings(), &sourcetest.Publisher{})
	for range 20 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, e.url()+"/"+serveBucket+"/k", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusForbidden {
			t.Fatalf("%s, %v", res.Status, err)
		}
	}
	e.stop()
	if n := strings.Count(log.String(), "not signed"); n != 1 || host.Observed()[sources.Denied] != 20 {
		t.Errorf("%d lines for %v:\n%s", n, host.Observed(), log.String())
	}
}

func TestS3ServeAddressTaken(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	s := serveSettings()
	s.Serve.Listen = sources.S3Addr(e.src)
	err := sourcetest.NewHost(t).Open(t, s).Run(t.Context(), e.pub)
	if err == nil || !strings.Contains(err.Error(), "serve.listen") {
		t.Errorf("Run: %v", err)
	}
}

func FuzzS3Body(f *testing.F) {
	f.Add("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "5", "x-amz-checksum-crc32", "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n")
	f.Add("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "1", "", "1;chunk-signature=00\r\nx\r\n0;chunk-signature=00\r\n\r\n")
	f.Add("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "0", "", "0\r\n\r\n")
	f.Add("UNSIGNED-PAYLOAD", "", "", "hello")
	f.Fuzz(func(t *testing.T, payload, length, trailer, frame string) {
		r := &http.Request{Method: http.MethodPut, URL: s3URL(t, "/k"), ContentLength: int64(len(frame)), Header: http.Header{
			"Authorization":        {"AWS4-HMAC-SHA256 Credential=a/20130524/r/s3/aws4_request,SignedHeaders=host,Signature=00"},
			"X-Amz-Content-Sha256": {payload}, "X-Amz-Decoded-Content-Length": {length}, "X-Amz-Trailer": {trailer},
		}}
		got, err := sources.ReadS3Body(r, "secret", frame)
		if err != nil {
			return
		}
		if len(got) > len(frame) {
			t.Errorf("%d bytes come out of %d", len(got), len(frame))
		}
		if strings.HasPrefix(payload, "STREAMING-") && fmt.Sprint(len(got)) != strings.TrimLeft(length, "+0") && len(got) != 0 {
			t.Errorf("%d bytes, announced %q", len(got), length)
		}
		if payload == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" {
			t.Errorf("nobody knows the secret, and %q is taken", frame)
		}
	})
}

// Who asks for an object and does not take it is cut off, and holds no files.
func TestS3ServeSlowReader(t *testing.T) {
	t.Parallel()
	s := serveSettings()
	s.Serve.Limits.Stall = value.Duration(300 * time.Millisecond)
	e := serveOn(t, sourcetest.NewHost(t), s, &sourcetest.Publisher{})
	if err := e.put("k", strings.Repeat("x", 64<<20)); err != nil {
		t.Fatal(err)
	}
	out, err := e.client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k")})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if err := e.put("k", "new"); err != nil {
		t.Fatal(err)
	}
	until(t, "the old file is let go", func() bool { return len(e.files()) == 1 })
	if n, err := io.Copy(io.Discard, out.Body); err == nil {
		t.Errorf("%d bytes came to the end", n)
	}
}
