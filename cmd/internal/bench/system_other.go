//go:build !linux

package bench

import (
	"syscall"
	"time"
)

// Without /proc, CPU time and memory are left out.

func attributes() *syscall.SysProcAttr { return nil }

func cpuTime(int) time.Duration { return 0 }

func memory(int) memoryUse { return memoryUse{} }

func inMemory(string) bool { return false }
