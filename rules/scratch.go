package rules

import (
	"slices"
	"unsafe"

	"sluice/bus/jsonscan"
)

// scratch is what one match writes to. Scratches are pooled per set; nothing
// in them is cleared between events, instead every mark carries the
// generation it was made in.
type scratch struct {
	set   *Set
	gen   uint32
	doc   []byte
	depth int // brackets open around the scanner
	err   error
	steps int // work left, see maxSteps

	leaves []leaf
	elems  []elem
	arrays uint32   // arrays seen that rules look into
	twins  bool     // some path led to two arrays in one place
	text   []byte   // decoded strings
	key    []byte   // decoded key
	fold   []byte   // folded string
	vals   []uint32 // operands found in a radix tree
	open   jsonscan.Nesting
	recent [1 << recentBits]int32 // leaves by first bytes; may be out of date

	paths   []pathState
	lists   []uint32 // by trie node: last element an array was seen in, plus one
	listGen []uint32
	marks   []uint32 // by atom: the generation it last held in
	memo    []uint32 // by clause: generation<<1 | verdict
	seen    []uint32 // by rule: the generation it was last tried in
	stabbed []uint32 // by range index node
	unmet   []uint32 // atoms of pathIndex.present that no value has fulfilled yet
	fired   []uint32 // atoms that lead to rules, in order of discovery
	frames  []frame
	chosen  []choicePoint
	globs   globState
	bound   []uint32 // by array: the element fixed for it, 0 if none
	trail   []uint32 // arrays bound so far
}

// leaf is a value on a used path.
type leaf struct {
	val  []byte // text of a string or number, decoded
	key  uint64 // of a number, when keyed
	path uint32
	elem uint32 // innermost array element around it, 0 if none
	next int32  // next leaf on the same path, -1 at the end
	kind kind
	keyed,
	comparable bool
}

type kind uint8

const (
	kindText kind = iota
	kindNumber
	kindTrue
	kindFalse
	kindNull
)

// elem is one element of an array: an object or another array. Elements are
// numbered in document order, from 1.
type elem struct {
	array  uint32 // number of the array it is in
	parent uint32 // element around that array, 0 if none
	node   int32  // trie node of the array
	index  int32  // place in the array
	first  int32  // number of leaves when the element began
	end    int32  // number of leaves when the element ended
}

// pathState is the leaves of one path in this event.
type pathState struct {
	gen        uint32
	first      int32
	last       int32
	inArray    bool   // some leaf is inside an array element
	uniformGen uint32 // uniform is known for this event
	uniform    bool
	long       bool // some leaf is a long text
	checked    bool // pathIndex.checks has been asked
	count      int32
	unmet      span // of pathIndex.present, in scratch.unmet, once count > 1
}

// maxGeneration keeps generation<<1 within 32 bits.
const maxGeneration = 1<<31 - 1

// maxSteps bounds the work of one match that grows faster than the document
// and the rules do, in steps of about 10 ns: the search for array elements
// that fulfil a rule, and texts of many kilobytes against many wildcards.
const maxSteps = 1_500_000

func newScratch(s *Set) *scratch {
	return &scratch{
		set:     s,
		elems:   make([]elem, 1, 16),
		leaves:  make([]leaf, 0, 64),
		text:    make([]byte, 0, 512),
		key:     make([]byte, 0, 64),
		fired:   make([]uint32, 0, 64),
		paths:   make([]pathState, len(s.paths)),
		lists:   make([]uint32, len(s.trie.nodes)),
		listGen: make([]uint32, len(s.trie.nodes)),
		marks:   make([]uint32, len(s.atoms)),
		memo:    make([]uint32, len(s.clauses)),
		seen:    make([]uint32, len(s.rules)),
		stabbed: make([]uint32, s.stabs),
		globs:   newGlobState(s.globs),
	}
}

// get takes a scratch ready for one event.
func (s *Set) get() *scratch {
	c := s.idle.Swap(nil)
	if c == nil {
		c = s.pool.Get().(*scratch)
	}
	if c.gen++; c.gen == maxGeneration {
		c.gen = 1
		for _, marks := range [][]uint32{c.listGen, c.marks, c.memo, c.seen, c.stabbed} {
			clear(marks)
		}
		clear(c.paths)
	}
	c.err = nil
	c.steps = maxSteps
	c.depth = 0
	c.arrays = 0
	c.twins = false
	c.elems = c.elems[:1]
	c.text = c.text[:0]
	c.fired = c.fired[:0]
	c.unmet = c.unmet[:0]
	return c
}

// keepLeaves is how much memory for leaves a pooled scratch keeps.
const keepLeaves = 16 << 10

// put gives a scratch back, without the event's bytes.
func (s *Set) put(c *scratch) {
	if cap(c.leaves) > keepLeaves {
		c.leaves = make([]leaf, 0, 64)
	}
	clear(c.leaves)
	c.leaves = c.leaves[:0]
	c.doc = nil
	if !s.idle.CompareAndSwap(nil, c) {
		s.pool.Put(c)
	}
}

// addLeaf records a value on the path of a trie node.
func (c *scratch) addLeaf(path int32, elem uint32, k kind, val []byte) {
	p := &c.paths[path]
	at := int32(len(c.leaves))
	if p.gen != c.gen {
		*p = pathState{gen: c.gen, first: at, last: at, inArray: elem != 0}
	} else {
		if p.count >= manyLeaves && c.repeats(uint32(path), elem, k, val) {
			return
		}
		c.leaves[p.last].next = at
		p.last = at
		p.inArray = p.inArray || elem != 0
	}
	p.count++
	p.long = p.long || len(val) >= longText
	c.leaves = append(c.leaves, leaf{val: val, path: uint32(path), elem: elem, kind: k, next: -1})
}

// repeats reports whether a value was recorded before, and so says nothing
// new. It knows some of the recent values, found by their first bytes: enough
// to keep an array of a million small numbers from being a million leaves.
func (c *scratch) repeats(path, elem uint32, k kind, val []byte) bool {
	slot := &c.recent[(firstWord(val)*0x9E3779B97F4A7C15)>>(64-recentBits)]
	if at := int(*slot); at < len(c.leaves) {
		l := &c.leaves[at]
		if l.path == path && l.elem == elem && l.kind == k && string(l.val) == string(val) {
			return true
		}
	}
	*slot = int32(len(c.leaves))
	return false
}

// recentBits is the logarithm of the number of values repeats knows.
const recentBits = 10

// addText records the string d[start:end].
func (c *scratch) addText(path int32, elem uint32, raw []byte, escaped bool) {
	if escaped {
		c.text = slices.Grow(c.text, len(raw))
		from := len(c.text)
		c.text, _ = jsonscan.Unescape(c.text, raw) // String has checked it
		raw = c.text[from:]
	}
	c.addLeaf(path, elem, kindText, raw)
}

// leavesOf gives the first leaf of a path, -1 if the event has none.
func (c *scratch) leavesOf(path uint32) int32 {
	if p := &c.paths[path]; p.gen == c.gen {
		return p.first
	}
	return -1
}

// text is the leaf's value as a string. It shares the bytes, which neither
// the matcher nor anybody it passes the string to changes or keeps.
func (l *leaf) text() string { return unsafe.String(unsafe.SliceData(l.val), len(l.val)) }

// numberKey gives the key of a number leaf, working it out once.
func (l *leaf) numberKey() (uint64, bool) {
	if !l.keyed {
		l.key, l.comparable = numberKey(l.val)
		l.keyed = true
	}
	return l.key, l.comparable
}
