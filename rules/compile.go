package rules

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"
)

// Rule is a pattern with the name it goes by in messages.
type Rule struct {
	Name    string
	Pattern Pattern
}

// maxRules keeps rule numbers within 31 bits.
const maxRules = 1 << 28

// Compile builds the set of these rules. Match reports indexes into rs. It
// fails only for the zero Pattern and beyond its limits; rs is not kept.
func Compile(rs []Rule) (*Set, error) {
	if len(rs) > maxRules {
		return nil, fmt.Errorf("rules: %d rules, at most %d fit into one set", len(rs), maxRules)
	}
	seed := maphash.MakeSeed()
	s := &Set{seed: seed, trie: newPathTrie(seed)}
	var n sizes
	for _, r := range rs {
		n.add(r.Pattern.root)
	}
	s.atoms = make([]atom, 0, n.conds)
	s.clauses = make([]clause, 0, n.fields)
	s.groups = make([]groupCode, 0, n.groups)
	s.refs = make([]uint32, 0, n.fields)
	s.rules = make([]ruleCode, 0, len(rs))
	b := builder{
		Set:     s,
		trie:    trieBuilder{s.trie, make(map[trieStep]int32)},
		single:  make([]uint32, 0, n.conds),
		uses:    make([]uint32, 0, n.fields),
		pending: make([]registration, 0, len(rs)),
		byPath:  make(map[string]uint32),
		byAtom:  make(map[atomKey]uint32, n.conds),
		byField: make(map[string]uint32),
		steps:   make(map[string]uint32),
	}
	for i, r := range rs {
		if r.Pattern.root == nil {
			return nil, fmt.Errorf("rules: rule %d (%s) has no pattern", i, r.Name)
		}
		b.rule(r.Pattern.root)
	}
	b.trie.finish()
	b.register()
	b.index()
	s.pool.New = func() any { return newScratch(s) }
	s.atoms = slices.Clip(slices.Clone(s.atoms))
	s.clauses = slices.Clip(slices.Clone(s.clauses))
	s.idle.Store(newScratch(s))
	return s, nil
}

// sizes is how much a set holds at most, known before it is built so that
// nothing has to be moved while it grows.
type sizes struct{ groups, fields, conds int }

func (n *sizes) add(g *group) {
	if g == nil {
		return
	}
	n.groups++
	n.fields += len(g.fields)
	for i := range g.fields {
		n.conds += len(g.fields[i].conds)
	}
	for _, alt := range g.anyOf {
		for i := range alt.groups {
			n.add(&alt.groups[i])
		}
	}
}

// builder turns patterns into the flat tables of a set.
type builder struct {
	*Set
	trie    trieBuilder
	byPath  map[string]uint32
	byAtom  map[atomKey]uint32
	byField map[string]uint32
	single  []uint32 // by atom: its one-atom clause, plus one
	steps   map[string]uint32
	uses    []uint32 // by clause: how many rules ask for it
	key     []byte
	weigh   weigher
	pending []registration
}

type atomKey struct {
	op     op
	path   uint32
	lo, hi uint64
	text   string
}

// rule compiles one pattern.
func (b *builder) rule(root *group) {
	at := b.group(root)
	arrays := b.meets(root)
	b.arrays = b.arrays || arrays
	b.rules = append(b.rules, ruleCode{at, arrays})
}

// group compiles g and gives its number.
func (b *builder) group(g *group) uint32 {
	at := b.reserve(1)
	b.fill(at, g)
	return at
}

func (b *builder) reserve(n int) uint32 {
	at := uint32(len(b.groups))
	for range n {
		b.groups = append(b.groups, groupCode{})
	}
	return at
}

