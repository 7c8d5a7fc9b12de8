package sources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/rclone/gofakes3"

	"sluice/config/value"
)

// S3Serve are the settings of an S3 endpoint of the bus's own. What is uploaded is
// kept on disk, or passed on to another S3, and each upload, copy and delete is an
// event.
type S3Serve struct {
	Buckets     []string       `yaml:"buckets" doc:"The buckets there are. Clients can neither make nor remove one."`
	Listen      string         `yaml:"listen" doc:"The address to listen on. The default is 127.0.0.1:8485. Buckets stand in the path, such as /uploads/key; see domain."`
	Domain      string         `yaml:"domain" doc:"The name that clients know the endpoint by, such as s3.example.com. Then a bucket may also stand before it, as in uploads.s3.example.com: SDKs do that with an endpoint that has a name, unless they are told to use path style. The names below it have to lead here too, and a certificate has to be for *.s3.example.com as well."`
	Credentials []S3Credential `yaml:"credentials" doc:"Who may call. Requests that none of them signed are refused."`
	TLS         S3TLS          `yaml:"tls" doc:"Speak HTTPS with this certificate. Its files are read again when they have changed: new connections get what they hold then."`
	Limits      S3Limits       `yaml:"limits" doc:"What clients may ask of the server."`
	Retain      S3Retain       `yaml:"retain" doc:"How long objects are kept."`
	Forward     *S3Remote      `yaml:"forward" doc:"Keep the objects in this bucket of another S3 instead of on disk."`
}

// S3Credential is a pair of keys.
type S3Credential struct {
	AccessKey string       `yaml:"access_key" doc:"The access key id, which is no secret."`
	SecretKey value.Secret `yaml:"secret_key" doc:"The secret access key."`
}

// S3TLS are the files of a certificate.
type S3TLS struct {
	Cert string `yaml:"cert" doc:"The PEM file of the certificate, with its chain."`
	Key  string `yaml:"key" doc:"The PEM file of its key."`
}

// S3Limits bound what clients ask of the server. A field that is 0 has its default.
type S3Limits struct {
	Object      value.Bytes    `yaml:"object" doc:"The size of one object. The default is 5GiB."`
	Connections int            `yaml:"connections" doc:"How many connections there may be at once. The default is 256."`
	Stall       value.Duration `yaml:"stall" doc:"In each span of this length a client has to send or take min_rate. The default is 30s."`
	MinRate     value.Bytes    `yaml:"min_rate" doc:"How much a client has to send in a second. The default is 16KiB."`
}

// S3Retain is how long things are kept.
type S3Retain struct {
	Age        value.Duration `yaml:"age" doc:"Objects are removed when they are this old. The default keeps them."`
	Unfinished value.Duration `yaml:"unfinished" doc:"Multipart uploads that are neither completed nor aborted are removed when they are this old. The default is 24h."`
}

// The defaults of S3Serve.
const (
	defaultS3Listen      = "127.0.0.1:8485"
	defaultS3Object      = 5 << 30
	defaultS3Connections = 256
	defaultS3Stall       = 30 * time.Second
	defaultS3MinRate     = 16 << 10
	defaultS3Unfinished  = 24 * time.Hour
)

// minS3AccessKey is the shortest access key that the signature library knows.
const minS3AccessKey = 3

// orDefault fills in what is left out.
func (s S3Serve) orDefault() S3Serve {
	if s.Listen == "" {
		s.Listen = defaultS3Listen
	}
	if s.Limits.Object == 0 {
		s.Limits.Object = defaultS3Object
	}
	if s.Limits.Connections == 0 {
		s.Limits.Connections = defaultS3Connections
	}
	if s.Limits.Stall == 0 {
		s.Limits.Stall = value.Duration(defaultS3Stall)
	}
	if s.Limits.MinRate == 0 {
		s.Limits.MinRate = defaultS3MinRate
	}
	if s.Retain.Unfinished == 0 {
		s.Retain.Unfinished = value.Duration(defaultS3Unfinished)
	}
	return s
}

