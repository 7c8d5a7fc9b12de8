package sinks

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"sluice/config/value"
)

// HTTPTLS says how the far side is known, and how the sink is known to it. The files
// are read again when they have changed: new connections use what they hold then.
type HTTPTLS struct {
	CA         string `yaml:"ca" doc:"The PEM file of the authorities that the far side's certificate may be from, in place of the machine's."`
	Cert       string `yaml:"cert" doc:"The PEM file of the sink's own certificate, with its chain."`
	Key        string `yaml:"key" doc:"The PEM file of its key."`
	ServerName string `yaml:"server_name" doc:"The name that the far side's certificate has to be for, when it is not that of the url."`
	Insecure   bool   `yaml:"insecure" doc:"Do not check the far side's certificate: anybody on the way can read and change what is delivered. For trying things out."`
}

func (t *HTTPTLS) validate(to value.URL) value.Faults {
	var faults value.Faults
	switch {
	case t == nil:
		return nil
	case !to.IsZero() && to.Scheme != "https":
		faults.Add("", "has no meaning for an http:// url: write https://, or leave it out")
	case (t.Cert == "") != (t.Key == ""):
		faults.Add("cert", "goes together with key: write both, or none")
	case t.Insecure && (t.CA != "" || t.ServerName != ""):
		faults.Add("insecure", "does not check the certificate, and ca or server_name says how to: write one of the two")
	}
	return faults
}

// tlsFiles is the configuration that the files make.
type tlsFiles struct {
	settings HTTPTLS
	name     string // that the certificate has to be for
	log      *slog.Logger

	mu     sync.Mutex
	stamps stamps
	config *tls.Config
}

// stamps tell one state of the files from another; nil where there is none.
type stamps [3]os.FileInfo

func (s stamps) same(other stamps) bool {
	for i, a := range s {
		if b := other[i]; a != nil && (b == nil || !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime())) {
			return false
		}
	}
	return true
}

// open reads the files. It is nil for nil settings.
func (t *HTTPTLS) open(to value.URL, env Env) (*tlsFiles, error) {
	if t == nil {
		return nil, nil
	}
	if env.Guarded && t.CA+t.Cert+t.Key != "" {
		return nil, errors.New("tls: names a file of this machine, which a sink that was added at run time may not")
	}
	f := &tlsFiles{settings: *t, name: t.ServerName, log: env.logger()}
	if f.name == "" {
		f.name = to.Hostname()
	}
	var err error
	if f.stamps, err = f.look(); err == nil {
		f.config, err = f.read()
	}
	if err != nil {
		return nil, err
	}
	if t.Insecure {
		f.log.Warn("the certificate of the far side is not checked, as tls.insecure says: anybody on the way can read and change what is sent, the credentials too",
			"url", (&url.URL{Scheme: to.Scheme, Host: to.Host}).String())
	}
	return f, nil
}

// look takes the stamps of the files.
func (f *tlsFiles) look() (found stamps, err error) {
	for i, path := range [3]string{f.settings.CA, f.settings.Cert, f.settings.Key} {
		if path == "" {
			continue
		}
		if found[i], err = os.Stat(path); err != nil {
			return found, fmt.Errorf("tls: %w", err)
		}
	}
	return found, nil
}

// read makes a configuration of the files.
func (f *tlsFiles) read() (*tls.Config, error) {
	s := value.TLS{CA: f.settings.CA, Cert: f.settings.Cert, Key: f.settings.Key, ServerName: f.name, Insecure: f.settings.Insecure}
	c, err := s.Config()
	if err == nil {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return c, err
}

// current is the configuration that the files make now. Files that cannot be used,
// as between the change of one and of the next, leave the last one in force.
func (f *tlsFiles) current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.look()
	if err == nil && found.same(f.stamps) {
		return f.config
	}
	var fresh *tls.Config
	if err == nil {
		fresh, err = f.read()
	}
	if err != nil {
		f.log.Warn("the files of tls have changed and cannot be used; what they held before stays in force", "err", err)
		return f.config
	}
	f.config, f.stamps = fresh, found
	return fresh
}

// handshakeTimeout bounds a TLS handshake.
const handshakeTimeout = 10 * time.Second

// dial is a dial function of connections with TLS.
func (f *tlsFiles) dial(below dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := below(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errors.New("the TLS handshake took too long"))
		defer cancel()
		secure := tls.Client(conn, f.current())
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return secure, nil
	}
}
