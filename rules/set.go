package rules

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Set is any number of rules compiled for matching together. It is immutable
// and safe for use by any number of goroutines; to change the rules, Compile or
// Amend makes another one to put in its place.
type Set struct {
	seed    maphash.Seed
	trie    *pathTrie
	paths   []pathIndex
	atoms   []atom
	post    []span // by atom: its entries
	entries []entry
	clauses []clause
	members []uint32 // atoms of clauses with more than one
	groups  []groupCode
	refs    []uint32 // clauses and $or branches of groups
	rules   []ruleCode
	always  []uint32   // rules that no single condition leads to
	globs   globBase   // sizes of all wildcard indexes together
	stabs   int        // nodes of all range indexes
	arrays  bool       // some rule needs to know which array element a value is in
	amended *amendment // if not nil, all other members are unused
	// One scratch stays with the set, so that a lone goroutine never allocates;
	// those of further goroutines come and go with the garbage collector.
	idle atomic.Pointer[scratch]
	pool sync.Pool
}

// Len is the number of rules, removed ones included.
func (s *Set) Len() int {
	if a := s.amended; a != nil {
		return a.base.Len() + a.extra.Len()
	}
	return len(s.rules)
}

// span is a range of a flat slice.
type span struct{ off, end uint32 }

// atom is one distinct condition on one path.
type atom struct {
	op         op
	comparable bool
	path       uint32
	text       string
	lo, hi     uint64
	more       *condition // what does not fit above: glob, block, not
}

// clause is a distinct field of a pattern: it holds when one of its atoms
// does. With a single atom, off is that atom.
type clause struct {
	path   uint32
	off, n uint32
	absent bool // one of the atoms is exists:false
	exact  bool // single atom that the scan marks whenever it holds
}

// entry leads from a fulfilled atom to a rule. check is what to look at
// before the rule itself: an atom that the scan marks, a clause, or nothing.
type entry struct {
	rule  uint32 // with ruleDone: a hit when check holds, nothing else to see
	check uint32 // atom, or clause|lazyCheck, or noCheck
}

const (
	ruleDone  = 1 << 31
	lazyCheck = 1 << 31
	noCheck   = 1<<32 - 1
)

// checkIndex finds at once the operators of one path that lead to no rule. It
// is used when looking at them one by one would take long: many values on the
// path, or long ones.
type checkIndex struct {
	texts  *textIndex
	ranges *rangeIndex
}

// groupCode is the clauses and $or alternatives of a group, in Set.refs. Each
// alternative of an $or is a span of Set.groups.
type groupCode struct {
	clauses span
	ors     span
}

// ruleCode is the compiled form of one rule.
type ruleCode struct {
	group  uint32
	arrays bool // two of its conditions may meet under one array
}

// pathIndex finds the atoms of one path that a value fulfils.
type pathIndex struct {
	node    int32
	rank    uint32       // place among all paths, sorted
	exact   *textTable   // strings, whole
	numbers *numberTable // numbers, by key
	others  *textTable   // numbers without a key, by text
	words   [3]int32     // atoms of true, false, null; -1 if none
	present []uint32     // entries by exists:true and anything-but
	texts   *textIndex   // what else can lead in from a string
	checks  *checkIndex  // operators that lead to no rule; nil while they are few
	ranges  *rangeIndex  // numeric
}
