package rules

import "hash/maphash"

// textIndex finds the operators, other than equality, that a string fulfils.
// It holds only conditions under which rules are registered.
type textIndex struct {
	prefix, suffix *radix
	// The fold indexes lead to lists of operands with the same key; each is
	// then compared exactly, because folding is wider than the operators.
	fold, foldPrefix, foldSuffix *foldIndex
	blocks                       *blockIndex
	globs                        *globIndex
}

// foldIndex groups operands by their folded text.
type foldIndex struct {
	table *textTable // equality
	tree  *radix     // prefix or suffix
	lists [][]uint32
}

func (x *foldIndex) add(keys map[string]uint32, text string, atom uint32) {
	key := string(appendFold(nil, text))
	at, ok := keys[key]
	if !ok {
		at = uint32(len(x.lists))
		keys[key] = at
		x.lists = append(x.lists, nil)
	}
	x.lists[at] = append(x.lists[at], atom)
}

// newTextIndex builds the index over the given atoms, nil if none of them
// belongs here.
func newTextIndex(seed maphash.Seed, atoms []atom, ids []uint32) *textIndex {
	by := make(map[op][]uint32)
	for _, id := range ids {
		o := atoms[id].op
		by[o] = append(by[o], id)
	}
	x := &textIndex{}
	x.prefix = operandTree(atoms, by[opPrefix], false)
	x.suffix = operandTree(atoms, by[opSuffix], true)
	x.fold = operandFolds(seed, atoms, by[opFold])
	x.foldPrefix = operandFolds(seed, atoms, by[opPrefixFold])
	x.foldSuffix = operandFolds(seed, atoms, by[opSuffixFold])
	if cidrs := by[opCIDR]; len(cidrs) > 0 {
		blocks := make([]indexedBlock, len(cidrs))
		for i, id := range cidrs {
			blocks[i] = indexedBlock{block: *atoms[id].more.block, atom: id}
		}
		x.blocks = newBlockIndex(blocks)
	}
	if globs := by[opGlob]; len(globs) > 0 {
		x.globs = newGlobIndex(atoms, globs)
	}
	return x
}

func operandTree(atoms []atom, ids []uint32, backward bool) *radix {
	if len(ids) == 0 {
		return nil
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = atoms[id].text
	}
	return newRadix(keys, ids, backward)
}

func operandFolds(seed maphash.Seed, atoms []atom, ids []uint32) *foldIndex {
	if len(ids) == 0 {
		return nil
	}
	x := &foldIndex{}
	byKey := make(map[string]uint32)
	for _, id := range ids {
		x.add(byKey, atoms[id].text, id)
	}
	keys := make([]string, 0, len(byKey))
	vals := make([]uint32, 0, len(byKey))
	for k, v := range byKey {
		keys, vals = append(keys, k), append(vals, v)
	}
	switch atoms[ids[0]].op {
	case opFold:
		x.table = newTextTable(seed, keys, vals)
	default:
		x.tree = newRadix(keys, vals, atoms[ids[0]].op == opSuffixFold)
	}
	return x
}
