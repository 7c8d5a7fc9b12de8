package rules

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"strings"
)

// pathTrie holds the paths that rules use, one node per step. The scanner
// walks it beside the document; what leaves it is skipped.
type pathTrie struct {
	nodes []pathNode
	seed  maphash.Seed
}

// pathNode is one object key on the way to a used path. Node 0 is the root.
type pathNode struct {
	path   int32 // the path that ends here, -1 if none does
	parent int32
	depth  int32
	lens   uint64 // bit n&63: some kid's name has n bytes
	dotted int    // bytes of the shortest dotted key that may lead further, 0 if none can
	kids   []pathKid
	table  []int32 // hash → index into kids, -1 empty; nil while kids are few
}

type pathKid struct {
	word uint64 // the first eight bytes of name, zero padded
	name string
	node int32
}

// fewKids is how many kids are compared one after the other before hashing
// the key is cheaper.
const fewKids = 8

func newPathTrie(seed maphash.Seed) *pathTrie {
	return &pathTrie{nodes: []pathNode{{path: -1, parent: -1}}, seed: seed}
}

// trieBuilder finds the nodes of paths while a set is being compiled.
type trieBuilder struct {
	*pathTrie
	kids map[trieStep]int32
}

type trieStep struct {
	node int32
	name string
}

// add gives the node of a dotted path, making it if it is new.
func (b *trieBuilder) add(path string) int32 {
	at := int32(0)
	for more := true; more; {
		var name string
		name, path, more = strings.Cut(path, ".")
		step := trieStep{at, name}
		next, ok := b.kids[step]
		if !ok {
			next = int32(len(b.nodes))
			b.kids[step] = next
			b.nodes = append(b.nodes, pathNode{path: -1, parent: at, depth: b.nodes[at].depth + 1})
			n := &b.nodes[at]
			n.kids = append(n.kids, pathKid{word: firstWord([]byte(name)), name: name, node: next})
		}
		at = next
	}
	return at
}

// finish builds what speeds up the search for kids.
func (t *pathTrie) finish() {
	for i := range t.nodes {
		n := &t.nodes[i]
		for _, k := range n.kids {
			n.lens |= 1 << (len(k.name) & 63)
			for _, kk := range t.nodes[k.node].kids {
				if size := len(k.name) + 1 + len(kk.name); n.dotted == 0 || size < n.dotted {
					n.dotted = size
				}
			}
		}
		if len(n.kids) <= fewKids {
			continue
		}
		size := tableSize(len(n.kids))
		n.table = make([]int32, size)
		for j := range n.table {
			n.table[j] = -1
		}
		for j := range n.kids {
			at := maphash.String(t.seed, n.kids[j].name) & uint64(size-1)
			for n.table[at] >= 0 {
				at = (at + 1) & uint64(size-1)
			}
			n.table[at] = int32(j)
		}
	}
}

// tableSize is the power of two that holds n entries at most half full.
func tableSize(n int) int {
	size := 4
	for size < 2*n {
		size *= 2
	}
	return size
}

// find gives the kid of node n with this name, -1 if there is none.
func (t *pathTrie) find(n *pathNode, name []byte) int32 {
	if n.table != nil {
		mask := uint64(len(n.table) - 1)
		for at := maphash.Bytes(t.seed, name) & mask; ; at = (at + 1) & mask {
			j := n.table[at]
			if j < 0 {
				return -1
			}
			if k := &n.kids[j]; k.name == string(name) {
				return k.node
			}
		}
	}
	word := firstWord(name)
	for j := range n.kids {
		k := &n.kids[j]
		if k.word == word && len(k.name) == len(name) && (len(name) <= 8 || k.name == string(name)) {
			return k.node
		}
	}
	return -1
}

// walk is find for a key that may be several dotted steps.
func (t *pathTrie) walk(at int32, key []byte) int32 {
	n := &t.nodes[at]
	if n.lens>>(len(key)&63)&1 != 0 {
		if next := t.find(n, key); next >= 0 {
			return next
		}
	}
	if n.dotted == 0 || len(key) < n.dotted {
		return -1
	}
	for {
		dot := bytes.IndexByte(key, '.')
		if dot < 0 {
			return t.find(n, key)
		}
		if at = t.find(n, key[:dot]); at < 0 {
			return -1
		}
		n, key = &t.nodes[at], key[dot+1:]
	}
}

// firstWord is the first eight bytes of b as one number, zero padded.
func firstWord(b []byte) uint64 {
	switch n := len(b); {
	case n >= 8:
		return binary.LittleEndian.Uint64(b)
	case n >= 4: // two loads that may overlap
		return uint64(binary.LittleEndian.Uint32(b)) | uint64(binary.LittleEndian.Uint32(b[n-4:]))<<(8*(n-4))
	case n > 0:
		return uint64(b[0]) | uint64(b[n/2])<<(8*(n/2)) | uint64(b[n-1])<<(8*(n-1))
	}
	return 0
}
