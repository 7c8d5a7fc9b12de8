package sinks

import (
	"context"
	"fmt"
	"log/slog"

	"sluice/config/value"
)

// Kind is one kind of sink: a row of Kinds. The config schema, the docs and the
// `kinds` command derive from it.
type Kind struct {
	Name string // the key in the config
	Doc  string // one sentence
	// New returns the kind's settings with their defaults filled in, a pointer to
	// a struct with yaml and doc tags that the config loader decodes into.
	New func() Settings
	// Ignores are the options that mean nothing beside the kind, though every other
	// sink has them: writing one there is a fault.
	Ignores []string
}

// Settings are the decoded settings of one sink.
type Settings interface {
	// Validate finds what a single value cannot show.
	Validate() value.Faults
	// Open makes the sink. It does not wait for the far side: a sink that is down
	// now is delivered to later.
	Open(ctx context.Context, env Env) (Sink, error)
}

// Orderer are settings of a kind whose far side keeps an order of its own, by a key.
type Orderer interface {
	Settings
	// CheckOrder finds settings with which the far side does not keep what order_by keeps.
	CheckOrder(orderBy string) value.Faults
}

// Env is what a sink is given besides its settings.
type Env struct {
	Name string // the name of the sink in the config
	Log  *slog.Logger
	// OrderBy is what the bus keeps the sink's events in order by, an attribute or data.
	// and a gjson path; "" where it keeps no order.
	OrderBy string
	// Guarded says that a caller gave the settings and not the operator: the sink may
	// reach public addresses only, and name no file of this machine. A kind that
	// cannot see to that is not opened: see unguarded.
	Guarded bool
	// Allow are addresses that are not public and that a guarded sink may reach too.
	// Metadata services are never among them.
	Allow []value.CIDR

	metadata bool // it may reach the metadata service of a cloud
}

// unguarded is the error of a kind that reaches what it is told to, or acts with the
// credentials of this machine, where the settings are a caller's.
func (e Env) unguarded(kind string) error {
	if !e.Guarded {
		return nil
	}
	return fmt.Errorf("a %s sink cannot be added at run time: it could reach what callers may not; write it into the config", kind)
}

// logger is Log, or one that logs nothing.
func (e Env) logger() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}

// Kinds is the table of every kind of sink. A new kind is one file, one test
// through sinktest.Run and one line here.
func Kinds() []Kind {
	oneByOne := []string{"batch"}
	// Nothing is sent to a queue, and what a consumer does with a message has no answer.
	fetched := []string{
		"timeout", "concurrency", "rate", "retry", "batch", "startup_grace", "breaker", "replies", "on_success", "lease", "verdicts",
	}
	return []Kind{
		{"file", "Appends each event to a file, one JSON CloudEvent a line, synced and rotated.", func() Settings { return NewFile() }, oneByOne},
		{"http", "POSTs each event to a function as a CloudEvent.", func() Settings { return NewHTTP() }, nil},
		{"kafka", "Writes each event as a record of an Apache Kafka topic.", func() Settings { return NewKafka() }, nil},
		{"lambda", "Invokes a function of AWS Lambda, or of a server with its API, with each event.", func() Settings { return NewLambda() }, nil},
		{"nats", "Publishes each event to a stream of NATS JetStream, or to a subject of core NATS.", func() Settings { return NewNATS() }, nil},
		{"queue", "Keeps events in the bus until consumers fetch and acknowledge them.", func() Settings { return NewQueue() }, fetched},
		{"sluice", "Hands each event on to another Sluice, which says when it is durable there.", func() Settings { return NewSluice() }, nil},
		{"sqs", "Sends each event as a message to a queue of Amazon SQS, or of a server with its API.", func() Settings { return NewSQS() }, nil},
		{"stdout", "Prints each event on standard output, one JSON CloudEvent a line.", func() Settings { return NewStdout() }, oneByOne},
	}
}
