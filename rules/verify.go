package rules

import (
	"slices"
	"strings"
)

// clause reports whether any value on its path fulfils a clause. The answer
// is worked out once per event.
func (c *scratch) clause(id uint32) bool {
	cl := &c.set.clauses[id]
	if cl.exact {
		return c.marks[cl.off] == c.gen
	}
	if m := c.memo[id]; m>>1 == c.gen {
		return m&1 != 0
	}
	ok := c.clauseHolds(cl)
	c.memo[id] = c.gen << 1
	if ok {
		c.memo[id] |= 1
	}
	return ok
}

func (c *scratch) clauseHolds(cl *clause) bool {
	if cl.n == 1 {
		return c.atomHolds(cl.off)
	}
	c.spend(4 * int(cl.n))
	for _, a := range c.set.members[cl.off : cl.off+cl.n] {
		if c.atomHolds(a) {
			return true
		}
	}
	return false
}

// atomHolds reports whether any value on its path fulfils an atom.
func (c *scratch) atomHolds(id uint32) bool {
	if c.marks[id] == c.gen {
		return true
	}
	a := &c.set.atoms[id]
	if a.marked() {
		return false
	}
	at := c.leavesOf(a.path)
	if a.op == opAbsent {
		return at < 0
	}
	if p := &c.paths[a.path]; at >= 0 && a.op >= opPrefix && a.op <= opCIDR && (p.long || p.count >= manyLeaves) {
		if x := c.set.paths[a.path].checks; x != nil {
			c.checkAll(x, p)
			return c.marks[id] == c.gen
		}
	}
	for ; at >= 0; at = c.leaves[at].next {
		if c.steps--; c.steps < 0 {
			c.err = ErrTooComplex
			return false
		}
		if c.fulfils(a, &c.leaves[at]) {
			return true
		}
	}
	return false
}

// manyLeaves is from how many values of one path on a checkIndex pays.
const manyLeaves = 32

// checkAll marks every operator of a path that any of its values fulfils. What
// leads to a rule was marked before.
func (c *scratch) checkAll(x *checkIndex, p *pathState) {
	if p.checked {
		return
	}
	p.checked = true
	for at := p.first; at >= 0; at = c.leaves[at].next {
		l := &c.leaves[at]
		if l.kind == kindText && x.texts != nil {
			c.probeText(x.texts, l)
		} else if l.kind == kindNumber && x.ranges != nil {
			if key, ok := l.numberKey(); ok {
				c.stab(x.ranges, key)
			}
		}
	}
}

// clauseTakes reports whether one value fulfils a clause.
func (c *scratch) clauseTakes(cl *clause, l *leaf) bool {
	if cl.n == 1 {
		return c.fulfils(&c.set.atoms[cl.off], l)
	}
	for _, a := range c.set.members[cl.off : cl.off+cl.n] {
		if c.fulfils(&c.set.atoms[a], l) {
			return true
		}
	}
	return false
}

// fulfils reports whether one value fulfils an atom.
func (c *scratch) fulfils(a *atom, l *leaf) bool {
	switch a.op {
	case opText:
		return l.kind == kindText && a.text == string(l.val)
	case opTrue, opFalse, opNull:
		return l.kind == kindTrue+kind(a.op-opTrue)
	case opExists:
		return true
	case opAbsent:
		return false
	case opNumber, opRange:
		return l.fulfilsNumber(a)
	case opNot:
		return !l.excluded(a.more.not, c)
	}
	if l.kind != kindText {
		return false
	}
	switch a.op {
	case opPrefix:
		return len(l.val) >= len(a.text) && string(l.val[:len(a.text)]) == a.text
	case opSuffix:
		return len(l.val) >= len(a.text) && string(l.val[len(l.val)-len(a.text):]) == a.text
	case opCIDR:
		ip, ok := parseAddress(l.val)
		return ok && a.more.block.contains(ip)
	case opGlob:
		c.spend(len(l.val))
		return a.more.glob.match(l.text())
	}
	return foldFulfils(a.op, a.text, l.text())
}

// compareBytes is what any comparison costs, in bytes that could be compared
// instead.
const compareBytes = 32

// spend accounts for comparing a text of n bytes.
func (c *scratch) spend(n int) {
	if c.steps -= n >> 5; c.steps < 0 {
		c.err = ErrTooComplex
	}
}

func foldFulfils(o op, operand, text string) bool {
	switch o {
	case opFold:
		return foldEqual(operand, text)
	case opPrefixFold:
		return foldPrefix(operand, text)
	default:
		return foldSuffix(operand, text)
	}
}

func (l *leaf) fulfilsNumber(a *atom) bool {
	if l.kind != kindNumber {
		return false
	}
	if a.op == opNumber && !a.comparable {
		return a.text == string(l.val)
	}
	key, ok := l.numberKey()
	return ok && a.lo <= key && key <= a.hi
}

// excluded reports whether the value is among what anything-but excludes. The
// exclusions are of one kind; plain ones are sorted.
func (l *leaf) excluded(not []condition, c *scratch) bool {
	if not[0].op == opNumber {
		if l.kind != kindNumber {
			return false
		}
		key, ok := l.numberKey()
		if !ok {
			return false
		}
		_, found := slices.BinarySearchFunc(not, key, func(n condition, key uint64) int {
			switch {
			case n.lo < key:
				return -1
			case n.lo > key:
				return 1
			}
			return 0
		})
		return found
	}
	if l.kind != kindText {
		return false
	}
	text := l.text()
	if not[0].op == opText {
		_, found := slices.BinarySearchFunc(not, text, func(n condition, text string) int {
			return strings.Compare(n.text, text)
		})
		return found
	}
	for i := range not {
		c.spend(len(text))
		if excludes(&not[i], text) {
			return true
		}
	}
	return false
}

// excludes reports whether one operator inside anything-but takes a text.
func excludes(n *condition, text string) bool {
	switch n.op {
	case opPrefix:
		return strings.HasPrefix(text, n.text)
	case opSuffix:
		return strings.HasSuffix(text, n.text)
	case opGlob:
		return n.glob.match(text)
	}
	return foldEqual(n.text, text)
}
