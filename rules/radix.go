package rules

import (
	"bytes"
	"slices"
)

// radix finds every operand that a text starts with, or, built backward,
// ends with. Nodes lie in breadth-first order, so the kids of one node are
// side by side and are found by the bytes they start with.
type radix struct {
	backward bool
	nodes    []radixNode
	first    []byte // by node: the first byte of its label
	labels   []byte
}

type radixNode struct {
	label span // what follows first, in labels
	kids  span // in nodes
	val   int32
}

// newRadix builds the tree for distinct keys; vals[i] is reported for keys[i].
func newRadix(keys []string, vals []uint32, backward bool) *radix {
	t := &radix{backward: backward}
	type item struct {
		key []byte
		val int32
	}
	items := make([]item, len(keys))
	for i, k := range keys {
		b := []byte(k)
		if backward {
			slices.Reverse(b)
		}
		items[i] = item{b, int32(vals[i])}
	}
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key, b.key) })
	type job struct{ lo, hi, depth int } // items[lo:hi] share the first depth bytes
	jobs := []job{{0, len(items), 0}}
	t.nodes, t.first = append(t.nodes, radixNode{}), append(t.first, 0)
	for at := 0; at < len(jobs); at++ {
		j := jobs[at]
		n := radixNode{val: -1}
		lo := j.lo
		if at > 0 {
			depth := commonPrefix(items[j.lo].key, items[j.hi-1].key)
			n.label.off = uint32(len(t.labels))
			t.labels = append(t.labels, items[lo].key[j.depth+1:depth]...)
			n.label.end = uint32(len(t.labels))
			j.depth = depth
		}
		if lo < j.hi && len(items[lo].key) == j.depth {
			n.val = items[lo].val
			lo++
		}
		n.kids.off = uint32(len(t.nodes))
		for lo < j.hi {
			c, end := items[lo].key[j.depth], lo+1
			for end < j.hi && items[end].key[j.depth] == c {
				end++
			}
			t.nodes, t.first = append(t.nodes, radixNode{}), append(t.first, c)
			jobs = append(jobs, job{lo, end, j.depth})
			lo = end
		}
		n.kids.end = uint32(len(t.nodes))
		t.nodes[at] = n
	}
	return t
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// find appends the values of all operands that the text starts (or ends) with.
func (t *radix) find(vals []uint32, text []byte) []uint32 {
	n := &t.nodes[0]
	for used := 0; ; {
		if n.val >= 0 {
			vals = append(vals, uint32(n.val))
		}
		if used >= len(text) || n.kids.off == n.kids.end {
			return vals
		}
		c := text[used]
		if t.backward {
			c = text[len(text)-1-used]
		}
		i := bytes.IndexByte(t.first[n.kids.off:n.kids.end], c)
		if i < 0 {
			return vals
		}
		n = &t.nodes[n.kids.off+uint32(i)]
		label := t.labels[n.label.off:n.label.end]
		if used++; !t.follows(text, used, label) {
			return vals
		}
		used += len(label)
	}
}

// follows reports whether the text goes on with a label after used bytes.
func (t *radix) follows(text []byte, used int, label []byte) bool {
	if used+len(label) > len(text) {
		return false
	}
	if !t.backward {
		return string(text[used:used+len(label)]) == string(label)
	}
	for j, c := range label {
		if text[len(text)-1-used-j] != c {
			return false
		}
	}
	return true
}
