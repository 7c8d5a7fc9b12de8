package jetstream

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bus"
)

// space watches the volume. A server that runs into a full volume stops writing
// for good, so appends are refused before it can.
type space struct {
	dir     string
	reserve int64

	mu      sync.Mutex
	checked time.Time
	free    int64
	credit  int64 // bytes that may still be written before the volume is asked again
}

// freshness bounds how long an answer of the volume counts: others write there too.
const freshness = 250 * time.Millisecond

// left is what the volume has for us, as of a moment ago.
func (s *space) left() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.checked) > freshness {
		s.ask()
	}
	return s.free
}

func (s *space) ask() {
	s.checked = time.Now()
	free, _, err := volume(s.dir)
	if err != nil {
		s.free, s.credit = -1, 0
		return
	}
	s.free, s.credit = free, max(0, free-s.reserve)/8
}

// take refuses a write of n bytes to a stream when it would leave the volume with
// less than the stream's part of the reserve.
func (s *space) take(stream string, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit -= int64(n); s.credit < 0 || time.Since(s.checked) > freshness {
		s.ask()
	}
	if s.free < 0 {
		return nil // a volume that cannot say: the server will find out
	}
	if keep := s.reserve * reserved(stream) / 20; s.free-int64(n) < keep {
		return fmt.Errorf("jetstream: the volume of %s has %d MiB left, of which %s may not use the last %d: %w",
			s.dir, s.free>>20, stream, keep>>20, bus.ErrFull)
	}
	return nil
}

// reserved is the part of the reserve, in twentieths, that a stream leaves to those
// behind it: first accepting stops, then spilling, retrying and giving up, and the
// state table last. Nothing may use the rest, which is for the server's own files.
func reserved(stream string) int64 {
	switch stream {
	case bus.Events:
		return 20
	case bus.Backlog:
		return 16
	case bus.Retries:
		return 12
	case bus.DeadLetters:
		return 8
	default:
		return 4
	}
}

// volume gives the free bytes and the size of the volume under dir.
func volume(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), nil //nolint:unconvert // the types differ between systems
}
