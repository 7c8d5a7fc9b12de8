package sources_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sluice/config/value"
	"sluice/sources"
)

// Credentials are changed while the endpoint listens; anything else needs it to be opened
// anew.
func TestS3ServeAdjusts(t *testing.T) {
	t.Parallel()
	e := servedS3(t)
	const secret = "another-secret-that-is-long"
	put := func(access, secret string) error {
		_, err := clientOf(e.url(), access, secret).PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String(serveBucket), Key: aws.String("k"), Body: strings.NewReader("x")})
		return err
	}
	changed := serveSettings()
	changed.Serve.Credentials = append(changed.Serve.Credentials[:0], sources.S3Credential{AccessKey: "somebody", SecretKey: value.NewSecret(secret)})
	apply := e.src.(sources.Adjuster).Adjust(changed)
	if apply == nil {
		t.Fatal("other credentials need a listener of their own")
	}
	if err := put(serveAccess, serveSecret); err != nil {
		t.Errorf("before the change: %v", err)
	}
	apply()
	if err := put("somebody", secret); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if put(serveAccess, serveSecret) == nil {
		t.Error("the old credentials still count")
	}
	for name, change := range map[string]func(*sources.S3){
		"another address": func(s *sources.S3) { s.Serve.Listen = "127.0.0.1:1" },
		"another limit":   func(s *sources.S3) { s.Serve.Limits.Connections = 3 },
		"another way":     func(s *sources.S3) { s.Serve, s.Path = nil, "/in/s3" },
	} {
		s := serveSettings()
		change(s)
		if e.src.(sources.Adjuster).Adjust(s) != nil {
			t.Errorf("%s is taken as it runs", name)
		}
	}
	if e.src.(sources.Adjuster).Adjust(sources.NewCron()) != nil {
		t.Error("another kind is taken as it runs")
	}
}
