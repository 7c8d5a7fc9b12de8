package jetstream

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
)

// conn is one in-process connection, with an inbox of its own that all replies
// come through. It is leaner than nats.go's requests, takes several replies to one
// request, and sees acknowledgements in the order in which the server sent them,
// also those that nobody waits for any more.
type conn struct {
	nc    *nats.Conn
	inbox string

	mu    sync.Mutex
	last  uint64
	calls map[uint64]*call
	down  bool
}

// call is a request on its way. take is called with each reply, in order, until it
// says that there is no more to come; then done is closed. When the connection
// breaks, done is closed without that.
type call struct {
	take func(*nats.Msg) (last bool)
	done chan struct{}
	ok   bool // set before done is closed
}

var errDown = errors.New("the connection to the store is down")

func newConn(srv nats.InProcessConnProvider, closed func(error)) (*conn, error) {
	c := &conn{calls: map[uint64]*call{}}
	nc, err := nats.Connect("", nats.InProcessServer(srv), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { closed(err) }),
		nats.ClosedHandler(func(nc *nats.Conn) {
			c.drop()
			closed(errors.Join(errDown, nc.LastError()))
		}))
	if err != nil {
		return nil, err
	}
	c.nc, c.inbox = nc, nats.NewInbox()+"."
	sub, err := nc.Subscribe(c.inbox+"*", c.reply)
	if err == nil {
		// What comes in is bounded by what was asked for.
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// reply runs on the one goroutine of the inbox.
func (c *conn) reply(m *nats.Msg) {
	id, err := strconv.ParseUint(m.Subject[len(c.inbox):], 36, 64)
	if err != nil {
		return
	}
	c.mu.Lock()
	call := c.calls[id]
	c.mu.Unlock()
	if call == nil || !call.take(m) {
		return
	}
	c.mu.Lock()
	_, waiting := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if waiting {
		call.ok = true
		close(call.done)
	}
}

// send starts a request.
func (c *conn) send(subject string, data []byte, take func(*nats.Msg) bool) (*call, uint64, error) {
	call := &call{take: take, done: make(chan struct{})}
	c.mu.Lock()
	if c.down {
		c.mu.Unlock()
		return nil, 0, errDown
	}
	c.last++
	id := c.last
	c.calls[id] = call
	c.mu.Unlock()
	if err := c.nc.PublishRequest(subject, c.inbox+strconv.FormatUint(id, 36), data); err != nil {
		c.forget(id)
		return nil, 0, err
	}
	return call, id, nil
}

// request waits for the one reply to a request.
func (c *conn) request(ctx context.Context, subject string, data []byte) (*nats.Msg, error) {
	var reply *nats.Msg
	err := c.requestMany(ctx, subject, data, func(m *nats.Msg) bool { reply = m; return true })
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// requestMany waits until take has had the last reply.
func (c *conn) requestMany(ctx context.Context, subject string, data []byte, take func(*nats.Msg) bool) error {
	call, id, err := c.send(subject, data, take)
	if err != nil {
		return err
	}
	select {
	case <-call.done:
		if !call.ok {
			return errDown
		}
		return nil
	case <-ctx.Done():
		// take may be running this very moment, so its results must not be looked at.
		c.forget(id)
		return context.Cause(ctx)
	}
}

func (c *conn) forget(id uint64) {
	c.mu.Lock()
	delete(c.calls, id)
	c.mu.Unlock()
}

// drop ends every call without a reply.
func (c *conn) drop() {
	c.mu.Lock()
	calls := c.calls
	c.calls, c.down = nil, true
	c.mu.Unlock()
	for _, call := range calls {
		close(call.done)
	}
}
