package sinks_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sinks"
)

// lockedBuffer takes what several goroutines log.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestHTTPKeepWarm: a request with the sink's credentials and without an event. Its
// failure shows in the debug log alone.
func TestHTTPKeepWarm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		warm sinks.HTTPWarm
		want string
	}{
		{sinks.HTTPWarm{}, "HEAD /fn?key=1"},
		{sinks.HTTPWarm{Method: "GET", Path: "/healthz"}, "GET /healthz"},
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			got := make(chan *http.Request, 16)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got <- r
				http.Error(w, "you sent "+r.Header.Get("Authorization"), http.StatusServiceUnavailable)
			}))
			t.Cleanup(srv.Close)
			var logged lockedBuffer
			s := sinks.NewHTTP()
			s.URL, s.Auth = parse(t, srv.URL+"/fn?key=1"), &sinks.HTTPAuth{Bearer: secret(token)}
			c.warm.Every = value.Duration(time.Second)
			s.KeepWarm = &c.warm
			sink, err := s.Open(context.Background(), sinks.Env{Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				r := <-got
				if text := r.Method + " " + r.RequestURI; text != c.want || r.Header.Get("Authorization") != "Bearer "+token || r.Header.Get("Ce-Id") != "" {
					t.Errorf("%s with %v", text, r.Header)
				}
			}
			if err := sink.(io.Closer).Close(); err != nil {
				t.Error(err)
			}
			text := logged.String()
			if !strings.Contains(text, "level=DEBUG") || !strings.Contains(text, "answered 503") || strings.Contains(text, token) || strings.Contains(text, "level=WARN") {
				t.Errorf("logged was %s", text)
			}
		})
	}
}

// TestHTTPWarmShort reads the short form.
func TestHTTPWarmShort(t *testing.T) {
	t.Parallel()
	var w sinks.HTTPWarm
	if err := w.UnmarshalText([]byte("5m")); err != nil || time.Duration(w.Every) != 5*time.Minute {
		t.Errorf("%v, %v", w, err)
	}
	if w.UnmarshalText([]byte("often")) == nil {
		t.Error("what is no time is read")
	}
}
