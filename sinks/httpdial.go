package sinks

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"sluice/config/value"
)

// roundTripper sends requests on connections of its own.
type roundTripper interface {
	http.RoundTripper
	CloseIdleConnections()
}

// newRoundTripper is one sink's own pool of connections, so that one sink cannot
// use up another's. Without traffic it is some memory and no goroutine.
func newRoundTripper(to value.URL) roundTripper {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second, Control: guard}
	if to.Scheme == "http" {
		port := to.Port()
		if port == "" {
			port = "80"
		}
		return &wire{
			dial: dialer.DialContext, addr: net.JoinHostPort(to.Hostname(), port), large: newTransport(dialer),
		}
	}
	return newTransport(dialer)
}

func newTransport(dialer *net.Dialer) *http.Transport {
	return &http.Transport{
		// No Proxy: the guard would see the proxy's address and not the target's.
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
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

// refusedAddress is an address that nothing is ever delivered to.
type refusedAddress struct{ addr netip.Addr }

func (e *refusedAddress) Error() string {
	return fmt.Sprintf("%s is a link-local or cloud metadata address, and nothing is delivered there", e.addr)
}

// guard runs after name resolution and before each connect, so that no name, and
// no name that changes its address, leads around it.
func guard(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("not an address: %s", address)
	}
	if forbidden(ap.Addr()) {
		return &refusedAddress{ap.Addr()}
	}
	return nil
}

// forbidden tells whether an address is link-local or belongs to the metadata
// service of a cloud, which hands out credentials to whoever asks.
func forbidden(addr netip.Addr) bool {
	addr = embedded(addr.WithZone("").Unmap())
	if addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast() {
		return true
	}
	switch addr.String() {
	case "100.100.100.200", // Alibaba Cloud
		"168.63.129.16", // Azure
		"192.0.0.192":   // Oracle Cloud
		return true
	}
	return within(addr, "fd00:ec2::/32") || // AWS
		within(addr, "fd20:ce::/32") // Google Cloud
}

func within(addr netip.Addr, prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }

// embedded is the IPv4 address that an IPv6 address stands for in NAT64, 6to4 and
// the old compatible form, or the address itself.
func embedded(addr netip.Addr) netip.Addr {
	b := addr.As16()
	switch {
	case !addr.Is6() || addr == netip.IPv6Loopback() || addr == netip.IPv6Unspecified():
		return addr
	case within(addr, "64:ff9b::/96"), within(addr, "64:ff9b:1::/48"), within(addr, "::/96"):
		return netip.AddrFrom4([4]byte(b[12:]))
	case within(addr, "2002::/16"):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}

// userAgent is sluice and, in a released build, its version.
func userAgent() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") {
		return "sluice/" + info.Main.Version
	}
	return "sluice"
}
