package api

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// A bus without auth is for whoever is on its machine. A page in a browser there is
// not: its author can let a name of his own lead to 127.0.0.1 (DNS rebinding), and to
// the browser all that answers under that name is the page's own. So such a bus does
// not answer under names that anybody can have.

// checkHost is why a request came by a name that it should not have; nil when it is
// one that leads to this machine alone.
func (a *api) checkHost(r *http.Request) error {
	view := a.View()
	if r.TLS != nil || view.Config == nil || !view.Config.Server.Auth.IsZero() || view.Config.Server.Exposed() || !public(r.Host) {
		return nil
	}
	return refuse(http.StatusForbidden, "the bus has no server.auth, and does not answer under the name %.100q, which any web page could have: "+
		"call it by localhost or an IP address, or write server.auth, which is none if everybody may call", r.Host)
}

// public tells whether a host is a name of the public DNS: an address is not, nor is a
// name without a dot or in a domain that is nobody's.
func public(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.Trim(host, "[]"), ".")
	if _, err := netip.ParseAddr(host); err == nil {
		return false
	}
	at := strings.LastIndexByte(host, '.')
	if at < 0 {
		return false
	}
	switch strings.ToLower(host[at+1:]) {
	case "localhost", "internal", "local": // RFC 6761, ICANN's domain for private use, RFC 6762
		return false
	}
	return true
}
