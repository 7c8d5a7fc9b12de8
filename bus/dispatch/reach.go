package dispatch

import (
	"net/http"

	"sluice/sinks"
)

// StateUnauthorized is the state of a sink that takes neither what waits nor the
// credentials: it answers, so that no breaker opens, and every delivery ends as a dead
// letter.
const StateUnauthorized = "unauthorized"

// refusedLogins are so many answers 401 or 403 in a row that they say something about
// the sink: one of them may be about its event.
const refusedLogins = 3

// logins counts the answers in a row that refuse the credentials. It is guarded by the
// mutex of its lane.
type logins struct{ refused int }

// observe takes in one attempt. One without an answer, or with that of a sink that is
// down, says nothing about credentials.
func (l *logins) observe(verdict Verdict, a Attempt) {
	switch {
	case verdict == Delivered, verdict == Leased:
		l.refused = 0
	case a.Status == http.StatusUnauthorized, a.Status == http.StatusForbidden:
		l.refused++
	case a.Status > 0 && a.Status < 500 && a.Status != http.StatusTooManyRequests && a.Status != http.StatusRequestTimeout:
		l.refused = 0
	}
}

// unauthorized tells whether the sink refuses the credentials.
func (l *logins) unauthorized() bool { return l.refused >= refusedLogins }

// connection is how the far side of a lane is reached; nil where the sink cannot tell.
func (l *lane) connection() *sinks.Connection {
	l.mu.Lock()
	var sink sinks.Sink
	if l.conf != nil {
		sink = l.conf.sink // nil once a reload has closed it
	}
	l.mu.Unlock()
	c, ok := sink.(sinks.Connector)
	if !ok {
		return nil
	}
	now := c.Connection()
	return &now
}

// Disconnected tells that the far side cannot be reached, as far as the sink knows.
func (s SinkStatus) Disconnected() bool {
	return s.Connection != nil && !s.Connection.Up && !s.Connection.Since.IsZero()
}
