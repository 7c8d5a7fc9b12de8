package rules

import (
	"fmt"
	"slices"
)

// amendment is what a set adds to and takes from the one it was made of.
type amendment struct {
	base  *Set
	gone  []uint64 // bit per rule, of base and extra
	extra *Set     // the added rules, numbered from base.Len()
	rules []Rule   // what extra was compiled from
}

// Amend gives a set like s without the rules of some indexes and with further
// rules, which are numbered from s.Len() on; no other index changes. It takes
// time for the rules added since the last Compile, not for all of s, so one
// rule among a hundred thousand is in effect within a millisecond. Matching
// then reads a document twice: compile all rules anew, beside the traffic, and
// swap again.
func (s *Set) Amend(remove []int, add []Rule) (*Set, error) {
	a := amendment{base: s}
	if s.amended != nil {
		a = *s.amended
	}
	a.rules = append(slices.Clip(a.rules), add...)
	extra, err := Compile(a.rules)
	if err != nil {
		return nil, err
	}
	a.extra = extra
	n := a.base.Len() + extra.Len()
	gone := make([]uint64, (n+63)/64)
	copy(gone, a.gone)
	a.gone = gone
	for _, r := range remove {
		if r < 0 || r >= s.Len() {
			return nil, fmt.Errorf("rules: there is no rule %d to remove, the set has %d", r, s.Len())
		}
		gone[r/64] |= 1 << (r % 64)
	}
	return &Set{amended: &a}, nil
}

// match runs both sets and joins what they find.
func (a *amendment) match(hits []int, run func(*Set, []int) ([]int, error)) ([]int, error) {
	n := len(hits)
	hits, err := run(a.base, hits)
	if err != nil {
		return hits[:n], err
	}
	mid := len(hits)
	if hits, err = run(a.extra, hits); err != nil {
		return hits[:n], err
	}
	kept := hits[:n]
	for i, r := range hits[n:] {
		if n+i >= mid {
			r += a.base.Len()
		}
		if a.gone[r/64]>>(r%64)&1 == 0 {
			kept = append(kept, r)
		}
	}
	return kept, nil
}
