package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sinks"
)

// receiver is a far side that is asked for consent.
type receiver struct {
	options, posts atomic.Int64
	answer         atomic.Pointer[http.HandlerFunc]
	seen           atomic.Pointer[http.Header] // of the last OPTIONS
	unknown        atomic.Int64                // deliveries without the origin
}

func (c *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		c.options.Add(1)
		c.seen.Store(&r.Header)
		(*c.answer.Load())(w, r)
		return
	}
	c.posts.Add(1)
	if r.Header.Get("WebHook-Request-Origin") != "events.example.com" || r.Header.Get("WebHook-Request-Rate") != "" {
		c.unknown.Add(1)
	}
}

// says sets the answer to OPTIONS.
func (c *receiver) says(status int, header ...string) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, "something to read")
	})
	c.answer.Store(&answer)
}

func (c *receiver) sink(t *testing.T, perMinute float64) sinks.Sink {
	t.Helper()
	return serve(t, func(s *sinks.HTTP) {
		s.Consent = &sinks.HTTPConsent{Origin: "events.example.com", Rate: value.Rate{Count: perMinute, Per: time.Minute}}
		s.Auth = &sinks.HTTPAuth{Bearer: secret(token)}
	}, c.ServeHTTP)
}

// TestHTTPConsent: one question, then deliveries.
func TestHTTPConsent(t *testing.T) {
	t.Parallel()
	for name, origin := range map[string]string{"by name": "Events.example.com", "all": "*"} {
		c := &receiver{}
		c.says(http.StatusOK, "WebHook-Allowed-Origin", origin, "WebHook-Allowed-Rate", "*")
		sink := c.sink(t, 0)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		wg.Wait()
		if o, p, u := c.options.Load(), c.posts.Load(), c.unknown.Load(); o != 1 || p != 32 || u != 0 {
			t.Errorf("%s: %d questions, %d deliveries, %d of them without the origin", name, o, p, u)
		}
		h := *c.seen.Load()
		if h.Get("WebHook-Request-Origin") != "events.example.com" || h.Get("WebHook-Request-Rate") != "" || h.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s: asked was %v", name, h)
		}
	}
}

// TestHTTPConsentRefused: no consent is no delivery, and an error that says so and
// is tried again.
func TestHTTPConsentRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		header []string
		says   string
		want   int // status
	}{
		"silent":       {200, nil, "no WebHook-Allowed-Origin: events.example.com", 0},
		"another":      {200, []string{"WebHook-Allowed-Origin", "other.example.com"}, "allow this origin", 0},
		"unknown":      {405, []string{"WebHook-Allowed-Origin", "*"}, "answered 405 to OPTIONS", 0},
		"forbidden":    {403, nil, "answered 403 to OPTIONS", 0},
		"broken":       {503, []string{"Retry-After", "9"}, "answered 503 to OPTIONS", 0},
		"retired":      {410, nil, "answered 410", 410},
		"absurd":       {200, []string{"WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "many"}, "WebHook-Allowed-Rate", 0},
		"nothing ever": {200, []string{"WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "0"}, "WebHook-Allowed-Rate", 0},
	} {
		r := &receiver{}
		r.says(c.status, c.header...)
		sink := r.sink(t, 0)
		for range 3 {
			err := sink.Deliver(t.Context(), testDelivery(t, "json"))
			if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "asking for consent to deliver") {
				t.Errorf("%s: %v, want %q", name, err, c.says)
			}
			e := &sinks.Error{}
			_ = errors.As(err, &e)
			if e.Permanent || e.Status != c.want || name == "broken" && e.RetryAfter != 9*time.Second {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if r.posts.Load() != 0 || r.options.Load() != 1 {
			t.Errorf("%s: %d deliveries without consent, %d questions at once", name, r.posts.Load(), r.options.Load())
		}
	}
}

// TestHTTPConsentRate keeps to what is allowed, and says what holds deliveries back.
func TestHTTPConsentRate(t *testing.T) {
	t.Parallel()
	c := &receiver{}
	c.says(http.StatusOK, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", "600")
	sink := c.sink(t, 1200)
	start := time.Now()
	for range 6 {
		if err := sink.Deliver(t.Context(), testDelivery(t, "json")); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 450*time.Millisecond {
		t.Errorf("6 deliveries at 10 in a second took %v", took)
	}
	if rate := c.seen.Load().Get("WebHook-Request-Rate"); rate != "1200" {
		t.Errorf("asked was %q", rate)
	}
	// The operator's own rate is kept too, when more is allowed or nothing is said.
	for _, allowed := range []string{"100", "*", ""} {
		c.says(http.StatusOK, "WebHook-Allowed-Origin", "*", "WebHook-Allowed-Rate", allowed)
		sink = c.sink(t, 2)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err := sink.Deliver(ctx, testDelivery(t, "json"))
		if err != nil {
			t.Fatal(err)
		}
		err = sink.Deliver(ctx, testDelivery(t, "json"))
		cancel()
		var e *sinks.Error
		if !errors.As(err, &e) || e.Status != 429 || e.RetryAfter < 20*time.Second || e.RetryAfter > 30*time.Second || !strings.Contains(err.Error(), "2 requests a minute") {
			t.Errorf("allowed %q: %v", allowed, err)
		}
	}
}

// TestHTTPConsentAgain: after a lost connection the far side is asked again.
func TestHTTPConsentAgain(t *testing.T) {
	t.Parallel()
	var lose atomic.Bool
	c := &receiver{}
	c.says(http.StatusOK, "WebHook-Allowed-Origin", "*")
	sink := serve(t, func(s *sinks.HTTP) { s.Consent = &sinks.HTTPConsent{Origin: "events.example.com"} },
		func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost && lose.Load() {
				panic(http.ErrAbortHandler)
			}
			c.ServeHTTP(w, r)
		})
	deliver := func() error { return sink.Deliver(t.Context(), testDelivery(t, "json")) }
	if err := deliver(); err != nil {
		t.Fatal(err)
	}
	lose.Store(true)
	if err := deliver(); err == nil {
		t.Fatal("delivered over a lost connection")
	}
	lose.Store(false)
	if err := deliver(); err != nil || c.options.Load() != 2 {
		t.Errorf("%v, and the far side was asked %d times", err, c.options.Load())
	}
}
