package sources

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/rclone/gofakes3"
)

// The ways in which a body is signed: the values of X-Amz-Content-Sha256 besides
// the hash itself.
const (
	unsignedPayload       = "UNSIGNED-PAYLOAD"
	streamingUnsigned     = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	streamingSigned       = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	streamingSignedTailed = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
)

// Of the frame of an aws-chunked body: what a line and the trailers may hold.
const (
	maxChunkLine = 4 << 10
	maxTrailers  = 16 << 10
)

// s3Body is what a client meant to send: the frame of aws-chunked is taken off, and
// its signatures, hashes and checksums are compared. Read gives io.EOF only once all
// of that is right. What was read before may be wrong: keep it back until then.
type s3Body struct {
	from    *bufio.Reader
	left    int64 // of the whole; -1 when it is not known
	chunked bool
	chunk   int64 // left of the chunk
	chunks  int   // begun so far
	last    bool  // the chunk of length 0 was read
	signer  *chunkSigner
	sums    []*bodySum
	trailer string  // the name of the trailer that is due; "" for none
	fault   Outcome // what is wrong with it: Denied, Slow or Aborted; Invalid for all else
	err     error
}

// bodySum is a hash over the body, and what it has to be.
type bodySum struct {
	name string
	hash hash.Hash
	want []byte // nil until the trailer tells
}

