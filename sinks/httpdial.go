package sinks

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"sluice/config/value"
)

// carrier sends requests on connections of its own.
type carrier interface {
	// carry sends a request, which has no body yet, with that body.
	carry(req *http.Request, body []byte) (*http.Response, error)
	CloseIdleConnections()
}

// transport is the carrier of net/http, and of HTTP/2 and TLS.
type transport struct{ *http.Transport }

// carry is carrier.carry. Bodies are *bytes.Reader, which net/http knows: it writes
// head and body at once, where a type of our own would cost two writes.
func (t transport) carry(req *http.Request, body []byte) (*http.Response, error) {
	req.ContentLength = int64(len(body))
	req.Body = http.NoBody
	if len(body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(body))
		// For HTTP/2 and for idle connections that the far side closed meanwhile.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	}
	return t.RoundTrip(req)
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

func newDialer(env Env) *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second, Control: env.guard}
}

// newCarrier is one sink's own pool of connections, so that one sink cannot
// use up another's. Without traffic it is some memory and no goroutine. files may
// be nil.
func newCarrier(to value.URL, env Env, files *tlsFiles) carrier {
	dialer := newDialer(env)
	if to.Scheme == "http" {
		port := to.Port()
		if port == "" {
			port = "80"
		}
		return &wire{
			dial: dialer.DialContext, addr: net.JoinHostPort(to.Hostname(), port), large: transport{newTransport(dialer, nil)},
		}
	}
	return transport{newTransport(dialer, files)}
}

func newTransport(dialer *net.Dialer, files *tlsFiles) *http.Transport {
	t := plainTransport(dialer)
	if files != nil {
		t.DialTLSContext = files.dial(dialer.DialContext)
	}
	return t
}

func plainTransport(dialer *net.Dialer) *http.Transport {
	return &http.Transport{
		// No Proxy: the guard would see the proxy's address and not the target's.
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: handshakeTimeout,
		// The dispatcher decides how many requests run at once; as many connections
		// stay open. The default of 2 would open one for nearly every request.
		MaxIdleConnsPerHost:    1024,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		// A connection that died in silence carries all the requests of an HTTP/2
		// sink: find out.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
}

// userAgent is sluice and, in a released build, its version.
func userAgent() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return "sluice/" + info.Main.Version
	}
	return "sluice"
}
