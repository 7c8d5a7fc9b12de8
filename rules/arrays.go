package rules

import "slices"

// Array consistency: conditions of one rule on values under one array must
// hold in the same element, at every level. A rule for which that may matter
// is first matched as if it did not, which is necessary and cheap; what is
// left is searched here: one value per clause, such that no two of them lie
// in different elements of one array. Scalars directly in an array belong to
// no element, as in the reference.
//
// exists:false asks that no value on its path is compatible with the elements
// chosen for the clauses whose paths sort before its own. That order, too, is
// the reference's.

// frame is a group being worked through. Its parent goes on at item resume
// when the group is done.
type frame struct {
	group  uint32
	parent int32
	resume uint32
	causes uint64 // the $or decisions that led here
}

// choicePoint is one decision: the value chosen for a clause, or an $or.
type choicePoint struct {
	clause uint32
	elem   uint32
	kind   decision
}

type decision uint8

const (
	tookValue decision = iota
	tookAbsence
	tookBranch
)

// blame is the set of decisions, by depth, that a failure depends on. When a
// decision is not in the blame for what failed below it, its other options
// would fail the same way. The last bit stands for all deeper decisions.
type blame = uint64

const everything = ^blame(0)

func blameOf(depth int) blame { return 1 << min(depth, 63) }

// inArrays counts the clauses below a group with values inside arrays; the
// count stops at 2.
func (c *scratch) inArrays(g *groupCode) int {
	n := 0
	refs := c.set.refs
	for _, cl := range refs[g.clauses.off:g.clauses.end] {
		if p := &c.paths[c.set.clauses[cl].path]; p.gen == c.gen && p.inArray {
			n++
		}
	}
	for at := g.ors.off; at < g.ors.end && n < 2; at += 2 {
		for sub := refs[at]; sub < refs[at+1] && n < 2; sub++ {
			n += c.inArrays(&c.set.groups[sub])
		}
	}
	return n
}

// consistent reports whether a group holds with one element per array.
func (c *scratch) consistent(group uint32) bool {
	if need := int(c.arrays) + 1; len(c.bound) < need {
		c.bound = slices.Grow(c.bound, need-len(c.bound))[:need]
	}
	c.unbind(0)
	c.chosen = c.chosen[:0]
	c.frames = append(c.frames[:0], frame{group: group, parent: -1})
	ok, _ := c.solve(0, 0)
	return ok
}

// solve goes on with item k of frame f: its clauses, then its alternatives,
// then the frame around it.
func (c *scratch) solve(f int32, k uint32) (bool, blame) {
	for f >= 0 {
		fr := c.frames[f]
		g := &c.set.groups[fr.group]
		clauses := g.clauses.end - g.clauses.off
		if k < clauses {
			return c.place(c.set.refs[g.clauses.off+k], f, k+1)
		}
		if or := g.ors.off + 2*(k-clauses); or < g.ors.end {
			return c.branch(c.set.refs[or], c.set.refs[or+1], f, k+1)
		}
		f, k = fr.parent, fr.resume
	}
	return c.absencesHold(), everything
}

// branch tries the groups of one $or.
func (c *scratch) branch(first, end uint32, f int32, k uint32) (bool, blame) {
	depth := len(c.chosen)
	why := c.frames[f].causes
	causes := why | blameOf(depth)
	for g := first; g < end; g++ {
		if !c.group(&c.set.groups[g], true) {
			continue
		}
		c.chosen = append(c.chosen, choicePoint{kind: tookBranch})
		c.frames = append(c.frames, frame{g, f, k, causes})
		ok, fault := c.solve(int32(len(c.frames)-1), 0)
		c.frames = c.frames[:len(c.frames)-1]
		c.chosen = c.chosen[:depth]
		if ok {
			return true, 0
		}
		if fault&blameOf(depth) == 0 {
			return false, fault
		}
		why |= without(fault, depth)
	}
	return false, why
}

// without removes a decision from a blame, unless its bit stands for more.
func without(b blame, depth int) blame {
	if depth < 63 {
		b &^= blameOf(depth)
	}
	return b
}

// place tries the values for one clause.
func (c *scratch) place(clause uint32, f int32, k uint32) (bool, blame) {
	cl := &c.set.clauses[clause]
	depth := len(c.chosen)
	why := c.frames[f].causes | c.sharing(cl.path)
	at, end, linked := c.candidates(cl.path)
	tried, some := uint32(0), false
	for ; at >= 0 && at < end; at = c.following(at, linked) {
		l := &c.leaves[at]
		if c.steps--; c.steps < 0 {
			c.err = ErrTooComplex
			return true, 0
		}
		if l.path != cl.path || some && l.elem == tried || !c.clauseTakes(cl, l) {
			continue
		}
		trail := len(c.trail)
		if !c.bind(l.elem) {
			c.unbind(trail)
			continue
		}
		tried, some = l.elem, true
		ok, fault := c.decide(choicePoint{clause, l.elem, tookValue}, f, k)
		c.unbind(trail)
		if ok {
			return true, 0
		}
		if fault&blameOf(depth) == 0 {
			return false, fault
		}
		why |= without(fault, depth)
	}
	if cl.absent {
		ok, fault := c.decide(choicePoint{clause, 0, tookAbsence}, f, k)
		if ok {
			return true, 0
		}
		why |= without(fault, depth)
	}
	return false, why
}