// newS3Body takes the body of a request whose head is verified.
func newS3Body(r *http.Request, body io.Reader, sig *signedBy) (*s3Body, error) {
	b := &s3Body{from: bufio.NewReaderSize(body, maxChunkLine), left: r.ContentLength, fault: Invalid}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if sig.presigned {
		payload = unsignedPayload // the library holds the signature against that
	}
	switch payload {
	case unsignedPayload:
	case streamingUnsigned, streamingSigned, streamingSignedTailed:
		if err := b.unframe(r, payload, sig); err != nil {
			return nil, err
		}
	case "":
		b.expect("x-amz-content-sha256", sha256.New(), sha256.New().Sum(nil))
	default:
		want, err := hex.DecodeString(payload)
		if err != nil || len(want) != sha256.Size {
			return nil, gofakes3.ErrorInvalidArgument("x-amz-content-sha256", payload, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a streaming form with HMAC, or a SHA-256 in hex")
		}
		b.expect("x-amz-content-sha256", sha256.New(), want)
	}
	return b, b.partChecksum(r)
}

// unframe prepares for an aws-chunked body.
func (b *s3Body) unframe(r *http.Request, payload string, sig *signedBy) error {
	length, err := strconv.ParseInt(r.Header.Get("X-Amz-Decoded-Content-Length"), 10, 64)
	if err != nil || length < 0 {
		return gofakes3.ErrMissingContentLength
	}
	b.left, b.chunked = length, true
	if payload != streamingUnsigned {
		b.signer = newChunkSigner(sig)
	}
	if payload == streamingSigned {
		return nil
	}
	b.trailer = strings.ToLower(strings.TrimSpace(r.Header.Get("X-Amz-Trailer")))
	if b.trailer == "" {
		return nil
	}
	newHash := checksumHash(strings.TrimPrefix(b.trailer, "x-amz-checksum-"))
	if newHash == nil {
		return gofakes3.ErrorInvalidArgument("x-amz-trailer", b.trailer, "x-amz-trailer must be one x-amz-checksum- header that is known")
	}
	b.expect(b.trailer, newHash, nil)
	return nil
}

func (b *s3Body) expect(name string, h hash.Hash, want []byte) {
	b.sums = append(b.sums, &bodySum{name: name, hash: h, want: want})
}

// partChecksum compares the checksum in the head of a part, which the library
// leaves alone.
func (b *s3Body) partChecksum(r *http.Request) error {
	if r.Method != http.MethodPut || r.URL.Query().Get("uploadId") == "" {
		return nil
	}
	for _, algorithm := range []string{"crc32", "crc32c", "crc64nvme", "sha1", "sha256"} {
		name := "x-amz-checksum-" + algorithm
		text := r.Header.Get(name)
		if text == "" {
			continue
		}
		newHash := checksumHash(algorithm)
		want, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(want) != newHash.Size() {
			return gofakes3.ErrorInvalidArgument(name, text, "The checksum is not one in base64.")
		}
		b.expect(name, newHash, want)
	}
	return nil
}

// checksumHash is the hash of an algorithm of S3, or nil.
func checksumHash(algorithm string) hash.Hash {
	const nvme = 0x9a6c9329ac4bc9b5
	switch algorithm {
	case "crc32":
		return crc32.NewIEEE()
	case "crc32c":
		return crc32.New(crc32.MakeTable(crc32.Castagnoli))
	case "crc64nvme":
		return crc64.New(crc64.MakeTable(nvme))
	case "sha1":
		return sha1.New()
	case "sha256":
		return sha256.New()
	}
	return nil
}

// Read is io.Reader.
func (b *s3Body) Read(p []byte) (int, error) {
	n := 0
	if b.err == nil && b.left != 0 {
		n, b.err = b.read(p)
	}
	// The end is checked with the last byte: who reads no more than was announced
	// never asks for what comes after it.
	if b.err == nil && b.left == 0 {
		if b.err = b.end(); b.err == nil {
			b.err = io.EOF
		}
	}
	return n, b.err
}

func (b *s3Body) read(p []byte) (int, error) {
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	if b.chunked {
		for b.chunk == 0 {
			if err := b.nextChunk(); err != nil {
				return 0, err
			}
			if b.last {
				return 0, gofakes3.ErrorMessage(gofakes3.ErrIncompleteBody, "The chunks hold less than x-amz-decoded-content-length says.")
			}
		}
		p = p[:min(int64(len(p)), b.chunk)]
	}
	n, err := b.from.Read(p)
	for _, s := range b.sums {
		s.hash.Write(p[:n])
	}
	if b.signer != nil {
		b.signer.data.Write(p[:n])
	}
	if b.chunked {
		b.chunk -= int64(n)
	}
	if b.left > 0 {
		b.left -= int64(n)
	}
	switch {
	case errors.Is(err, io.EOF) && b.left < 0:
		b.left, err = 0, nil
	case errors.Is(err, io.EOF) && b.left == 0 && !b.chunked:
		err = nil
	case err != nil:
		err = b.cut(err)
	}
	return n, err
}

// end checks what comes after the last byte, and the sums.
func (b *s3Body) end() error {
	if b.chunked {
		for !b.last {
			if b.chunk != 0 {
				return errMalformedChunks("the chunks hold more than x-amz-decoded-content-length says")
			}
			if err := b.nextChunk(); err != nil {
				return err
			}
		}
		if err := b.trailers(); err != nil {
			return err
		}
	}
	for _, s := range b.sums {
		if subtle.ConstantTimeCompare(s.hash.Sum(nil), s.want) != 1 {
			return gofakes3.ErrorMessagef(gofakes3.ErrBadDigest, "The %s you specified did not match what we received.", s.name)
		}
	}
	return nil
}

// verify reads what is left, which has to be nothing, and tells whether the body is
// what the client signed.
func (b *s3Body) verify() error {
	var scratch [1]byte
	for b.err == nil {
		if n, _ := b.Read(scratch[:]); n > 0 {
			return gofakes3.ErrorMessage(gofakes3.ErrIncompleteBody, "The body is longer than its announced length.")
		}
	}
	if errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// failed tells whether something was wrong with what was read.
func (b *s3Body) failed() bool { return b.err != nil && !errors.Is(b.err, io.EOF) }

// nextChunk reads the head of the next chunk, after the end of the one before.
func (b *s3Body) nextChunk() error {
	if b.chunks > 0 {
		if line, err := b.line(); err != nil || line != "" {
			return orMalformed(err, "a chunk does not end with a line break")
		}
		if err := b.signed(); err != nil {
			return err
		}
	}
	b.chunks++
	line, err := b.line()
	if err != nil {
		return err
	}
	size, extension, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 62)
	if err != nil {
		return errMalformedChunks("a chunk does not begin with its size in hex")
	}
	b.chunk, b.last = int64(n), n == 0
	if b.signer == nil {
		return nil
	}
	signature, ok := strings.CutPrefix(strings.TrimSpace(extension), "chunk-signature=")
	if !ok {
		return b.deny("A chunk of the body is not signed.")
	}
	b.signer.claimed = signature
	if b.last {
		return b.signed()
	}
	return nil
}

// signed checks the signature of the chunk that has just ended.
func (b *s3Body) signed() error {
	if b.signer == nil || b.signer.check("AWS4-HMAC-SHA256-PAYLOAD") {
		return nil
	}
	return b.deny("The signature of a chunk of the body does not match.")
}

// trailers reads what stands behind the last chunk, to the end.
func (b *s3Body) trailers() error {
	text, err := io.ReadAll(io.LimitReader(b.from, maxTrailers+1))
	if err != nil {
		return b.cut(err)
	}
	if len(text) > maxTrailers {
		return errMalformedChunks("the trailers are too long")
	}
	var canonical bytes.Buffer
	signature := ""
	for line := range strings.Lines(string(text)) {
		name, content, ok := strings.Cut(strings.TrimSpace(line), ":")
		name, content = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(content)
		switch {
		case !ok && name == "":
		case !ok:
			return errMalformedChunks("a trailer has no colon")
		case name == "x-amz-trailer-signature":
			signature = content
		case name != b.trailer || canonical.Len() > 0:
			return errMalformedChunks("a trailer was not announced by x-amz-trailer")
		default:
			fmt.Fprintf(&canonical, "%s:%s\n", name, content)
			if err := b.want(name, content); err != nil {
				return err
			}
		}
	}
	if b.trailer != "" && canonical.Len() == 0 {
		return errMalformedChunks("the trailer that x-amz-trailer announces is missing")
	}
	if b.signer != nil && canonical.Len() > 0 {
		b.signer.claimed = signature
		b.signer.data.Write(canonical.Bytes())
		if !b.signer.check("AWS4-HMAC-SHA256-TRAILER") {
			return b.deny("The signature of the trailers does not match.")
		}
	}
	return nil
}

// want notes the checksum of a trailer.
func (b *s3Body) want(name, text string) error {
	for _, s := range b.sums {
		if s.name != name {
			continue
		}
		want, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(want) != s.hash.Size() {
			return gofakes3.ErrorInvalidArgument(name, text, "The checksum is not one in base64.")
		}
		s.want = want
	}
	return nil
}

// line reads one line of the frame, without its end.
func (b *s3Body) line() (string, error) {
	line, err := b.from.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errMalformedChunks("a line is too long")
	}
	if err != nil {
		return "", b.cut(err)
	}
	return strings.TrimSuffix(string(line[:len(line)-1]), "\r"), nil
}

