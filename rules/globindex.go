package rules

import (
	"maps"
	"math"
	"slices"
)

// globIndex finds the wildcards a text fulfils. A wildcard is looked at only
// when its rarest literal is in the text: one before the first star or after
// the last is found in a radix tree, one between stars by an automaton that
// reads the text once for all wildcards. A short text is then compared with
// each candidate. For a long one that would take too long, so a second pass
// of the automaton moves all candidates along at once.
type globIndex struct {
	globs      []indexedGlob
	heads      *radix // to lists of globs
	tails      *radix
	lists      [][]uint32
	automaton  *automaton // over the middles; nil if no glob has any
	literals   []string
	triggers   [][]uint32 // by literal: globs whose rarest literal it is
	base       globBase   // where this index's part of globState begins
	literalIDs map[string]uint32
}

type globBase struct{ glob, literal, state int }

type indexedGlob struct {
	*glob
	atom    uint32
	middles []uint32 // literal numbers
}

// longText is the length from which candidates are moved along together.
const longText = 1024

func newGlobIndex(atoms []atom, ids []uint32) *globIndex {
	x := &globIndex{globs: make([]indexedGlob, len(ids)), literalIDs: make(map[string]uint32)}
	uses := make(map[globPart]int)
	for i, id := range ids {
		g := indexedGlob{glob: atoms[id].more.glob, atom: id}
		for _, m := range g.middle {
			x.literalIDs[m] = 0
			uses[globPart{partMiddle, m}]++
		}
		uses[globPart{partHead, g.head}]++
		uses[globPart{partTail, g.tail}]++
		x.globs[i] = g
	}
	x.literals = slices.Sorted(maps.Keys(x.literalIDs))
	for i, l := range x.literals {
		x.literalIDs[l] = uint32(i)
	}
	if len(x.literals) > 0 {
		x.automaton = newAutomaton(x.literals)
		x.triggers = make([][]uint32, len(x.literals))
	}
	heads, tails := make(map[string]uint32), make(map[string]uint32)
	for i := range x.globs {
		x.register(uint32(i), uses, heads, tails)
	}
	x.heads = x.tree(heads, false)
	x.tails = x.tree(tails, true)
	x.literalIDs = nil
	return x
}

// globPart is a literal of a glob in its place.
type globPart struct {
	place byte
	text  string
}

const (
	partHead = iota
	partTail
	partMiddle
)

// register files a glob under its rarest literal: long, and in few globs.
func (x *globIndex) register(i uint32, uses map[globPart]int, heads, tails map[string]uint32) {
	g := &x.globs[i]
	best, least := globPart{}, math.MaxFloat64
	consider := func(p globPart) {
		if w := float64(uses[p]) * math.Pow(0.7, float64(len(p.text))); w < least {
			best, least = p, w
		}
	}
	consider(globPart{partHead, g.head})
	consider(globPart{partTail, g.tail})
	for _, m := range g.middle {
		g.middles = append(g.middles, x.literalIDs[m])
		consider(globPart{partMiddle, m})
	}
	switch best.place {
	case partHead:
		x.file(heads, best.text, i)
	case partTail:
		x.file(tails, best.text, i)
	default:
		l := x.literalIDs[best.text]
		x.triggers[l] = append(x.triggers[l], i)
	}
}

func (x *globIndex) file(by map[string]uint32, key string, i uint32) {
	at, ok := by[key]
	if !ok {
		at = uint32(len(x.lists))
		by[key] = at
		x.lists = append(x.lists, nil)
	}
	x.lists[at] = append(x.lists[at], i)
}

func (x *globIndex) tree(by map[string]uint32, backward bool) *radix {
	if len(by) == 0 {
		return nil
	}
	keys := slices.Sorted(maps.Keys(by))
	vals := make([]uint32, len(keys))
	for i, k := range keys {
		vals[i] = by[k]
	}
	return newRadix(keys, vals, backward)
}

// states is the number of automaton states.
func (x *globIndex) states() int {
	if x.automaton == nil {
		return 0
	}
	return len(x.automaton.states)
}

// globState is the part of a scratch for wildcards. Marks carry the number of
// the text they were made for.
type globState struct {
	text       uint32
	candidates []uint32
	literal    []uint32 // by literal: the text it was found in
	state      []uint32 // by state: the text in which all its literals were seen
	waiting    []uint32 // by literal: the text that waits is for
	waits      []uint32 // by literal: first glob that waits for it, plus one
	next       []uint32 // by glob: the next that waits for the same, plus one
	at         []uint32 // by glob: the middle it waits for
	from       []int    // by glob: where that middle may begin
}

func newGlobState(n globBase) globState {
	return globState{
		literal: make([]uint32, n.literal),
		state:   make([]uint32, n.state),
		waiting: make([]uint32, n.literal),
		waits:   make([]uint32, n.literal),
		next:    make([]uint32, n.glob),
		at:      make([]uint32, n.glob),
		from:    make([]int, n.glob),
	}
}

