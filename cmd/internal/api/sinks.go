package api

import (
	"net/http"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
)

type sinkAnswer struct {
	Name             string         `json:"name"`
	Kind             string         `json:"kind,omitempty"`           // of one that the config has
	ConfigVersion    string         `json:"config_version,omitempty"` // of what the config says of it
	State            string         `json:"state"`
	Hold             *dispatch.Hold `json:"hold,omitempty"`
	Concurrency      int            `json:"concurrency"`
	Queued           int            `json:"queued"`
	InFlight         int            `json:"in_flight"`
	Backlog          int            `json:"backlog"`
	OldestAgeSeconds float64        `json:"oldest_age_seconds"`
	Retries          int            `json:"retries"`
	DeadLetters      int            `json:"dead_letters"`
	Delivered        int64          `json:"delivered"`
	LastOK           time.Time      `json:"last_ok,omitzero"`
	LastError        string         `json:"last_error,omitempty"`
	LastErrorAt      time.Time      `json:"last_error_at,omitzero"`
	Connection       *connection    `json:"connection,omitempty"`
}

// connection is how the far side of a sink is reached that holds a connection.
type connection struct {
	State string    `json:"state"` // connected, disconnected, or idle before the first delivery
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

func connectionOf(s dispatch.SinkStatus) *connection {
	switch c := s.Connection; {
	case c == nil:
		return nil
	case s.Disconnected():
		return &connection{State: "disconnected", Error: c.Err.Error(), Since: c.Since}
	case c.Up:
		return &connection{State: "connected", Since: c.Since}
	}
	return &connection{State: "idle"}
}

func (a *api) sinks() []sinkAnswer {
	kinds := map[string]string{}
	cfg := a.View().Config
	for _, s := range cfg.Sinks {
		kinds[s.Name] = s.Kind
	}
	for _, s := range a.Subscriptions.Subscriptions() {
		kind := "http"
		if s.Sink == QueueSink {
			kind = "queue"
		}
		kinds[config.SubscriptionPrefix+s.ID] = kind
	}
	all := []sinkAnswer{}
	for _, s := range a.Bus.Sinks() {
		all = append(all, sinkAnswer{
			Name: s.Name, Kind: kinds[s.Name], ConfigVersion: cfg.EntryVersion("sinks", s.Name), State: s.State, Hold: s.Hold, Concurrency: s.Concurrency,
			Queued: s.Queued, InFlight: s.InFlight, Backlog: s.Backlog, OldestAgeSeconds: seconds(s.OldestAge),
			Retries: s.Retries, DeadLetters: s.DeadLetters, Delivered: s.Delivered,
			LastOK: s.LastOK, LastError: s.LastError, LastErrorAt: s.LastErrorAt, Connection: connectionOf(s),
		})
	}
	return all
}

func (a *api) listSinks(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, map[string]any{"sinks": a.sinks()})
}

func (a *api) showSink(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	for _, s := range a.sinks() {
		if s.Name == name {
			return writeJSON(w, http.StatusOK, s)
		}
	}
	return refuse(http.StatusNotFound, "there is no sink %q: GET /api/v1/sinks lists them", name)
}

func (a *api) pauseSink(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Note string `json:"note"`
	}
	if err := decode(w, r, requestBytes, &body); err != nil {
		return err
	}
	if err := a.Bus.Pause(r.Context(), r.PathValue("name"), body.Note); err != nil {
		return err
	}
	return a.showSink(w, r)
}

func (a *api) resumeSink(w http.ResponseWriter, r *http.Request) error {
	if err := decode(w, r, requestBytes, &struct{}{}); err != nil {
		return err
	}
	if err := a.Bus.Resume(r.Context(), r.PathValue("name")); err != nil {
		return err
	}
	return a.showSink(w, r)
}

// known refuses a sink that nothing is delivered to.
func (a *api) known(sink string) error {
	for _, s := range a.Bus.Sinks() {
		if s.Name == sink && s.State != dispatch.StateRemoved {
			return nil
		}
	}
	return refuse(http.StatusNotFound, "sink %q: %s: GET /api/v1/sinks lists what there is", sink, bus.ErrNotFound)
}
