package sinks

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
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
	files *value.TLSFiles
	name  string // that the certificate has to be for
}

// open reads the files. It is nil for nil settings.
func (t *HTTPTLS) open(to value.URL, env Env) (*tlsFiles, error) {
	if t == nil {
		return nil, nil
	}
	if env.Guarded && t.CA+t.Cert+t.Key != "" {
		return nil, errors.New("tls: names a file of this machine, which a sink that was added at run time may not")
	}
	log := env.logger()
	f := &tlsFiles{name: t.ServerName}
	if f.name == "" {
		f.name = to.Hostname()
	}
	var err error
	settings := value.TLS{CA: t.CA, Cert: t.Cert, Key: t.Key, ServerName: f.name, Insecure: t.Insecure}
	if f.files, err = settings.Follow(func(err error) { log.Warn("the connection to the far side", "err", err) }); err != nil {
		return nil, err
	}
	if t.Insecure {
		log.Warn("the certificate of the far side is not checked, as tls.insecure says: anybody on the way can read and change what is sent, the credentials too",
			"url", (&url.URL{Scheme: to.Scheme, Host: to.Host}).String())
	}
	return f, nil
}

// current is the configuration that the files make now.
func (f *tlsFiles) current() *tls.Config {
	c := f.files.Current().Clone()
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
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
