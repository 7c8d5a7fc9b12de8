// Package bus holds the contracts that everything else is built on: the event
// (event.go), the publisher (bus.go) and the durable log (log.go), with the wire
// forms of an event (codec.go, http.go, json.go, jsonread.go). It stores nothing and
// delivers nothing: bus/jetstream and bus/memlog are the logs, bus/dispatch is the engine.
//
// # The way of one event
//
// A source publishes. The publisher packs whatever waits into one record of the
// EVENTS stream, and answers once that pack is fsynced. The router reads the
// stream in order, matches each event once and offers a delivery for every
// (rule, sink) to the lane of that sink. A delivery is settled when the sink has
// it, when it is a dead letter, when a policy discarded it, or when it has a
// record of its own in BACKLOG or RETRIES. The floor of EVENTS moves up to the
// first unsettled delivery. The new record is always durable before the old one
// is dropped, so at any instant a delivery is covered by the floor or by its own
// record, and after a crash what lies between floor and head is offered again.
package bus
