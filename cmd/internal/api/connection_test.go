package api_test

import (
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/app/apptest"
)

// A sink that holds connections tells how its far side is reached.
func TestSinkConnections(t *testing.T) {
	t.Parallel()
	n := apptest.Start(t, `
sinks: {plain: {stdout: {}}, there: {sluice: {url: "http://127.0.0.1:1"}, breaker: {failures: 0}}}
rules: {all: {match: {type: [order]}, to: [there]}, none: {match: {type: [none]}, to: [plain]}}
`)
	n.Client.Transport = checked{t, openDocument(t), n.Client.Transport}
	var sink struct {
		Connection *struct {
			State, Error string
			Since        time.Time
		}
	}
	if n.Get("/api/v1/sinks/plain", &sink); sink.Connection != nil {
		t.Errorf("of standard output: %+v", sink.Connection)
	}
	if n.Get("/api/v1/sinks/there", &sink); sink.Connection == nil || sink.Connection.State != "idle" || !sink.Connection.Since.IsZero() {
		t.Fatalf("before the first delivery: %+v", sink.Connection)
	}
	n.MustPublish("1", "order", `{}`)
	apptest.Eventually(t, "it is not reached", func() bool {
		n.Get("/api/v1/sinks/there", &sink)
		return sink.Connection.State == "disconnected"
	})
	if c := sink.Connection; !strings.Contains(c.Error, "connection refused") || c.Since.IsZero() {
		t.Errorf("not reached: %+v", c)
	}
}
