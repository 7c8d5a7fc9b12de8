package app_test

import (
	"context"
	"net/http"
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
