package jetstream

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestUnlockDespiteCopy holds a copy of the lock's file, as a child does between its
// fork and its exec: the directory is free all the same once it is given back.
func TestUnlockDespiteCopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if second, err := lockDir(dir); err == nil {
		_ = second.Close()
		t.Fatal("two hold the directory")
	}
	if err := unlockDir(lock); err != nil {
		t.Fatal(err)
	}
	again, err := lockDir(dir)
	if err != nil {
		t.Fatalf("the directory was given back: %v", err)
	}
	if err := unlockDir(again); err != nil {
		t.Fatal(err)
	}
}
