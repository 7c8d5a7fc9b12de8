package sinktest

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Rogue is a far side of an HTTP sink that misbehaves on purpose.
type Rogue struct {
	Name string
	// Talk answers one request, whose head and body were read. n counts the
	// requests of all connections. The connection ends when Talk is false.
	Talk func(conn net.Conn, n int64) bool
}

// Rogues are the ways to misbehave.
func Rogues() []Rogue {
	return []Rogue{
		{"never answers", func(conn net.Conn, _ int64) bool { hold(conn); return false }},
		{"garbage", say("\x00\x01\x02 SSH-2.0-OpenSSH_9.6\r\n\r\n")},
		{"echo", nil}, // sends the request back
		{"a line without end", again("", strings.Repeat("g", 4096))},
		{"reset at once", reset("")},
		{"reset in the head", reset("HTTP/1.1 200 OK\r\nContent-Le")},
		{"reset in the body", reset("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\nsorry")},
		{"1 GiB of success", again("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", strings.Repeat("x", 64<<10))},
		{"1 GiB of failure", again("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1073741824\r\n\r\n", strings.Repeat("x", 64<<10))},
		{"a head without end", again("HTTP/1.1 200 OK\r\n", "X-More: "+strings.Repeat("h", 1000)+"\r\n")},
		{"1xx without end", again("", "HTTP/1.1 102 Processing\r\n\r\n")},
		{"drips its head", drip("", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")},
		{"drips its body", drip("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("d", 1000))},
		{"drips its error", drip("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("d", 1000))},
		{"bogus chunks of success", say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\nnothing\r\n")},
		{"bogus chunks of failure", say("HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nnothing\r\n")},
		{"an endless chunk", again("HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", strings.Repeat("c", 64<<10))},
		{"unknown encoding", say("HTTP/1.1 200 OK\r\nTransfer-Encoding: zip\r\n\r\n")},
		{"two lengths", say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc")},
		{"closes every second time", func(conn net.Conn, n int64) bool {
			if n%2 == 0 {
				return false
			}
			_, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}},
	}
}

// hold waits until the other side hangs up.
func hold(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func say(text string) func(net.Conn, int64) bool {
	return func(conn net.Conn, _ int64) bool {
		_, _ = io.WriteString(conn, text)
		hold(conn)
		return false
	}
}

// again sends first, and then rest without end.
func again(first, rest string) func(net.Conn, int64) bool {
	return func(conn net.Conn, _ int64) bool {
		_, err := io.WriteString(conn, first)
		for err == nil {
			_, err = io.WriteString(conn, rest)
		}
		return false
	}
}

// drip sends first, and then rest byte by byte, one a second.
func drip(first, rest string) func(net.Conn, int64) bool {
	return func(conn net.Conn, _ int64) bool {
		_, err := io.WriteString(conn, first)
		for i := 0; err == nil && i < len(rest); i++ {
			_, err = io.WriteString(conn, rest[i:i+1])
			<-time.After(time.Second)
		}
		return false
	}
}

// reset sends text, and then a TCP reset in place of the rest.
func reset(text string) func(net.Conn, int64) bool {
	return func(conn net.Conn, _ int64) bool {
		_, _ = io.WriteString(conn, text)
		below := conn
		if c, ok := below.(*countedConn); ok {
			below = c.Conn
		}
		if c, ok := below.(*tls.Conn); ok {
			below = c.NetConn()
		}
		if c, ok := below.(*net.TCPConn); ok {
			<-time.After(50 * time.Millisecond) // a reset overtakes what was sent just before
			_ = c.SetLinger(0)
			_ = c.Close()
		}
		return false
	}
}

// Misled is a rogue at its address.
type Misled struct {
	Addr     string
	Requests atomic.Int64
	Sent     atomic.Int64 // bytes of answers that the other side, or the network between, took
}

// Listen starts a rogue, with TLS when conf is not nil, until the test ends.
func (r Rogue) Listen(t testing.TB, conf *tls.Config) *Misled {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	m := &Misled{Addr: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			if conf != nil {
				conn = tls.Server(conn, conf)
			}
			go r.serve(m, conn)
		}
	}()
	return m
}

func (r Rogue) serve(m *Misled, conn net.Conn) {
	defer conn.Close() //nolint:errcheck // it misbehaves
	counted := &countedConn{Conn: conn, sent: &m.Sent}
	in := bufio.NewReader(conn)
	for {
		head, length := "", 0
		for !strings.HasSuffix(head, "\r\n\r\n") {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			head += line
			if name, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(name, "Content-Length") {
				for _, digit := range strings.TrimSpace(value) {
					length = length*10 + int(digit-'0')
				}
			}
		}
		if _, err := io.CopyN(io.Discard, in, int64(length)); err != nil {
			return
		}
		n := m.Requests.Add(1)
		if r.Talk == nil {
			_, _ = io.WriteString(counted, head)
			return
		}
		if !r.Talk(counted, n) {
			return
		}
	}
}

// countedConn counts what is written.
type countedConn struct {
	net.Conn
	sent *atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}
