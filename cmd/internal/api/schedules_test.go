package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/bus"
	"sluice/cmd/internal/api"
	"sluice/config"
	"sluice/config/access"
	"sluice/sources"
)

// TestSchedules lists the cron sources of a config and fires one of them, and holds
// the answers against the document.
func TestSchedules(t *testing.T) {
	t.Parallel()
	nightly, never := sources.NewCron(), sources.NewCron()
	nightly.Schedule, nightly.Timezone = "cron(0 2 * * ? *)", "Europe/Berlin"
	never.Schedule = "cron(0 0 31 2 ? *)"
	last := time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
	var fails error
	view := &api.View{
		Tokens: api.NewTokens(access.Auth{}),
		Config: &config.Config{Sources: []config.Source{
			{Name: "nightly", Kind: "cron", Settings: nightly}, {Name: "never", Kind: "cron", Settings: never}, {Name: "in", Kind: "http", Settings: sources.NewHTTP()},
		}},
	}
	server := httptest.NewServer(api.New(api.Options{Log: slog.New(slog.DiscardHandler), Gather: prometheus.NewRegistry(), View: func() *api.View { return view }}))
	t.Cleanup(server.Close)
	client := &http.Client{Transport: checked{t, openDocument(t), http.DefaultTransport}}
	run := func(name, body string, want int) (answer struct {
		Event  struct{ ID string }
		Detail string
	}) {
		t.Helper()
		resp, err := client.Post(server.URL+"/api/v1/schedules/"+name+"/run", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || resp.StatusCode != want {
			t.Errorf("run %s: %s, want %d: %+v %v", name, resp.Status, want, answer, err)
		}
		return answer
	}
	run("nightly", "", http.StatusNotFound) // nothing that runs it
	view.Ticks = func(name string) (sources.Ticks, bool) {
		return sources.Ticks{Last: last, Dropped: 3}, name == "nightly"
	}
	view.Trigger = func(_ context.Context, name string) (bus.Event, error) {
		if fails != nil {
			return bus.Event{}, fails
		}
		return bus.NewEvent([]bus.Attr{{Name: "id", Value: name + "-1"}, {Name: "source", Value: "cron/" + name}, {Name: "type", Value: "t"}}, nil)
	}
	if got := run("nightly", "{}", http.StatusOK); got.Event.ID != "nightly-1" {
		t.Errorf("run: %+v", got)
	}
	run("in", "", http.StatusNotFound)
	run("none", "", http.StatusNotFound)
	run("nightly", `{"now": true}`, http.StatusBadRequest)
	for err, want := range map[error]int{
		bus.ErrClosed: http.StatusConflict, bus.ErrOverloaded: http.StatusServiceUnavailable, bus.ErrTooLarge: http.StatusRequestEntityTooLarge,
		bus.ErrFull: http.StatusInsufficientStorage, errors.New("odd"): http.StatusInternalServerError,
	} {
		fails = err
		run("nightly", "", want)
	}

	resp, err := client.Get(server.URL + "/api/v1/schedules")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var list struct{ Schedules []api.Schedule }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || len(list.Schedules) != 2 {
		t.Fatalf("%v: %+v", err, list)
	}
	n := list.Schedules[0]
	if n.Name != "nightly" || n.Timezone != "Europe/Berlin" || !n.Last.Equal(last) || n.Dropped != 3 || n.Next.Before(time.Now()) || n.Next.After(time.Now().Add(25*time.Hour)) {
		t.Errorf("nightly: %+v", n)
	}
	if n := list.Schedules[1]; n.Name != "never" || !n.Next.IsZero() {
		t.Errorf("never: %+v", n)
	}
}
