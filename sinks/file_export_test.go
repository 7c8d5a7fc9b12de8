package sinks

import (
	"os"
	"time"
)

// SetSync calls sync in place of fsync.
func (s *File) SetSync(sync func(*os.File) error) { s.fsync = sync }

// SetNow gives a file sink another clock.
func SetNow(s Sink, now func() time.Time) { s.(*fileSink).now = now }

// FileWaiting is how many lines of a file sink wait to be written.
func FileWaiting(s Sink) int {
	f := s.(*fileSink)
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}
