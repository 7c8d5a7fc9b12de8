// Package memlog is the durable log of package bus kept in memory: for tests, and
// for `sluice dev --memory`, where nothing is meant to outlive the process.
//
// A Hook sees every operation twice, before and after it takes effect, and can
// fail it, delay it or crash the log there. Restart then gives a fresh log over
// what was durable at that instant, so a test can stop the world between any two
// writes and look at what a restarted process would find.
//
// It starts no goroutine and no timer and reads no clock but time.Now, or Options.Clock, so it works
// inside a testing/synctest bubble. It does not model a disk: an append is durable
// at once and a removal is never undone.
package memlog
