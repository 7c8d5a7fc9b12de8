package rules

import (
	"cmp"
	"math"
	"slices"
)

// rangeIndex finds the numeric ranges around a key: a segment tree over the
// sorted bounds. A range is listed at the O(log n) nodes that make it up, and
// a key lies in the ranges listed between its leaf and the root.
type rangeIndex struct {
	bounds []uint64 // starts of the elementary intervals but the first
	size   int      // leaves of the tree
	lists  []span   // by node, in atoms
	atoms  []uint32
	base   int // where this index's nodes begin in scratch.stabbed
}

type keyRange struct {
	lo, hi uint64 // both included
	atom   uint32
}

func newRangeIndex(ranges []keyRange) *rangeIndex {
	x := &rangeIndex{}
	for _, r := range ranges {
		x.bounds = append(x.bounds, r.lo)
		if r.hi != math.MaxUint64 {
			x.bounds = append(x.bounds, r.hi+1)
		}
	}
	slices.Sort(x.bounds)
	x.bounds = slices.Compact(x.bounds)
	x.size = 1
	for x.size < len(x.bounds)+1 {
		x.size *= 2
	}
	type listing struct{ node, atom uint32 }
	var all []listing
	for _, r := range ranges {
		lo, hi := x.leaf(r.lo)+x.size, x.leaf(r.hi)+x.size+1
		for ; lo < hi; lo, hi = lo/2, hi/2 {
			if lo&1 != 0 {
				all = append(all, listing{uint32(lo), r.atom})
				lo++
			}
			if hi&1 != 0 {
				hi--
				all = append(all, listing{uint32(hi), r.atom})
			}
		}
	}
	slices.SortFunc(all, func(a, b listing) int { return cmp.Compare(a.node, b.node) })
	x.lists = make([]span, 2*x.size)
	x.atoms = make([]uint32, len(all))
	for i, l := range all {
		x.atoms[i] = l.atom
		if s := &x.lists[l.node]; s.end == 0 {
			*s = span{uint32(i), uint32(i + 1)}
		} else {
			s.end++
		}
	}
	return x
}

// leaf is the elementary interval a key lies in: the number of bounds at or
// below it.
func (x *rangeIndex) leaf(key uint64) int {
	lo, hi := 0, len(x.bounds)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if x.bounds[mid] <= key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// blockIndex finds the CIDR blocks around an address. Blocks nest or are
// apart, so they are kept sorted, each pointing to the one around it.
type blockIndex struct {
	blocks []indexedBlock
}

type indexedBlock struct {
	block
	around int32 // -1: none
	atom   uint32
}

func newBlockIndex(blocks []indexedBlock) *blockIndex {
	slices.SortFunc(blocks, func(a, b indexedBlock) int {
		if c := compareAddress(a.first, b.first); c != 0 {
			return c
		}
		return cmp.Compare(a.bits, b.bits)
	})
	for i := range blocks {
		around := int32(i) - 1
		for around >= 0 && !blocks[around].contains(blocks[i].last) {
			around = blocks[around].around
		}
		blocks[i].around = around
	}
	return &blockIndex{blocks}
}

func compareAddress(a, b address) int {
	switch {
	case a.v6 != b.v6:
		if b.v6 {
			return -1
		}
		return 1
	case a.less(b):
		return -1
	case b.less(a):
		return 1
	}
	return 0
}

// innermost gives the last block that starts at or below a, -1 if none does:
// every block around a is that one or around it.
func (x *blockIndex) innermost(a address) int32 {
	lo, hi := 0, len(x.blocks)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if compareAddress(x.blocks[mid].first, a) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return int32(lo) - 1
}
