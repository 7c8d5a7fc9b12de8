package sources

import (
	"context"
	"errors"

	"sluice/config/value"
)

// S3Serve are the settings of an S3 endpoint of the bus's own.
type S3Serve struct{}

// Validate finds what a single value cannot show. The keys are those of S3Serve.
func (s *S3Serve) Validate() []value.Fault { return nil }

// open makes the source.
func (s *S3Serve) open(context.Context, Env) (Source, error) {
	return nil, errors.New("an S3 endpoint is not served yet")
}
