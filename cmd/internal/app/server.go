package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/config"
)

const (
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// answerTime is how long an answer may take beyond the time for its request;
	// a tail moves its own deadline on.
	answerTime = time.Minute
)

// server is the one listener.
type server struct {
	http     *http.Server
	listener *limitedListener
	tls      atomic.Pointer[tls.Config] // what the next connection gets
	done     sync.WaitGroup
}

// listen takes the address; run serves on it.
func listen(addr string, cfg *config.Config, h http.Handler, log *slog.Logger) (*server, error) {
	c := cfg.Server
	s := &server{http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: time.Duration(c.ReadHeaderTimeout),
		ReadTimeout:       time.Duration(c.ReadTimeout),
		WriteTimeout:      time.Duration(c.ReadTimeout) + answerTime,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	if err := s.renew(cfg); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("something listens on %s already, perhaps another sluice: stop that, or choose another address (server.listen or --listen)", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (server.listen or --listen): %w", addr, err)
	}
	s.listener = limitListener(listener, c.Limits.Connections, log)
	s.http.ConnState = s.listener.state
	if c.TLS.Enabled() {
		s.http.TLSConfig = &tls.Config{
			MinVersion:         tls.VersionTLS12,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.tls.Load(), nil },
		}
	}
	return s, nil
}

func (s *server) addr() string { return s.listener.Addr().String() }

// run serves until stop; failed hears when it ends before.
func (s *server) run(failed func(error)) {
	s.done.Go(func() {
		var err error
		if s.http.TLSConfig != nil {
			err = s.http.ServeTLS(s.listener, "", "")
		} else {
			err = s.http.Serve(s.listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			failed(fmt.Errorf("the HTTP server: %w", err))
		}
	})
}

// stop lets the answers under way end until ctx does.
func (s *server) stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if ctx.Err() != nil {
		err = s.http.Close()
	}
	if closed := s.listener.Close(); err == nil && !errors.Is(closed, net.ErrClosed) {
		err = closed
	}
	s.done.Wait()
	return err
}

// check tells whether the certificates can be read.
func (s *server) check(cfg *config.Config) error {
	_, err := tlsConfig(cfg)
	return err
}

// renew reads the certificates, which may have been replaced on disk.
func (s *server) renew(cfg *config.Config) error {
	fresh, err := tlsConfig(cfg)
	if err == nil && fresh != nil {
		s.tls.Store(fresh)
	}
	return err
}

// tlsConfig is what connections are served with; nil for plain HTTP.
func tlsConfig(cfg *config.Config) (*tls.Config, error) {
	c := cfg.Server
	if !c.TLS.Enabled() {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("server.tls: %w: give the PEM files of a certificate and its key", err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
	if c.TLS.ClientCA == "" {
		return t, nil
	}
	text, err := os.ReadFile(c.TLS.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("server.tls.client_ca: %w", err)
	}
	t.ClientCAs = x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("server.tls.client_ca: %s holds no certificate in PEM", c.TLS.ClientCA)
	}
	t.ClientAuth = tls.RequireAndVerifyClientCert
	// One way to call among others. Without tokens for the rest, client_ca is what keeps
	// everybody else out: that a source knows its own callers must not open all the paths
	// beside it.
	if len(c.Auth.Certificates) > 0 || len(c.Auth.Tokens) > 0 && cfg.SourceCertificates() {
		t.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return t, nil
}
