package app_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
	"sluice/config/access"
	"sluice/sinks/sinktest"
)

func TestAuth(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	withTokens := toOne(f, "") + `
sources: {shop: {http: {path: /in/shop}}}
server:
  auth:
    tokens:
      - {name: shop, token: "${env:SHOP}", scopes: [publish]}
      - {name: ops, token: "${env:OPS}", scopes: [admin]}
`
	n := apptest.Start(t, withTokens, func(o *app.Options) {
		o.Kinds.Env = func(name string) (string, bool) { return "secret-of-" + name, true }
	})
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/", "", 401}, {"/", "wrong", 401}, {"/", "secret-of-SHOP", 202}, {"/", "secret-of-OPS", 202},
		{"/in/shop", "", 401}, {"/in/shop", "secret-of-SHOP", 202},
		{"/api/v1/reload", "secret-of-SHOP", 403}, {"/api/v1/reload", "", 401},
	} {
		n.Token = c.token
		a := n.PublishTo(c.path, "1", "order", `{}`)
		if a.Status != c.want || a.Status == 401 && a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("POST %s with %q: %d %s", c.path, c.token, a.Status, a.Body)
		}
	}
	for _, c := range []struct {
		path, token string
		want        int
	}{
		{"/livez", "", 200}, {"/readyz", "", 200}, {"/metrics", "", 401}, {"/metrics", "secret-of-OPS", 200},
		{"/api/v1/status", "", 401}, {"/api/v1/status", "secret-of-SHOP", 403}, {"/api/v1/status", "secret-of-OPS", 200},
	} {
		n.Token = c.token
		if a := n.Do("GET", c.path, ""); a.Status != c.want {
			t.Errorf("GET %s with %q: %d %s", c.path, c.token, a.Status, a.Body)
		}
	}
	n.WriteConfig(strings.Replace(withTokens, "OPS", "NEW", 1))
	n.Post("/api/v1/reload", "", &struct{}{})
	if a := n.Do("GET", "/api/v1/status", ""); a.Status != http.StatusUnauthorized {
		t.Errorf("a token that was taken out: %d", a.Status)
	}
	if strings.Contains(n.Logs.String(), "secret-of-") {
		t.Error("the log holds a secret")
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	n := apptest.Start(t, toOne(f, ""))
	second, err := apptest.New(t, toOne(f, ""), func(o *app.Options) { o.Listen = n.Addr() })
	mustDo(t, err)
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "something listens on "+n.Addr()+" already") {
		t.Errorf("got %v", err)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	dir := apptest.OnDisk(t.TempDir())
	n := apptest.Start(t, toOne(f, ""), dir)
	second, err := apptest.New(t, toOne(f, ""), dir)
	mustDo(t, err)
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "is in use by") {
		t.Errorf("got %v", err)
	}
	n.MustPublish("1", "order", `{}`)
}

func TestExposedNeedsAuth(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	_, err := apptest.New(t, toOne(f, ""), func(o *app.Options) { o.Listen = "0.0.0.0:0" })
	if err == nil || !strings.Contains(err.Error(), "nothing says who may call") {
		t.Errorf("got %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := writeCertificate(t, cert, key)
	n := apptest.Start(t, toOne(f, "")+fmt.Sprintf("server: {tls: {cert: %q, key: %q}}\n", cert, key))
	trust := func(pool *x509.CertPool) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
		t.Cleanup(transport.CloseIdleConnections)
		n.Client = &http.Client{Transport: transport}
	}
	trust(pool)
	n.MustPublish("1", "order", `{}`)

	renewed := writeCertificate(t, cert, key)
	if r := n.Reload(t.Context()); !r.OK {
		t.Fatalf("got %+v", r)
	}
	trust(renewed)
	n.MustPublish("2", "order", `{}`)
}

// One source knows its callers by certificates: those of the other paths need none when
// they have tokens. Without tokens the certificates are what keeps others out, and every
// client needs one.
func TestSourceCertificates(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	authority := sinktest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := authority.ServerPEM("127.0.0.1", time.Hour)
	ca, certFile, keyFile := authority.Install(dir, cert, key)
	own, err := tls.X509KeyPair(authority.Client("partner"))
	mustDo(t, err)
	const source = "sources: {partner: {http: {path: /in/partner, auth: {certificates: [{name: partner, match: partner}]}}}}\n"
	with := func(auth string) string {
		return toOne(f, "") + source + fmt.Sprintf("server: {tls: {cert: %q, key: %q, client_ca: %q}%s}\n", certFile, keyFile, ca, auth)
	}
	if _, err := apptest.New(t, toOne(f, "")+source); err == nil || !strings.Contains(err.Error(), "sources.partner.http.auth.certificates: needs server.tls.client_ca") {
		t.Errorf("without client_ca: %v", err)
	}
	n := apptest.Start(t, with(", auth: {tokens: [{name: all, hash: "+access.Hash("token")+", scopes: [admin]}]}"))
	send := func(path, token string, certs ...tls.Certificate) (status int) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), Certificates: certs}}
		defer transport.CloseIdleConnections()
		n.Client, n.Token = &http.Client{Transport: transport}, token
		a, err := n.Try(http.MethodPost, path, `{"specversion":"1.0","id":"1","source":"/s","type":"order"}`, "Content-Type", "application/cloudevents+json")
		if err != nil {
			return 0
		}
		return a.Status
	}
	for _, c := range []struct {
		path, token string
		certs       []tls.Certificate
		want        int
	}{
		{"/events", "token", nil, 202},
		{"/events", "", nil, 401},
		{"/in/partner", "", nil, 401},
		{"/in/partner", "", []tls.Certificate{own}, 202},
		{"/events", "", []tls.Certificate{own}, 401},
	} {
		if got := send(c.path, c.token, c.certs...); got != c.want {
			t.Errorf("%s with %q and %d certificates: %d, want %d", c.path, c.token, len(c.certs), got, c.want)
		}
	}
	n.WriteConfig(with(""))
	if r := n.Reload(t.Context()); !r.OK {
		t.Fatalf("got %+v", r)
	}
	if got := send("/events", ""); got != 0 {
		t.Errorf("without a certificate, where nothing else says who may call: %d", got)
	}
	if got := send("/events", "", own); got != 202 {
		t.Errorf("with a certificate: %d", got)
	}
}

func writeCertificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	mustDo(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	mustDo(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	mustDo(t, err)
	mustDo(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	mustDo(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
	cert, err := x509.ParseCertificate(der)
	mustDo(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool
}

// The service manager hears when the bus is ready, reloads and stops.
func TestNotify(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	socket := filepath.Join(t.TempDir(), "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	mustDo(t, err)
	t.Cleanup(func() { mustDo(t, conn.Close()) })
	n := apptest.Start(t, toOne(f, ""), func(o *app.Options) { o.Notify = socket })
	n.Reload(t.Context())
	mustDo(t, n.Stop(t.Context()))
	buf := make([]byte, 256)
	for _, want := range []string{"READY=1", "RELOADING=1\nMONOTONIC_USEC=", "READY=1", "STOPPING=1"} {
		mustDo(t, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
		size, err := conn.Read(buf)
		if got := string(buf[:size]); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}
