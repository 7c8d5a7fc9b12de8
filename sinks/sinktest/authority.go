package sinktest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates for tests.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that nobody trusts yet.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{t: t, key: newKey(t)}
	a.cert = a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "an authority for tests"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, nil, &a.key.PublicKey, time.Hour)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate that is valid until life has passed; nil for parent
// signs it with itself.
func (a *Authority) sign(c, parent *x509.Certificate, key *ecdsa.PublicKey, life time.Duration) *x509.Certificate {
	a.t.Helper()
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotAfter = time.Now().Add(life)
	c.NotBefore = c.NotAfter.Add(-100 * time.Hour)
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return signed
}

// Server is the TLS configuration of a server with a certificate for host, a name
// or an address, that is valid until life has passed.
func (a *Authority) Server(host string, life time.Duration) *tls.Config {
	a.t.Helper()
	c := &x509.Certificate{Subject: pkix.Name{CommonName: host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else {
		c.DNSNames = []string{host}
	}
	key := newKey(a.t)
	signed := a.sign(c, a.cert, &key.PublicKey, life)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		Certificates: []tls.Certificate{{Certificate: [][]byte{signed.Raw}, PrivateKey: key}},
	}
}

// MutualServer is Server for one that wants a certificate of the authority itself, and
// speaks another protocol than HTTP.
func (a *Authority) MutualServer(host string) *tls.Config {
	a.t.Helper()
	conf := a.Server(host, time.Hour)
	conf.NextProtos, conf.ClientCAs, conf.ClientAuth = nil, a.Pool(), tls.RequireAndVerifyClientCert
	return conf
}

// ServerPEM is the certificate of such a server, and its key, in PEM.
func (a *Authority) ServerPEM(host string, life time.Duration) (cert, key []byte) {
	a.t.Helper()
	pair := a.Server(host, life).Certificates[0]
	return a.pem(pair.Certificate[0], pair.PrivateKey)
}

// Client is a certificate for a client of that name, and its key, in PEM.
func (a *Authority) Client(name string) (cert, key []byte) {
	a.t.Helper()
	private := newKey(a.t)
	signed := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, &private.PublicKey, time.Hour)
	return a.pem(signed.Raw, private)
}

func (a *Authority) pem(signed []byte, private any) (cert, key []byte) {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Install writes the authority's certificate and a pair into a directory, in place of
// those that are there.
func (a *Authority) Install(dir string, certPEM, keyPEM []byte) (ca, cert, key string) {
	a.t.Helper()
	files := [3]string{"ca.pem", "cert.pem", "key.pem"}
	for i, content := range [3][]byte{a.PEM(), certPEM, keyPEM} {
		files[i] = filepath.Join(dir, files[i])
		err := os.WriteFile(files[i]+".new", content, 0o600)
		if err == nil {
			err = os.Rename(files[i]+".new", files[i])
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
	return files[0], files[1], files[2]
}

// PEM is the authority's own certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Pool trusts the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}
