package sources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"

	own "sluice/config/aws"
	"sluice/config/value"
)

// S3Remote says where a bucket of another S3 is and who asks for it.
type S3Remote struct {
	Endpoint     value.URL    `yaml:"endpoint" doc:"The URL of the S3 API. Left out, it is that of AWS in the region."`
	Region       string       `yaml:"region" doc:"The region of the bucket. The default is us-east-1, which most servers but AWS take."`
	Bucket       string       `yaml:"bucket" doc:"The name of the bucket."`
	AccessKey    string       `yaml:"access_key" doc:"The access key id, which is no secret. Left out, the credentials are looked for where the tools of AWS do: in the environment, in ~/.aws, at the instance."`
	SecretKey    value.Secret `yaml:"secret_key" doc:"The secret access key."`
	SessionToken value.Secret `yaml:"session_token" doc:"The token that belongs to temporary credentials."`
	Anonymous    bool         `yaml:"anonymous" doc:"Sign no request: the bucket is public."`
	PathStyle    *bool        `yaml:"path_style" doc:"Write the bucket into the path of the URL instead of the host. The default is true when there is an endpoint."`
}

const s3Region = "us-east-1"

// faults finds what a single value cannot show.
func (r *S3Remote) faults() (faults value.Faults) {
	switch {
	case r.Bucket == "":
		faults.Add("bucket", "is missing: write the name of the bucket")
	case strings.ContainsAny(r.Bucket, "/?# \t"):
		faults.Add("bucket", "is not the name of a bucket: write it without a scheme, slashes and spaces")
	}
	if !r.Endpoint.IsZero() {
		if r.Endpoint.User != nil {
			faults.Add("endpoint", "holds a user: write access_key and secret_key instead")
		}
		if r.Endpoint.RawQuery != "" || r.Endpoint.Fragment != "" {
			faults.Add("endpoint", "has a query or a fragment: write a URL such as https://s3.example.com")
		}
	}
	switch {
	case r.AccessKey != "" && r.SecretKey.IsZero():
		faults.Add("secret_key", "is missing: it belongs to access_key")
	case r.AccessKey == "" && !r.SecretKey.IsZero():
		faults.Add("access_key", "is missing: it belongs to secret_key")
	case r.AccessKey == "" && !r.SessionToken.IsZero():
		faults.Add("access_key", "is missing: a session_token belongs to it and to secret_key")
	case r.Anonymous && r.AccessKey != "":
		faults.Add("anonymous", "contradicts access_key: leave one of them out")
	}
	return faults
}

// where names the bucket in errors.
func (r *S3Remote) where() string {
	if r.Endpoint.IsZero() {
		return fmt.Sprintf("the bucket %q in %s", r.Bucket, r.region())
	}
	return fmt.Sprintf("the bucket %q at %s", r.Bucket, r.Endpoint)
}

func (r *S3Remote) region() string {
	if r.Region == "" {
		return s3Region
	}
	return r.Region
}

// client calls the S3. An answer may have maxAnswer bytes, 0 for any number.
func (r *S3Remote) client(ctx context.Context, maxAnswer int64) (*s3.Client, error) {
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithRegion(r.region()), awsconfig.WithLogger(logging.Nop{}),
		// Not every S3 knows the checksums that are new.
		awsconfig.WithRequestChecksumCalculation(aws.RequestChecksumCalculationWhenRequired),
		awsconfig.WithResponseChecksumValidation(aws.ResponseChecksumValidationWhenRequired),
	}
	switch {
	case r.Anonymous:
		options = append(options, awsconfig.WithCredentialsProvider(aws.AnonymousCredentials{}))
	case r.AccessKey != "":
		options = append(options, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(
			r.AccessKey, r.SecretKey.Value(), r.SessionToken.Value())))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("the settings of AWS in the environment or in ~/.aws: %w", err)
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = own.LimitAnswers(cfg.HTTPClient, maxAnswer)
		o.UsePathStyle = !r.Endpoint.IsZero()
		if r.PathStyle != nil {
			o.UsePathStyle = *r.PathStyle
		}
		if !r.Endpoint.IsZero() {
			o.BaseEndpoint = aws.String(strings.TrimSuffix(r.Endpoint.URL.String(), "/"))
		}
	}), nil
}

// explain says what an error of the S3 means and what to do about it.
func (r *S3Remote) explain(err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		if hint := s3Hint(api.ErrorCode()); hint != "" {
			return fmt.Errorf("%s: %s (%s)", r.where(), hint, api.ErrorCode())
		}
		return fmt.Errorf("%s: the S3 answers %s: %s", r.where(), api.ErrorCode(), cut(api.ErrorMessage()))
	}
	var signing *smithy.OperationError
	if errors.As(err, &signing) && strings.Contains(err.Error(), "get identity") {
		return fmt.Errorf("%s: no credentials were found: set access_key and secret_key, or anonymous: true for a public bucket", r.where())
	}
	var dial *net.OpError
	var address *url.Error
	switch {
	case errors.As(err, &dial):
		return fmt.Errorf("%s: the server does not answer, check endpoint: %w", r.where(), dial)
	case errors.As(err, &address):
		return fmt.Errorf("%s: the server does not answer, check endpoint: %w", r.where(), address.Err)
	}
	return fmt.Errorf("%s: %w", r.where(), err)
}

func s3Hint(code string) string {
	switch code {
	case "NoSuchBucket", "NotFound":
		return "there is no such bucket"
	case "InvalidAccessKeyId":
		return "the credentials are wrong: check access_key"
	case "SignatureDoesNotMatch":
		return "the credentials are wrong: check secret_key"
	case "AccessDenied", "Forbidden", "AllAccessDisabled":
		return "the credentials do not allow it: check access_key and secret_key, and that they may list the bucket (s3:ListBucket)"
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return "the session token is wrong or has expired: renew session_token"
	case "PermanentRedirect", "MovedPermanently", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException":
		return "the bucket is in another region: check region and endpoint"
	case "RequestTimeTooSkewed":
		return "the clocks differ too much: set the clock of this machine"
	case "SlowDown", "Throttling", "RequestLimitExceeded":
		return "the S3 wants fewer requests: raise every"
	}
	return ""
}
