package sinks_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/rclone/gofakes3/signature"

	"sluice/config/value"
	"sluice/sinks"
)

const (
	accessKey = "AKIDEXAMPLE"
	secretKey = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

func sigV4(service string) *sinks.HTTPSigV4 {
	return &sinks.HTTPSigV4{Region: "eu-central-1", Service: service, AccessKey: accessKey, SecretKey: secret(secretKey)}
}

// checkSigV4 says what is wrong with the signature of a request as it arrived. It
// is written from AWS's description ("Create a signed AWS API request") and shares
// no code with the signer. The headers signed must be.
func checkSigV4(r *http.Request, body []byte, signed ...string) string {
	auth, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="+accessKey+"/")
	parts := strings.Split(auth, ", ")
	if !ok || len(parts) != 3 {
		return "Authorization is " + r.Header.Get("Authorization")
	}
	scope, names := parts[0], strings.Split(strings.TrimPrefix(parts[1], "SignedHeaders="), ";")
	for _, must := range append(signed, "host", "x-amz-date", "x-amz-content-sha256") {
		if !slices.Contains(names, must) {
			return must + " is not signed"
		}
	}
	var headers string
	for _, name := range names {
		text := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			text = r.Host
		case "content-length":
			text = fmt.Sprint(r.ContentLength)
		}
		headers += name + ":" + strings.Join(strings.Fields(text), " ") + "\n"
	}
	var path string // all services but S3 escape the path that is escaped already
	for i, segment := range strings.Split(r.URL.EscapedPath(), "/") {
		if i > 0 {
			path += "/"
		}
		path += strings.ReplaceAll(url.QueryEscape(segment), "+", "%20")
	}
	hash := func(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }
	query := strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20")
	canonical := strings.Join([]string{r.Method, path, query, headers, strings.Join(names, ";"), hash(body)}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hash([]byte(canonical))}, "\n")
	key := []byte("AWS4" + secretKey)
	for _, part := range append(strings.Split(scope, "/"), text) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	if want := "Signature=" + hex.EncodeToString(key); parts[2] != want {
		return "the signature is not right for\n" + canonical
	}
	return ""
}

// TestHTTPSigV4 signs what is hard to sign: odd paths and queries, a Host of its
// own, a path made by a transform, large bodies, which go another way.
func TestHTTPSigV4(t *testing.T) {
	t.Parallel()
	type seen struct {
		r    *http.Request
		body []byte
	}
	got := make(chan seen, 1)
	change := func(service, path string) func(*sinks.HTTP) {
		return func(s *sinks.HTTP) {
			u := s.URL.String()
			s.URL = parse(t, strings.TrimSuffix(u, "/fn")+path)
			s.Auth = &sinks.HTTPAuth{SigV4: sigV4(service)}
			s.Auth.SigV4.SessionToken = secret(token)
			s.Headers = map[string]value.Text{"Host": value.NewText("fn.example"), "X-Spaces": value.NewText("a  b   c")}
		}
	}
	handle := func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- seen{r.Clone(t.Context()), body}
	}
	for _, path := range []string{"", "/", "/a%2Fb/c%20d/é", "/fn?b=2&a=1&a=%20x+y&empty", "/x/../y/"} {
		sink := serve(t, change("execute-api", path), handle)
		for _, name := range []string{"json", "empty", "binary", "large", "odd"} {
			d := testDelivery(t, name)
			if name == "json" {
				d.Payload = &sinks.Payload{Path: "/more%2F", Query: map[string]string{"q": "a b"}}
			}
			if err := sink.Deliver(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			s := <-got
			if fault := checkSigV4(s.r, s.body, "ce-id", "sluice-delivery-id"); fault != "" {
				t.Errorf("%s %s: %s", path, name, fault)
			}
			// The values of one name come sorted: some that verify do not sort them.
			got, want := s.r.URL.Query(), parse(t, "http://h"+path).Query()
			slices.Sort(got["a"])
			slices.Sort(want["a"])
			if name != "json" && got.Encode() != want.Encode() {
				t.Errorf("%s arrived with the query %s", path, s.r.URL.RawQuery)
			}
			if s.r.Header.Get("X-Amz-Security-Token") != token {
				t.Error("the session token is missing")
			}
		}
	}
	sink := serve(t, change("s3", "/bucket/a%20key%2B?x=1"), handle)
	if err := sink.Deliver(t.Context(), testDelivery(t, "text")); err != nil {
		t.Fatal(err)
	}
	s := <-got
	s.r.Body = io.NopCloser(bytes.NewReader(s.body))
	if code := signature.V4SignVerifyWithSecret(s.r, secretKey); code != signature.ErrNone {
		t.Errorf("a server of S3 says %v", signature.GetAPIError(code))
	}
}
