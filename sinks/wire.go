package sinks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// wire is the way of plain HTTP/1.1 requests. http.Transport hands each request to
// a goroutine that writes and each answer from one that reads; here the caller
// does both on a connection that is its own for the time. Everything else is
// net/http's: the dialer and the form of the answer. That saves goroutine switches,
// system calls and nearly all the memory of a request.
type wire struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	addr string // host and port
	// large takes requests whose body is too long to be written before the answer
	// is looked at.
	large carrier

	mu     sync.Mutex
	idle   []*wireConn // the last used at the end
	expiry *time.Timer // runs while there is an idle connection
	closed bool
}

const (
	wireIdle    = 60 * time.Second // how long a connection may stay unused
	wireMaxIdle = 1024
	// wireBodyMost is the longest body that is sent whole before the answer is
	// read: it fits into the buffers of a connection.
	wireBodyMost = 64 << 10
	wireHeader   = 64 << 10 // bytes of an answer's head
)

// wireConn is one connection.
type wireConn struct {
	conn   net.Conn
	socket *socket // conn's, nil when there is none
	in     *bufio.Reader
	out    *message // goes out before the next byte is read
	failed error    // why it did not
	left   int64    // bytes that may still be read
	heard  bool     // something was read since the request
	lost   error    // why nothing more can be read
	since  time.Time
	// hurried is that a read deadline was set. A request sets none: setting and
	// clearing one costs as much as its head. The end of its context does.
	hurried bool

	mu      sync.Mutex
	watched context.Context // whose end cuts off the request that is under way
	unwatch func() bool
	busy    bool // a request is under way
	cut     bool
}

func newWireConn(conn net.Conn) *wireConn {
	c := &wireConn{conn: conn, socket: socketOf(conn)}
	c.in = bufio.NewReader(c)
	return c
}

// begin puts a request under its context. Many requests in a row have the same one,
// which is watched once for all of them.
func (c *wireConn) begin(ctx context.Context) error {
	c.mu.Lock()
	if c.watched != ctx {
		if c.unwatch != nil {
			c.unwatch()
		}
		c.watched = ctx
		c.unwatch = context.AfterFunc(ctx, func() { c.end(ctx) })
	}
	c.busy = true
	c.mu.Unlock()
	// Either it had not ended yet when the connection was marked busy, and then its end
	// finds that, or it shows here.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// end cuts off the request of a context, if that is the one under way.
func (c *wireConn) end(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy && c.watched == ctx {
		c.cut = true
		_ = c.conn.SetDeadline(time.Unix(1, 0))
	}
}

// rest ends a request, and tells whether it was not cut off.
func (c *wireConn) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	return !c.cut
}

func (c *wireConn) close() error {
	c.mu.Lock()
	if c.unwatch != nil {
		c.unwatch()
	}
	c.mu.Unlock()
	return c.conn.Close()
}

// Read sends what is to go out, and limits what a head can make us hold.
func (c *wireConn) Read(p []byte) (n int, err error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("the head of the answer is larger than %d bytes", wireHeader)
	}
	p = p[:min(int64(len(p)), c.left)]
	if out := c.out; out != nil {
		c.out = nil
		n, err = c.swap(out, p)
	} else {
		n, err = c.conn.Read(p)
	}
	c.lost = err
	c.left -= int64(n)
	c.heard = c.heard || n > 0
	return n, err
}

// swap sends a message and reads the first bytes of what comes back, which may say
// more than the error of sending it.
func (c *wireConn) swap(m *message, p []byte) (n int, err error) {
	rest := m.bytes
	if c.socket != nil && m.tail == nil {
		n, rest, err = c.socket.swap(rest, p)
	}
	if len(rest) > 0 {
		c.failed = c.write(rest, m.tail)
	}
	if n > 0 || err != nil {
		return n, err
	}
	return c.conn.Read(p)
}

func (c *wireConn) write(parts ...[]byte) error {
	buffers := net.Buffers(parts)
	_, err := buffers.WriteTo(c.conn)
	return err
}

// carry is carrier.carry. The answer's body has to be closed; when it was read to its
// end the connection is used again.
func (w *wire) carry(req *http.Request, body []byte) (*http.Response, error) {
	if len(body) > wireBodyMost {
		return w.large.carry(req, body)
	}
	m := newMessage()
	defer m.free()
	m.begin(req, req.Header)
	m.body(body)
	return w.send(req.Context(), m, req)
}

