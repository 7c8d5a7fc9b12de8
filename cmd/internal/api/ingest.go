package api

import (
	"net/http"
	"time"

	"sluice/sources"
)

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
	if len(r.Header["Prefer"]) > 0 {
		// The server's limit for an answer does not know that this one waits for a reply.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sources.MaxWait + linePatience))
	}
	door.ServeHTTP(w, r)
	return nil
}
