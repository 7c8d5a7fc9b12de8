package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseYAML reads the one document of a file: nil when there is none. It reports
// what is wrong with the syntax, and then false.
func parseYAML(file string, src []byte, r *report) (root *yaml.Node, ok bool) {
	fail := func(err error) (*yaml.Node, bool) {
		at, msg := locate(src, err)
		r.errorf(position(file, src, at), "", "%s", msg)
		return nil, false
	}
	if at := badByte(src); at >= 0 {
		r.errorf(position(file, src, at), "", "is no plain UTF-8 text from here on: save the file as UTF-8 with Unix line ends and no control characters")
		return nil, false
	}
	decode := yaml.NewDecoder(bytes.NewReader(src))
	doc, err := next(decode)
	if errors.Is(err, io.EOF) {
		return nil, true
	}
	if err != nil {
		return fail(err)
	}
	second, err := next(decode)
	switch {
	case err == nil:
		r.errorf(Pos{file, second.Line, second.Column}, "", "a second document begins here: write one document for each file")
	case !errors.Is(err, io.EOF):
		return fail(err)
	}
	return doc.Content[0], true
}

// next decodes one document. The parser has panicked on hostile input before; a
// config must not take the process down that runs on the old one.
func next(decode *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: cannot be read: %v", p)
		}
	}()
	doc = new(yaml.Node)
	if err := decode.Decode(doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, errors.New("yaml: holds no document")
	}
	return doc, nil
}

