package sourcetest

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"sluice/bus"
	"sluice/sources"
)

// Host is what a source lives in during a test: state in memory that outlives a
// source, a real listener for doors, and a record of what the source reported. It
// stands for one name in the config: open several sources with it for restarts.
type Host struct {
	URL string // of the listener, without a slash at the end
	Log *slog.Logger

	dir      string
	mux      *http.ServeMux
	mu       sync.Mutex
	state    map[string][]byte
	rejected []sources.Rejected
	observed map[sources.Outcome]int
	reported error
	fail     error // of Reject and Put
}

// NewHost gives a host that ends with the test.
func NewHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), dir: t.TempDir(), mux: http.NewServeMux(),
		state: map[string][]byte{}, observed: map[sources.Outcome]int{},
	}
	srv := httptest.NewServer(h.mux)
	t.Cleanup(srv.Close)
	h.URL = srv.URL
	return h
}

// Open opens a source with the settings, which must be valid.
func (h *Host) Open(t testing.TB, s sources.Settings) sources.Source {
	t.Helper()
	if faults := s.Validate(); len(faults) > 0 {
		t.Fatalf("the settings are not valid: %v", faults)
	}
	src, err := s.Open(t.Context(), h.Env())
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return src
}

// Env is what a source of this host is given.
func (h *Host) Env() sources.Env {
	return sources.Env{
		Name: "test", Log: h.Log, Dir: h.dir, State: hostState{h},
		Handle: func(d sources.Door) error {
			h.mux.Handle(d.Path, d.Handler)
			return nil
		},
		Observe: func(o sources.Outcome, n int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.observed[o] += n
		},
		Reject: func(_ context.Context, r sources.Rejected) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.fail != nil {
				return h.fail
			}
			_ = r.Event("test") // as the bus does
			r.Data = slices.Clone(r.Data)
			h.rejected = append(h.rejected, r)
			return nil
		},
		Report: func(err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.reported = err
		},
	}
}

// Fail makes Reject and State.Put answer with err; nil mends them.
func (h *Host) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

// Rejected is what the sources gave up as dead letters, in order.
func (h *Host) Rejected() []sources.Rejected {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.rejected)
}

// Observed counts events by what became of them.
func (h *Host) Observed() map[sources.Outcome]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.observed)
}

// Reported is the error that a source reported last; nil when it is well.
func (h *Host) Reported() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reported
}

// State is what the sources keep.
func (h *Host) State() sources.State { return hostState{h} }

type hostState struct{ h *Host }

func (s hostState) Get(_ context.Context, key string) ([]byte, error) {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	value, ok := s.h.state[key]
	if !ok {
		return nil, bus.ErrNotFound
	}
	return slices.Clone(value), nil
}

func (s hostState) Put(_ context.Context, key string, value []byte) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	switch {
	case s.h.fail != nil:
		return s.h.fail
	case value == nil:
		delete(s.h.state, key)
	default:
		s.h.state[key] = slices.Clone(value)
	}
	return nil
}
