package sinks

import (
	"os"
	"time"
)

// SetSync calls sync in place of fsync.
func (s *File) SetSync(sync func(*os.File) error) { s.fsync = sync }

// SetNow gives a file sink another clock.
func SetNow(s Sink, now func() time.Time) { s.(*fileSink).now = now }
