//go:build unix

package sinks

import (
	"os"
	"syscall"
)

// lockFile waits until nobody else writes to a file: the sink of a config before,
// or another process.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }

// unlockFile ends lockFile; closing the file does too.
func unlockFile(f *os.File) {
	if f != nil {
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	}
}
