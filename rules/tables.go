package rules

import (
	"hash/maphash"
	"math/bits"
)

// textTable finds a string among the operands of a path. It maps to a number
// of the caller's choice. Hashes are seeded, so nobody outside can write
// strings that collide.
type textTable struct {
	seed  maphash.Seed
	keys  []string
	vals  []uint32
	slots []slot // nil while keys are few
}

type slot struct {
	tag uint32 // upper half of the hash
	ref uint32 // index into keys, plus one
}

// fewTexts is how many strings are compared directly before hashing pays.
const fewTexts = 3

func newTextTable(seed maphash.Seed, keys []string, vals []uint32) *textTable {
	t := &textTable{seed: seed, keys: keys, vals: vals}
	if len(keys) <= fewTexts {
		return t
	}
	t.slots = make([]slot, tableSize(len(keys)))
	mask := uint64(len(t.slots) - 1)
	for i, k := range keys {
		h := maphash.String(seed, k)
		at := h & mask
		for t.slots[at].ref != 0 {
			at = (at + 1) & mask
		}
		t.slots[at] = slot{uint32(h >> 32), uint32(i + 1)}
	}
	return t
}

// find gives the value for a key.
func (t *textTable) find(key []byte) (uint32, bool) {
	if t.slots == nil {
		for i, k := range t.keys {
			if k == string(key) {
				return t.vals[i], true
			}
		}
		return 0, false
	}
	h := maphash.Bytes(t.seed, key)
	mask := uint64(len(t.slots) - 1)
	for at := h & mask; ; at = (at + 1) & mask {
		s := t.slots[at]
		if s.ref == 0 {
			return 0, false
		}
		if s.tag == uint32(h>>32) && t.keys[s.ref-1] == string(key) {
			return t.vals[s.ref-1], true
		}
	}
}

// numberTable finds a number key among the operands of a path.
type numberTable struct {
	seed  uint64
	slots []numberSlot
}

type numberSlot struct {
	key uint64
	ref uint32 // atom, plus one
}

func newNumberTable(seed maphash.Seed, keys []uint64, atoms []uint32) *numberTable {
	t := &numberTable{seed: maphash.String(seed, "numbers") | 1, slots: make([]numberSlot, tableSize(len(keys)))}
	mask := uint64(len(t.slots) - 1)
	for i, k := range keys {
		at := t.hash(k) & mask
		for t.slots[at].ref != 0 {
			at = (at + 1) & mask
		}
		t.slots[at] = numberSlot{k, atoms[i] + 1}
	}
	return t
}

func (t *numberTable) hash(key uint64) uint64 {
	hi, lo := bits.Mul64(key^t.seed, t.seed)
	return hi ^ lo
}

func (t *numberTable) find(key uint64) (uint32, bool) {
	mask := uint64(len(t.slots) - 1)
	for at := t.hash(key) & mask; ; at = (at + 1) & mask {
		s := t.slots[at]
		if s.ref == 0 {
			return 0, false
		}
		if s.key == key {
			return s.ref - 1, true
		}
	}
}
