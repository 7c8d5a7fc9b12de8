package sources

import (
	"context"
	"errors"

	"sluice/config/value"
)

// S3 are the settings of the s3 source: one of Path, Serve and Poll.
type S3 struct {
	Path  string   `yaml:"path" doc:"The path that an object store sends its notifications to, such as /in/uploads."`
	Serve *S3Serve `yaml:"serve" doc:"Instead of path: an S3 endpoint of the bus's own, whose uploads become events."`
	Poll  *S3Poll  `yaml:"poll" doc:"Instead of path: a bucket of any S3 API that is listed from time to time."`
}

// NewS3 returns the settings with their defaults.
func NewS3() *S3 { return &S3{} }

// Validate is Settings.Validate.
func (s *S3) Validate() []value.Fault {
	var faults []value.Fault
	ways := 0
	if s.Path != "" {
		ways++
	}
	if s.Serve != nil {
		ways++
		faults = append(faults, under("serve", s.Serve.Validate())...)
	}
	if s.Poll != nil {
		ways++
		faults = append(faults, under("poll", s.Poll.Validate())...)
	}
	if ways != 1 {
		faults = append(faults, value.Fault{Msg: "needs one of path (notifications come in), serve (an S3 endpoint) and poll (a bucket is listed)"})
	}
	return faults
}

// under puts a key before those of the faults.
func under(key string, faults []value.Fault) []value.Fault {
	for i := range faults {
		faults[i].Key = key + "." + faults[i].Key
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
	return nil, errors.New("notifications are not taken yet")
}
