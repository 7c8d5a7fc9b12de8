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
	w := &wire{addr: srv.Listener.Addr().String(), large: transport{http.DefaultTransport.(*http.Transport)}, dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		dialed = append(dialed, &deadlineConn{Conn: c})
		return dialed[len(dialed)-1], err
	}}
	send := func(ctx context.Context) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := w.carry(req, []byte("event"))
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
	req, err := http.NewRequestWithContext(over, http.MethodPost, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.carry(req, []byte("event")); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("a request whose context has ended: %v, want that it was canceled", err)
	}
}

// The end of its context cuts a request off, on a connection that was used before:
// while the answer is waited for, and in the middle of its body.
func TestWireCut(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"head": "", "body": "the first half"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, release := make(chan struct{}), make(chan struct{})
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/hang" {
					return
				}
				if answer != "" {
					w.Header().Set("Content-Length", "1000")
					_, _ = io.WriteString(w, answer)
					_ = http.NewResponseController(w).Flush()
				}
				close(asked)
				<-release
			}))
			t.Cleanup(srv.Close)
			defer close(release)
			dials := 0
			w := &wire{addr: srv.Listener.Addr().String(), large: transport{http.DefaultTransport.(*http.Transport)}, dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials++
				return new(net.Dialer).DialContext(ctx, network, addr)
			}}
			send := func(ctx context.Context, path string) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+path, nil)
				if err != nil {
					return err
				}
				res, err := w.carry(req, []byte("event"))
				if err != nil {
					return err
				}
				defer res.Body.Close()
				_, err = io.ReadAll(res.Body)
				return err
			}
			if err := send(t.Context(), "/"); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-asked
				cancel()
			}()
			if err := send(ctx, "/hang"); err == nil {
				t.Error("a request ended well whose context ended before the answer")
			}
			if dials != 1 {
				t.Errorf("%d connections for two requests, want 1", dials)
			}
			if err := send(t.Context(), "/"); err != nil {
				t.Errorf("the next request: %v", err)
			}
			if dials != 2 {
				t.Errorf("%d connections in the end, want 2: what was cut off is not used again", dials)
			}
		})
	}
}

// Requests that have one context in a row are cut off by its end as each alone is, and
// one that ends while the connection rests cuts off no later request.
func TestWireWatchesOneContext(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	c := newWireConn(near)
	reads := func() error {
		_, err := near.Read(make([]byte, 1))
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		if err := c.begin(ctx); err != nil || !c.rest() {
			t.Fatalf("a request under a context that goes on: %v", err)
		}
	}
	cancel()
	if err := c.begin(ctx); err == nil {
		t.Error("a request begins under a context that has ended")
	}
	c.rest()
	c.end(ctx) // late, as it may be called in a goroutine of its own
	next, cancel := context.WithCancel(t.Context())
	if err := c.begin(next); err != nil {
		t.Fatal(err)
	}
	c.end(ctx)
	go func() { _, _ = far.Write([]byte("x")) }()
	if err := reads(); err != nil {
		t.Errorf("the end of an earlier context cuts off the next request: %v", err)
	}
	cancel()
	if err := reads(); err == nil {
		t.Error("the end of its context does not cut off the request")
	}
	if c.rest() {
		t.Error("a connection that was cut off counts as whole")
	}
}
