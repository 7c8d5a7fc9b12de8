package sinks

import (
	"context"
	"time"

	"sluice/bus"
)

// Sink is one place that events are delivered to.
type Sink interface {
	// Deliver hands one delivery to the far side and waits until that has it: nil
	// means it has. It is called from many goroutines at once and must return
	// soon after ctx ends; ctx carries the sink's timeout and may be shared with other
	// attempts, so it goes on after the call. A plain error asks for
	// another attempt; Permanent, RetryAfter, NotBefore and Answered say more. What an error
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
	Ask     Ask      // what a Replier has to bring back beside yes or no
}

// Ask is what is wanted of the far side's answer.
type Ask struct {
	Events bool   // the events in it
	Body   bool   // the start of its body
	Lease  *Lease // the far side may take more time than the attempt has, and say later how it ended
}

// Lease is where the far side says how a job ended that it took a lease for.
type Lease struct {
	URL   string // of the delivery
	Token string // that the far side shows there
}

// Answer is what a far side said with its yes.
type Answer struct {
	Status      int
	ContentType string
	Body        []byte        // at most MaxAnswerBody bytes of it
	Events      []bus.Event   // to be published before the delivery counts as made
	Lease       time.Duration // more than 0: it has only begun, and wants so much time
}

// MaxAnswerBody is how much of an answer's body is kept.
const MaxAnswerBody = 64 << 10

// Replier is a sink whose far side can answer with more than yes.
type Replier interface {
	Sink
	// DeliverReply is Deliver, and brings back what d.Ask wants.
	DeliverReply(ctx context.Context, d Delivery) (Answer, error)
}

// BatchSink is a sink that takes several deliveries at once.
type BatchSink interface {
	Sink
	// DeliverBatch is Deliver for several deliveries. A non-nil err is about all of
	// them: the far side has none, or, with Error.MayBeDone, may have them. Otherwise failed has the error of each, in order,
	// nil where the far side has it; a nil failed means that it has all.
	DeliverBatch(ctx context.Context, ds []Delivery) (failed []error, err error)
}
