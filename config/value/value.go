// Package value holds the types of config values that YAML does not have:
// durations, byte sizes, rates, references to secrets. They decode from text, say
// what is wrong with it, and never print a secret. It imports nothing of ours, so
// that every connector can use it in its settings.
package value

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is one thing that is wrong with settings: the key it is about, with dots
// between nested keys and "" for the settings as a whole, and what to do about it.
type Fault struct {
	Key string
	Msg string
}

// Faults are all that is wrong with settings.
type Faults []Fault

// Add notes one more.
func (f *Faults) Add(key, format string, args ...any) {
	*f = append(*f, Fault{Key: key, Msg: fmt.Sprintf(format, args...)})
}

// Under is the same below a key.
func (f Faults) Under(key string) Faults {
	below := make(Faults, len(f))
	for i, fault := range f {
		below[i] = Fault{Key: strings.TrimSuffix(key+"."+fault.Key, "."), Msg: fault.Msg}
	}
	return below
}

// Err is the first of them, and nil when there is none.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return errors.New(f[0].Key + " " + f[0].Msg)
}
