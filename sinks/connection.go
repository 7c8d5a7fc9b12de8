package sinks

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// Connector is a sink that holds a connection, or a pool of them, and can tell how
// its far side is reached.
type Connector interface {
	Sink
	// Connection is how that is now. It does not ask the far side.
	Connection() Connection
}

// Connection is how a far side is reached.
type Connection struct {
	Up    bool
	Err   error     // why it is not up
	Since time.Time // it is as it is; zero before the first attempt to connect
}

// contact follows the connection of a sink by what becomes of its deliveries.
type contact struct {
	// answered tells an error that the far side answered with from one of the way to
	// it, where the status does not.
	answered func(error) bool
	// login says that a connection begins with a login: one that is refused is none.
	login bool

	mu  sync.Mutex
	now Connection
}

// Connection is Connector.Connection.
func (c *contact) Connection() Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// is notes how the connection is; nil for up.
func (c *contact) is(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if up := err == nil; up != c.now.Up || c.now.Since.IsZero() {
		c.now.Up, c.now.Since = up, time.Now()
	}
	c.now.Err = err
}

// heard takes in what became of the deliveries of one call.
func (c *contact) heard(errs ...error) {
	var down error
	for _, err := range errs {
		var e *Error
		switch known := errors.As(err, &e); {
		case errors.Is(err, context.Canceled): // by this side, as when it stops
		case known && e.Permanent: // it may have been refused on this side
		case err == nil, known && e.Status != 0 && (e.Status != http.StatusUnauthorized || !c.login), c.answered != nil && c.answered(err):
			c.is(nil)
			return
		default:
			down = err
		}
	}
	if down != nil {
		c.is(down)
	}
}
