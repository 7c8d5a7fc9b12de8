// Package dispatch is the engine: it stores what is published, routes it by the
// rules, and sees every delivery through to its end. It does not know how events
// come in, what a sink is made of, or where the log keeps its bytes.
//
//	publisher.go   events become durable, many callers in one write (writer.go)
//	router.go      reads the log in order, matches once, offers deliveries
//	lane.go        one per sink: what waits, what runs, the limits (breaker.go, pace.go)
//	lanes.go       lanes come with their sinks, and go after them
//	queue.go       what waits in a lane, by key when order_by asks for it
//	spill.go       what a lane cannot take now goes to the backlog
//	crew.go        the goroutines that make attempts, and the time that those have
//	attempt.go     one attempt, and what follows from it (policy.go)
//	feed.go        brings the backlog of a sink back into its lane
//	retry.go       what waits for its next attempt (parked.go: beyond the budget); lease.go for the end of
//	               a job that takes longer
//	pull.go        queues: consumers fetch from a lane that has no workers
//	reply.go       what a sink answered becomes events and reports
//	takeover.go    each record names the one before: what had moved on is not there twice after a crash
//	deadletter.go  what was given up; redrive.go and replay.go deliver again (jobs.go)
//	ledger.go      which records are settled; state.go and ledgersave.go keep that over restarts
//	ends.go        what follows an end in its key gets no record before that is saved
//	lost.go        what a damaged store has lost is offered again (contents.go lists what it should have)
//	ledgerloss.go  what is done when nobody knows any more what is settled
//	retention.go   what is settled and old goes
//	conserve.go    checks all the time that nothing has vanished
//	story.go       puts together what is known of one event: storyfind.go looks through the streams and
//	               the lanes, history.go remembers the latest attempts, storyweave.go makes one timeline
//
// # What covers a delivery
//
// At any instant a delivery that has not ended is covered by a durable record: by
// its event, above the floor of EVENTS, or by a record of its own in BACKLOG or
// RETRIES. Each step writes the next record before it settles the one before. So
// a crash between any two operations repeats and never loses: crash_test.go goes
// through random histories with crashes, failed writes, a flaky sink and an
// operator, and checks that every acknowledged event has arrived or is a dead
// letter. What a crash may repeat is what was delivered since the last commit of
// the ledgers (50 to 250 ms) and what was under way; what was given a new record
// since then is not repeated, because that names the one before (takeover.go). That
// holds for each sink by itself: of an event that one sink still works at, the ledgers
// keep which other deliveries have ended. With order_by, what is repeated comes before
// what follows it in its key (ends.go): after a crash a sink gets the end of what it
// had got once more, and goes on from there in order. crash_test.go checks that too.
//
// A damaged disk may take such a record. A commit lists the packs of BACKLOG and
// RETRIES that are not settled, with the sinks and the times of their events
// (contents.go): a pack that is listed and not there was lost, and so is a record that
// cannot be read. A job offers those deliveries again from the events of that time
// (lost.go), to the sinks that lost something and to where the rules of now send them,
// but for what is there yet or is a dead letter. The job is durable before the loss is
// forgotten, and goes on after a crash; retention waits for it. It makes a delivery
// twice when its event is of the same time as one that was lost and it had arrived.
//
// The ledgers themselves are kept twice, each commit in both copies (bus/jetstream), so no
// one damaged file takes the bus back. Should neither be readable while EVENTS has ever
// held something, nobody knows what was settled: the router goes on behind the last event,
// and a job offers every retained event again, but for what waits or is a dead letter
// (ledgerloss.go). What was settled of a pack that waits comes again. So nothing is lost, what comes in does not wait behind history, and the
// log, `sluice doctor` and `sluice jobs ls` say so; `sluice jobs cancel` stops it.
//
// # Where the time goes
//
// One event to one function over HTTP, fsync before each 202, is 70 us of CPU (go
// tool pprof on what sluice bench fanout --cpuprofile writes). By part: the request
// to the function 22 %, taking the event in 14 %, the store 8 %, the router with all
// matching 3 %, the history 3 %, the policy and the counters 2 %, the rest net/http's
// and Go's own; across all of it 36 % are system calls and 10 % memory. In batches of
// 100 an event costs 7 us: reading JSON 22 % (9 % going through it, 7 % checking
// attributes), the store 27 %, the router 9 %; across all of it 16 % are system calls,
// 13 % copies and 18 % memory.
//
// An event is written once, however many sinks it goes to, and what is settled is saved
// at most 20 times a second: so an event that comes alone costs two writes with an fsync,
// and of 200/s each costs 1.1 (WRITES/EVENT and SAVES/EVENT of sluice bench; writes_test.go).
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
// what the disk lost between two processes is found by the checks of the store, and
// lost.go.
//
// # What is known of an event
//
// The log knows when an event came and, by their causationid, what answers it; retries
// and dead letters know all of their attempts. That a delivery was made is written
// nowhere: so history.go remembers the newest attempts, redrives and replies in memory,
// within 16 MiB, and failures much longer than what went well. It is saved when the bus
// stops (about 3 MiB at most), and lost when that is killed. Noting an attempt takes 0.1 µs, where
// a delivery over HTTP takes 40 µs of CPU: no benchmark shows it. A story says where each
// line of it is from; where the rules are those of now, or a part is not remembered, it says so.
//
// # What was broken on purpose
//
// Each line: the fault, where it is tested, what happens. The figures are of one run
// on 2 busy cores; every test prints its own. In each case nothing acknowledged was
// lost and nobody had to help, but where the line says otherwise.
//
//	kill -9, 100 times      cmd/sluice TestProcessKill: 62,861 events acknowledged, 0 lost at each of five sinks; 2,519
//	                        repeated at the one that is well, 2,387 at the one with order_by, each key in order, 1,745
//	                        at one that is down every other time, 2,590 at one with batches, 0 at one that is paused
//	kill -9 amid retries    cmd/sluice TestProcessRetriesSurviveKill: attempts go on with their number
//	kill -9 over a pile     cmd/sluice TestProcessPileUp: the backlog drains after the restart
//	a crash at any one      faults_crash_test.go: 7 small histories through spill, retry, dead letter, redrive,
//	operation of the log    replay, reload and removal; 965 points, before and after each operation; with a
//	                        second crash in the recovery from the first, 47,285 runs, 4 minutes of CPU; order is
//	                        checked too
//	a crash anywhere        crash_test.go: 10,000 random histories with failed writes, a full store, a flaky sink
//	                        and an operator; 29,390 crashes, at each of 26 operations of the log, before it and
//	                        after, which is checked; with the two beside it 129 s of CPU
//	a disk that is full     cmd/sluice TestProcessFullDisk: 507, then all of 1,018 events once there is room
//	a volume that is eaten  bus/jetstream TestVolume...: refused in time, and back by itself
//	a torn metadata file    bus/jetstream TestTornMeta: made again from its blocks, and the log says so
//	a flipped byte          bus/jetstream TestFlippedByte: that record alone is damaged, and named
//	a flipped byte after    cmd/sluice TestProcessDamagedStore: the store drops the block from there on: 100 of 200
//	a crash                 deliveries in the backlog, 98 of 200 retries. Offered again from the events by itself;
//	                        all 200 arrive, 4 of them twice at most, and the sink beside gets nothing again
//	a truncated block, or   the same: 51 (cut) and 196 (gone) of 200 in the backlog, 52 and 204 records of 200
//	one that is gone        retries; all 200 arrive, 4 twice at most. In EVENTS: all 200, which have records of their
//	                        own; what was in EVENTS alone is lost, and named
//	the same in a pile      cmd/sluice TestProcessDamagedPile: a cut block of the 81 of a backlog of 1,000,000: ready
//	                        after 0.4 s, the 3,500 lost are offered again after 5 s, none comes twice; 198 MB
//	any of these in STATE,  bus/jetstream TestDamagedState, TestLostState; cmd/sluice TestProcessDamagedState: the other
//	where the ledgers are   copy has it all: nothing comes again, what is paused stays so, the log and doctor tell
//	both copies of STATE    ledgerloss_test.go; cmd/sluice TestProcessDamagedState: what is retained comes again but for
//	gone                    what waits, by a job that can be cancelled; which sinks were paused is forgotten
//	packs lost anywhere     lost_test.go: 300 random histories with crashes whose store loses a random part of BACKLOG
//	                        and RETRIES each time, and a crash at each operation while that comes again
//	an acknowledgement      bus/jetstream TestFsyncBeforeAck, under strace: none without an fsync; and cmd/sluice
//	without a sync          TestProcessIngestFsync, the whole program at 64 connections: each of 640 answers after
//	                        an fsync of its own event, of which there were 34
//	a clock set by 1 h,     faults_clock_test.go; over the store of files faults_clockstore_test.go: retries and
//	running or stopped      Retry-After wait no longer than they were meant to; dedup keeps its window; retention takes nothing that is not settled. Set forward, what
//	                        fails next may be past its max_age: a dead letter, "expired"; and after a restart
//	                        dedup takes the hour for passed
//	20 ways of a far side   sinks TestHTTPRogues, over http and https: silence, garbage, an echo, resets, 1 GiB, heads
//	to misbehave            and 1xx without end, dripping, bogus chunks: each verdict in time, at most 16 MiB taken,
//	                        no secret in an error; TestHTTPRoguesThatAreReadWhole, in answers to batches and with events
//	wrong certificates      sinks TestHTTPCertificates: nothing is sent, it is tried again, the error says what to do
//	all of these at once    cmd/sluice TestProcessRogueSinks, 23 sinks: the healthy one has p50 12 ms, p99 174 ms at
//	                        100 events/s; 146 MB
//	a sink that hangs       cmd/sluice TestProcessIsolation: the other does not notice
//	10,000 connections      cmd/sluice TestProcessManyConnections: all open at once, each gets its 202, the slowest in
//	                        0.2 s, 288 MB; with a limit of 4,000 in 1.7 s, and idle ones are closed for others, 189 MB
//	slow clients            sources TestSlowClients; cmd/sluice TestProcessSlowloris: 200 that drip into 100 places are
//	                        cut off by read_header_timeout (1 s there), others wait 1.5 s at most
//	a reload each 100 ms    cmd/sluice TestProcessReloadUnderLoad: 60 reloads and 20 refused ones, 8,558 events,
//	                        0 lost, 0 twice, none refused
//	SIGTERM under load      cmd/sluice TestProcessTermUnderLoad: 6 times beside a sink that hangs: 5,336 events, 0 lost,
//	                        0 twice at the healthy sink, out within 2.2 s of a drain_timeout of 2 s
//	two processes on one    cmd/sluice TestProcessOwnsItsData: the second is refused, with the number of the first
//	directory
//
// Not all of that runs each time. What go test does, what .ci/run does (CI), and what was
// done by hand for the figures above:
//
//	random histories    300 of each; CI 10,000, a third as many with leases and with lost packs:
//	                    SLUICE_SEEDS=10000 go test -run '^TestNothingIsLost' ./bus/dispatch
//	two crashes         one second crash for each first, CI too; all pairs, by hand:
//	                    SLUICE_SEEDS=1 go test -run '^TestCrashAtEveryOperation$' ./bus/dispatch
//	kill -9             3 times; CI 20; 100 by hand:
//	                    SLUICE_INTEGRATION=1 SLUICE_KILLS=100 go test -v -run '^TestProcessKill$' ./cmd/sluice
//	piles, connections  20,000 events and 1,000 clients; CI 1,000,000 and 10,000:
//	                    SLUICE_INTEGRATION=1 go test -v -run '^TestProcess(DamagedPile|ManyConnections)$' ./cmd/sluice
//
// How far a random history follows from its seed (chance_test.go): what is published and
// when, how often and how each attempt fails, what the operator does, which operation
// crashes or fails, as the n-th of its kind in that life. It has a clock of its own. Not
// from the seed are the order of goroutines that run at one moment, that of maps and of
// selects, and the jitter of retries, which one seed in four has. So a seed that failed
// is likely to fail again, and not certain: TestSeedsReplay goes through seeds twice, and
// 9 of 10 crash at the same three points.
//
// That these tests can fail was tried: each of nine changes to the engine that breaks
// a promise (such as to settle before the new record is durable, to read from the head
// in place of the floor, or to drop in place of spilling) is caught by the random
// histories within 2,000 seeds or by the small ones, seven of them by both.
//
// # What is bounded
//
// The router lets 16384 events or 64 MiB on their way at once; what takes longer
// than a sink's spill_after moves to the backlog on disk, so this bounds how far
// ahead it reads and not how far a slow sink may fall behind. A lane holds at
// most 1024 deliveries or 8 MiB in memory, waiting retries 32 MiB in all with their
// histories, and publishers are refused beyond 64 MiB of events that wait for the disk.
// Not bounded is the number of retries that wait: each has 140 bytes in memory (its time
// and place, and a share of its pack in the ledger), or 260 where it has a pack to itself.
package dispatch
