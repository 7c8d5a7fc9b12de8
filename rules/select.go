package rules

import (
	"cmp"
	"math"
	"slices"
)

// A rule is registered under the condition that is likely the rarest among
// events, so that events enter few rules they do not match. Likelihood is
// guessed from the operands: the more different values rules ask for on a
// path, the rarer each of them.

// weigher guesses how often a condition holds.
type weigher struct {
	paths []pathWeights
}

// pathWeights is what rules ask for on one path.
type pathWeights struct {
	count    [opNot + 1]uint32 // distinct atoms by operator
	min, max float64           // of finite range bounds
	bounds   bool
}

func (w *weigher) add(a *atom) {
	p := &w.paths[a.path]
	p.count[a.op]++
	if a.op != opRange {
		return
	}
	for _, k := range [...]uint64{a.lo, a.hi} {
		if k == 0 || k == math.MaxUint64 {
			continue
		}
		f := keyValue(k)
		if !p.bounds {
			p.min, p.max, p.bounds = f, f, true
		}
		p.min, p.max = min(p.min, f), max(p.max, f)
	}
}

// likely is the guessed share of events that fulfil an atom.
func (w *weigher) likely(a *atom) float64 {
	p := &w.paths[a.path]
	share := 1 / float64(1+p.count[a.op])
	switch a.op {
	case opText, opNumber, opFold:
		return share
	case opNull:
		return 0.2
	case opTrue, opFalse:
		return 0.5
	case opPrefix, opSuffix, opPrefixFold, opSuffixFold:
		return textShare(len(a.text), share)
	case opGlob:
		return textShare(a.more.glob.literals()-1, share)
	case opCIDR:
		bits := a.more.block.bits
		return max(share, math.Pow(0.5, float64(min(bits, 40))))
	case opRange:
		return p.rangeShare(a, share)
	case opExists:
		return 0.95
	case opNot:
		return 0.96
	}
	return never // opAbsent: no value leads to it
}

// textShare is the guess for an operator that asks for n bytes of a text: the
// more the rarer, and rarer still if rules ask for many different ones.
func textShare(n int, share float64) float64 {
	return min(0.9, 3*share, math.Pow(0.7, float64(max(n, 0))))
}

// rangeShare is the width of a range within all bounds asked for on its path.
func (p *pathWeights) rangeShare(a *atom, least float64) float64 {
	lo, hi := p.min, p.max
	if a.lo != 0 {
		lo = keyValue(a.lo)
	}
	if a.hi != math.MaxUint64 {
		hi = keyValue(a.hi)
	}
	all := p.max - p.min
	if !(all > 0) || math.IsInf(all, 0) {
		return 0.5
	}
	if a.lo == 0 || a.hi == math.MaxUint64 {
		least = max(least, 0.1) // values beyond all bounds are common enough
	}
	return min(0.9, max(least, (hi-lo)/all))
}

// registration is one way into a rule.
type registration struct {
	atom  uint32
	entry entry
}

// choice is the set of atoms to register a group under.
type choice struct {
	weight float64
	clause int // number of the clause in the root group, -1 for an $or
	atoms  []uint32
}

// register finds the way into each rule and sorts them by atom.
func (b *builder) register() {
	for r := range b.rules {
		b.registerRule(uint32(r))
	}
	b.post = make([]span, len(b.atoms))
	slices.SortFunc(b.pending, func(x, y registration) int {
		if c := cmp.Compare(x.atom, y.atom); c != 0 {
			return c
		}
		if c := cmp.Compare(x.entry.check, y.entry.check); c != 0 {
			return c
		}
		return cmp.Compare(x.entry.rule&^ruleDone, y.entry.rule&^ruleDone)
	})
	b.entries = make([]entry, len(b.pending))
	for i, p := range b.pending {
		b.entries[i] = p.entry
		if s := &b.post[p.atom]; s.end == 0 {
			*s = span{uint32(i), uint32(i + 1)}
		} else {
			s.end++
		}
	}
	b.pending = nil
}

