package sources

import (
	"context"
	"errors"

	"sluice/config/value"
)

// S3Poll are the settings of a bucket that is listed from time to time.
type S3Poll struct{}

// Validate finds what a single value cannot show. The keys are those of S3Poll.
func (s *S3Poll) Validate() []value.Fault { return nil }

// open makes the source.
func (s *S3Poll) open(context.Context, Env) (Source, error) {
	return nil, errors.New("a bucket is not polled yet")
}
