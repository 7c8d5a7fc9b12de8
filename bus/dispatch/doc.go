// Package dispatch is the engine: it stores what is published, routes it by the
// rules, and sees every delivery through to its end. It does not know how events
// come in, what a sink is made of, or where the log keeps its bytes.
//
//	publisher.go   events become durable, many callers in one write (writer.go)
//	router.go      reads the log in order, matches once, offers deliveries
//	lane.go        one per sink: what waits, what runs, the limits (breaker.go, pace.go)
//	queue.go       what waits in a lane, by key when order_by asks for it
//	spill.go       what a lane cannot take now goes to the backlog
//	attempt.go     one attempt, and what follows from it (policy.go)
//	feed.go        brings the backlog of a sink back into its lane
//	retry.go       what waits for its next attempt
//	deadletter.go  what was given up; redrive.go and replay.go deliver again (jobs.go)
//	ledger.go      which records are settled; state.go keeps that over restarts
//	retention.go   what is settled and old goes
//	conserve.go    checks all the time that nothing has vanished
//
// # What covers a delivery
//
// At any instant a delivery that has not ended is covered by a durable record: by
// its event, above the floor of EVENTS, or by a record of its own in BACKLOG or
// RETRIES. Each step writes the next record before it settles the one before. So
// a crash between any two operations repeats and never loses: crash_test.go goes
// through random histories with crashes, failed writes, a flaky sink and an
// operator, and checks that every acknowledged event has arrived or is a dead
// letter. What a crash may repeat is what was settled since the last commit of
// the ledgers (about 50 ms) and what was under way.
//
// # Nothing vanishes
//
// Of what this process took in, two sums come out even: accepted = routed + unmatched
// + damaged + waiting for the router, and for each sink entered = delivered + dead +
// discarded + damaged + open, where what is open is counted where it really is. A
// delivery changes its place and its count under one lock, so a sink's sum is even at
// any moment; events are compared pack by pack of the log. Every 5 s conserve.go
// compares: a sink whose sum differs three times in a row, or an event that was
// accepted and never routed, shows in two metrics, the log and `sluice doctor` within
// 15 s (an event once the router is past it). That takes 0.2 ms on a bus of 1,000
// sinks. It counts what this process saw: what a crash repeats is counted anew, and
// what the disk lost between two processes is found by the checks of the store.
//
// # What is bounded
//
// The router lets 16384 events or 64 MiB on their way at once; what takes longer
// than a sink's spill_after moves to the backlog on disk, so this bounds how far
// ahead it reads and not how far a slow sink may fall behind. A lane holds at
// most 1024 deliveries or 8 MiB in memory, waiting retries 32 MiB in all, and
// publishers are refused beyond 64 MiB of events that wait for the disk.
package dispatch