func (c *scratch) decide(p choicePoint, f int32, k uint32) (bool, blame) {
	c.steps -= 2 // it takes about three times as long as looking at a value
	c.chosen = append(c.chosen, p)
	ok, fault := c.solve(f, k)
	c.chosen = c.chosen[:len(c.chosen)-1]
	return ok, fault
}

// bind fixes, for every array around an element, that this is the element. It
// reports false if another element was fixed before.
func (c *scratch) bind(e uint32) bool {
	for ; e != 0; e = c.elems[e].parent {
		array := c.elems[e].array
		switch c.bound[array] {
		case e:
		case 0:
			c.bound[array] = e
			c.trail = append(c.trail, array)
		default:
			return false
		}
	}
	return true
}

func (c *scratch) unbind(trail int) {
	for _, array := range c.trail[trail:] {
		c.bound[array] = 0
	}
	c.trail = c.trail[:trail]
}

// candidates gives the values to try on a path: all of them, linked, or, when
// an element around them is already fixed, the leaves of that element.
func (c *scratch) candidates(path uint32) (first, end int32, linked bool) {
	var inner uint32
	if !c.twins && c.uniform(path) {
		for i := range c.chosen {
			inner = max(inner, c.elemAbove(c.chosen[i].elem, path, true))
		}
	}
	if inner != 0 && c.through(path, c.elems[inner].node) {
		return c.elems[inner].first, c.elems[inner].end, false
	}
	return c.leavesOf(path), int32(len(c.leaves)), true
}

// uniform reports whether all values on a path lie inside arrays at the same
// places. Where a key stands twice, once for an object and once for an array, a
// value beside the array goes with every element of it.
func (c *scratch) uniform(path uint32) bool {
	p := &c.paths[path]
	if p.uniformGen != c.gen {
		p.uniformGen, p.uniform = c.gen, c.sameArrays(path)
	}
	return p.uniform
}

// through reports whether the values of a uniform path lie inside an array at a
// node.
func (c *scratch) through(path uint32, node int32) bool {
	first := c.leavesOf(path)
	if first < 0 {
		return true
	}
	e := c.leaves[first].elem
	for e != 0 && c.elems[e].node != node {
		e = c.elems[e].parent
	}
	return e != 0
}

func (c *scratch) sameArrays(path uint32) bool {
	first := c.leavesOf(path)
	if first < 0 {
		return true
	}
	for at := c.leaves[first].next; at >= 0; at = c.leaves[at].next {
		c.steps--
		a := c.elemAbove(c.leaves[first].elem, path, true)
		b := c.elemAbove(c.leaves[at].elem, path, true)
		for a != 0 && b != 0 && c.elems[a].node == c.elems[b].node {
			a = c.elemAbove(c.elems[a].parent, path, true)
			b = c.elemAbove(c.elems[b].parent, path, true)
		}
		if a != b { // both are 0 at the end of the same way
			return false
		}
	}
	return true
}

func (c *scratch) following(at int32, linked bool) int32 {
	if linked {
		return c.leaves[at].next
	}
	return at + 1
}

// elemAbove gives the innermost of e and the elements around it whose array
// is on the way to a path, 0 if none is. With strict, arrays at the end of the
// path do not count: their scalars lie beside the elements, not inside.
func (c *scratch) elemAbove(e, path uint32, strict bool) uint32 {
	node := c.set.paths[path].node
	for ; e != 0; e = c.elems[e].parent {
		if at := c.elems[e].node; c.set.trie.above(at, node) && !(strict && at == node) {
			return e
		}
	}
	return 0
}

// above reports whether the way from the root to node n leads through a.
func (t *pathTrie) above(a, n int32) bool {
	for t.nodes[n].depth > t.nodes[a].depth {
		n = t.nodes[n].parent
	}
	return a == n
}

// sharing is the decisions that fixed an element on the way to a path.
func (c *scratch) sharing(path uint32) blame {
	var b blame
	for i := range c.chosen {
		if c.elemAbove(c.chosen[i].elem, path, false) != 0 {
			b |= blameOf(i)
		}
	}
	return b
}

// absencesHold reports whether every exists:false that was decided for holds
// among the chosen elements.
func (c *scratch) absencesHold() bool {
	for i := range c.chosen {
		if c.chosen[i].kind == tookAbsence && !c.absent(c.set.clauses[c.chosen[i].clause].path) {
			return false
		}
	}
	return true
}

// absent reports whether no value on the path is compatible with the elements
// chosen for clauses on paths that sort before it.
func (c *scratch) absent(path uint32) bool {
	rank := c.set.paths[path].rank
	for at := c.leavesOf(path); at >= 0; at = c.leaves[at].next {
		if c.steps--; c.steps < 0 {
			c.err = ErrTooComplex
			return true
		}
		if c.compatible(c.leaves[at].elem, rank) {
			return false
		}
	}
	return true
}

func (c *scratch) compatible(e, rank uint32) bool {
	for i := range c.chosen {
		p := &c.chosen[i]
		if p.kind != tookValue || c.set.paths[c.set.clauses[p.clause].path].rank >= rank {
			continue
		}
		if c.conflict(e, p.elem) {
			return false
		}
	}
	return true
}

// conflict reports whether two elements, or elements around them, are
// different elements of one array.
func (c *scratch) conflict(a, b uint32) bool {
	for ; a != 0; a = c.elems[a].parent {
		for e := b; e != 0; e = c.elems[e].parent {
			if c.elems[a].array == c.elems[e].array {
				return a != e // what is around a common element is common
			}
		}
	}
	return false
}
