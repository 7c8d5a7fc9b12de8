// Package sinks is where events leave the bus. sink.go is the contract, kinds.go
// the table of what there is, and each kind has one file. A sink makes one
// attempt and reports how it went; when to try again, how often and how many at a
// time is decided by bus/dispatch.
package sinks
