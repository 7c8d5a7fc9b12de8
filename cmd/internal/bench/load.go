package bench

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// load publishes events over a number of connections: each sends its next request
// when it has the answer to the last, or, with a rate, when it is time for it.
type load struct {
	address     string
	connections int
	size        int // bytes of an event's data
	batch       int // events in one request
	rate        float64
	most        int64 // most events in all; 0 for any number

	tally *tally
	due   chan time.Duration // with a rate: when each request was due
	quit  chan struct{}
	late  atomic.Int64 // requests that were due and not even queued
	fault atomic.Pointer[string]
	done  sync.WaitGroup
}

const (
	// queueAhead is how far an open loop may fall behind.
	queueAhead = 1 << 16
	// patience is how long a request under way may take once the load is ended.
	patience = 30 * time.Second
	// redial is the pause after a connection failed: the server may be starting.
	redial = 5 * time.Millisecond
)

// begin starts to publish. Call end, or wait.
func (l *load) begin(ctx context.Context) {
	l.quit = make(chan struct{})
	if l.batch == 0 {
		l.batch = 1
	}
	if l.rate > 0 {
		l.due = make(chan time.Duration, queueAhead)
		l.done.Go(func() { l.pace(ctx) })
	}
	cut, cancel := context.WithCancel(ctx)
	for range l.connections {
		l.done.Go(func() { l.connect(cut) })
	}
	go func() {
		defer cancel()
		select {
		case <-cut.Done():
			return
		case <-l.quit:
		}
		over := time.AfterFunc(patience, cancel)
		defer over.Stop()
		l.done.Wait()
	}()
}

// end lets the requests under way end, and waits for them.
func (l *load) end() {
	close(l.quit)
	l.done.Wait()
}

// wait waits until the load has published all it may.
func (l *load) wait() {
	l.done.Wait()
	close(l.quit)
}

// pace says when requests are due. It never waits for the server, so a server
// that stalls cannot hide the events that it should have taken meanwhile.
func (l *load) pace(ctx context.Context) {
	begin := l.tally.now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for n := 1; ; n++ {
		at := begin + time.Duration(float64(n)*float64(time.Second)/l.rate)
		timer.Reset(at - l.tally.now())
		select {
		case <-timer.C:
		case <-l.quit:
			return
		case <-ctx.Done():
			return
		}
		select {
		// Not when it was planned: how late the timer is, is no fault of the server.
		case l.due <- l.tally.now():
		default:
			l.late.Add(1)
		}
	}
}

// next waits until a request should go out, and gives the numbers of its events.
func (l *load) next(ctx context.Context) (first int64, ok bool) {
	at := time.Duration(-1)
	select {
	case <-l.quit:
		return 0, false
	default:
	}
	if l.due != nil {
		select {
		case at = <-l.due:
		case <-l.quit:
			return 0, false
		case <-ctx.Done():
			return 0, false
		}
	}
	for range l.batch {
		if l.tally.slots == nil {
			break
		}
		select {
		case l.tally.slots <- struct{}{}:
		case <-l.quit:
			return 0, false
		case <-ctx.Done():
			return 0, false
		}
	}
	first, ok = l.tally.take(l.batch)
	if !ok || l.most > 0 && first >= l.most {
		return 0, false
	}
	if at < 0 {
		at = l.tally.now()
	}
	for i := range l.batch {
		l.tally.sent(first+int64(i), at)
	}
	return first, true
}

// connect publishes until the load ends, over one connection after the other.
func (l *load) connect(ctx context.Context) {
	req := newRequest(l.batch, l.size)
	var dialer net.Dialer
	for ctx.Err() == nil {
		select {
		case <-l.quit:
			return
		default:
		}
		c, err := dialer.DialContext(ctx, "tcp", l.address)
		if err != nil {
			l.failed("connecting: " + err.Error())
			pause(ctx, redial)
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		more := l.publish(ctx, c, req)
		stop()
		_ = c.Close()
		if !more {
			return
		}
		pause(ctx, redial)
	}
}

// publish sends requests until the connection fails; more is false when there is
// nothing left to send.
func (l *load) publish(ctx context.Context, c net.Conn, req *request) (more bool) {
	r := bufio.NewReaderSize(c, 4<<10)
	for {
		first, ok := l.next(ctx)
		if !ok {
			return false
		}
		req.number(first)
		var answer message
		_, err := c.Write(req.text)
		if err == nil {
			err = answer.read(r)
		}
		accepted := err == nil && answer.status == http.StatusAccepted
		for i := range l.batch {
			if accepted {
				l.tally.accept(first + int64(i))
			} else {
				l.tally.refuse(first + int64(i))
			}
		}
		switch {
		case err != nil:
			l.failed("publishing: " + err.Error())
			return true
		case !accepted:
			l.failed("publishing: the server answered " + http.StatusText(answer.status))
			pause(ctx, redial)
		}
		if answer.close {
			return true
		}
	}
}

// failed keeps the first fault.
func (l *load) failed(what string) { l.fault.CompareAndSwap(nil, &what) }

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
