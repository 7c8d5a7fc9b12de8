package sinks_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/sinks"
)

// A function that asks for a lease where there is none is heard of once, with what to
// do: its deliveries count as made, however its jobs end.
func TestHTTPLeaseWithoutTheOption(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Sluice-Lease", "10m")
		if r.URL.Query().Has("done") {
			return // with 200: it is no lease
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(srv.Close)
	for name, c := range map[string]struct {
		query      string
		given      bool
		batch      bool
		want, hint string
	}{
		"one by one":    {hint: "write lease beside http"},
		"in batches":    {batch: true, hint: "leave batch out"},
		"with a lease":  {given: true, want: "10m0s"},
		"done after it": {query: "?done"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			s := sinks.NewHTTP()
			s.URL = parse(t, srv.URL+"/key-4711"+c.query)
			sink, err := s.Open(t.Context(), sinks.Env{Log: slog.New(slog.NewTextHandler(&logged, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer sink.(io.Closer).Close()
			d := testDelivery(t, "json")
			if c.given {
				d.Ask.Lease = &sinks.Lease{URL: "http://127.0.0.1/lease", Token: token}
			}
			for range 3 {
				var answer sinks.Answer
				if c.batch {
					_, err = sink.(sinks.BatchSink).DeliverBatch(t.Context(), []sinks.Delivery{d})
				} else {
					answer, err = sink.(sinks.Replier).DeliverReply(t.Context(), d)
				}
				want, _ := time.ParseDuration(c.want)
				if err != nil || answer.Lease != want {
					t.Errorf("a lease of %s, %v", answer.Lease, err)
				}
			}
			log := logged.String()
			if c.hint == "" && log != "" || c.hint != "" && (strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, c.hint)) || strings.Contains(log, "4711") {
				t.Errorf("logged was %q", log)
			}
		})
	}
}
