package jsonscan

import (
	"encoding/binary"
	"math/bits"
)

// Number gives the end of the number at d[i:], -1 if there is none.
func Number(d []byte, i int) int {
	if i < len(d) && d[i] == '-' {
		i++
	}
	switch {
	case i >= len(d) || !IsDigit(d[i]):
		return -1
	case d[i] == '0':
		i++
	default:
		i = skipDigits(d, i)
	}
	if i < len(d) && d[i] == '.' {
		if i++; i >= len(d) || !IsDigit(d[i]) {
			return -1
		}
		i = skipDigits(d, i)
	}
	if i < len(d) && (d[i] == 'e' || d[i] == 'E') {
		if i++; i < len(d) && (d[i] == '+' || d[i] == '-') {
			i++
		}
		if i >= len(d) || !IsDigit(d[i]) {
			return -1
		}
		i = skipDigits(d, i)
	}
	return i
}

func skipDigits(d []byte, i int) int {
	for i < len(d) && IsDigit(d[i]) {
		i++
	}
	return i
}

// IsDigit tells whether c is a decimal digit.
func IsDigit(c byte) bool { return c-'0' <= 9 }

// MaxDepth is how deep a document may be, as in encoding/json.
const MaxDepth = 10_000

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

// String gives the position of the quote that ends the string whose text
// starts at d[i], and whether there are escapes before it. It gives -1 for a
// string that does not end or that JSON does not allow.
func String(d []byte, i int) (end int, escaped bool) {
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
	return stringSlow(d, i)
}

// stringSlow is String for what has escapes or ends the document.
func stringSlow(d []byte, i int) (end int, escaped bool) {
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

// Space gives the position of the next byte that is not white space.
func Space(d []byte, i int) int {
	for i < len(d) && (d[i] == ' ' || d[i] == '\n' || d[i] == '\r' || d[i] == '\t') {
		i++
	}
	return i
}

// Word gives the end of true, false or null at d[i], -1 if it is none.
func Word(d []byte, i int) int {
	rest := d[i:]
	switch {
	case len(rest) >= 4 && (string(rest[:4]) == "true" || string(rest[:4]) == "null"):
		return i + 4
	case len(rest) >= 5 && string(rest[:5]) == "false":
		return i + 5
	}
	return -1
}

// Nesting remembers for each open bracket whether it is an object's.
type Nesting [(MaxDepth + 63) / 64]uint64

func (n *Nesting) set(depth int, object bool) {
	bit := uint64(1) << (depth & 63)
	if object {
		n[depth>>6] |= bit
	} else {
		n[depth>>6] &^= bit
	}
}

func (n *Nesting) object(depth int) bool { return n[depth>>6]>>(depth&63)&1 != 0 }

// Valid tells whether d is one JSON value, nested no deeper than depth.
func Valid(d []byte, depth int) bool {
	var open Nesting
	i := Value(d, Space(d, 0), &open, depth)
	return i >= 0 && Space(d, i) == len(d)
}

// Value gives the end of the JSON value that starts at d[i], -1 if there
// is none or it is nested deeper than left levels.
func Value(d []byte, i int, open *Nesting, left int) int {
	depth := 0
	for {
		if i >= len(d) {
			return -1
		}
		switch c := d[i]; {
		case c == '"':
			end, _ := String(d, i+1)
			i = end + 1
			if end < 0 {
				return -1
			}
		case c == '-' || IsDigit(c):
			i = Number(d, i)
		case c != '{' && c != '[':
			i = Word(d, i)
		default:
			if depth == left {
				return -1
			}
			open.set(depth, c == '{')
			depth++
			if i = Space(d, i+1); i >= len(d) {
				return -1
			}
			if d[i] == c+2 { // the closing bracket, in ASCII
				break
			}
			if c == '{' {
				i = key(d, i)
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
func skipClosing(d []byte, i int, open *Nesting, depth int) (int, int) {
	for depth > 0 {
		if i < len(d) && d[i] <= ' ' {
			i = Space(d, i)
		}
		if i >= len(d) {
			return -1, 0
		}
		object := open.object(depth - 1)
		switch c := d[i]; {
		case c == ',':
			if i++; i < len(d) && d[i] <= ' ' {
				i = Space(d, i)
			}
			if object {
				i = key(d, i)
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

// Open goes into the array or object at d[i], which the bracket says it has to be:
// with more, to the start of its first element or of the quote of its first key,
// and otherwise to the position behind its closing bracket.
func Open(d []byte, i int, bracket byte) (next int, more bool) {
	if i >= len(d) || d[i] != bracket {
		return -1, false
	}
	switch i = Space(d, i+1); {
	case i == len(d):
		return -1, false
	case d[i] == bracket+2: // the closing bracket, in ASCII
		return i + 1, false
	}
	return i, true
}

// Next goes from the end of an element or a member to the start of the next one, or
// behind the closing bracket.
func Next(d []byte, i int, closing byte) (next int, more bool) {
	if i = Space(d, i); i == len(d) {
		return -1, false
	}
	switch d[i] {
	case closing:
		return i + 1, false
	case ',':
		if i = Space(d, i+1); i < len(d) {
			return i, true
		}
	}
	return -1, false
}

// key gives the start of the value after the key at d[i], -1 if there is
// no key and colon.
func key(d []byte, i int) int {
	if i >= len(d) || d[i] != '"' {
		return -1
	}
	if i, _ = String(d, i+1); i < 0 {
		return -1
	}
	return Colon(d, i+1)
}

// Colon gives the start of the value after the colon at d[i], -1 if there
// is no colon.
func Colon(d []byte, i int) int {
	if i+1 < len(d) && d[i] == ':' && d[i+1] > ' ' {
		return i + 1
	}
	return colonSlow(d, i)
}

func colonSlow(d []byte, i int) int {
	if i < len(d) && d[i] <= ' ' {
		i = Space(d, i)
	}
	if i >= len(d) || d[i] != ':' {
		return -1
	}
	i++
	if i < len(d) && d[i] <= ' ' {
		i = Space(d, i)
	}
	return i
}
