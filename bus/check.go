package bus

import (
	"context"
	"fmt"
)

// Checker is a Log that can look over what it holds.
type Checker interface {
	// Check reads all that is stored and calls visit with each fault, those that
	// were found when the log was opened first, until visit fails. It takes that
	// nothing is removed from EVENTS but its oldest packs, as Trim does.
	Check(ctx context.Context, visit func(Fault) error) error
	// Quarantine gives up what a repairable fault is about: it copies the raw bytes
	// that are left into files below dir, durably, and only then hides the packs
	// from readers for good. It returns the files.
	Quarantine(ctx context.Context, f Fault, dir string) (files []string, err error)
}

// Fault is something that is wrong with a store.
type Fault struct {
	Stream     string `json:"stream,omitempty"` // "" for the store as a whole
	First      uint64 `json:"first,omitempty"`  // the packs it is about; 0 for none in particular
	Last       uint64 `json:"last,omitempty"`
	Index      int    `json:"index"` // the record; -1 for whole packs
	Kind       string `json:"kind"`  // one of the Fault constants
	Detail     string `json:"detail"`
	Repairable bool   `json:"repairable"` // Quarantine takes it
}

// The kinds of a Fault.
const (
	FaultDamaged = "damaged" // a record or a pack that cannot be read
	FaultMissing = "missing" // packs that are not there, and were never removed
	FaultCut     = "cut"     // packs at the end of a stream that are not there any more
	FaultLost    = "lost"    // a whole stream that was gone, and was made anew, empty
	FaultMended  = "mended"  // a file that described the store was damaged, and was made again
)

// String names the fault and its place.
func (f Fault) String() string {
	place := f.Stream
	switch {
	case f.First == 0:
	case f.Last > f.First:
		place += fmt.Sprintf(" %d-%d", f.First, f.Last)
	case f.Index >= 0:
		place += " " + Position{Seq: f.First, Index: f.Index}.String()
	default:
		place += fmt.Sprintf(" %d", f.First)
	}
	if place == "" {
		place = "store"
	}
	return place + ": " + f.Kind + ": " + f.Detail
}
