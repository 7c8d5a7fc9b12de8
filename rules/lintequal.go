package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Equal reports that two patterns say the same, in whatever order and spelling:
// keys nested or dotted, values and $or in any order, 5 and 5.0, a wildcard
// "a*" and a prefix "a". Patterns that match the same events for a deeper reason
// are not equal; Covers may see those.
func Equal(a, b Pattern) bool {
	return a.root != nil && b.root != nil && canonicalGroup(a.root) == canonicalGroup(b.root)
}

func canonicalGroup(g *group) string {
	var parts []string
	for _, f := range g.fields {
		parts = append(parts, strconv.Quote(f.path)+canonicalConditions(f.conds))
	}
	for _, alt := range g.anyOf {
		var branches []string
		for i := range alt.groups {
			branches = append(branches, canonicalGroup(&alt.groups[i]))
		}
		parts = append(parts, "or"+sortedSet(branches))
	}
	return sortedSet(parts)
}

func canonicalConditions(list []condition) string {
	parts := make([]string, len(list))
	for i, c := range list {
		parts[i] = c.plain().canonical()
	}
	return sortedSet(parts)
}

func sortedSet(parts []string) string {
	slices.Sort(parts)
	return "{" + strings.Join(slices.Compact(parts), ",") + "}"
}

func (c condition) canonical() string {
	switch c.op {
	case opText:
		if c.block != nil {
			return fmt.Sprint("ip", c.block.first)
		}
	case opNumber:
		if c.comparable {
			return fmt.Sprint("n", c.lo)
		}
	case opRange:
		return fmt.Sprint("r", c.lo, "-", c.hi)
	case opCIDR:
		return fmt.Sprint("cidr", c.block.first, c.block.last)
	case opNot:
		return "not" + canonicalConditions(c.not)
	}
	return strconv.Itoa(int(c.op)) + strconv.Quote(c.text)
}

// plain is the plainest condition that means the same: wildcards with one star
// at an end become a prefix or a suffix, ["=", 5] becomes 5, and operands that
// case does not matter to are in lower case.
func (c condition) plain() condition {
	switch c.op {
	case opGlob:
		switch {
		case c.glob.literal:
			return condition{op: opText, text: c.glob.head, src: c.src}
		case len(c.glob.middle) == 0 && c.glob.tail == "":
			return condition{op: opPrefix, text: c.glob.head, src: c.src}
		case len(c.glob.middle) == 0 && c.glob.head == "":
			return condition{op: opSuffix, text: c.glob.tail, src: c.src}
		}
	case opRange:
		if c.lo == c.hi {
			return condition{op: opNumber, lo: c.lo, hi: c.hi, comparable: true, src: c.src}
		}
	case opSuffix:
		if c.text == "" {
			c.op = opPrefix // any text
		}
	case opPrefixFold, opSuffixFold:
		if c.text == "" {
			c.op = opPrefix
		}
		c.text = lowerIfASCII(c.text)
	case opFold:
		c.text = lowerIfASCII(c.text)
	}
	return c
}

// lowerIfASCII leaves other texts alone: what they match depends on how the
// operand is written, since not every case change can be undone.
func lowerIfASCII(s string) string {
	if !isASCII(s) {
		return s
	}
	return strings.ToLower(s)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
