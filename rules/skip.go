package rules

import (
	"encoding/binary"
	"math/bits"
)

// skipNumber gives the end of the number at d[i:], -1 if there is none.
func skipNumber(d []byte, i int) int {
	if i < len(d) && d[i] == '-' {
		i++
	}
	switch {
	case i >= len(d) || !isDigit(d[i]):
		return -1
	case d[i] == '0':
		i++
	default:
		i = skipDigits(d, i)
	}
	if i < len(d) && d[i] == '.' {
		if i++; i >= len(d) || !isDigit(d[i]) {
			return -1
		}
		i = skipDigits(d, i)
	}
	if i < len(d) && (d[i] == 'e' || d[i] == 'E') {
		if i++; i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		if i >= len(d) || !isDigit(d[i]) {
			return -1
		}
		i = skipDigits(d, i)
	}
	return i
}

func skipDigits(d []byte, i int) int {
	for i < len(d) && isDigit(d[i]) {
		i++
	}
	return i
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// maxNesting is how deep a document may be, as in encoding/json.
const maxNesting = 10_000

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks, by the lowest set bit, the first of eight bytes that is a
// quote, a backslash or a control character; it is 0 if none is.
func special(w uint64) uint64 {
	quote, slash := w^('"'*ones), w^('\\'*ones)
	return ((quote-ones)&^quote | (slash-ones)&^slash | (w-' '*ones)&^w) & highs
}

// stringEnd gives the position of the quote that ends the string whose text
// starts at d[i], and whether there are escapes before it. It gives -1 for a
// string that does not end or that JSON does not allow.
func stringEnd(d []byte, i int) (end int, escaped bool) {
	for i >= 0 && i+8 <= len(d) {
		s := special(binary.LittleEndian.Uint64(d[i:]))
		if s == 0 {
			i += 8
			continue
		}
		if i += bits.TrailingZeros64(s) >> 3; i < len(d) && d[i] == '"' {
			return i, false
		}
		break
	}
	return stringEndSlow(d, i)
}

// stringEndSlow is stringEnd for what has escapes or ends the document.
func stringEndSlow(d []byte, i int) (end int, escaped bool) {
	for {
		for i+8 <= len(d) {
			if s := special(binary.LittleEndian.Uint64(d[i:])); s != 0 {
				i += bits.TrailingZeros64(s) >> 3
				break
			}
			i += 8
		}
		for i < len(d) && d[i] != '"' && d[i] != '\\' && d[i] >= ' ' {
			i++
		}
		if i >= len(d) || d[i] < ' ' {
			return -1, false
		}
		if d[i] == '"' {
			return i, escaped
		}
		escaped = true
		if i = skipEscape(d, i); i < 0 {
			return -1, false
		}
	}
}

// skipEscape gives the end of the escape at d[i], -1 if JSON has none such.
func skipEscape(d []byte, i int) int {
	if i+1 >= len(d) {
		return -1
	}
	if d[i+1] == 'u' {
		if _, ok := hex4(d[i+2:]); !ok {
			return -1
		}
		return i + 6
	}
	if unescapeByte(d[i+1]) == 0 {
		return -1
	}
	return i + 2
}

// skipSpace gives the position of the next byte that is not white space.
func skipSpace(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\n' || d[i] == '\r' || d[i] == '\t') {
		i++
	}
	return i
}

// skipWord gives the end of true, false or null at d[i], -1 if it is none.
func skipWord(d []byte, i int) int {
	rest := d[i:]
	switch {
	case len(rest) >= 4 && (string(rest[:4]) == "true" || string(rest[:4]) == "null"):
		return i + 4
	case len(rest) >= 5 && string(rest[:5]) == "false":
		return i + 5
	}
	return -1
}

// nesting remembers for each open bracket whether it is an object's.
type nesting [(maxNesting + 63) / 64]uint64

func (n *nesting) set(depth int, object bool) {
	bit := uint64(1) << (depth & 63)
	if object {
		n[depth>>6] |= bit
	} else {
		n[depth>>6] &^= bit
	}
}

func (n *nesting) object(depth int) bool { return n[depth>>6]>>(depth&63)&1 != 0 }

// skipValue gives the end of the JSON value that starts at d[i], -1 if there
// is none or it is nested deeper than left levels.
func skipValue(d []byte, i int, open *nesting, left int) int {
	depth := 0
	for {
		if i >= len(d) {
			return -1
		}
		switch c := d[i]; {
		case c == '"':
			end, _ := stringEnd(d, i+1)
			i = end + 1
			if end < 0 {
				return -1
			}
		case c == '-' || isDigit(c):
			i = skipNumber(d, i)
		case c != '{' && c != '[':
			i = skipWord(d, i)
		default:
			if depth == left {
				return -1
			}
			open.set(depth, c == '{')
			depth++
			if i = skipSpace(d, i+1); i >= len(d) {
				return -1
			}
			if d[i] == c+2 { // the closing bracket, in ASCII
				break
			}
			if c == '{' {
				i = skipKey(d, i)
			}
			if i < 0 {
				return -1
			}
			continue
		}
		if i < 0 {
			return -1
		}
		if i, depth = skipClosing(d, i, open, depth); depth <= 0 {
			return i
		}
	}
}

// skipClosing goes from the end of a value to the start of the next one,
// through the brackets that close in between. It gives depth 0 when the
// outermost value has ended, and position -1 for what JSON does not allow.
func skipClosing(d []byte, i int, open *nesting, depth int) (int, int) {
	for depth > 0 {
		if i < len(d) && d[i] <= ' ' {
			i = skipSpace(d, i)
		}
		if i >= len(d) {
			return -1, 0
		}
		object := open.object(depth - 1)
		switch c := d[i]; {
		case c == ',':
			if i++; i < len(d) && d[i] <= ' ' {
				i = skipSpace(d, i)
			}
			if object {
				i = skipKey(d, i)
			}
			if i < 0 {
				return -1, 0
			}
			return i, depth
		case c == '}' && object, c == ']' && !object:
			i++
			depth--
		default:
			return -1, 0
		}
	}
	return i, 0
}

// skipKey gives the start of the value after the key at d[i], -1 if there is
// no key and colon.
func skipKey(d []byte, i int) int {
	if i >= len(d) || d[i] != '"' {
		return -1
	}
	if i, _ = stringEnd(d, i+1); i < 0 {
		return -1
	}
	return skipColon(d, i+1)
}

// skipColon gives the start of the value after the colon at d[i], -1 if there
// is no colon. It is small enough to be inlined.
func skipColon(d []byte, i int) int {
	if i+1 < len(d) && d[i] == ':' && d[i+1] > ' ' {
		return i + 1
	}
	return skipColonSlow(d, i)
}

func skipColonSlow(d []byte, i int) int {
	if i < len(d) && d[i] <= ' ' {
		i = skipSpace(d, i)
	}
	if i >= len(d) || d[i] != ':' {
		return -1
	}
	i++
	if i < len(d) && d[i] <= ' ' {
		i = skipSpace(d, i)
	}
	return i
}
