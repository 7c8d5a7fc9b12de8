// Package api is the HTTP face of the bus: ingest, administration, health and
// metrics. routes.go lists every URL; openapi.json documents them, and a test
// holds the two together. What it does is all done by bus/dispatch: this package
// reads requests, checks who may ask, and writes answers.
package api

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
	"sluice/config/value"
	"sluice/sources"
)

// Options are what an API works with. All but KeepAlive are needed.
type Options struct {
	Bus    *dispatch.Dispatcher
	Store  bus.Log
	Log    *slog.Logger
	Gather prometheus.Gatherer
	View   func() *View
	Reload func(context.Context) Reload
	// Sources are the ways in.
	Sources SourceControl
	// Subscriptions are what callers have subscribed.
	Subscriptions SubscriptionControl
	// KeepAlive is how often a tail without news sends an empty line; 15 s when 0.
	KeepAlive time.Duration
}

// View is the process around the bus at one moment. It is immutable: whoever
// changes something makes a new one.
type View struct {
	Version  string // of the program
	Started  time.Time
	Listen   string // the address that is really listened on
	Dir      string // of the store; "" in memory
	Draining bool

	Config      *config.Config
	ConfigPath  string    // "" for one that is no file
	LastReload  time.Time // when the config was last read, the start included
	ReloadError error     // why the last reload failed; nil when it did not
	NeedRestart []string  // settings that the config says and a restart would bring

	Tokens *Tokens
	Ingest http.Handler            // the door of / and /events
	Doors  map[string]sources.Door // the paths of the sources

	// Trigger fires a schedule now, and gives the event once it is durable. Ticks is
	// how far one is. They may be nil.
	Trigger func(ctx context.Context, name string) (bus.Event, error)
	Ticks   func(name string) (sources.Ticks, bool)
}

// Reload is what came of a reload.
type Reload struct {
	OK          bool           `json:"ok"`
	Changes     config.Changes `json:"changes"`
	NeedRestart []string       `json:"need_restart,omitempty"` // settings that changed and wait for a restart
	Error       string         `json:"error,omitempty"`        // why the old config still runs
}

// Limits of what one answer holds. A list that is longer ends with "next".
const (
	defaultItems = 100
	maxItems     = 1000
	answerBytes  = 16 << 20
	// scanTime is how long a list looks for its next item before it answers with
	// what it has, and where to go on.
	scanTime = 20 * time.Second
	// requestBytes is the largest body of a request that carries no event.
	requestBytes = 1 << 20
)

const keepAlive = 15 * time.Second

type api struct {
	Options
	mux     *http.ServeMux
	metrics http.Handler
	now     func() time.Time
}

// New is the handler of everything that the bus serves.
func New(o Options) http.Handler {
	if o.KeepAlive == 0 {
		o.KeepAlive = keepAlive
	}
	a := &api{Options: o, mux: http.NewServeMux(), now: time.Now}
	a.metrics = promhttp.HandlerFor(o.Gather, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelError), ErrorHandling: promhttp.ContinueOnError,
	})
	// A page that somebody's browser shows must not administrate a bus that it
	// can reach and the page's author cannot.
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(a.handler(func(http.ResponseWriter, *http.Request) error {
		return refuse(http.StatusForbidden, "a page of another origin may not call the API")
	}))
	for _, r := range a.routes() {
		h := a.allow(r.scope, a.handler(r.do))
		if r.scope != Publish && r.scope != Anybody {
			h = sameOrigin.Handler(h)
		}
		a.mux.Handle(r.method+" "+muxPath(r.path), h)
	}
	a.mux.Handle("/", a.handler(a.elsewhere))
	return a.guard(a.mux)
}

// muxPath is the pattern of a path: "/" alone would stand for everything below.
func muxPath(path string) string {
	if path == "/" {
		return "/{$}"
	}
	return path
}

// seconds is how durations are written in JSON.
func seconds(d time.Duration) float64 { return d.Seconds() }

// ago reads a time: RFC 3339, or a duration back from now such as 24h.
func (a *api) ago(name, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	d, err := value.ParseDuration(text)
	if err != nil {
		return time.Time{}, refuse(http.StatusBadRequest,
			"%s: %q is no time: write one such as 2026-01-02T15:04:05Z, or a duration back from now such as 24h", name, text)
	}
	return a.now().Add(-time.Duration(d)), nil
}

// span reads since and until.
func (a *api) span(since, until string) (from, to time.Time, err error) {
	if from, err = a.ago("since", since); err != nil {
		return from, to, err
	}
	if to, err = a.ago("until", until); err != nil {
		return from, to, err
	}
	if !to.IsZero() && to.Before(from) {
		return from, to, refuse(http.StatusBadRequest, "until lies before since: nothing can be in between")
	}
	return from, to, nil
}
