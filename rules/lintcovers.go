package rules

import (
	"slices"
	"strings"
)

// maxChoices is how many ways through its $or a pattern may have to be compared
// with another.
const maxChoices = 64

// Covers reports that every document that matches b matches a too. It compares
// condition by condition, so that false means "not for an obvious reason".
func Covers(a, b Pattern) bool { return covers(a, b, false) }

// EventCovers is Covers for CloudEvents only, which all have a type, a source, an
// id and a specversion.
func EventCovers(a, b Pattern) bool { return covers(a, b, true) }

func covers(a, b Pattern, event bool) bool {
	if a.root == nil || b.root == nil {
		return false
	}
	wide, ok := conjunctions(a.root)
	narrow, ok2 := conjunctions(b.root)
	if !ok || !ok2 {
		return false
	}
	for _, n := range narrow {
		if !slices.ContainsFunc(wide, func(w conjunction) bool { return w.covers(n, event) }) {
			return false
		}
	}
	return true
}

// conjunction is fields that must all hold, one choice through every $or.
type conjunction []field

// conjunctions are all choices, unless there are too many.
func conjunctions(g *group) ([]conjunction, bool) {
	all := []conjunction{g.fields}
	for _, alt := range g.anyOf {
		var branches []conjunction
		for i := range alt.groups {
			more, ok := conjunctions(&alt.groups[i])
			if !ok {
				return nil, false
			}
			branches = append(branches, more...)
		}
		if len(all)*len(branches) > maxChoices {
			return nil, false
		}
		var next []conjunction
		for _, c := range all {
			for _, b := range branches {
				next = append(next, slices.Concat(c, b))
			}
		}
		all = next
	}
	return all, true
}

// covers reports that whatever fulfils the narrow conjunction fulfils this one:
// each of its fields is implied by one there, so the same values, which were in
// the same array elements, do for it.
func (w conjunction) covers(narrow conjunction, event bool) bool {
	for _, f := range w {
		if event && f.always() {
			continue
		}
		if !slices.ContainsFunc(narrow, func(n field) bool {
			return n.path == f.path && n.implies(f) && (!n.mayMiss() || w.bindsAs(narrow, f.path))
		}) {
			return false
		}
	}
	return true
}

// bindsAs reports that a path is missing for both conjunctions or for neither.
// What counts as missing depends on the array elements that the fields before it,
// in the order of their paths, are bound to: those have to be the same.
func (w conjunction) bindsAs(narrow conjunction, path string) bool {
	top, _, _ := strings.Cut(path, ".")
	seen := map[string]int{}
	for _, n := range narrow {
		if first, _, _ := strings.Cut(n.path, "."); first != top || n.path > path {
			continue
		}
		seen[n.path]++
		if seen[n.path] > 1 || !slices.ContainsFunc(w, func(f field) bool { return f.path == n.path }) {
			return false
		}
	}
	return true
}

// mayMiss reports that the field holds when the path is missing.
func (f field) mayMiss() bool {
	return slices.ContainsFunc(f.conds, func(c condition) bool { return c.op == opAbsent })
}

// always reports that every CloudEvent fulfils the field.
func (f field) always() bool {
	return isRequired(f.path) && slices.ContainsFunc(f.conds, func(c condition) bool {
		return c.op == opExists || c.plain().anyText()
	})
}

// implies reports that whatever fulfils f fulfils wide.
func (f field) implies(wide field) bool {
	for _, c := range f.conds {
		if c.empty() == "" && !c.impliesAny(wide.conds) {
			return false
		}
	}
	return true
}

func (c condition) impliesAny(list []condition) bool {
	c = c.plain()
	return slices.ContainsFunc(list, func(y condition) bool { return c.implies(y.plain()) })
}

// exact reports that a condition is met by one value only.
func (c condition) exact() bool {
	switch c.op {
	case opText, opNumber, opTrue, opFalse, opNull:
		return true
	}
	return false
}

// isText reports that only strings fulfil the condition.
func (c condition) isText() bool {
	switch c.op {
	case opText, opPrefix, opSuffix, opFold, opPrefixFold, opSuffixFold, opGlob, opCIDR:
		return true
	}
	return false
}

// anyText reports that every string fulfils the condition.
func (c condition) anyText() bool { return c.op == opPrefix && c.text == "" }

