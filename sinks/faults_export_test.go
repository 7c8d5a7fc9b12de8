package sinks

import (
	"crypto/tls"
	"crypto/x509"
	"net"
)

// Resolve makes an http sink look names up elsewhere, under the guard of env.
func Resolve(s Sink, env Env, r *net.Resolver) {
	dialer := newDialer(env)
	dialer.Resolver = r
	s.(*httpSink).transport.(*wire).dial = dialer.DialContext
}

// Trust makes an https sink believe the authorities of pool, in place of the
// machine's.
func Trust(s Sink, pool *x509.CertPool) {
	s.(*httpSink).transport.(transport).TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// Fast tells whether an http sink has the fast way of plain HTTP.
func Fast(s Sink) bool {
	_, ok := s.(*httpSink).transport.(*wire)
	return ok
}
