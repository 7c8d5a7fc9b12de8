package jetstream

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir takes the directory for this process. Two servers on one directory would
// both acknowledge and overwrite each other, and nats-server does not look. The
// lock is the kernel's, so it cannot be left behind by a process that died.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("jetstream: locking the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close() //nolint:errcheck // nothing was written
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("jetstream: locking the data directory %s: %w", dir, err)
		}
		return nil, fmt.Errorf("jetstream: the data directory %s is in use by %s: stop that one first, or give this one a directory of its own", dir, holder(path))
	}
	if err := errors.Join(f.Truncate(0), writePID(f)); err != nil {
		return nil, errors.Join(fmt.Errorf("jetstream: locking the data directory: %w", err), f.Close())
	}
	return f, nil
}

// unlockDir gives the directory back. Closing the file alone does not while a child
// that this process is just starting still has a copy of it.
func unlockDir(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// writePID leaves a trace for whoever finds the directory locked. On a full volume
// there is no room for it, and the lock holds all the same.
func writePID(f *os.File) error {
	_, err := fmt.Fprintln(f, os.Getpid())
	if errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

func holder(path string) string {
	pid, err := os.ReadFile(path)
	if text := strings.TrimSpace(string(pid)); err == nil && text != "" {
		return "process " + text
	}
	return "another process"
}