// implies reports that every value that fulfils c fulfils y; both are plain.
func (c condition) implies(y condition) bool {
	switch {
	case c.op == opAbsent || y.op == opAbsent:
		return c.op == y.op
	case y.op == opExists:
		return true
	case c.op == opExists:
		return false
	case c.op == opNot:
		return y.op == opNot && !slices.ContainsFunc(y.not, func(e condition) bool { return !e.impliesAny(c.not) })
	case y.op == opNot:
		return !slices.ContainsFunc(y.not, func(e condition) bool { return !c.excludes(e.plain()) })
	case c.isText():
		return c.impliesText(y)
	case c.op == opNumber && !c.comparable:
		return y.op == opNumber && !y.comparable && c.text == y.text
	case c.op == opNumber || c.op == opRange:
		return (y.op == opRange || y.op == opNumber && y.comparable) && y.lo <= c.lo && c.hi <= y.hi
	}
	return c.op == y.op // true, false, null
}

// impliesText is implies for two conditions of which c is about strings.
func (c condition) impliesText(y condition) bool {
	switch {
	case !y.isText():
		return false
	case y.anyText() || c.canonical() == y.canonical():
		return true
	case c.block != nil: // any spelling of these addresses
		return y.block != nil && y.block.contains(c.block.first) && y.block.contains(c.block.last)
	}
	foldable := isASCII(c.text) && isASCII(y.text)
	switch y.op {
	case opText:
		return c.op == opText && c.text == y.text
	case opPrefix:
		head, ok := c.head()
		return ok && strings.HasPrefix(head, y.text)
	case opSuffix:
		tail, ok := c.tail()
		return ok && strings.HasSuffix(tail, y.text)
	case opFold:
		return foldable && (c.op == opText || c.op == opFold) && strings.EqualFold(c.text, y.text)
	case opPrefixFold:
		return foldable && c.op != opSuffix && c.op != opSuffixFold && c.op != opGlob && foldPrefix(y.text, c.text)
	case opSuffixFold:
		return foldable && c.op != opPrefix && c.op != opPrefixFold && c.op != opGlob && foldSuffix(y.text, c.text)
	case opGlob:
		return c.impliesGlob(y.glob)
	}
	return false
}

// head is what every string that fulfils c begins with; ok is false if c does not
// say.
func (c condition) head() (string, bool) {
	switch c.op {
	case opText, opPrefix:
		return c.text, true
	case opGlob:
		return c.glob.head, true
	}
	return "", false
}

// tail is what every string that fulfils c ends with.
func (c condition) tail() (string, bool) {
	switch c.op {
	case opText, opSuffix:
		return c.text, true
	case opGlob:
		return c.glob.tail, true
	}
	return "", false
}

// impliesGlob: a wildcard that matches what is known of a string, and has a star
// where the rest of it may be, matches the string.
func (c condition) impliesGlob(g *glob) bool {
	switch c.op {
	case opText:
		return g.match(c.text)
	case opPrefix:
		return g.tail == "" && g.match(c.text)
	case opSuffix:
		return g.head == "" && g.match(c.text)
	case opGlob:
		if !strings.HasPrefix(c.glob.head, g.head) || !strings.HasSuffix(c.glob.tail, g.tail) {
			return false
		}
		known := slices.Concat([]string{c.glob.head[len(g.head):]}, c.glob.middle, []string{c.glob.tail[:len(c.glob.tail)-len(g.tail)]})
		for _, m := range g.middle { // each in a part of its own, in order
			at := slices.IndexFunc(known, func(part string) bool { return strings.Contains(part, m) })
			if at < 0 {
				return false
			}
			known = known[at+1:]
		}
		return true
	}
	return false
}

// excludes reports that no value that fulfils c is what e of an anything-but
// excludes; both are plain.
func (c condition) excludes(e condition) bool {
	switch {
	case c.isText() != e.isText():
		return true // a string is no number
	case !c.isText():
		return c.op != opNumber && c.op != opRange || c.op == opNumber && !c.comparable || e.hi < c.lo || c.hi < e.lo
	case c.block != nil:
		return false // it has too many spellings to look at
	case c.op == opText:
		return !e.acceptsText(c.text)
	}
	own, has := c.head()
	other, asks := e.head()
	if has && asks && !strings.HasPrefix(own, other) && !strings.HasPrefix(other, own) {
		return true
	}
	own, has = c.tail()
	other, asks = e.tail()
	return has && asks && !strings.HasSuffix(own, other) && !strings.HasSuffix(other, own)
}

// acceptsText reports that a plain condition on strings accepts one.
func (c condition) acceptsText(s string) bool {
	switch c.op {
	case opText:
		return c.text == s
	case opPrefix:
		return strings.HasPrefix(s, c.text)
	case opSuffix:
		return strings.HasSuffix(s, c.text)
	case opFold:
		return foldEqual(c.text, s)
	case opGlob:
		return c.glob.match(s)
	}
	return true
}
