package rules

import (
	"errors"
	"fmt"
)

// Limits on one pattern. They bound what a single rule can cost; each is
// reported by ParsePattern as a PatternError that names it.
const (
	maxPatternBytes = 256 << 10
	maxDepth        = 100
	maxConditions   = 10_000
	maxGlobs        = 1_000 // wildcards in one pattern
	maxStars        = 32    // stars in one wildcard
)

// Pattern is one parsed event pattern. The zero Pattern matches nothing and is
// refused by Compile. A Pattern is immutable and may be shared.
type Pattern struct {
	src  string
	root *group
}

// String gives the pattern as it was written.
func (p Pattern) String() string { return p.src }

// MarshalJSON gives the pattern as it was written.
func (p Pattern) MarshalJSON() ([]byte, error) {
	if p.root == nil {
		return nil, errors.New("rules: the zero Pattern has no JSON form")
	}
	return []byte(p.src), nil
}

// UnmarshalJSON is ParsePattern.
func (p *Pattern) UnmarshalJSON(src []byte) error {
	q, err := ParsePattern(src)
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// PatternError says what is wrong with a pattern, where, and what to do.
type PatternError struct {
	Offset int    // byte offset into the source
	Path   string // dotted path of the field, "" for the pattern itself
	Msg    string
}

func (e *PatternError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("pattern, byte %d: %s", e.Offset, e.Msg)
	}
	return fmt.Sprintf("pattern, byte %d: %s: %s", e.Offset, e.Path, e.Msg)
}

// group is fields and alternatives that must all hold.
type group struct {
	fields []field
	anyOf  []alternatives
}

// alternatives is one $or: at least one of the groups must hold.
type alternatives struct {
	groups []group
}

// field is the conditions on one path, of which at least one must hold.
type field struct {
	path  string
	conds []condition
	src   string // the array as written
}

type op uint8

// The operators. opText to opNull are plain values.
const (
	opText op = iota
	opNumber
	opTrue
	opFalse
	opNull
	opPrefix
	opSuffix
	opFold
	opPrefixFold
	opSuffixFold
	opGlob
	opRange
	opCIDR
	opExists
	opAbsent
	opNot
)

// condition is one value or operator. Which members are set follows from op.
type condition struct {
	op         op
	comparable bool        // opNumber: lo is its key; otherwise only the text counts
	text       string      // string operand, or the text of a number
	src        string      // as written
	lo, hi     uint64      // opNumber: the key; opRange: keys, both included
	glob       *glob       // opGlob
	block      *block      // opCIDR; opText that is an address: its /32 or /128
	not        []condition // opNot: what the value must not be, all of one op
}
