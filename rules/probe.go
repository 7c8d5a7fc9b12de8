package rules

// probe looks one value up in the indexes of its path and marks the atoms it
// fulfils: all equalities, and of the other operators those that lead to a
// rule.
func (c *scratch) probe(l *leaf) {
	x := &c.set.paths[l.path]
	switch l.kind {
	case kindText:
		if x.exact != nil {
			if a, ok := x.exact.find(l.val); ok {
				c.mark(a)
			}
		}
		if x.texts != nil {
			c.probeText(x.texts, l)
		}
	case kindNumber:
		if x.numbers != nil || x.others != nil || x.ranges != nil {
			c.probeNumber(x, l)
		}
	default:
		if a := x.words[l.kind-kindTrue]; a >= 0 {
			c.mark(uint32(a))
		}
	}
	if x.present != nil {
		c.probePresent(x.present, l)
	}
}

// probePresent marks those of the given atoms that a value fulfils. Almost
// every value does; the few atoms that are left are all that later values on
// the path are compared with.
func (c *scratch) probePresent(atoms []uint32, l *leaf) {
	p := &c.paths[l.path]
	later := p.unmet.end != 0
	if later {
		atoms = c.unmet[p.unmet.off-1 : p.unmet.end-1]
	}
	from := len(c.unmet)
	left := atoms[:0]
	for _, a := range atoms {
		switch {
		case c.fulfils(&c.set.atoms[a], l):
			c.mark(a)
		case later:
			left = append(left, a)
		case p.count > 1:
			c.unmet = append(c.unmet, a)
		}
	}
	if later {
		p.unmet.end = p.unmet.off + uint32(len(left))
	} else {
		p.unmet = span{uint32(from) + 1, uint32(len(c.unmet)) + 1}
	}
}

func (c *scratch) probeNumber(x *pathIndex, l *leaf) {
	key, ok := l.numberKey()
	if !ok {
		if x.others != nil {
			if a, ok := x.others.find(l.val); ok {
				c.mark(a)
			}
		}
		return
	}
	if x.numbers != nil {
		if a, ok := x.numbers.find(key); ok {
			c.mark(a)
		}
	}
	if x.ranges != nil {
		c.stab(x.ranges, key)
	}
}

// stab marks the ranges around a key. Each node of the index is listed at
// most once per event, however many values it is around.
func (c *scratch) stab(x *rangeIndex, key uint64) {
	for n := x.leaf(key) + x.size; n > 0; n /= 2 {
		s := x.lists[n]
		if s.off == s.end || c.stabbed[x.base+n] == c.gen {
			continue
		}
		c.stabbed[x.base+n] = c.gen
		for _, a := range x.atoms[s.off:s.end] {
			c.mark(a)
		}
	}
}

func (c *scratch) probeText(x *textIndex, l *leaf) {
	if x.prefix != nil {
		c.climb(x.prefix, l.val)
	}
	if x.suffix != nil {
		c.climb(x.suffix, l.val)
	}
	if x.fold != nil || x.foldPrefix != nil || x.foldSuffix != nil {
		c.probeFolds(x, l)
	}
	if x.blocks != nil {
		if ip, ok := parseAddress(l.val); ok {
			for at := x.blocks.innermost(ip); at >= 0; at = x.blocks.blocks[at].around {
				if b := &x.blocks.blocks[at]; b.contains(ip) {
					c.mark(b.atom)
				}
			}
		}
	}
	if x.globs != nil {
		c.probeGlobs(x.globs, l)
	}
}

// climb marks every operand that the text starts or ends with.
func (c *scratch) climb(t *radix, text []byte) {
	c.vals = t.find(c.vals[:0], text)
	for _, a := range c.vals {
		c.mark(a)
	}
}

func (c *scratch) probeFolds(x *textIndex, l *leaf) {
	c.fold = appendFold(c.fold[:0], l.text())
	if x.fold != nil {
		if list, ok := x.fold.table.find(c.fold); ok {
			c.markList(x.fold.lists[list], l)
		}
	}
	for _, f := range [...]*foldIndex{x.foldPrefix, x.foldSuffix} {
		if f == nil {
			continue
		}
		c.vals = f.tree.find(c.vals[:0], c.fold)
		for _, v := range c.vals {
			c.markList(f.lists[v], l)
		}
	}
}

// markList marks the atoms of a list that the value really fulfils.
func (c *scratch) markList(list []uint32, l *leaf) {
	for _, a := range list {
		if c.marks[a] == c.gen {
			continue
		}
		if c.spend(len(l.val) + compareBytes); c.err != nil {
			return
		}
		if c.fulfils(&c.set.atoms[a], l) {
			c.mark(a)
		}
	}
}