func (b *builder) fill(at uint32, g *group) {
	var code groupCode
	code.clauses.off = uint32(len(b.refs))
	for i := range g.fields {
		c := b.clause(&g.fields[i])
		b.refs = append(b.refs, c)
		if int(c) == len(b.uses) {
			b.uses = append(b.uses, 0)
		}
		b.uses[c]++
	}
	code.clauses.end = uint32(len(b.refs))
	if len(g.anyOf) > 0 {
		code.ors.off = uint32(len(b.refs))
		b.refs = append(b.refs, make([]uint32, 2*len(g.anyOf))...)
		code.ors.end = uint32(len(b.refs))
	}
	for i, alt := range g.anyOf {
		first := b.reserve(len(alt.groups))
		b.refs[int(code.ors.off)+2*i] = first
		b.refs[int(code.ors.off)+2*i+1] = first + uint32(len(alt.groups))
		for j := range alt.groups {
			b.fill(first+uint32(j), &alt.groups[j])
		}
	}
	b.groups[at] = code
}

// clause interns a field.
func (b *builder) clause(f *field) uint32 {
	path, ok := b.byPath[f.path]
	if !ok {
		path = uint32(len(b.paths))
		b.byPath[f.path] = path
		node := b.trie.add(f.path)
		b.trie.nodes[node].path = int32(path)
		b.paths = append(b.paths, pathIndex{node: node, words: [3]int32{-1, -1, -1}})
		b.weigh.paths = append(b.weigh.paths, pathWeights{})
	}
	var few [8]uint32
	ids := few[:0]
	absent := false
	for i := range f.conds {
		c := &f.conds[i]
		ids = append(ids, b.atom(path, c))
		if c.op == opText && c.block != nil {
			ids = append(ids, b.atom(path, &condition{op: opCIDR, block: c.block}))
		}
		absent = absent || c.op == opAbsent
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 1 {
		if at := b.single[ids[0]]; at > 0 {
			return at - 1
		}
		at := uint32(len(b.clauses))
		b.single[ids[0]] = at + 1
		b.clauses = append(b.clauses, clause{path, ids[0], 1, absent, b.atoms[ids[0]].marked()})
		return at
	}
	b.key = b.key[:0]
	for _, id := range ids {
		b.key = binary.LittleEndian.AppendUint32(b.key, id)
	}
	if at, ok := b.byField[string(b.key)]; ok {
		return at
	}
	at := uint32(len(b.clauses))
	b.byField[string(b.key)] = at
	b.clauses = append(b.clauses, clause{path, uint32(len(b.members)), uint32(len(ids)), absent, false})
	b.members = append(b.members, ids...)
	return at
}

// marked reports whether the scan marks this atom whenever it holds.
func (a *atom) marked() bool { return a.op <= opNull }

// atom interns a condition on a path.
func (b *builder) atom(path uint32, c *condition) uint32 {
	key := atomKey{op: c.op, path: path, text: c.text}
	switch c.op {
	case opNumber:
		if c.comparable {
			key.text, key.lo = "", c.lo
		}
	case opRange:
		key.lo, key.hi = c.lo, c.hi
	case opCIDR:
		f := c.block.first
		key.text = fmt.Sprint(f.v6, f.hi, c.block.bits)
		key.lo = f.lo
	case opNot:
		key.text = notKey(c.not)
	}
	if at, ok := b.byAtom[key]; ok {
		return at
	}
	at := uint32(len(b.atoms))
	b.byAtom[key] = at
	a := atom{op: c.op, comparable: c.comparable, path: path, text: c.text, lo: c.lo, hi: c.hi}
	switch c.op {
	case opGlob, opCIDR:
		a.more = c
	case opNot:
		a.more = sortedNot(c)
	}
	b.atoms = append(b.atoms, a)
	b.single = append(b.single, 0)
	b.weigh.add(&a)
	return at
}

// notKey is the same for the same exclusions in the same order.
func notKey(not []condition) string {
	var key strings.Builder
	for _, c := range not {
		fmt.Fprintf(&key, "%d:%d:%d:%s;", c.op, len(c.text), c.lo, c.text)
	}
	return key.String()
}

// sortedNot is c with long lists of plain exclusions in search order.
func sortedNot(c *condition) *condition {
	sorted := condition{op: opNot, not: slices.Clone(c.not)}
	switch c.not[0].op {
	case opText:
		slices.SortFunc(sorted.not, func(x, y condition) int { return cmp.Compare(x.text, y.text) })
	case opNumber:
		slices.SortFunc(sorted.not, func(x, y condition) int { return cmp.Compare(x.lo, y.lo) })
	}
	return &sorted
}

// meets reports whether two conditions of a pattern share the beginning of
// their paths, so that an array there could have them meet in one element.
func (b *builder) meets(root *group) bool {
	clear(b.steps)
	return b.countSteps(root)
}

func (b *builder) countSteps(g *group) bool {
	for i := range g.fields {
		step, _, _ := strings.Cut(g.fields[i].path, ".")
		b.steps[step]++
		if b.steps[step] > 1 {
			return true
		}
	}
	for _, alt := range g.anyOf {
		for i := range alt.groups {
			if b.countSteps(&alt.groups[i]) {
				return true
			}
		}
	}
	return false
}

// index builds the per-path indexes, once it is known which atoms lead to
// rules.
func (b *builder) index() {
	byPath := make([][]uint32, len(b.paths))
	for id := range b.atoms {
		p := b.atoms[id].path
		byPath[p] = append(byPath[p], uint32(id))
	}
	for rank, name := range slices.Sorted(maps.Keys(b.byPath)) {
		b.paths[b.byPath[name]].rank = uint32(rank)
	}
	for p := range b.paths {
		b.indexPath(&b.paths[p], byPath[p])
	}
}

func (b *builder) indexPath(x *pathIndex, ids []uint32) {
	var texts, others, numbers []uint32
	var keys []uint64
	var textKeys, otherKeys []string
	var entries, checks []uint32
	for _, id := range ids {
		a := &b.atoms[id]
		leads := b.post[id].off != b.post[id].end
		switch {
		case a.op == opText:
			texts, textKeys = append(texts, id), append(textKeys, a.text)
		case a.op == opNumber && a.comparable:
			numbers, keys = append(numbers, id), append(keys, a.lo)
		case a.op == opNumber:
			others, otherKeys = append(others, id), append(otherKeys, a.text)
		case a.op <= opNull:
			x.words[a.op-opTrue] = int32(id)
		case a.op == opAbsent:
		case a.op == opExists || a.op == opNot:
			if leads {
				x.present = append(x.present, id)
			}
		case leads:
			entries = append(entries, id)
		default:
			checks = append(checks, id)
		}
	}
	if len(texts) > 0 {
		x.exact = newTextTable(b.seed, textKeys, texts)
	}
	if len(others) > 0 {
		x.others = newTextTable(b.seed, otherKeys, others)
	}
	if len(numbers) > 0 {
		x.numbers = newNumberTable(b.seed, keys, numbers)
	}
	x.texts, x.ranges = b.operators(entries)
	if len(checks) >= minChecks {
		x.checks = new(checkIndex)
		x.checks.texts, x.checks.ranges = b.operators(checks)
	}
}

// minChecks is from how many operators on a checkIndex pays.
const minChecks = 8

// operators builds the indexes over the given atoms.
func (b *builder) operators(ids []uint32) (*textIndex, *rangeIndex) {
	var texts []uint32
	var ranges []keyRange
	for _, id := range ids {
		if a := &b.atoms[id]; a.op == opRange {
			ranges = append(ranges, keyRange{a.lo, a.hi, id})
		} else {
			texts = append(texts, id)
		}
	}
	var t *textIndex
	var r *rangeIndex
	if len(texts) > 0 {
		t = newTextIndex(b.seed, b.atoms, texts)
		b.place(t.globs)
	}
	if len(ranges) > 0 {
		r = newRangeIndex(ranges)
		r.base = b.stabs
		b.stabs += len(r.lists)
	}
	return t, r
}

// place gives a wildcard index its part of every scratch's globState.
func (b *builder) place(x *globIndex) {
	if x == nil {
		return
	}
	x.base = b.globs
	b.globs.glob += len(x.globs)
	b.globs.literal += len(x.literals)
	b.globs.state += x.states()
}

// never is more than any weight of a condition that can be waited for.
const never = math.MaxFloat64