func (b *builder) registerRule(r uint32) {
	code := &b.groups[b.rules[r].group]
	clauses := b.refs[code.clauses.off:code.clauses.end]
	best := b.choose(code)
	if best.weight >= never {
		b.always = append(b.always, r)
		return
	}
	var check int
	if best.clause >= 0 {
		best, check = b.chooseWithCheck(clauses)
	} else {
		check = b.bestCheck(clauses, -1)
	}
	e := entry{rule: r, check: noCheck}
	if check >= 0 {
		c := clauses[check]
		e.check = c | lazyCheck
		if b.clauses[c].exact {
			e.check = b.clauses[c].off
		}
	}
	simple := best.clause >= 0 && code.ors.off == code.ors.end && !b.rules[r].arrays
	if simple && (len(clauses) == 1 || len(clauses) == 2 && check >= 0) {
		e.rule |= ruleDone
	}
	for _, a := range best.atoms {
		b.pending = append(b.pending, registration{a, e})
	}
}

// chooseWithCheck picks the clause to enter by and the one to check first so
// that their expected cost is least: a rare entry is worth less when what has
// to be checked behind it is slow.
func (b *builder) chooseWithCheck(clauses []uint32) (choice, int) {
	best, bestCost, bestCheck := choice{weight: never, clause: -1}, never, -1
	for i, c := range clauses {
		w := b.clauseWeight(c)
		if w >= never {
			continue
		}
		check := b.bestCheck(clauses, i)
		cost := w
		if check >= 0 {
			cost *= b.checkCost(clauses[check])
		}
		if cost < bestCost {
			best, bestCost, bestCheck = choice{weight: w, clause: i}, cost, check
		}
	}
	best.atoms = b.clauseAtoms(clauses[best.clause])
	return best, bestCheck
}

// bestCheck gives the clause other than the entry that most often says no for
// its cost, -1 if there is none that can be checked alone.
func (b *builder) bestCheck(clauses []uint32, entry int) int {
	best, least := -1, 0.0
	for i, c := range clauses {
		if i == entry || b.clauses[c].absent {
			continue
		}
		if w := b.clauseWeight(c) * b.checkCost(c); best < 0 || w < least {
			best, least = i, w
		}
	}
	return best
}

// checkCost is the measured cost of checking a clause, relative to one that
// the scan has marked. Clauses that rules share are looked at once for all.
func (b *builder) checkCost(c uint32) float64 {
	if b.clauses[c].exact {
		return 1
	}
	return 1 + 9/float64(b.uses[c])
}

// choose finds the rarest clause or $or of a group.
func (b *builder) choose(code *groupCode) choice {
	best := choice{weight: never, clause: -1}
	for i, c := range b.refs[code.clauses.off:code.clauses.end] {
		if w := b.clauseWeight(c); w < best.weight {
			best.weight, best.clause = w, i
			best.atoms = b.clauseAtoms(c)
		}
	}
	for at := code.ors.off; at < code.ors.end; at += 2 {
		sum := 0.0
		var atoms []uint32
		for g := b.refs[at]; g < b.refs[at+1] && sum < best.weight; g++ {
			alt := b.choose(&b.groups[g])
			sum += alt.weight
			atoms = append(atoms, alt.atoms...)
		}
		if sum < best.weight {
			best = choice{weight: sum, clause: -1, atoms: atoms}
		}
	}
	return best
}

// clauseAtoms is the atoms of a clause.
func (s *Set) clauseAtoms(c uint32) []uint32 {
	cl := &s.clauses[c]
	if cl.n == 1 {
		return []uint32{cl.off}
	}
	return s.members[cl.off : cl.off+cl.n]
}

func (b *builder) clauseWeight(c uint32) float64 {
	cl := &b.clauses[c]
	if cl.absent {
		return never
	}
	if cl.n == 1 {
		return b.weigh.likely(&b.atoms[cl.off])
	}
	sum := 0.0
	for _, a := range b.members[cl.off : cl.off+cl.n] {
		sum += b.weigh.likely(&b.atoms[a])
	}
	return sum
}