// Validate finds what a single value cannot show. The keys are those of S3Serve.
func (s *S3Serve) Validate() value.Faults {
	faults := append(s.validateBuckets(), s.validateCredentials()...)
	if s.Listen != "" {
		if _, port, err := net.SplitHostPort(s.Listen); err != nil || port == "" {
			faults.Add("listen", "is no address: write a host and a port, such as 127.0.0.1:8485")
		}
	}
	if s.Domain != "" && !isDomain(s.Domain) {
		faults.Add("domain", "%q is not the name of a host: write one such as s3.example.com, without a port", s.Domain)
	}
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		faults.Add("tls", "needs both cert and key")
	}
	if s.Limits.Object < 0 || s.Limits.Connections < 0 || s.Limits.Stall < 0 || s.Limits.MinRate < 0 {
		faults.Add("limits", "holds a negative number: write a limit of at least 1, or leave it out")
	}
	if s.Retain.Age < 0 || s.Retain.Unfinished < 0 {
		faults.Add("retain", "holds a negative time: write one such as 720h, or leave it out")
	}
	if s.Forward != nil {
		faults = append(faults, s.Forward.faults().Under("forward")...)
		if s.Retain.Age != 0 {
			faults.Add("retain.age", "is about objects on disk: with forward, let the other S3 expire them")
		}
		if len(s.Buckets) > 1 {
			faults.Add("forward", "is one bucket, and buckets has several: give each a source of its own")
		}
	}
	return faults
}

// isDomain tells whether buckets can stand before a name. Before an address they cannot.
func isDomain(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(name) < 190 && net.ParseIP(name) == nil
}

func (s *S3Serve) validateBuckets() value.Faults {
	if len(s.Buckets) == 0 {
		return value.Faults{{Key: "buckets", Msg: "is missing: name the buckets that clients may use, such as [uploads]"}}
	}
	var faults value.Faults
	seen := make(map[string]bool)
	for _, name := range s.Buckets {
		if gofakes3.ValidateBucketName(name) != nil {
			faults.Add("buckets", "%q is no name of a bucket: use 3 to 63 small letters, digits, dots and dashes", name)
		}
		if seen[name] {
			faults.Add("buckets", "%q is there twice", name)
		}
		seen[name] = true
	}
	return faults
}

func (s *S3Serve) validateCredentials() value.Faults {
	if len(s.Credentials) == 0 {
		return value.Faults{{Key: "credentials", Msg: "is missing: give at least one access_key and secret_key, every request has to be signed"}}
	}
	var faults value.Faults
	seen := make(map[string]bool)
	for i, c := range s.Credentials {
		key := fmt.Sprintf("credentials[%d]", i)
		if len(c.AccessKey) < minS3AccessKey || strings.ContainsAny(c.AccessKey, "=, \t/") {
			faults.Add(key+".access_key", "needs three characters or more, and none of = , / and space")
		}
		if seen[c.AccessKey] {
			faults.Add(key+".access_key", "is there twice")
		}
		seen[c.AccessKey] = true
		if c.SecretKey.Value() == "" {
			faults.Add(key+".secret_key", "is missing: give a long random one, such as ${env:UPLOAD_SECRET}")
		}
	}
	return faults
}

// open makes the source. It binds nothing and opens no file.
func (s *S3Serve) open(_ context.Context, env Env) (Source, error) {
	if env.Dir == "" {
		return nil, errors.New("an S3 endpoint keeps its objects on disk, and this bus keeps nothing there: use a store with a directory")
	}
	settings := s.orDefault()
	src := &s3Server{set: settings, env: env, ready: make(chan struct{})}
	src.keys.Store(settings.keys())
	return src, nil
}

// keys are the secret keys by the access keys.
func (s *S3Serve) keys() *s3Keys {
	keys := make(s3Keys)
	for _, c := range s.Credentials {
		keys[c.AccessKey] = c.SecretKey
	}
	return &keys
}

// s3Keys are secret keys by their access keys.
type s3Keys map[string]value.Secret

func (k s3Keys) lookUp(accessKey string) (string, bool) {
	secret, ok := k[accessKey]
	return secret.Value(), ok
}

// Adjust is Adjuster.Adjust: other credentials alone do not need the listener to close.
func (s *s3Server) Adjust(settings Settings) (apply func()) {
	next, ok := settings.(*S3)
	if !ok || next.Serve == nil {
		return nil
	}
	want, have := next.Serve.orDefault(), s.set
	keys := want.keys()
	want.Credentials, have.Credentials = nil, nil
	if !reflect.DeepEqual(want, have) {
		return nil
	}
	return func() { s.keys.Store(keys) }
}
