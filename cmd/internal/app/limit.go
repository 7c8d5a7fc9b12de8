package app

import (
	"container/list"
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
	idle   *list.List // of net.Conn, the one that is idle for the longest time first
	places map[net.Conn]*list.Element
	warned time.Time
}

func limitListener(l net.Listener, n int, log *slog.Logger) *limitedListener {
	return &limitedListener{
		Listener: l, log: log, slots: make(chan struct{}, n), closed: make(chan struct{}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_http_connections_evicted_total", Help: "Idle connections of clients that were closed to let others in.",
		}),
		idle: list.New(), places: map[net.Conn]*list.Element{},
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
	return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
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
	defer l.mu.Unlock()
	if oldest := l.idle.Front(); oldest != nil {
		l.evict(oldest.Value.(net.Conn))
	}
	if now := time.Now(); now.Sub(l.warned) > time.Minute {
		l.warned = now
		l.log.Warn("all connections are in use: idle ones are closed to let others in, and who finds none waits; "+
			"server.limits.connections may need to be higher", "connections", cap(l.slots))
	}
}

// evict closes an idle connection. The caller holds the lock.
func (l *limitedListener) evict(conn net.Conn) {
	l.forget(conn)
	l.evicted.Inc()
	_ = conn.Close()
}

func (l *limitedListener) forget(conn net.Conn) {
	if at, ok := l.places[conn]; ok {
		l.idle.Remove(at)
		delete(l.places, conn)
	}
}

// state is http.Server.ConnState.
func (l *limitedListener) state(conn net.Conn, s http.ConnState) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(conn)
	switch {
	case s != http.StateIdle:
	case l.waiting.Load():
		l.evict(conn)
	default:
		l.places[conn] = l.idle.PushBack(conn)
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
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.release()
	return err
}
