package sinks_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/sinks"
)

// TestHTTPGuarded writes this machine's address in every notation.
func TestHTTPGuarded(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	handler := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for host, what := range map[string]string{
		"127.0.0.1": "refused", "localhost": "refused", "127.1.2.3": "refused", "0.0.0.0": "refused",
		"[::1]": "refused", "[::]": "refused", "[0:0:0:0:0:0:0:1]": "refused", "[::ffff:127.0.0.1]": "refused", "[::ffff:7f00:1]": "refused",
		"[::127.0.0.1]": "refused", "[64:ff9b::7f00:1]": "refused", "[64:ff9b::10.0.0.1]": "refused", "[64:ff9b:1::7f00:1]": "refused",
		"[2002:7f00:1::]": "refused", "[2001:0:1::80ff:fffe]": "refused", "[2600::5efe:7f00:1]": "refused",
		"10.0.0.1": "refused", "192.168.1.1": "refused", "172.31.255.255": "refused", "100.64.0.1": "refused", "169.254.169.254": "refused",
		"224.0.0.1": "refused", "255.255.255.255": "refused", "[fd00::1]": "refused", "[ff02::1]": "refused", "[fe80::1]": "refused", "[fec0::1]": "refused",
		// Numbers in other forms are names here; whatever a resolver makes of them, it is refused.
		"2130706433": "", "0x7f000001": "", "0177.0.0.1": "", "127.1": "", "localhost.": "",
	} {
		s := sinks.NewHTTP()
		s.URL = parse(t, "http://"+host+":"+port+"/")
		sink, err := s.Open(t.Context(), sinks.Env{Guarded: true})
		if err != nil {
			t.Fatal(err)
		}
		limit := time.Minute // an address is refused at once, on a machine that has the time
		if what == "" {
			limit = 2 * time.Second // a resolver may take long to know nothing
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		err = sink.Deliver(ctx, testDelivery(t, "json"))
		cancel()
		_ = sink.(io.Closer).Close()
		var e *sinks.Error
		if err == nil || what == "refused" && (!errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), "is a")) {
			t.Errorf("%s: %v, want an address that is refused for good", host, err)
		}
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("%d requests came through", n)
	}
	s := sinks.NewHTTP()
	s.URL = parse(t, srv.URL)
	if err := open(t, s).Deliver(t.Context(), testDelivery(t, "json")); err != nil {
		t.Errorf("the operator's sink: %v", err)
	}
}

// TestHTTPGuardedNames resolves names to addresses that are refused: what counts is
// the address at the time of the connection.
func TestHTTPGuardedNames(t *testing.T) {
	t.Parallel()
	var reached, asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	t.Cleanup(srv.Close)
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resolver := fakeDNS(t, func(name string) netip.Addr {
		asked.Add(1)
		switch name {
		case "private.example.":
			return netip.MustParseAddr("10.1.2.3")
		case "metadata.example.":
			return netip.MustParseAddr("169.254.169.254")
		}
		return netip.MustParseAddr("127.0.0.1")
	})
	for _, name := range []string{"loopback.example", "private.example", "metadata.example"} {
		s := sinks.NewHTTP()
		s.URL = parse(t, "http://"+name+":"+port+"/")
		sink, err := s.Open(t.Context(), sinks.Env{Guarded: true})
		if err != nil {
			t.Fatal(err)
		}
		sinks.Resolve(sink, sinks.Env{Guarded: true}, resolver)
		err = sink.Deliver(t.Context(), testDelivery(t, "json"))
		var e *sinks.Error
		if !errors.As(err, &e) || !e.Permanent {
			t.Errorf("%s: %v", name, err)
		}
		sinks.Resolve(sink, sinks.Env{}, resolver)
		if err := sink.Deliver(t.Context(), testDelivery(t, "json")); name == "loopback.example" && err != nil {
			t.Errorf("%s, for the operator: %v", name, err)
		} else if name == "metadata.example" && (!errors.As(err, &e) || !e.Permanent) {
			t.Errorf("%s, for the operator: %v", name, err)
		}
		_ = sink.(io.Closer).Close()
	}
	if reached.Load() != 1 || asked.Load() < 5 {
		t.Errorf("%d requests came through, %d questions were asked", reached.Load(), asked.Load())
	}
}

// fakeDNS is a resolver that is told the IPv4 address of every name.
func fakeDNS(t *testing.T, address func(name string) netip.Addr) *net.Resolver {
	t.Helper()
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			// Over a stream each message has its length before it.
			head := make([]byte, 2)
			if _, err := io.ReadFull(far, head); err != nil {
				return
			}
			text := make([]byte, int(head[0])<<8|int(head[1]))
			if _, err := io.ReadFull(far, text); err != nil {
				return
			}
			var m dnsmessage.Message
			if err := m.Unpack(text); err != nil {
				t.Error(err)
				return
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: address(q.Name.String()).As4()},
				}}
			}
			packed, err := m.AppendPack([]byte{0, 0})
			if err != nil {
				t.Error(err)
				return
			}
			packed[0], packed[1] = byte((len(packed)-2)>>8), byte(len(packed)-2)
			_, _ = far.Write(packed)
		}()
		return near, nil
	}}
}

// TestEveryKindIsGuardedOrRefused opens each kind as with a caller's settings: those
// that see to addresses before they connect, or reach nothing, and no others.
func TestEveryKindIsGuardedOrRefused(t *testing.T) {
	t.Parallel()
	guards := map[string]func(sinks.Settings){
		"http":   func(s sinks.Settings) { s.(*sinks.HTTP).URL = parse(t, "http://127.0.0.1:1") },
		"sluice": func(s sinks.Settings) { s.(*sinks.Sluice).URL = parse(t, "http://127.0.0.1:1") },
		"queue":  nil, "stdout": nil,
	}
	for _, kind := range sinks.Kinds() {
		settings := kind.New()
		fill, guarded := guards[kind.Name]
		if fill != nil {
			fill(settings)
		}
		sink, err := settings.Open(t.Context(), sinks.Env{Guarded: true})
		if !guarded {
			if err == nil || !strings.Contains(err.Error(), "a "+kind.Name+" sink cannot be added at run time") {
				t.Errorf("%s: %v, want it refused", kind.Name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", kind.Name, err)
			continue
		}
		if c, ok := sink.(io.Closer); ok {
			defer func() { _ = c.Close() }()
		}
		if fill == nil {
			continue
		}
		var e *sinks.Error
		if err := sink.Deliver(t.Context(), testDelivery(t, "json")); !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), "may not reach") {
			t.Errorf("%s: %v, want an address that is refused", kind.Name, err)
		}
	}
}
