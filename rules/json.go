package rules

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"sluice/bus/jsonscan"
)

// reader reads the JSON of a pattern. Events have a reader of their own
// (scan.go): this one is about good messages, that one about speed.
type reader struct {
	src  string
	pos  int
	path string // dotted path of the field being read, for messages
}

func (r *reader) failAt(pos int, format string, args ...any) error {
	return &PatternError{Offset: pos, Path: r.path, Msg: fmt.Sprintf(format, args...)}
}

func (r *reader) fail(format string, args ...any) error {
	return r.failAt(r.pos, format, args...)
}

// peek skips white space and gives the next byte, 0 at the end.
func (r *reader) peek() byte {
	for r.pos < len(r.src) {
		switch c := r.src[r.pos]; c {
		case ' ', '\t', '\n', '\r':
			r.pos++
		default:
			return c
		}
	}
	return 0
}

func (r *reader) expect(c byte, where string) error {
	if got := r.peek(); got != c {
		return r.fail("expected %q %s, found %s", c, where, r.describe())
	}
	r.pos++
	return nil
}

// more reads the separator after an element of a list that ends with end: it
// reports whether another element follows.
func (r *reader) more(end byte, where string) (bool, error) {
	switch r.peek() {
	case ',':
		r.pos++
		if r.peek() == end {
			return false, r.fail("trailing comma %s", where)
		}
		return true, nil
	case end:
		r.pos++
		return false, nil
	}
	return false, r.fail(`expected "," or %q %s, found %s`, string(end), where, r.describe())
}

// describe names what is at the current position.
func (r *reader) describe() string {
	switch c := r.peek(); {
	case r.pos >= len(r.src):
		return "the end of the pattern"
	case c == '"':
		return "a string"
	case c == '{':
		return "an object"
	case c == '[':
		return "an array"
	case c == '-' || c >= '0' && c <= '9':
		return "a number"
	default:
		word := r.src[r.pos:]
		if end := strings.IndexAny(word, " \t\r\n,:{}[]\""); end > 0 {
			word = word[:end]
		} else {
			word = word[:1]
		}
		return fmt.Sprintf("%.20q", word)
	}
}

// readString reads a string value.
func (r *reader) readString(where string) (string, error) {
	if r.peek() != '"' {
		return "", r.fail("expected a string %s, found %s", where, r.describe())
	}
	start := r.pos
	escaped := false
	for i := start + 1; i < len(r.src); i++ {
		switch c := r.src[i]; {
		case c == '"':
			r.pos = i + 1
			return r.decode(start+1, i, escaped)
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			return "", r.failAt(i, "control character %#02x in a string: write it as an escape", c)
		}
	}
	return "", r.failAt(start, "this string has no closing quote")
}

func (r *reader) decode(start, end int, escaped bool) (string, error) {
	raw := r.src[start:end]
	if !escaped {
		return raw, nil
	}
	b, ok := jsonscan.Unescape(make([]byte, 0, len(raw)), []byte(raw))
	if !ok {
		return "", r.failAt(start-1, `this string has an escape that JSON does not know: a backslash is written "\\"`)
	}
	return string(b), nil
}

// readNumber reads a number and gives its text.
func (r *reader) readNumber() (string, error) {
	r.peek()
	end := jsonscan.Number([]byte(r.src[r.pos:min(len(r.src), r.pos+maxNumberBytes)]), 0)
	if end < 0 {
		return "", r.fail("this is not a number JSON knows")
	}
	if end == maxNumberBytes {
		return "", r.fail("a number of more than %d characters", maxNumberBytes)
	}
	text := r.src[r.pos : r.pos+end]
	r.pos += end
	return text, nil
}

const maxNumberBytes = 1024

// readWord reads true, false or null.
func (r *reader) readWord(word string) bool {
	if r.peek(); strings.HasPrefix(r.src[r.pos:], word) {
		r.pos += len(word)
		return true
	}
	return false
}

// checkText refuses what no JSON document can hold.
func (r *reader) checkText() error {
	if len(r.src) > maxPatternBytes {
		return r.fail("the pattern has %d bytes, at most %d are allowed", len(r.src), maxPatternBytes)
	}
	for i := 0; i < len(r.src); {
		if r.src[i] < utf8.RuneSelf {
			i++
			continue
		}
		c, n := utf8.DecodeRuneInString(r.src[i:])
		if c == utf8.RuneError && n == 1 {
			return r.failAt(i, "the pattern is not valid UTF-8 here")
		}
		i += n
	}
	return nil
}