// send sends a message that is complete. The answer is to req, or to a POST when that
// is nil.
func (w *wire) send(ctx context.Context, m *message, req *http.Request) (*http.Response, error) {
	for {
		c, used, err := w.get(ctx)
		if err != nil {
			return nil, err
		}
		res, err := w.exchange(ctx, c, m, req)
		if err == nil {
			return res, nil
		}
		_ = c.close()
		// The far side may close a connection that was idle just when it is used
		// again. Nothing was answered, so the request may go out once more: an event
		// may reach a function more than once in any case.
		if !used || c.heard || ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, timedOut(ctx, err)
		}
	}
}

// timedOut says why a connection was cut off.
func timedOut(ctx context.Context, err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return context.DeadlineExceeded
}

// exchange sends a request and reads the head of the answer.
func (w *wire) exchange(ctx context.Context, c *wireConn, m *message, req *http.Request) (*http.Response, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	c.left, c.heard, c.lost, c.failed, c.out = wireHeader, false, nil, nil, m
	// An answer may have come although the request could not be sent whole, such as
	// a 413: it says more than the broken pipe.
	res, err := readAnswer(c.in, req)
	if err != nil {
		switch {
		case c.failed != nil:
			err = c.failed
		case c.lost != nil && !errors.Is(c.lost, io.EOF):
			err = c.lost // half a head looks malformed, which is not the reason
		}
		return nil, err
	}
	c.left = math.MaxInt64
	keep := c.failed == nil && !res.Close && res.StatusCode != http.StatusSwitchingProtocols
	res.Body = &wireBody{w: w, c: c, body: res.Body, keep: keep, ended: res.ContentLength == 0}
	return res, nil
}

// readAnswer reads heads up to the first that is not informational.
func readAnswer(in *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range 8 {
		res, err := http.ReadResponse(in, req)
		if err != nil || res.StatusCode >= 200 || res.StatusCode == http.StatusSwitchingProtocols {
			return res, err
		}
	}
	return nil, errors.New("too many informational answers")
}

// wireBody is the body of an answer; Close gives the connection back.
type wireBody struct {
	w     *wire
	c     *wireConn
	body  io.ReadCloser
	keep  bool // the connection may be used again, once the body has ended
	ended bool
}

func (b *wireBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// hurry gives the rest of the body that much time at most.
func (b *wireBody) hurry(patience time.Duration) {
	b.c.hurried = true
	_ = b.c.conn.SetReadDeadline(time.Now().Add(patience))
}

func (b *wireBody) Close() error {
	if b.c == nil {
		return nil
	}
	c := b.c
	b.c = nil
	// What is left of a long body is not worth reading: the connection goes.
	if intact := c.rest(); intact && b.keep && b.ended && c.in.Buffered() == 0 {
		b.w.put(c)
		return nil
	}
	return c.close()
}

// get takes the connection that was used last, or makes one.
func (w *wire) get(ctx context.Context) (c *wireConn, used bool, err error) {
	w.mu.Lock()
	for len(w.idle) > 0 {
		n := len(w.idle)
		c = w.idle[n-1]
		w.idle[n-1] = nil
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		if c.calm() && c.quiet() {
			return c, true, nil
		}
		// The far side closed it, or sent what nobody asked for: the next answer on
		// it would not be that to the next request.
		_ = c.close()
		w.mu.Lock()
	}
	w.mu.Unlock()
	conn, err := w.dial(ctx, "tcp", w.addr)
	if err != nil {
		return nil, false, err
	}
	return newWireConn(conn), false, nil
}

// quiet tells whether an idle connection is open and has nothing to say.
func (c *wireConn) quiet() bool { return c.socket == nil || c.socket.quiet() }

// calm takes the read deadline of the last answer away.
func (c *wireConn) calm() bool {
	if c.hurried && c.conn.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	c.hurried = false
	return true
}

func (w *wire) put(c *wireConn) {
	c.since = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.idle) >= wireMaxIdle {
		_ = c.close()
		return
	}
	w.idle = append(w.idle, c)
	if w.expiry == nil {
		w.expiry = time.AfterFunc(wireIdle, w.expire)
	}
}

// expire closes what was idle for too long.
func (w *wire) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for n < len(w.idle) && time.Since(w.idle[n].since) >= wireIdle {
		_ = w.idle[n].close()
		n++
	}
	w.idle = append([]*wireConn(nil), w.idle[n:]...)
	w.expiry = nil
	if len(w.idle) > 0 {
		w.expiry = time.AfterFunc(wireIdle-time.Since(w.idle[0].since), w.expire)
	}
}

// CloseIdleConnections closes what is not in use, and lets nothing become idle
// any more.
func (w *wire) CloseIdleConnections() {
	w.large.CloseIdleConnections()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.idle {
		_ = c.close()
	}
	w.idle = nil
	if w.expiry != nil {
		w.expiry.Stop()
		w.expiry = nil
	}
}
