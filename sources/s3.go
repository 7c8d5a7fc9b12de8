package sources

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"sluice/config/value"
)

// S3 are the settings of the s3 source: one of Path, Serve and Poll.
type S3 struct {
	Path   string   `yaml:"path" doc:"The path that an object store sends its notifications to, such as /in/uploads."`
	Flavor string   `yaml:"flavor" enum:"auto,aws,minio,versitygw,ceph,rustfs" doc:"Who sends the notifications, which decides how keys are decoded. auto finds out from each record."`
	Auth   S3Auth   `yaml:"auth" doc:"How senders of notifications prove who they are. Without it the listener asks for a token as for /events."`
	SNS    S3SNS    `yaml:"sns" doc:"Notifications that come through Amazon SNS."`
	Serve  *S3Serve `yaml:"serve" doc:"Instead of path: an S3 endpoint of the bus's own, whose uploads become events."`
	Poll   *S3Poll  `yaml:"poll" doc:"Instead of path: a bucket of any S3 API that is listed from time to time."`
}

// S3Auth is how senders of notifications prove who they are.
type S3Auth struct {
	Bearer value.Secrets `yaml:"bearer" doc:"The token they send as Authorization: Bearer, or as the password in the URL when they can do only that. Several while one takes the place of another."`
}

// S3SNS says which messages of Amazon SNS are taken.
type S3SNS struct {
	Topics []string `yaml:"topics" doc:"The ARNs of the topics whose signed messages are taken and whose subscriptions are confirmed. Without it none are."`
	Hosts  []string `yaml:"hosts" doc:"Hosts, with a port where it is not 443, that certificates and confirmations may come from besides those of AWS, over https."`
}

// NewS3 returns the settings with their defaults.
func NewS3() *S3 { return &S3{Flavor: flavorAuto} }

// Validate is Settings.Validate.
func (s *S3) Validate() value.Faults {
	var faults value.Faults
	ways := 0
	if s.Path != "" {
		ways++
		faults = append(faults, pathFaults(s.Path)...)
	}
	if s.Serve != nil {
		ways++
		faults = append(faults, s.Serve.Validate().Under("serve")...)
	}
	if s.Poll != nil {
		ways++
		faults = append(faults, s.Poll.Validate().Under("poll")...)
	}
	if ways != 1 {
		faults.Add("", "needs one of path (notifications come in), serve (an S3 endpoint) and poll (a bucket is listed), and only one")
	}
	if !slices.Contains(flavors(), s.Flavor) {
		faults.Add("flavor", "%q is none: write one of %s", s.Flavor, strings.Join(flavors(), ", "))
	}
	return append(faults, s.doorFaults()...)
}

// doorFaults finds what is wrong with the settings that belong to Path.
func (s *S3) doorFaults() (faults value.Faults) {
	if s.Path == "" {
		const only = "is only for path: leave it out"
		if s.Flavor != flavorAuto {
			faults.Add("flavor", only)
		}
		if len(s.Auth.Bearer) > 0 {
			faults.Add("auth", only)
		}
		if len(s.SNS.Topics)+len(s.SNS.Hosts) > 0 {
			faults.Add("sns", only)
		}
		return faults
	}
	for i, topic := range s.SNS.Topics {
		if parts := strings.Split(topic, ":"); len(parts) != 6 || parts[0] != "arn" || parts[2] != "sns" {
			faults.Add(fmt.Sprintf("sns.topics[%d]", i), "is not the ARN of a topic, such as arn:aws:sns:eu-central-1:123456789012:uploads")
		}
	}
	for i, host := range s.SNS.Hosts {
		if host == "" || strings.ContainsAny(host, "/@?# ") {
			faults.Add(fmt.Sprintf("sns.hosts[%d]", i), "is not a host: write it without a scheme and a path, such as sns.example.com:8443")
		}
	}
	if len(s.SNS.Hosts) > 0 && len(s.SNS.Topics) == 0 {
		faults.Add("sns.topics", "is missing: without topics no message of SNS is taken")
	}
	return faults
}

// Open is Settings.Open.
func (s *S3) Open(ctx context.Context, env Env) (Source, error) {
	switch {
	case s.Serve != nil:
		return s.Serve.open(ctx, env)
	case s.Poll != nil:
		return s.Poll.open(ctx, env)
	}
	return s.openDoor(env, newSNSDoor(s.SNS.Topics, s.SNS.Hosts))
}

func (s *S3) openDoor(env Env, sns *snsDoor) (Source, error) {
	const quiet = 10 * time.Second
	src := &httpSource{ready: make(chan struct{})}
	verifies := len(s.Auth.Bearer) > 0 || len(s.SNS.Topics) > 0
	door := &s3Door{
		handler: newHandler(&src.gate, HandlerOptions{Observe: env.Observe}),
		gate:    &src.gate, env: &env, flavor: s.Flavor, tokens: s.Auth.Bearer, verify: verifies, sns: sns,
		warn: rate.Sometimes{Interval: quiet},
	}
	if err := env.Handle(Door{Path: s.Path, Handler: door, Verifies: verifies}); err != nil {
		return nil, err
	}
	return src, nil
}
