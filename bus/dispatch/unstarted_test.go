package dispatch_test

import (
	"log/slog"
	"testing"

	"sluice/bus/dispatch"
	"sluice/bus/memlog"
)

// Whoever fails between New and Start stops what it has.
func TestStopWithoutStart(t *testing.T) {
	t.Parallel()
	d, err := dispatch.New(dispatch.Config{Store: memlog.New(memlog.Options{}), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