// newText begins the next text.
func (g *globState) newText() {
	if g.text++; g.text == 0 {
		g.text = 1
		clear(g.literal)
		clear(g.state)
		clear(g.waiting)
	}
	g.candidates = g.candidates[:0]
}

// probeGlobs marks the wildcards that a text fulfils.
func (c *scratch) probeGlobs(x *globIndex, l *leaf) {
	g := &c.globs
	g.newText()
	for _, t := range [...]*radix{x.heads, x.tails} {
		if t == nil {
			continue
		}
		c.vals = t.find(c.vals[:0], l.val)
		for _, v := range c.vals {
			g.candidates = append(g.candidates, x.lists[v]...)
		}
	}
	if x.automaton != nil {
		g.trigger(x, l.val)
	}
	if len(l.val) >= longText && len(g.candidates) > 4 {
		c.relay(x, l.val)
		return
	}
	for _, i := range g.candidates {
		glob := &x.globs[i]
		if c.marks[glob.atom] == c.gen {
			continue
		}
		if c.spend(len(l.val) + compareBytes*(1+len(glob.middle))); c.err != nil {
			return
		}
		if glob.match(l.text()) {
			c.mark(glob.atom)
		}
	}
}

// trigger collects the globs whose longest literal is in the text. What ends
// in one state is looked at once per text.
func (g *globState) trigger(x *globIndex, text []byte) {
	m := x.automaton
	literal, state := g.literal[x.base.literal:], g.state[x.base.state:]
	s := uint32(0)
	for _, b := range text {
		if s == 0 {
			s = m.root[b]
		} else {
			s = m.step(s, b)
		}
		if s == 0 {
			continue
		}
		st := &m.states[s]
		if st.hit == 0 && st.next == 0 || state[s] == g.text {
			continue
		}
		state[s] = g.text
		for at := s; at != 0; at = m.states[at].next {
			hit := m.states[at].hit
			if hit == 0 || literal[hit-1] == g.text {
				continue
			}
			literal[hit-1] = g.text
			g.candidates = append(g.candidates, x.triggers[hit-1]...)
		}
	}
}

// relay reads the text once while every candidate waits for its next middle,
// each taken at its first place.
func (c *scratch) relay(x *globIndex, text []byte) {
	g := &c.globs
	for _, i := range g.candidates {
		glob := &x.globs[i]
		switch {
		case c.marks[glob.atom] == c.gen:
		case len(glob.middles) == 0:
			if glob.match(string(text)) {
				c.mark(glob.atom)
			}
		case glob.anchored(text):
			g.at[x.base.glob+int(i)] = 0
			g.from[x.base.glob+int(i)] = len(glob.head)
			g.wait(x, i)
		}
	}
	if x.automaton == nil {
		return
	}
	m := x.automaton
	s := uint32(0)
	for i, b := range text {
		s = m.step(s, b)
		at := s
		if m.states[s].hit == 0 {
			at = m.states[s].next
		}
		for ; at != 0; at = m.states[at].next {
			c.steps--
			if l := m.states[at].hit - 1; g.waiting[x.base.literal+int(l)] == g.text {
				c.advance(x, l, i+1, len(text))
			}
		}
		if c.steps < 0 {
			c.err = ErrTooComplex
			return
		}
	}
}

// wait files glob i under the literal it waits for.
func (g *globState) wait(x *globIndex, i uint32) {
	l := x.base.literal + int(x.globs[i].middles[g.at[x.base.glob+int(i)]])
	if g.waiting[l] != g.text {
		g.waiting[l], g.waits[l] = g.text, 0
	}
	g.next[x.base.glob+int(i)] = g.waits[l]
	g.waits[l] = i + 1
}

// advance moves on the globs that wait for literal l, which ends at end.
func (c *scratch) advance(x *globIndex, l uint32, end, size int) {
	g := &c.globs
	slot := x.base.literal + int(l)
	list := g.waits[slot]
	g.waits[slot] = 0
	for list != 0 {
		i := list - 1
		at := x.base.glob + int(i)
		list = g.next[at]
		c.steps--
		glob := &x.globs[i]
		switch {
		case end-len(x.literals[l]) < g.from[at]:
			g.wait(x, i)
		case end > size-len(glob.tail): // every later place is too late as well
		case int(g.at[at]) == len(glob.middles)-1:
			c.mark(glob.atom)
		default:
			g.at[at]++
			g.from[at] = end
			g.wait(x, i)
		}
	}
	if g.waits[slot] == 0 {
		g.waiting[slot] = 0
	}
}

// anchored reports whether a text begins and ends as the glob asks.
func (g *glob) anchored(text []byte) bool {
	return len(text) >= len(g.head)+len(g.tail) &&
		string(text[:len(g.head)]) == g.head && string(text[len(text)-len(g.tail):]) == g.tail
}
