package app_test

import (
	"fmt"
	"strings"
	"testing"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/app/apptest"
)

// TestTransformOverHTTP follows events through rules with a where and a transform
// to a function, and to a dead letter; a reload mends that one, and a transform
// with a fault is not loaded.
func TestTransformOverHTTP(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	config := func(transform string) string {
		return fmt.Sprintf(`
sinks:
  hook: {http: {url: "%s/api"}, batch: {max: 10}}
rules:
  orders:
    match: {type: [order]}
    where: id <> 'skipped'
    to: [hook]
    transform: %s
`, f.URL, transform)
	}
	n := apptest.Start(t, config(`{paths: {id: $.data.id}, template: '{"id": <id>}', http: {path: "/orders/{id}", headers: {X-Id: "<id>"}}}`))
	n.MustPublish("1", "order", `{"id": "a/b\r\nc"}`)
	n.MustPublish("skipped", "order", `{"id": 1}`)
	n.MustPublish("bad", "order", `{"no": "id"}`)
	apptest.Eventually(t, "all have ended", func() bool { b := n.Bus().Balance(); return b.Delivered == 1 && b.Dead == 1 && b.Open() == 0 })
	got := f.Requests()[0]
	if string(got.Body) != `{"id": "a/b\r\nc"}` || got.Header.Get("X-Id") != "a/b%0D%0Ac" || got.ID != "1" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the function got %s with %v", got.Body, got.Header)
	}

	n.WriteConfig(config(`{template: '{"id": <id>}'}`))
	if r := n.Reload(t.Context()); r.OK || !strings.Contains(r.Error, "there is no variable <id>") {
		t.Errorf("a transform with a fault was loaded: %+v", r)
	}
	n.WriteConfig(config(`{paths: {id: $.data.id}, template: '{"id": <id>}'}`))
	if r := n.Reload(t.Context()); !r.OK {
		t.Fatalf("the reload failed: %+v", r)
	}
	if _, err := n.Bus().Redrive(t.Context(), dispatch.Redrive{}); err != nil {
		t.Fatal(err)
	}
	apptest.Eventually(t, "the dead letter is delivered", func() bool { return f.Delivered()["bad"] == 1 })
	if got := f.Requests()[1]; string(got.Body) != `{"id": null}` {
		t.Errorf("the function got %s", got.Body)
	}
}
