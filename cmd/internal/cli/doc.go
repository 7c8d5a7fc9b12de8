// Package cli is the command line of Sluice, one file per verb. Verbs that work
// on files (validate, test, match, explain, kinds) need no server; all others
// speak to one over its HTTP API and hold nothing that the API does not say.
//
// It parses flags, prints and chooses exit codes. What the bus does, and what
// serve and dev start, is elsewhere.
package cli
