package sinks

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"

	own "sluice/config/aws"
	"sluice/config/value"
)

// HTTPSigV4 is a key of AWS, or of what checks signatures as AWS does.
type HTTPSigV4 struct {
	Region       string       `yaml:"region" doc:"The region, such as eu-central-1."`
	Service      string       `yaml:"service" doc:"What is called: lambda for a function URL, execute-api for an API Gateway, or another."`
	AccessKey    string       `yaml:"access_key" doc:"The access key id, which is no secret."`
	SecretKey    value.Secret `yaml:"secret_key" doc:"The secret access key."`
	SessionToken value.Secret `yaml:"session_token" doc:"The session token that goes with temporary keys."`
}

func (s *HTTPSigV4) validate() value.Faults {
	var faults value.Faults
	for _, must := range []struct{ key, text, example string }{
		{"region", s.Region, "write one such as eu-central-1"},
		{"service", s.Service, "write what is called, such as lambda or execute-api"},
		{"access_key", s.AccessKey, "write the access key id"},
	} {
		switch {
		case must.text == "":
			faults.Add(must.key, "is missing: %s", must.example)
		case !isToken(must.text) || strings.ContainsAny(must.text, "/,="):
			faults.Add(must.key, "has a character that none has: %s", must.example)
		}
	}
	faults = append(faults, missing("secret_key", s.SecretKey)...)
	if !s.SessionToken.IsZero() && !isToken(s.SessionToken.Value()) {
		faults.Add("session_token", "has a space, a line break or another character that no token has: check what it refers to")
	}
	return faults
}

// signer signs each request over its method, path, query, headers and body.
type signer struct {
	signer      *v4.Signer
	credentials aws.CredentialsProvider
	region      string
	service     string
}

func newSigner(s *HTTPSigV4) *signer {
	return &signer{
		signer: v4.NewSigner(func(o *v4.SignerOptions) {
			// S3 alone escapes the path once; all others escape what is escaped already.
			o.DisableURIPathEscaping = s.Service == "s3"
		}),
		credentials: credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey.Value(), s.SessionToken.Value()),
		region:      s.Region, service: s.Service,
	}
}

// put is credential.put.
func (s *signer) put(r *http.Request, body []byte) error {
	target := *r.URL // the sink's own is shared, and the signer sorts the query
	r.URL = &target
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header["X-Amz-Content-Sha256"] = []string{hash}
	found, err := s.credentials.Retrieve(r.Context())
	if err != nil {
		if cause := context.Cause(r.Context()); cause != nil {
			return fmt.Errorf("looking for credentials: %w: %w", cause, err)
		}
		return &Error{Err: own.NoCredentials(err), Status: http.StatusUnauthorized}
	}
	return s.signer.SignHTTP(r.Context(), found, r, hash, s.service, s.region, time.Now())
}

// judged is credential.judged: the next signature is as good as this one.
func (s *signer) judged(*http.Request, int) bool { return false }

// mask is credential.mask: a signature is good for nothing else.
func (s *signer) mask(answer []byte) []byte { return answer }

func (s *signer) close() {}
