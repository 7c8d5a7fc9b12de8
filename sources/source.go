// Package sources is where events come in. source.go is the contract, kinds.go
// the table of what there is, and each kind has one file. A source turns what it
// receives into CloudEvents and acknowledges it upstream; it does not store,
// match or deliver.
package sources

import (
	"context"

	"sluice/bus"
)

// Source is one way in.
type Source interface {
	// Run publishes what arrives until ctx ends, then returns nil once nothing is
	// in flight any more. It acknowledges upstream only what Publish said is
	// durable, and stops fetching while the bus does not take more. An error
	// means that the source cannot go on by itself: it is started again later.
	Run(ctx context.Context, pub bus.Publisher) error
}

// Readier is a Source that can say when it takes events: before that nobody is
// sent to it.
type Readier interface {
	// Ready is closed once Run takes events.
	Ready() <-chan struct{}
}
