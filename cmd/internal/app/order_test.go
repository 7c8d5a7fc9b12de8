package app_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
	"sluice/config/value"
	"sluice/sinks"
)

// orders notes what the sinks of its kind are opened with.
type orders struct {
	mu   sync.Mutex
	seen []string
}

func (*orders) Validate() value.Faults { return nil }

func (o *orders) Open(_ context.Context, env sinks.Env) (sinks.Sink, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, env.Name+" by "+env.OrderBy)
	return o, nil
}

func (*orders) Deliver(context.Context, sinks.Delivery) error { return nil }

// A sink is told what its events are kept in order by, and is opened anew when that
// changes.
func TestSinksAreToldTheirOrder(t *testing.T) {
	t.Parallel()
	o := &orders{}
	config := "sinks:\n  a: {orders: {}, order_by: subject}\n  b: {orders: {}}\nrules: {r: {match: {type: [t]}, to: [a, b]}}\n"
	n := apptest.Start(t, config, func(opts *app.Options) {
		opts.Kinds.Sinks = append(opts.Kinds.Sinks, sinks.Kind{Name: "orders", Doc: "Notes its order.", New: func() sinks.Settings { return o }})
	})
	n.WriteConfig(strings.Replace(config, "order_by: subject", "order_by: data.x", 1))
	if r := n.Reload(t.Context()); !r.OK {
		t.Fatalf("%+v", r)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if want := []string{"a by subject", "b by ", "a by data.x"}; !slices.Equal(o.seen, want) {
		t.Errorf("opened: %q, want %q", o.seen, want)
	}
}
