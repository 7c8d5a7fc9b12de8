package sources

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"net/http"
	"strings"
)

// signedBy is who signed a request, and what its body is signed with in turn.
type signedBy struct {
	accessKey string
	secret    string
	scope     string // date/region/s3/aws4_request
	date      string // X-Amz-Date
	signature string
	presigned bool
}

// readSignature takes the parts of a signature that the library has verified.
func readSignature(r *http.Request) (signedBy, bool) {
	auth := r.Header.Get("Authorization")
	if auth == "" {
		q := r.URL.Query()
		by := signedBy{presigned: true, date: q.Get("X-Amz-Date"), signature: q.Get("X-Amz-Signature")}
		return by, by.credential(q.Get("X-Amz-Credential"))
	}
	by := signedBy{date: r.Header.Get("X-Amz-Date")}
	found := false
	_, fields, _ := strings.Cut(auth, " ")
	for field := range strings.SplitSeq(fields, ",") {
		name, content, _ := strings.Cut(strings.TrimSpace(field), "=")
		switch name {
		case "Credential":
			found = by.credential(content)
		case "Signature":
			by.signature = content
		}
	}
	return by, found
}

// credential takes apart key/date/region/s3/aws4_request.
func (s *signedBy) credential(text string) bool {
	const scopeParts = 4
	at := len(text)
	for range scopeParts {
		if at = strings.LastIndexByte(text[:at], '/'); at < 0 {
			return false
		}
	}
	s.accessKey, s.scope = text[:at], text[at+1:]
	return true
}

// chunkSigner computes the signatures of an aws-chunked body, of which each covers
// the one before it.
type chunkSigner struct {
	key      []byte
	date     string
	scope    string
	previous string
	claimed  string
	data     hash.Hash // of the chunk
}

func newChunkSigner(by *signedBy) *chunkSigner {
	key := []byte("AWS4" + by.secret)
	for part := range strings.SplitSeq(by.scope, "/") {
		key = hmacSHA256(key, part)
	}
	return &chunkSigner{key: key, date: by.date, scope: by.scope, previous: by.signature, data: sha256.New()}
}

// check compares the claimed signature of the data, and goes on to the next.
func (s *chunkSigner) check(algorithm string) bool {
	const nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // the SHA-256 of ""
	lines := []string{algorithm, s.date, s.scope, s.previous}
	if algorithm == "AWS4-HMAC-SHA256-PAYLOAD" {
		lines = append(lines, nothing)
	}
	lines = append(lines, hex.EncodeToString(s.data.Sum(nil)))
	s.previous = hex.EncodeToString(hmacSHA256(s.key, strings.Join(lines, "\n")))
	s.data.Reset()
	return subtle.ConstantTimeCompare([]byte(s.previous), []byte(s.claimed)) == 1
}

func hmacSHA256(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
