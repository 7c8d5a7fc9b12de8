package dispatch

import "sync"

// calls are the calls from outside that change deliveries. None begins once the bus
// stops, and that waits for those under way: what they are told is saved then.
type calls struct {
	mu     sync.Mutex
	open   int
	closed bool
	idle   chan struct{} // closed when the last one has left; nil while nobody waits
}

// enter tells whether a call may begin; it calls leave in the end.
func (c *calls) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.open++
	return true
}

func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open--; c.open == 0 && c.idle != nil {
		close(c.idle)
	}
}

// close lets no more calls begin, and waits for those under way.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	idle := make(chan struct{})
	if c.open == 0 {
		close(idle)
	} else {
		c.idle = idle
	}
	c.mu.Unlock()
	<-idle
}
