package sources

import (
	"context"
	"time"
)

// SetClock gives the source another clock: what it shows, and how to wait until
// it may have gone on by d.
func (s *Cron) SetClock(now func() time.Time, wait func(ctx context.Context, d time.Duration) error) {
	s.clock = cronClock{now, wait}
}

// RealWait waits as the source does.
func RealWait(ctx context.Context, d time.Duration) error { return realClock().wait(ctx, d) }
