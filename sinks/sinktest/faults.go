package sinktest

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"sluice/sinks"
)

// Fault is what is wrong with a far side, or with how it is used.
type Fault string

// The faults, which every kind tells apart.
const (
	FaultCredentials Fault = "it refuses the credentials"
	FaultDenied      Fault = "it does not allow it"
	FaultUnknown     Fault = "there is no such place"
	FaultLarge       Fault = "it takes nothing so large"
	FaultOutage      Fault = "it does not answer"
)

// testFaults holds kinds whose far side does not speak HTTP to the verdicts of those
// whose does. A status decides what the bus does next.
func testFaults(t *testing.T, s *Subject) {
	switch {
	case s.Local:
		t.Skip("there is no far side to have faults")
	case s.Answer != nil:
		t.Skip("the far side answers with a status: its verdicts are another test")
	case s.Faulty == nil:
		t.Fatal("the subject has neither Answer nor Faulty: say what its faults come to")
	}
	for fault, status := range map[Fault]int{
		FaultCredentials: 401, FaultDenied: 403, FaultUnknown: 404, FaultLarge: 413, FaultOutage: 0,
	} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel()
			sink := s.Faulty(t, fault)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := sink.Deliver(ctx, one(t))
			var e *sinks.Error
			if !errors.As(err, &e) || e.Status != status || e.Permanent != (fault == FaultLarge) || e.RetryAfter != 0 {
				t.Errorf("%v (%+v), want the status %d", err, e, status)
			}
			s.checkError(t, err)
		})
	}
}

// testElsewhere delivers to where no far side of the kind is: that is an outage, and
// names no secret on the way.
func testElsewhere(t *testing.T, s *Subject) {
	switch {
	case s.Local:
		t.Skip("there is no way to a far side")
	case s.Elsewhere == nil:
		t.Fatal("the subject has no Elsewhere: open its sink for another address")
	}
	strange := NewAuthority(t).Server("127.0.0.1", patience)
	for name, way := range map[string]struct {
		tls  *tls.Config
		meet func(net.Conn)
	}{
		"refused":     {nil, nil},
		"reset":       {nil, func(conn net.Conn) { hangUp(conn) }},
		"certificate": {strange, func(conn net.Conn) { _ = tls.Server(conn, strange).Handshake(); hangUp(conn) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sink := s.Elsewhere(t, listen(t, way.meet), way.tls)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := sink.Deliver(ctx, one(t))
			var e *sinks.Error
			if err == nil || errors.As(err, &e) && (e.Permanent || e.Status != 0) {
				t.Errorf("%v (%+v), want an outage", err, e)
			}
			s.checkError(t, err)
		})
	}
}

// listen gives each connection to meet, until the test ends. With nil for meet nobody
// listens at the address.
func listen(t *testing.T, meet func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if meet == nil {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return l.Addr().String()
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go meet(conn)
		}
	}()
	return l.Addr().String()
}

// hangUp ends a connection with a TCP reset.
func hangUp(conn net.Conn) {
	if c, ok := conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// shows is where a text shows a secret of the settings; "" for nowhere.
func (s *Subject) shows(text string) string {
	for _, secret := range s.Secrets {
		if at := strings.Index(text, secret); at >= 0 {
			return text[max(0, at-200):min(len(text), at+200)]
		}
	}
	return ""
}

// checkError fails when an error shows a secret.
func (s *Subject) checkError(t *testing.T, err error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %q", err, err, err)
	var e *sinks.Error
	if errors.As(err, &e) {
		text += string(e.Answer)
	}
	if shown := s.shows(text); shown != "" {
		t.Errorf("a secret shows in the error: %s", shown)
	}
}

// journal is a log that is written from many goroutines.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
