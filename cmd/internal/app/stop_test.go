package app_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/bus/memlog"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
)

// blocked is a function that answers when it is told to.
func blocked(t *testing.T) (f *apptest.Function, arrived chan struct{}, release func()) {
	arrived, gate := make(chan struct{}, 10), make(chan struct{})
	f = apptest.NewFunction(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	})
	return f, arrived, func() { close(gate) }
}

// While the bus drains, publishers are told to come back, and what is under way
// ends.
func TestDrain(t *testing.T) {
	t.Parallel()
	f, arrived, release := blocked(t)
	n := apptest.Start(t, toOne(f, "")+"sources: {shop: {http: {path: /in/shop}}}\n")
	n.MustPublish("1", "order", `{}`)
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- n.Stop(context.Background()) }()
	apptest.Eventually(t, "it drains", func() bool { return n.Do("GET", "/readyz", "").Status == http.StatusServiceUnavailable })
	for _, path := range []string{"/", "/events", "/in/shop"} {
		a := n.PublishTo(path, "2", "order", `{}`)
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, a.Status, a.Body)
		}
	}
	if a := n.Do("GET", "/livez", ""); a.Status != http.StatusOK {
		t.Errorf("livez: %d", a.Status)
	}
	release()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if f.Delivered()["1"] != 1 {
		t.Error("what was under way was not delivered")
	}
	if _, err := n.Try("GET", "/livez", ""); err == nil {
		t.Error("it still answers")
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

// What does not end within drain_timeout is cut off, and made again later.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	f, arrived, release := blocked(t)
	store := memlog.New(memlog.Options{})
	n := apptest.Start(t, toOne(f, "")+"server: {drain_timeout: 50ms}\n", func(o *app.Options) { o.Store = store })
	n.MustPublish("1", "order", `{}`)
	<-arrived
	start := time.Now()
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	release()
	again := apptest.Start(t, toOne(f, ""), func(o *app.Options) { o.Store = store.Restart() })
	<-arrived
	apptest.Eventually(t, "it is settled", func() bool { return again.Bus().Balance().Delivered == 1 })
}

// Who waits for a reply when the bus stops is told that the event is stored, as at the
// end of the wait: it is not sent again, and delivered after the next start.
func TestStopAnswersWhoWaitsForAReply(t *testing.T) {
	t.Parallel()
	f, arrived, release := blocked(t)
	store := memlog.New(memlog.Options{})
	config := toOne(f, "") + "sources: {shop: {http: {path: /in/shop}}}\nserver: {drain_timeout: 50ms}\n"
	n := apptest.Start(t, config, func(o *app.Options) { o.Store = store })
	type answered struct {
		id string
		apptest.Answer
		err error
	}
	answers := make(chan answered)
	for id, path := range map[string]string{"1": "/", "2": "/in/shop"} {
		go func() {
			a, err := n.Try("POST", path, `{}`, "Content-Type", "application/json", "Prefer", "wait=60",
				"Ce-Specversion", "1.0", "Ce-Id", id, "Ce-Source", "/test", "Ce-Type", "order")
			answers <- answered{id, a, err}
		}()
	}
	<-arrived
	<-arrived
	stopped := make(chan error, 1)
	start := time.Now()
	go func() { stopped <- n.Stop(context.Background()) }()
	for range 2 {
		a := <-answers
		if a.err != nil || a.Status != http.StatusAccepted || !strings.Contains(string(a.Body), `"id":"`+a.id+`"`) {
			t.Errorf("event %s: %d %s, %v", a.id, a.Status, a.Body, a.err)
		}
	}
	if err := <-stopped; err != nil || time.Since(start) > 4*time.Second {
		t.Errorf("stop: %v, after %v", err, time.Since(start))
	}
	release()
	apptest.Start(t, config, func(o *app.Options) { o.Store = store.Restart() })
	apptest.Eventually(t, "both are delivered", func() bool { got := f.Delivered(); return got["1"] > 0 && got["2"] > 0 })
}