// badByte is the offset of the first byte that cannot stand in a config, or -1.
// Rare line ends are among them: YAML counts them and editors do not.
func badByte(src []byte) int {
	for i := 0; i < len(src); {
		c, size := utf8.DecodeRune(src[i:])
		control := c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f
		oddEnd := c == '\r' && !bytes.HasPrefix(src[i+1:], []byte("\n")) || c == 0x85 || c == 0x2028 || c == 0x2029
		if control || oddEnd || c == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// position is the place of a byte offset. Columns count characters, as the YAML
// parser's do.
func position(file string, src []byte, at int) Pos {
	before := src[:min(at, len(src))]
	line := bytes.Count(before, []byte("\n")) + 1
	start := bytes.LastIndexByte(before, '\n') + 1
	return Pos{file, line, utf8.RuneCount(before[start:]) + 1}
}

// yamlError takes the line out of the parser's message. The line is one too small
// for some errors and missing for others, and there is no column.
var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// splitError takes an error of the parser apart: its line, 0 when it has none, and the message.
func splitError(err error) (line int, msg string) {
	m := yamlError.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, err.Error()
	}
	line, _ = strconv.Atoi(m[1]) // "" is 0
	return line, m[2]
}

// locate finds where the syntax error of src is. The parser tells no column and
// not always the right line, so the beginnings of src are parsed again: the error
// is in the first one that fails in the same way after the longest one that does
// not fail.
func locate(src []byte, failure error) (at int, msg string) {
	line, msg := splitError(failure)
	if strings.HasPrefix(msg, "exceeded max depth") {
		return 0, plainly(msg, nil, 0) // slow to parse again, and plain to see
	}
	s := search{msg: msg, budget: 2 << 20}
	ends := lineEnds(src)
	for _, i := range s.likely(line, src) {
		if i < 0 || i >= len(ends)-1 {
			continue
		}
		if part, start := contextOf(src, ends, i); s.parses(part[:start]) && s.failsAlike(part) {
			return s.within(part, start, ends[i])
		}
	}
	i := s.longestGood(src, ends)
	if part, start := contextOf(src, ends, i); s.failsAlike(part) {
		return s.within(part, start, ends[i])
	}
	return s.within(src, ends[i], ends[i])
}

// unknownAnchor takes the name out of a message that has no line.
var unknownAnchor = regexp.MustCompile(`^unknown anchor '(.+)' referenced$`)

// likely are the lines, the first being 0, that the error may be in by what the
// parser says.
func (s *search) likely(line int, src []byte) []int {
	if m := unknownAnchor.FindStringSubmatch(s.msg); m != nil {
		if at := bytes.Index(src, []byte("*"+m[1])); at >= 0 {
			return []int{bytes.Count(src[:at], []byte("\n"))}
		}
	}
	return []int{line - 1, line, line - 2}
}

// within finds the error in a part of src that parses up to start, which is at
// offset of src.
func (s *search) within(part []byte, start, offset int) (at int, msg string) {
	line := bytes.IndexByte(part[start:], '\n')
	if line < 0 {
		line = len(part) - start
	}
	good := start
	for end := start + line; end > start && good == start; end-- {
		if s.parses(part[:end]) {
			good = end
		}
	}
	for end := good + 1; end <= len(part) && s.budget > 0; end++ {
		if s.failsAlike(part[:end]) {
			return offset + end - 1 - start, plainly(s.msg, part, end-1)
		}
	}
	return offset + good - start, plainly(s.msg, nil, 0)
}

// search parses pieces of a config as long as its budget of bytes lasts.
type search struct {
	msg    string
	budget int
}

func (s *search) parse(src []byte) (msg string, ok bool) {
	if s.budget -= len(src); s.budget < 0 {
		return "", false
	}
	_, err := next(yaml.NewDecoder(bytes.NewReader(src)))
	if err == nil || errors.Is(err, io.EOF) {
		return "", true
	}
	_, msg = splitError(err)
	return msg, false
}

func (s *search) parses(src []byte) bool {
	_, ok := s.parse(src)
	return ok
}

func (s *search) failsAlike(src []byte) bool {
	msg, ok := s.parse(src)
	return !ok && msg == s.msg
}

// longestGood is the index of the last of the line ends up to which src parses,
// found by halving. What parses may follow what does not, where a text or a list
// spans lines: so a few lines more are tried where it seems to end.
func (s *search) longestGood(src []byte, ends []int) int {
	const span = 32
	good, bad := 0, len(ends) // ends[0] is nothing, which parses
	for good+1 < bad {
		mid := (good + bad) / 2
		if s.parses(src[:ends[mid]]) {
			good = mid
			continue
		}
		bad = mid
		for i := mid + 1; i < min(mid+span, len(ends)); i++ {
			if s.parses(src[:ends[i]]) {
				good, bad = i, len(ends)
				break
			}
		}
	}
	return good
}

// contextOf is the part of src that line i and what it stands in are in: the lines
// above that are indented less, and from start on those from line i. Parsing it
// again is cheap.
func contextOf(src []byte, ends []int, i int) (part []byte, start int) {
	const span = 64
	var above [][]byte
	last := min(i+span, len(ends)-1)
	depth := indent(src[ends[i]:])
	for j := i - 1; j >= 0 && depth > 0; j-- {
		line := src[ends[j]:ends[j+1]]
		if text := bytes.TrimSpace(line); len(text) == 0 || text[0] == '#' {
			continue
		}
		if n := indent(line); n < depth {
			depth = n
			above = append(above, line)
		}
	}
	slices.Reverse(above)
	part = bytes.Join(above, nil)
	return append(part, src[ends[i]:ends[last]]...), len(part)
}

// indent is how far a line is indented.
func indent(line []byte) int { return len(line) - len(bytes.TrimLeft(line, " ")) }

// lineEnds are the offsets after each line, starting with 0.
func lineEnds(src []byte) []int {
	ends := []int{0}
	for i, c := range src {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	if ends[len(ends)-1] != len(src) {
		ends = append(ends, len(src))
	}
	return ends
}

// plainly says what the parser's message means to somebody who writes a config.
func plainly(msg string, src []byte, at int) string {
	switch {
	case strings.HasPrefix(msg, "mapping values are not allowed"):
		return `a ":" stands where no key can be: put the value in quotes, or mend the indentation`
	case strings.HasPrefix(msg, "found character that cannot start any token") && at < len(src) && src[at] == '\t':
		return "a tab cannot indent: use spaces"
	case strings.HasPrefix(msg, "found character that cannot start any token") && at < len(src):
		return fmt.Sprintf("a value cannot begin with %q: put it in quotes", src[at])
	case strings.Contains(msg, "',' or ']'"):
		return "this list is never closed, or a comma is missing in it: write [a, b]"
	case strings.Contains(msg, "',' or '}'"):
		return "this mapping is never closed, or a comma is missing in it: write {a: 1, b: 2}"
	case strings.HasPrefix(msg, "found unexpected end of stream"):
		return "this quote is never closed"
	case strings.HasPrefix(msg, "did not find expected key"):
		return "the indentation fits no key above"
	case strings.HasPrefix(msg, "unknown anchor"):
		return "an alias for an anchor that is not there: put a text that begins with * in quotes"
	case strings.HasPrefix(msg, "exceeded max depth"):
		return fmt.Sprintf("is nested too deeply: %d levels are the most", maxNesting)
	}
	return "is no YAML: " + msg
}
