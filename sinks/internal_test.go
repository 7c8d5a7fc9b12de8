package sinks

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

func TestMetadataService(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"127.0.0.1": false, "::1": false, "10.0.0.1": false, "8.8.8.8": false, "fd00::1": false, "0.0.0.0": false,
		"169.254.0.1": false, "fe80::1": false, "fe80::1%eth0": false, "febf::1": false, "fec0::1": false,
		"169.254.169.254": true, "169.254.170.2": true, "169.254.170.23": true, "::ffff:169.254.169.254": true,
		"fe80::a9fe:a9fe": true, "fe80::a9fe:a9fe%eth0": true,
		"fd00:ec2::254": true, "fd00:ec2::23": true, "64:ff9b::a9fe:a9fe": true, "64:ff9b::808:808": false,
		"168.63.129.16": true, "100.100.100.200": true, "192.0.0.192": true,
	} {
		if got := metadataService(netip.MustParseAddr(addr)); got != want {
			t.Errorf("metadataService(%s) = %v", addr, got)
		}
	}
}

// Who may reach what: the operator's sinks all but metadata services, and those too when
// they say so; guarded sinks what is public and what the operator allows, and never
// metadata services.
func TestGuard(t *testing.T) {
	t.Parallel()
	ranges := func(texts ...string) (all []value.CIDR) {
		for _, text := range texts {
			c, err := value.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c)
		}
		return all
	}
	some, all := ranges("10.1.0.0/16", "169.254.7.0/24", "fd00::/16", "169.254.169.0/24"), ranges("0.0.0.0/0", "::/0")
	may := &HTTP{Metadata: true}
	envs := []Env{
		{}, may.reach(Env{}), may.reach(Env{Guarded: true}), may.reach(Env{Guarded: true, Allow: some}), may.reach(Env{Guarded: true, Allow: all}),
	}
	for _, c := range []struct {
		address string
		may     []bool // the operator's, with metadata_service; a caller's, with some addresses allowed, with all
	}{
		{"8.8.8.8:80", []bool{true, true, true, true, true}},
		{"127.0.0.1:80", []bool{true, true, false, false, true}},
		{"10.1.2.3:80", []bool{true, true, false, true, true}},
		{"[::ffff:10.1.2.3]:80", []bool{true, true, false, true, true}},
		{"10.2.2.3:80", []bool{true, true, false, false, true}},
		{"[64:ff9b::10.1.2.3]:80", []bool{true, true, false, false, true}},
		{"[fd00::1]:80", []bool{true, true, false, true, true}},
		{"[fe80::1%eth0]:80", []bool{true, true, false, false, true}},
		{"169.254.7.1:80", []bool{true, true, false, true, true}},
		{"169.254.169.254:80", []bool{false, true, false, false, false}},
		{"[fd00:ec2::254]:80", []bool{false, true, false, false, false}},
		{"nonsense", []bool{false, false, false, false, false}},
	} {
		for i, e := range envs {
			if err := e.guard("tcp", c.address, nil); (err == nil) != c.may[i] {
				t.Errorf("%s, case %d: %v, want it reached: %v", c.address, i, err, c.may[i])
			}
		}
	}
}

func TestRetryAfterHeader(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"7":                             7 * time.Second,
		" 7 ":                           7 * time.Second,
		"7.5":                           0,
		"-1":                            0,
		"99999999999":                   0,
		"4294967295":                    4294967295 * time.Second,
		"tomorrow":                      0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:00:05 GMT": 0,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", text, got, want)
		}
	}
}

// Over TLS the sink speaks HTTP/2: many deliveries share one connection.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	const n = 32
	var together sync.WaitGroup
	together.Add(n)
	var conns atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		together.Done()
		together.Wait() // all of them are in flight at once
		if r.ProtoMajor != 2 {
			w.WriteHeader(http.StatusHTTPVersionNotSupported)
		}
	}))
	srv.EnableHTTP2 = true
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateActive {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s := NewHTTP()
	s.URL = value.URL{URL: must(t)(url.Parse(srv.URL))}
	opened, err := s.Open(t.Context(), Env{})
	if err != nil {
		t.Fatal(err)
	}
	sink := opened.(*httpSink)
	sink.transport.(transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig
	e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/s"}, {Name: "type", Value: "t"}}, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := sink.Deliver(t.Context(), Delivery{Event: e, ID: "d", Attempt: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
	// A race of dials at the start may open a few more than one.
	if got := conns.Load(); got > n/2 {
		t.Errorf("%d deliveries took %d connections", n, got)
	}
}

func must(t testing.TB) func(*url.URL, error) *url.URL {
	return func(u *url.URL, err error) *url.URL {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("cause")
	if Permanent(nil) != nil || RetryAfter(nil, time.Second) != nil {
		t.Error("nil does not stay nil")
	}
	err := fmt.Errorf("deliver: %w", RetryAfter(Answered(http.StatusTooManyRequests, []byte("later")), time.Minute))
	err = Permanent(err)
	var e *Error
	if !errors.As(err, &e) || !e.Permanent || e.RetryAfter != time.Minute || e.Status != 429 || string(e.Answer) != "later" {
		t.Errorf("what was known is lost: %+v", e)
	}
	if got, want := err.Error(), "deliver: answered 429"; got != want {
		t.Errorf("prints %q, want %q", got, want)
	}
	plain := Permanent(fmt.Errorf("a: %w", cause))
	if !errors.Is(plain, cause) || !errors.As(plain, &e) || e.Status != 0 {
		t.Errorf("%+v does not unwrap to its cause", plain)
	}
	first := Answered(500, nil)
	_ = Permanent(first)
	if errors.As(first, &e); e.Permanent {
		t.Error("Permanent changed the error it was given")
	}
}
