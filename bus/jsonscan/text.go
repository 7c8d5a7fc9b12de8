package jsonscan

import "unicode/utf8"

// Unescape appends the text of a JSON string (without its quotes) to dst. It
// reports false for an escape JSON does not have. Half a surrogate pair
// becomes U+FFFD, as in encoding/json.
func Unescape(dst, raw []byte) ([]byte, bool) {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		if i+1 >= len(raw) {
			return dst, false
		}
		if raw[i+1] != 'u' {
			b := unescapeByte(raw[i+1])
			if b == 0 {
				return dst, false
			}
			dst = append(dst, b)
			i += 2
			continue
		}
		r, ok := hex4(raw[i+2:])
		if !ok {
			return dst, false
		}
		i += 6
		if r >= 0xD800 && r < 0xE000 {
			r, i = surrogate(r, raw, i)
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst, true
}

// surrogate completes a pair whose first half hi was just read, when the
// second half follows at raw[i:].
func surrogate(hi rune, raw []byte, i int) (rune, int) {
	if hi < 0xDC00 && i+1 < len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
		if lo, ok := hex4(raw[i+2:]); ok && lo >= 0xDC00 && lo < 0xE000 {
			return (hi-0xD800)<<10 + (lo - 0xDC00) + 0x10000, i + 6
		}
	}
	return utf8.RuneError, i
}

// unescapeByte gives the byte that a two-character escape stands for, 0 if
// there is no such escape.
func unescapeByte(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		d := HexDigit(c)
		if d < 0 {
			return 0, false
		}
		r = r<<4 | rune(d)
	}
	return r, true
}

// HexDigit gives the value of one hexadecimal digit, -1 for anything else.
func HexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
