package app

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestLimitEvictsIdle has more clients than connections, all of which keep theirs
// open after one request: each gets its answer, and soon.
func TestLimitEvictsIdle(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := limitListener(inner, 4, silent())
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
		srv.Listener, srv.Config.ConnState = l, l.state
		if secure {
			srv.StartTLS()
		} else {
			srv.Start()
		}
		t.Cleanup(srv.Close)
		for i := range 50 {
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // who answers is of no interest
			t.Cleanup(client.CloseIdleConnections)
			res, err := client.Get(srv.URL)
			if err != nil {
				t.Fatalf("client %d, TLS %v: %v", i, secure, err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Error(err)
			}
			_ = res.Body.Close()
		}
		if n := len(l.slots); n > 4 {
			t.Errorf("%d connections at a time", n)
		}
	}
}
