package sinks

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
)

// Trust makes an https sink believe the authorities of pool, in place of the
// machine's.
func Trust(s Sink, pool *x509.CertPool) {
	s.(*httpSink).transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
