package app

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// limitedListener has n connections at a time. More wait in the kernel's queue: what
// they would cost here is bounded. While one waits, a connection that has nothing
// to do is closed in its favour: so clients that keep theirs open keep nobody out,
// not even the probe that asks whether we live.
type limitedListener struct {
	net.Listener
	log     *slog.Logger
	slots   chan struct{}
	closed  chan struct{}
	once    sync.Once
	waiting atomic.Bool // somebody waits for a slot
	evicted prometheus.Counter

	mu     sync.Mutex
	open   map[*limitedConn]struct{}
	warned time.Time
}

func limitListener(l net.Listener, n int, log *slog.Logger) *limitedListener {
	return &limitedListener{
		Listener: l, log: log, slots: make(chan struct{}, n), closed: make(chan struct{}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_http_connections_evicted_total", Help: "Idle connections of clients that were closed to let others in.",
		}),
		open: map[*limitedConn]struct{}{},
	}
}

// collectors are the metrics of the listener.
func (l *limitedListener) collectors() []prometheus.Collector {
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		gauge("sluice_http_connections", "Connections of clients that are open.", func() int { return len(l.slots) }),
		gauge("sluice_http_connections_limit", "How many connections of clients may be open: server.limits.connections.", func() int { return cap(l.slots) }),
		l.evicted,
	}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
	default:
		if !l.awaitSlot() {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
	}
	c := &limitedConn{Conn: conn}
	c.release = sync.OnceFunc(func() {
		l.mu.Lock()
		delete(l.open, c)
		l.mu.Unlock()
		<-l.slots
	})
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.mu.Unlock()
	return c, nil
}

// awaitSlot takes a slot when there is none. False means that the listener closed.
func (l *limitedListener) awaitSlot() bool {
	l.waiting.Store(true)
	defer l.waiting.Store(false)
	l.full()
	select {
	case l.slots <- struct{}{}:
		return true
	case <-l.closed:
		return false
	}
}

// full closes the connection that is idle for the longest time, if there is one.
func (l *limitedListener) full() {
	l.mu.Lock()
	var oldest *limitedConn
	since := int64(0)
	for c := range l.open {
		if idle := c.idle.Load(); idle > 0 && (oldest == nil || idle < since) {
			oldest, since = c, idle
		}
	}
	now := time.Now()
	warn := now.Sub(l.warned) > time.Minute
	if warn {
		l.warned = now
	}
	l.mu.Unlock()
	if oldest != nil {
		l.evict(oldest, since)
	}
	if warn {
		l.log.Warn("all connections are in use: idle ones are closed to let others in, and who finds none waits; "+
			"server.limits.connections may need to be higher", "connections", cap(l.slots))
	}
}

// evict closes a connection that is idle since then, unless it has something to do by
// now.
func (l *limitedListener) evict(c *limitedConn, since int64) {
	if c.idle.CompareAndSwap(since, 0) {
		l.evicted.Inc()
		_ = c.Close()
	}
}

// state is http.Server.ConnState. It is called twice for each request: it takes no
// lock.
func (l *limitedListener) state(conn net.Conn, s http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, ok := conn.(*limitedConn)
	switch {
	case !ok:
	case s != http.StateIdle:
		c.idle.Store(0)
	default:
		since := time.Now().UnixNano()
		c.idle.Store(since)
		if l.waiting.Load() {
			l.evict(c, since)
		}
	}
}

// Close implements net.Listener.
func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	release func()
	idle    atomic.Int64 // since when, in Unix nanoseconds; 0 while it has something to do
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
