// Package sources is where events come in. source.go is the contract, env.go what
// a source is given, kinds.go the table of what there is, and each kind has a file
// of its own. A source turns what it receives into CloudEvents and acknowledges it
// upstream; it does not store, match or deliver.
package sources

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"sluice/bus"
)

// Source is one way in.
type Source interface {
	// Run publishes what arrives until ctx ends, then returns nil once nothing is
	// in flight any more. It acknowledges upstream only what Publish said is
	// durable, and stops fetching while the bus does not take more. An error
	// means that the source cannot go on by itself: it is started again later,
	// after a pause that grows. Run may be called again once it has returned.
	Run(ctx context.Context, pub bus.Publisher) error
}

// contained is the error of do, a panic too. One in Run is an error for who calls that,
// but one in another goroutine would end the bus: of all sources, and over and over when
// it comes from what upstream sends again.
func contained(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return do()
}

// beside runs do in a goroutine of its own, for the one that is called Run; fail hears
// of a panic, and is to end the run.
func beside(staff *sync.WaitGroup, fail func(error), do func()) {
	staff.Go(func() {
		if err := contained(func() error { do(); return nil }); err != nil {
			fail(err)
		}
	})
}

// Certified are Settings of a source whose callers may be known by client certificates.
// The listener is the bus's own: it asks for those, and says whose count.
type Certified interface {
	// Certified tells whether any caller is known by one.
	Certified() bool
}

// Readier is a Source that can say when it takes events: before that nobody is
// sent to it.
type Readier interface {
	// Ready is closed once Run takes events.
	Ready() <-chan struct{}
}

// Follower is a Source that remembers of its callers what they could take advantage of
// if it were forgotten, such as what they have sent already.
type Follower interface {
	// Follow takes that over from the source that this one takes the place of. It is
	// called before Run; the other may go on for a while beside this one.
	Follow(before Source)
}

// Forgetter is a Source that keeps something over restarts which must not count when the
// source is taken out of the config and added again later.
type Forgetter interface {
	// Forget removes that. It is called after Run has returned.
	Forget(ctx context.Context) error
}

// Adjuster is a Source that can take some other settings while it runs.
type Adjuster interface {
	// Adjust gives what brings settings of the same kind into force, where they differ
	// in nothing that needs the source to be opened anew; nil otherwise. Until apply is
	// called nothing is changed.
	Adjust(settings Settings) (apply func())
}

// Lagger is a Source that knows how far it is behind its upstream.
type Lagger interface {
	// Lag is what is known now; ok is false while nothing is. It is called for
	// every look at the metrics: it must not ask the far side.
	Lag() (lag Lag, ok bool)
}

// Lag is how far a source is behind. What a kind cannot know is 0.
type Lag struct {
	Records int64         // that upstream has and the bus does not
	Bytes   int64         // the same in bytes
	Age     time.Duration // of the oldest of them
}
