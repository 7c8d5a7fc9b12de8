// Package bench measures a bus from the outside. It starts the real program as a
// process of its own on a store of its own, loads it from this process over
// HTTP, and receives what it delivers at sinks of its own. Whatever a scenario is
// about, each event is counted at each sink: an event that was acknowledged and
// did not come is lost, one that came twice is a duplicate.
//
// Generator, sinks and server share the machine, so what the first two cost is
// taken from the third. They therefore speak HTTP/1.1 by hand over persistent
// connections: a request is one buffer in which only the id is written anew, and
// of a message no more is read than its status, its length and its event id.
// They understand what a bus and the servers of this package send, and nothing
// else.
//
// Absolute numbers say more about the machine than about the bus. With a
// baseline, the same load goes in turns to the bus and to something that does
// less in another process, and the ratio of each pair is what counts.
package bench
