package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// parseYAML reads the one document of a file. It returns nil when there is none,
// and reports what is wrong with the syntax.
func parseYAML(file string, src []byte, r *report) *yaml.Node {
	if at := badByte(src); at >= 0 {
		r.errorf(position(file, src, at), "", "is no UTF-8 text from here on: save the file as UTF-8 without control characters")
		return nil
	}
	decode := yaml.NewDecoder(bytes.NewReader(src))
	doc, err := next(decode)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		at, msg := locate(src, err)
		r.errorf(position(file, src, at), "", "%s", msg)
		return nil
	}
	second, err := next(decode)
	switch {
	case err == nil:
		r.errorf(Pos{file, second.Line, second.Column}, "", "a second document begins here: write one document for each file")
	case !errors.Is(err, io.EOF):
		at, msg := locate(src, err)
		r.errorf(position(file, src, at), "", "%s", msg)
	}
	return doc.Content[0]
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
func badByte(src []byte) int {
	for i := 0; i < len(src); {
		c, size := utf8.DecodeRune(src[i:])
		control := c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f
		if control || c == utf8.RuneError && size == 1 {
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

// locateBudget is how many bytes are parsed again to find a syntax error.
const locateBudget = 4 << 20

// locate finds where the syntax error of src is. The parser tells no column and
// not always the right line, so the beginnings of src are parsed again: the error
// is in the first one that fails in the same way after the longest one that does
// not fail.
func locate(src []byte, failure error) (at int, msg string) {
	line, msg := splitError(failure)
	if strings.HasPrefix(msg, "exceeded max depth") {
		return 0, plainly(msg, nil, 0) // slow to parse again, and plain to see
	}
	budget := locateBudget
	fails := func(end int) (string, bool) {
		if budget -= end; budget < 0 {
			return "", true
		}
		err := yaml.Unmarshal(src[:end], new(yaml.Node))
		if err == nil {
			return "", false
		}
		_, m := splitError(err)
		return m, true
	}
	ends := lineEnds(src)
	last := len(ends) - 1
	if line > 0 {
		last = min(last, line+1)
	}
	i, good := longestGood(ends[:last+1], fails)
	if i < len(ends)-1 {
		good = longestGoodIn(good, ends[i+1], fails)
	}
	for end := good + 1; end <= len(src) && budget > 0; end++ {
		if m, failed := fails(end); failed && m == msg {
			return end - 1, plainly(msg, src, end-1)
		}
	}
	if budget <= 0 && line > 0 {
		good = ends[min(line, len(ends)-1)-1]
	}
	return good, plainly(msg, nil, 0)
}

// longestGood is the index and offset of the last of ends that does not fail.
func longestGood(ends []int, fails func(int) (string, bool)) (i, end int) {
	for i := len(ends) - 1; i > 0; i-- {
		if _, failed := fails(ends[i]); !failed {
			return i, ends[i]
		}
	}
	return 0, 0
}

// longestGoodIn is the last offset from good up to end that does not fail.
func longestGoodIn(good, end int, fails func(int) (string, bool)) int {
	for at := end; at > good; at-- {
		if _, failed := fails(at); !failed {
			return at
		}
	}
	return good
}

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