// checksums are those that were compared, in the form of metadata.
func (b *s3Body) checksums() map[string]string {
	found := make(map[string]string)
	for _, s := range b.sums {
		if strings.HasPrefix(s.name, "x-amz-checksum-") {
			found[http.CanonicalHeaderKey(s.name)] = base64.StdEncoding.EncodeToString(s.want)
		}
	}
	return found
}

// deny notes that a signature is wrong: that is a 403. Errors of the library are
// written to when they are answered, so each has to be a new one.
func (b *s3Body) deny(what string) error {
	b.fault = Denied
	return gofakes3.ErrorMessage("SignatureDoesNotMatch", what)
}

func errMalformedChunks(what string) error {
	return gofakes3.ErrorMessage(gofakes3.ErrIncompleteBody, "The aws-chunked body is malformed: "+what+".")
}

func orMalformed(err error, what string) error {
	if err != nil {
		return err
	}
	return errMalformedChunks(what)
}

// cut is what reading a request can end with.
func (b *s3Body) cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if errors.Is(readFault(err), errSlow) {
		b.fault = Slow
		return gofakes3.ErrorMessage(gofakes3.ErrIncompleteBody, "Your body did not arrive in time: send faster.")
	}
	b.fault = Aborted
	return gofakes3.ErrorMessage(gofakes3.ErrIncompleteBody, "The body ended before its announced length.")
}

// bodyKey is where the context of a request has its s3Body.
type bodyKey struct{}

// bodyOf is the body of the request, or nil.
func bodyOf(ctx context.Context) *s3Body {
	b, _ := ctx.Value(bodyKey{}).(*s3Body)
	return b
}
