package api

import "net/http"

// drainRetry is the Retry-After of the time in which the bus shuts down: about
// how long a restart takes.
const drainRetry = 5

// ingest is the door of events that come to no source's path: see
// sources.NewHandler.
func (a *api) ingest(w http.ResponseWriter, r *http.Request) error {
	return a.intake(w, r, a.View().Ingest)
}

// intake lets events in as long as the bus takes any.
func (a *api) intake(w http.ResponseWriter, r *http.Request, door http.Handler) error {
	if a.View().Draining {
		w.Header().Set("Connection", "close")
		return busy(http.StatusServiceUnavailable, drainRetry, "the bus is shutting down: send the event again in a moment")
	}
	door.ServeHTTP(w, r)
	return nil
}
