// Package aws is what the kinds that speak to AWS, or to a server with its API, have
// in common: the settings of a connection, and what the errors of one mean. It
// neither sends nor receives anything itself.
package aws

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/smithy-go/logging"

	"sluice/config/value"
)

// Connection says where an API is and who asks for it.
type Connection struct {
	Region      string      `yaml:"region" doc:"The region, such as eu-central-1. Left out, it is the one in the address or the environment's, and us-east-1 where there is neither."`
	Endpoint    value.URL   `yaml:"endpoint" doc:"The URL of the API. Left out, it is that of AWS in the region."`
	Credentials Credentials `yaml:"credentials" doc:"Who asks. Left out, credentials are looked for in the environment and in ~/.aws, a container's or web identity's role among them."`
}

// Credentials are those of a user or a role.
type Credentials struct {
	AccessKey    value.Text   `yaml:"access_key" doc:"The access key id, which is no secret."`
	SecretKey    value.Secret `yaml:"secret_key" doc:"The secret access key, as a reference: ${env:NAME} or ${file:/path}."`
	SessionToken value.Secret `yaml:"session_token" doc:"The token that belongs to temporary credentials."`
	Instance     bool         `yaml:"instance" doc:"Whether the EC2 machine that this runs on may be asked for its role."`
}

// DefaultRegion is what servers other than AWS take.
const DefaultRegion = "us-east-1"

// Validate finds what a single value cannot show.
func (c *Connection) Validate() (faults value.Faults) {
	if c.Region != "" && strings.Trim(c.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		faults.Add("region", "is %q: write the name of a region, such as eu-central-1", c.Region)
	}
	if !c.Endpoint.IsZero() {
		if c.Endpoint.User != nil {
			faults.Add("endpoint", "holds a user: write credentials instead")
		}
		if c.Endpoint.RawQuery != "" || c.Endpoint.Fragment != "" {
			faults.Add("endpoint", "has a query or a fragment: write a URL such as http://127.0.0.1:4566")
		}
	}
	access, secret, token := c.Credentials.AccessKey.Value() != "", !c.Credentials.SecretKey.IsZero(), !c.Credentials.SessionToken.IsZero()
	switch {
	case access && !secret:
		faults.Add("credentials.secret_key", "is missing: it belongs to access_key")
	case !access && secret:
		faults.Add("credentials.access_key", "is missing: it belongs to secret_key")
	case !access && token:
		faults.Add("credentials.access_key", "is missing: a session_token belongs to it and to secret_key")
	case c.Credentials.Instance && access:
		faults.Add("credentials.instance", "contradicts access_key: leave one of them out")
	}
	return faults
}

// Secrets are the texts that nobody may see.
func (c *Connection) Secrets() (secrets []string) {
	for _, s := range []value.Secret{c.Credentials.SecretKey, c.Credentials.SessionToken} {
		if !s.IsZero() {
			secrets = append(secrets, s.Value())
		}
	}
	return secrets
}

// Config is the configuration of a client. region is the one that the address names,
// "" for none. It reads the environment and ~/.aws, and nothing from the network:
// credentials are looked for by the first request.
func (c *Connection) Config(ctx context.Context, region string) (sdk.Config, error) {
	machine := imds.ClientDisabled
	if c.Credentials.Instance {
		machine = imds.ClientDefaultEnableState
	}
	options := []func(*awsconfig.LoadOptions) error{
		awsconfig.WithLogger(logging.Nop{}), awsconfig.WithEC2IMDSClientEnableState(machine),
		awsconfig.WithHTTPClient(newClient()),
	}
	if c.Region != "" {
		region = c.Region
	}
	if region != "" {
		options = append(options, awsconfig.WithRegion(region))
	}
	if key := c.Credentials.AccessKey.Value(); key != "" {
		options = append(options, awsconfig.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(
			key, c.Credentials.SecretKey.Value(), c.Credentials.SessionToken.Value())))
	}
	cfg, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return sdk.Config{}, fmt.Errorf("the settings of AWS in the environment or in ~/.aws: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = DefaultRegion
	}
	return cfg, nil
}

// newClient keeps as many connections as there are requests at a time.
func newClient() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithDialerOptions(func(d *net.Dialer) {
		d.Timeout = 10 * time.Second
	}).WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost, t.MaxResponseHeaderBytes = 256, 64<<10
	})
}

// Control is that of net.Dialer: it is asked before each connect.
type Control = func(network, address string, c syscall.RawConn) error

// bounded is the client of cfg, which asks control, may be nil, before it connects, and
// whose answers may have maxAnswer bytes. That which looks for credentials stays as it
// is: the machine's and the container's are at link-local addresses.
func bounded(cfg sdk.Config, maxAnswer int64, control Control) sdk.HTTPClient {
	client := cfg.HTTPClient
	if b, ok := client.(*awshttp.BuildableClient); ok && control != nil {
		client = b.WithDialerOptions(func(d *net.Dialer) { d.Control = control })
	}
	return LimitAnswers(client, maxAnswer)
}

// LimitAnswers is a client whose answers end after most bytes, 0 for any number: what
// comes from another server is not to fill the memory.
func LimitAnswers(client sdk.HTTPClient, most int64) sdk.HTTPClient {
	return limited{client, most}
}

type limited struct {
	sdk.HTTPClient
	most int64
}

// Do is sdk.HTTPClient.
func (c limited) Do(r *http.Request) (*http.Response, error) {
	res, err := c.HTTPClient.Do(r)
	if err == nil && c.most > 0 {
		res.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(res.Body, c.most), res.Body}
	}
	return res, err
}
