package rules

import (
	"errors"
	"fmt"
	"strings"
)

// glob is a wildcard operand taken apart at its stars: the text starts with
// head, ends with tail, and holds the middles in order in between. Without a
// star (only head, literal) it is the whole text.
type glob struct {
	head, tail string
	middle     []string
	literal    bool
}

// parseGlob reads a wildcard operand: * is any run of characters, \* and \\
// are the characters themselves.
func parseGlob(s string) (*glob, error) {
	var (
		parts []string
		cur   strings.Builder
	)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '*':
			if i+1 < len(s) && s[i+1] == '*' {
				return nil, fmt.Errorf(`"**" at character %d: one "*" already stands for any run of characters`, i)
			}
			parts = append(parts, cur.String())
			cur.Reset()
		case '\\':
			if i+1 >= len(s) || s[i+1] != '*' && s[i+1] != '\\' {
				return nil, errors.New(`a backslash escapes only "*" and "\" (in JSON: "\\*" and "\\\\")`)
			}
			i++
			cur.WriteByte(s[i])
		default:
			cur.WriteByte(c)
		}
	}
	parts = append(parts, cur.String())
	if len(parts) > maxStars+1 {
		return nil, fmt.Errorf("%d stars, at most %d are allowed in one wildcard", len(parts)-1, maxStars)
	}
	if len(parts) == 1 {
		return &glob{head: parts[0], literal: true}, nil
	}
	return &glob{head: parts[0], tail: parts[len(parts)-1], middle: parts[1 : len(parts)-1]}, nil
}

// match takes each middle at its first place, which finds a match whenever
// there is one, in time linear in the text for each of them.
func (g *glob) match(text string) bool {
	if g.literal {
		return text == g.head
	}
	if len(text) < len(g.head)+len(g.tail) || !strings.HasPrefix(text, g.head) || !strings.HasSuffix(text, g.tail) {
		return false
	}
	text = text[len(g.head) : len(text)-len(g.tail)]
	for _, m := range g.middle {
		at := strings.Index(text, m)
		if at < 0 {
			return false
		}
		text = text[at+len(m):]
	}
	return true
}

// literals is the number of bytes the text must contain.
func (g *glob) literals() int {
	n := len(g.head) + len(g.tail)
	for _, m := range g.middle {
		n += len(m)
	}
	return n
}
