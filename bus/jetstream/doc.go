// Package jetstream is the durable log of package bus on an embedded NATS server:
// no port, no signal handlers, no log of its own. It is the only package that
// imports NATS.
//
// # How it is laid out
//
// Each stream of the log is a JetStream stream on disk, and the state table is two
// more that keep the last message of each key, both of them all. A pack is one message, because with
// Sync always JetStream fsyncs each message, 0.2 to 0.6 ms, and groups none: the
// group is what the caller packs. A key is a token of the subject.
//
// The packs appended last, 16 MiB of EVENTS and 4 MiB of each other stream, are kept
// in memory, and a reader that keeps up reads nothing back: 0.16 ms from append to
// reader without fsync for 64 records of 1 KiB. A reader that is behind asks for a
// batch at a time, up to 256 packs or 1 MiB, so the server never pushes more than
// was asked for and there is no consumer to lose: 180,000 packs of one such record
// per second, or 900,000 records in packs of 512.
//
// Measured on 2 shared, busy cores with records of 1 KiB: an append of 1, 64 and 512
// records takes 0.6 to 1.3, 2 and 8 ms with Sync always, so up to 32,000 records a
// second in packs of 64 and 63,000 in packs of 512; 0.03, 0.2 to 0.4 and 1.5 ms with
// an interval. How the request is made (ours, nats.go's Request, its Publish) made no
// difference beyond the noise.
//
// A removal between packs that stay costs one fsync: 850 to 1,500 a second with Sync
// always. The oldest of a stream go at once, and so do the oldest of a key with Trim:
// 50,000 a second and more in groups of 100. So trim where order allows it.
//
// # What it guards against
//
//   - Two processes on one directory: a lock of the kernel's, with the holder's id.
//   - A torn meta file, with which nats-server starts without that stream: streams.json
//     knows the streams and their ids, and the stream is made again over its blocks.
//   - A message whose checksum is wrong, which nats-server skips in silence: what was
//     not removed and cannot be read comes as a pack with a nil record.
//   - Damage to the state table: it is written twice, each write to both copies at once.
//     What one has not whole is read from the other, and mended at the next start, which
//     says so; what neither has is told from what never was (bus.ErrDamaged).
//   - A full volume, after which nats-server does not write until it is started anew:
//     appends stop at a reserve, EVENTS first and the state table last. If the volume
//     fills up all the same, the server is started again within the process; callers
//     see ErrUnavailable at most, readers a delay.
//
// # What it does not do
//
// It removes nothing by itself: no age, no size limit that drops. It knows no
// clusters.
//
// It does not read the streams when it opens: Check does, on demand, every pack. When
// it opens it compares how far each stream goes, and after an orderly end how many
// packs it holds, with what it noted at its last Close. A pack that is missing in the
// middle of EVENTS was lost, since only the oldest go from there; in the other streams
// packs are removed one by one, and one that nats-server gave up while it recovered
// cannot be told from that here, but by the number of all after an orderly end: package
// dispatch knows which it had not settled. Quarantine
// hides packs that cannot be read, once their block is saved elsewhere.
//
// When the process was killed and a block is damaged besides, nats-server gives up the
// rest of that block (up to 8 MiB) while it recovers, and what came to the end of a
// stream since the last Close is then missing without a trace here; numbers given out
// before can come again, which package dispatch notices. A reader of one key
// cannot tell which key a damaged pack had: it reports one when the server's count
// of its key does not match, which concurrent appends and removals can hide; a
// reader of all keys reports every one. A damaged pack is removed for good only by a
// trim. A pack whose append ended in ErrUnavailable, or with its context, may turn up.
package jetstream
