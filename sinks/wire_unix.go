//go:build unix

package sinks

import (
	"net"
	"syscall"
)

// quietness returns what tells whether an idle connection is open and has nothing
// to say.
func quietness(conn net.Conn) func() bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return func() bool { return true }
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return func() bool { return false }
	}
	var b [1]byte
	waiting := false
	peek := func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		waiting = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
		return true
	}
	return func() bool {
		err := raw.Read(peek)
		return err == nil && waiting
	}
}
