package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/cmd/internal/app/apptest"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

// issue makes a certificate, signed by the authority or, before there is one, by itself.
func (a *authority) issue(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(name, kind string, raw []byte) string {
	a.t.Helper()
	file := filepath.Join(a.dir, name)
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return file
}

// server writes the certificate of a server, as the tls section of a config.
func (a *authority) server() string {
	a.t.Helper()
	cert, key := a.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return fmt.Sprintf("tls: {cert: %q, key: %q, client_ca: %q}",
		a.write("cert.pem", "CERTIFICATE", cert.Raw), a.write("key.pem", "EC PRIVATE KEY", raw), filepath.Join(a.dir, "ca.pem"))
}

// client is a client with a certificate of that name, "" for none.
func (a *authority) client(name string, server *authority) *http.Client {
	a.t.Helper()
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(server.cert)
	if name != "" {
		cert, key := a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		// With Certificates a client would keep to itself what the server does not know.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}, nil
		}
	}
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	a.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// statusOf is what a client gets; 0 when there is no connection.
func statusOf(t *testing.T, n *apptest.Node, client *http.Client, method, path string) int {
	t.Helper()
	n.Client = client
	a, err := n.Try(method, path, `{}`, "Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/t", "Ce-Type", "order")
	if err != nil {
		return 0
	}
	return a.Status
}

// With certificates under auth, one is a way to call among others; without, every
// client needs one.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	ours, foreign := newAuthority(t), newAuthority(t)
	section := ours.server()
	config := "sinks: {hook: {http: {url: \"" + f.URL + "\"}}}\nrules: {all: {match: {type: [order]}, to: [hook]}}\n"
	certificates := "auth: {certificates: [{name: orders, match: orders.example.com, scopes: [publish]}]}"
	for name, tc := range map[string]struct {
		auth   string
		client *http.Client
		want   map[string]int
	}{
		"known":         {certificates, ours.client("orders.example.com", ours), map[string]int{"POST /": 202, "GET /metrics": 403, "GET /livez": 200}},
		"unknown":       {certificates, ours.client("other.example.com", ours), map[string]int{"POST /": 401, "GET /livez": 200}},
		"without":       {certificates, ours.client("", ours), map[string]int{"POST /": 401, "GET /livez": 200}},
		"foreign":       {certificates, foreign.client("orders.example.com", ours), map[string]int{"POST /": 0, "GET /livez": 0}},
		"every, with":   {"", ours.client("anybody", ours), map[string]int{"POST /": 202, "GET /metrics": 200}},
		"every, none":   {"", ours.client("", ours), map[string]int{"POST /": 0, "GET /livez": 0}},
		"every, forged": {"", foreign.client("anybody", ours), map[string]int{"POST /": 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := apptest.Start(t, config+"server:\n  "+section+"\n  "+tc.auth+"\n")
			for call, want := range tc.want {
				var method, path string
				if _, err := fmt.Sscan(call, &method, &path); err != nil {
					t.Fatal(err)
				}
				if got := statusOf(t, n, tc.client, method, path); got != want {
					t.Errorf("%s: %d, want %d", call, got, want)
				}
			}
		})
	}
}
