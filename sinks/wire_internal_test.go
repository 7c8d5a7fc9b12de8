package sinks

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// deadlineConn notes the read deadlines that are set.
type deadlineConn struct {
	net.Conn
	mu  sync.Mutex
	set []bool // for each: there is one from now on
}

func (c *deadlineConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set = append(c.set, !t.IsZero())
	return c.Conn.SetReadDeadline(t)
}

// A connection that is used again has no deadline of the answer before, and is not cut
// off when the context of a request ends that is long over.
func TestWireUsedAgain(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "taken") }))
	t.Cleanup(srv.Close)
	var dialed []*deadlineConn
	w := &wire{addr: srv.Listener.Addr().String(), large: http.DefaultTransport.(*http.Transport), dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		dialed = append(dialed, &deadlineConn{Conn: c})
		return dialed[len(dialed)-1], err
	}}
	send := func(ctx context.Context) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, strings.NewReader("event"))
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		hurry(res.Body)
		if text, err := io.ReadAll(res.Body); string(text) != "taken" || err != nil {
			t.Errorf("the answer is %q, %v", text, err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	over, end := context.WithCancel(t.Context())
	send(over)
	end()
	send(t.Context())
	send(t.Context())
	if len(dialed) != 1 {
		t.Fatalf("three requests took %d connections, want 1", len(dialed))
	}
	if want := []bool{true, false, true, false, true}; !slices.Equal(dialed[0].set, want) {
		t.Errorf("read deadlines were set as %v, want %v: one for each body, and none for the next head", dialed[0].set, want)
	}
	over, end = context.WithCancel(t.Context())
	end()
	req, err := http.NewRequestWithContext(over, http.MethodPost, srv.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RoundTrip(req); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("a request whose context has ended: %v, want that it was canceled", err)
	}
}
