//go:build unix

package sinks

import (
	"io"
	"net"
	"os"
	"syscall"
)

// socket is a connection with fewer system calls. Its calls are not for use by two
// at a time.
type socket struct {
	conn net.Conn
	raw  syscall.RawConn
	// What raw is called with, made once: a func for each call would be memory each time.
	swapping, peeking func(fd uintptr) bool

	out, in []byte
	n       int
	err     error
	sent    bool
	peeked  [1]byte
	waiting bool
}

// socketOf is what is under a connection, nil when there is no socket.
func socketOf(conn net.Conn) *socket {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{conn: conn, raw: raw}
	s.swapping, s.peeking = s.swapOn, s.peekOn
	return s
}

// swap sends out, and reads the first bytes of what comes back into in. The wait for
// them begins before anything is sent, so that no read is needed to find that there
// is nothing yet. When not all could be sent at once, nothing was read, and the rest
// is returned.
func (s *socket) swap(out, in []byte) (n int, rest []byte, err error) {
	s.out, s.in, s.n, s.err, s.sent = out, in, 0, nil, false
	err = s.raw.Read(s.swapping)
	rest, n = s.out, s.n
	s.out, s.in = nil, nil
	switch {
	case err != nil:
		return 0, rest, err
	case s.err != nil:
		return 0, rest, &net.OpError{Op: "read", Net: "tcp", Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: os.NewSyscallError("read", s.err)}
	case s.sent && n == 0:
		return 0, nil, io.EOF
	}
	return n, rest, nil
}

// swapOn is called once before the wait, and whenever something may have come.
func (s *socket) swapOn(fd uintptr) (done bool) {
	if !s.sent {
		for {
			n, err := syscall.Write(int(fd), s.out)
			if err == syscall.EINTR {
				continue
			}
			s.out = s.out[max(n, 0):]
			s.sent = len(s.out) == 0
			return !s.sent // who sends the rest finds the error again
		}
	}
	for {
		n, err := syscall.Read(int(fd), s.in)
		if err == syscall.EAGAIN {
			return false
		}
		if err != syscall.EINTR {
			s.n, s.err = n, err
			return true
		}
	}
}

// quiet tells whether an idle connection is open and has nothing to say.
func (s *socket) quiet() bool {
	err := s.raw.Read(s.peeking)
	return err == nil && s.waiting
}

func (s *socket) peekOn(fd uintptr) (done bool) {
	_, _, err := syscall.Recvfrom(int(fd), s.peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	s.waiting = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
	return true
}
