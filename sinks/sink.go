package sinks

import (
	"context"

	"sluice/bus"
)

// Sink is one place that events are delivered to.
type Sink interface {
	// Deliver hands one delivery to the far side and waits until that has it: nil
	// means it has. It is called from many goroutines at once and must return
	// soon after ctx ends; ctx carries the sink's timeout. A plain error asks for
	// another attempt; Permanent, RetryAfter and Answered say more. What an error
	// prints ends up in logs and dead letters: it must not hold a secret.
	//
	// A sink that holds connections implements io.Closer too: Close is called
	// once no Deliver runs any more, and may be called twice.
	Deliver(ctx context.Context, d Delivery) error
}

// Delivery is one event on its way to one sink. It is passed by value and read
// only: the event is shared with every other sink.
type Delivery struct {
	Event   bus.Event
	ID      string   // the same on every attempt and after every restart; differs between rules and sinks
	Rule    string   // the rule that matched
	Sink    string   // the name of the sink in the config
	Attempt int      // 1 on the first attempt
	Payload *Payload // what to send in place of the event; nil for the event itself
}

// BatchSink is a sink that takes several deliveries at once.
type BatchSink interface {
	Sink
	// DeliverBatch is Deliver for several deliveries. A non-nil err is about all of
	// them: the far side has none. Otherwise failed has the error of each, in order,
	// nil where the far side has it; a nil failed means that it has all.
	DeliverBatch(ctx context.Context, ds []Delivery) (failed []error, err error)
}
