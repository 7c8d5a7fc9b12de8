package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sluice/cmd/internal/app"
	"sluice/config"
)

// startApp runs a bus whose only sink is a function that always works.
func startApp(t *testing.T) *app.App {
	t.Helper()
	r := newRig("")
	fn := &function{statuses: []int{200}}
	cfg, err := config.Parse("test", []byte(fmt.Sprintf(`
sinks: {fn: {http: {url: %q}}}
rules: {all: {match: {type: [{exists: true}]}, to: [fn]}}
`, serve(t, fn.ServeHTTP).URL)), r.kinds)
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(app.Options{
		Config: cfg, Listen: "127.0.0.1:0", Memory: true, Log: slog.New(slog.DiscardHandler), Kinds: r.kinds,
	})
	if err == nil {
		err = a.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return a
}

// TestTailOfABus follows an event through a real bus.
func TestTailOfABus(t *testing.T) {
	t.Parallel()
	bus := startApp(t)
	tail := newRig(bus.URL())
	tail.err.wake = make(chan struct{}, 1)
	code := make(chan int)
	go func() { code <- run(t.Context(), []string{"tail", "--count", "2"}, tail.env) }()
	<-tail.err.wake // it says that it is watching
	newRig(bus.URL()).run(t, exitOK, "publish", "--type", "a", "--source", "b", "--id", "e1")
	if got := <-code; got != exitOK {
		t.Fatalf("exit code %d: %s", got, tail.err)
	}
	contains(t, tail.out, " accepted    id=e1 a from b rules=all\n", " delivered   id=e1 → fn rule=all took=")
}

// TestTestsAgreeWithTheServer holds the tests that validate runs to those that a
// reload runs: what one lets pass the other must not refuse.
func TestTestsAgreeWithTheServer(t *testing.T) {
	t.Parallel()
	r := newRig("")
	cfg, err := config.Parse("test", []byte(`
sinks: {a: {stdout: {}}, b: {stdout: {}}}
rules:
  x: {match: {type: [x]}, to: [a, b]}
  source: {match: {source: [{exists: true}], id: [{exists: true}], time: [{exists: true}], data: {n: [1e2]}}, to: [a]}
  off: {match: {type: [y]}, to: [b], enabled: false}
unmatched: [b]
tests:
  - {event: {type: x, source: s}, expect: [b, a]}
  - {event: {type: x, source: s}, expect: [a]}
  - {event: {type: y, source: s}, expect: [b]}
  - {event: {type: y, source: s}, expect: []}
  - {event: {}, expect: [b]}
  - {event: {type: z, source: s, data: {n: 100}}, expect: [a]}
  - {event: {type: 5, source: s}, expect: [b]}
  - {event: {type: "", source: s}, expect: [b]}
  - {event: {type: z, source: "%zz"}, expect: [b]}
  - {event: {type: z, source: s, datacontenttype: text/plain, data: hello}, expect: [b]}
`), r.kinds)
	if err != nil {
		t.Fatal(err)
	}
	routing, err := newRouting(cfg)
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]bool{}
	for _, f := range app.RunTests(cfg) {
		refused[strings.Fields(f.Name)[0]] = true
	}
	for _, o := range routing.runTests(cfg) {
		if o.OK == refused[o.Name] {
			t.Errorf("%s: here ok is %v, and the server's refusal is %v: %s", o.Name, o.OK, refused[o.Name], o.why())
		}
	}
}
