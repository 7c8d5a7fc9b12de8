package rules

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// equals-ignore-case as the reference does it: each character of the operand
// stands for itself, its lower case and its upper case, where an upper case
// may be several characters (ß → SS). So "straße" matches STRASSE and "ı"
// matches I, but "k" does not match the Kelvin sign, which is nobody's upper
// case. To index operands under a hash, both sides are first folded to a key
// that any two texts which may match share.

// upper is the full upper case of r, appended to dst.
func appendUpper(dst []byte, r rune) []byte {
	if s := specialUpper(r); s != "" {
		return append(dst, s...)
	}
	return utf8.AppendRune(dst, unicode.ToUpper(r))
}

// appendLower is the full lower case of r, appended to dst.
func appendLower(dst []byte, r rune) []byte {
	if r == 'İ' {
		return append(dst, "i\u0307"...)
	}
	return utf8.AppendRune(dst, unicode.ToLower(r))
}

// foldMatch reports how many bytes at the start of text the whole operand
// takes, -1 if it does not match there.
func foldMatch(operand, text string) int {
	var buf [2 * utf8.UTFMax * 3]byte
	at := 0
	for i := 0; i < len(operand); {
		if c := operand[i]; c < utf8.RuneSelf {
			if at >= len(text) || lowerASCII(text[at]) != lowerASCII(c) {
				return -1
			}
			at++
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(operand[i:])
		own := operand[i : i+size]
		i += size
		rest := text[at:]
		lower := appendLower(buf[:0], r)
		split := len(lower)
		both := appendUpper(lower, r)
		switch {
		case strings.HasPrefix(rest, own):
			at += size
		case strings.HasPrefix(rest, string(both[:split])):
			at += split
		case strings.HasPrefix(rest, string(both[split:])):
			at += len(both) - split
		default:
			return -1
		}
	}
	return at
}

func foldEqual(operand, text string) bool { return foldMatch(operand, text) == len(text) }

func foldPrefix(operand, text string) bool { return foldMatch(operand, text) >= 0 }

// foldSuffix tries every end of the text that may be long enough: the two
// sides can differ in length, but never by more than a factor of three each.
func foldSuffix(operand, text string) bool {
	for n := len(operand) / 3; n <= min(len(operand)*3, len(text)); n++ {
		if foldEqual(operand, text[len(text)-n:]) {
			return true
		}
	}
	return false
}

// appendFold appends the key of text under which operands are indexed.
func appendFold(dst []byte, text string) []byte {
	for i := 0; i < len(text); {
		if c := text[i]; c < utf8.RuneSelf {
			dst = append(dst, lowerASCII(c))
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, text[i])
		} else {
			dst = appendFoldRune(dst, r)
		}
		i += size
	}
	return dst
}

// appendFoldRune is lower(upper(r)), twice: ẞ is its own upper case, its lower
// case is ß, and only that one's upper case is SS.
func appendFoldRune(dst []byte, r rune) []byte {
	var buf [32]byte
	up := appendUpper(buf[:0], r)
	for i := 0; i < len(up); {
		u, n := utf8.DecodeRune(up[i:])
		i += n
		if u == 'İ' {
			dst = append(dst, "i\u0307"...)
			continue
		}
		l := unicode.ToLower(u)
		if s := specialUpper(l); s != "" {
			for _, x := range s {
				dst = utf8.AppendRune(dst, unicode.ToLower(x))
			}
			continue
		}
		dst = utf8.AppendRune(dst, unicode.ToLower(unicode.ToUpper(l)))
	}
	return dst
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
