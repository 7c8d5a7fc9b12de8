package rules

import (
	"cmp"
	"slices"
)

// Redundancy is a rule that another one makes needless: every CloudEvent that
// matches it matches the other too.
type Redundancy struct {
	Rule, By int  // indexes
	Equal    bool // the two patterns are Equal
}

// maxPairs is how many pairs of rules are compared: about a second's worth.
const maxPairs = 500_000

// Redundancies finds the rules that others make needless, each once and in the
// order of the rules; of two that cover each other it is the later one. Only
// pairs for which compare is true count. Like EventCovers it sees what is
// obvious. It looks only at pairs that share a value or a path, and no more than
// half a million: all is false if there were more.
func Redundancies(rs []Rule, compare func(rule, by int) bool) (found []Redundancy, all bool) {
	x := coverIndex{}
	for i, r := range rs {
		x.add(i, r.Pattern)
	}
	pairs := 0
	for i, r := range rs {
		var best *Redundancy
		candidates := x.candidates(r.Pattern)
		if pairs += len(candidates); pairs > maxPairs {
			return found, false
		}
		for _, by := range candidates {
			if by == i || !compare(i, by) || !EventCovers(rs[by].Pattern, r.Pattern) {
				continue
			}
			if by > i && EventCovers(r.Pattern, rs[by].Pattern) && compare(by, i) {
				continue // the later one is the needless one
			}
			equal := Equal(r.Pattern, rs[by].Pattern)
			if best == nil || equal {
				best = &Redundancy{i, by, equal}
			}
			if equal {
				break
			}
		}
		if best != nil {
			found = append(found, *best)
		}
	}
	return found, true
}

// coverIndex finds the patterns that may cover one. Each conjunction stands under
// one of its fields: with each of its values when it has only such, and otherwise
// with "".
type coverIndex map[coverKey][]int

type coverKey struct{ path, value string }

// add files a pattern; one with too many choices covers nothing that is seen.
func (x coverIndex) add(i int, p Pattern) {
	if p.root == nil {
		return
	}
	all, _ := conjunctions(p.root)
	for _, c := range all {
		var asked []field
		for _, f := range c {
			if !f.always() {
				asked = append(asked, f)
			}
		}
		if len(asked) == 0 {
			x.file(coverKey{}, i)
			continue
		}
		f := slices.MinFunc(asked, func(a, b field) int { return cmp.Compare(a.breadth(), b.breadth()) })
		if f.breadth() == broad {
			x.file(coverKey{path: f.path}, i)
			continue
		}
		for _, c := range f.conds {
			x.file(coverKey{f.path, c.plain().canonical()}, i)
		}
	}
}

func (x coverIndex) file(k coverKey, i int) {
	if at := x[k]; len(at) == 0 || at[len(at)-1] != i {
		x[k] = append(at, i)
	}
}

// candidates are the patterns that may cover p: those that have to hold a field
// of its first conjunction.
func (x coverIndex) candidates(p Pattern) []int {
	if p.root == nil {
		return nil
	}
	all, _ := conjunctions(p.root)
	if len(all) == 0 {
		return nil
	}
	list := slices.Clone(x[coverKey{}])
	for _, f := range all[0] {
		list = append(list, x[coverKey{path: f.path}]...)
		list = append(list, x[coverKey{f.path, f.conds[0].plain().canonical()}]...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// broad is the breadth of a field that asks for more than some values.
const broad = 1 << 30

func (f field) breadth() int {
	if slices.ContainsFunc(f.conds, func(c condition) bool { return !c.plain().exact() }) {
		return broad
	}
	return len(f.conds)
}
