package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
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
	listener net.Listener
	cert     atomic.Pointer[tls.Certificate]
	done     sync.WaitGroup
}

// listen takes the address; run serves on it.
func listen(addr string, c config.Server, h http.Handler, log *slog.Logger) (*server, error) {
	s := &server{http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: time.Duration(c.ReadHeaderTimeout),
		ReadTimeout:       time.Duration(c.ReadTimeout),
		WriteTimeout:      time.Duration(c.ReadTimeout) + answerTime,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	if err := s.renew(c.TLS); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("something listens on %s already, perhaps another sluice: stop that, or choose another address (server.listen or --listen)", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s (server.listen or --listen): %w", addr, err)
	}
	s.listener = limitListener(listener, c.Limits.Connections)
	if c.TLS.Enabled() {
		s.http.TLSConfig = &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load(), nil },
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

// check tells whether the certificate can be read.
func (s *server) check(c config.TLS) error {
	if !c.Enabled() {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
		return fmt.Errorf("server.tls: %w: give the PEM files of a certificate and its key", err)
	}
	return nil
}

// renew reads the certificate, which may have been replaced on disk.
func (s *server) renew(c config.TLS) error {
	if !c.Enabled() {
		return nil
	}
	if err := s.check(c); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err == nil {
		s.cert.Store(&pair)
	}
	return err
}
