package api

import (
	"context"
	"net/http"
	"time"

	"sluice/bus/dispatch"
)

// SourceControl is what can be seen of the sources and done to them.
type SourceControl interface {
	// Sources tells how every source is doing, by name.
	Sources() []Source
	// PauseSource and ResumeSource fail with bus.ErrNotFound for a source that there
	// is not.
	PauseSource(ctx context.Context, name, note string) error
	ResumeSource(ctx context.Context, name string) error
}

// Source is how one source is doing.
type Source struct {
	Name        string           `json:"name"`
	Kind        string           `json:"kind"`
	State       string           `json:"state"` // one of the constants below
	Since       time.Time        `json:"since"`
	Hold        *dispatch.Hold   `json:"hold,omitempty"`
	Paths       []string         `json:"paths,omitempty"`
	Accepted    int64            `json:"accepted"` // events, since the start
	Refused     map[string]int64 `json:"refused"`  // the rest, by outcome
	DeadLetters int              `json:"dead_letters"`
	Lag         *SourceLag       `json:"lag,omitempty"`
	Restarts    int              `json:"restarts"`
	NextStart   time.Time        `json:"next_start,omitzero"` // of one that failed
	LastEvent   time.Time        `json:"last_event,omitzero"`
	LastError   string           `json:"last_error,omitempty"`
	LastErrorAt time.Time        `json:"last_error_at,omitzero"`
}

// SourceLag is how far a source is behind its upstream; 0 where it cannot know.
type SourceLag struct {
	Records    int64   `json:"records"`
	Bytes      int64   `json:"bytes"`
	AgeSeconds float64 `json:"age_seconds"`
}

// The states of a source.
const (
	SourceRunning  = "running"
	SourceDegraded = "degraded" // it runs, and has trouble that it deals with
	SourceFailed   = "failed"   // it is started again before long
	SourcePaused   = "paused"   // by hand
	SourceStopped  = "stopped"  // not started yet, or ended
)

func (a *api) listSources(w http.ResponseWriter, _ *http.Request) error {
	all := a.Sources.Sources()
	if all == nil {
		all = []Source{}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"sources": all})
}

func (a *api) showSource(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	for _, s := range a.Sources.Sources() {
		if s.Name == name {
			return writeJSON(w, http.StatusOK, s)
		}
	}
	return refuse(http.StatusNotFound, "there is no source %q: GET /api/v1/sources lists them", name)
}

func (a *api) pauseSource(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Note string `json:"note"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	if err := a.Sources.PauseSource(r.Context(), r.PathValue("name"), body.Note); err != nil {
		return err
	}
	return a.showSource(w, r)
}

func (a *api) resumeSource(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, requestBytes, &struct{}{}); err != nil {
		return err
	}
	if err := a.Sources.ResumeSource(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	return a.showSource(w, r)
}
