package rules

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// templateKind is what a template makes.
type templateKind byte

const (
	textTemplate   templateKind = iota // a text as it is written
	jsonTemplate                       // a JSON document
	quotedTemplate                     // a text, its lines in quotes
	pathTemplate                       // the path of a URL
)

// template is literal text and variables in turn.
type template []piece

type piece struct {
	text   string    // when v is nil
	v      *variable // else the value of this
	quoted bool      // in a JSON template: inside of a string
	at     int       // where it begins in the source
}

// template reads the template of a field; base is where text begins in it.
func (p *transformParser) template(field, text string, kind templateKind, base int) template {
	s := templateScanner{p: p, field: field, src: text, base: base, kind: kind}
	errs := len(p.errs)
	s.scan()
	if kind == jsonTemplate && len(p.errs) == errs {
		s.check()
	}
	return s.out
}

type templateScanner struct {
	p     *transformParser
	field string
	src   string
	base  int
	kind  templateKind

	at      int
	lit     strings.Builder
	litAt   int // where lit begins
	out     template
	keyFrom int // in a JSON template: where the string that was read last has a variable, or -1
}

func (s *templateScanner) fault(at int, format string, args ...any) {
	s.p.add(s.field, s.base+at, format, args...)
}

func (s *templateScanner) scan() {
	if s.kind == quotedTemplate {
		s.lines()
		return
	}
	quoted := false
	s.keyFrom = -1
	for s.at < len(s.src) {
		c := s.src[s.at]
		switch {
		case s.escaped(quoted):
		case c == '<' || c == '{' && s.kind == pathTemplate:
			if quoted && s.keyFrom < 0 {
				s.keyFrom = s.at
			}
			s.variable(quoted)
		default:
			if s.kind == jsonTemplate {
				quoted = s.token(c, quoted)
			}
			s.literal(1)
		}
	}
	s.flush()
}

// token follows the strings of a JSON template: c is outside of escapes.
func (s *templateScanner) token(c byte, quoted bool) bool {
	switch {
	case c == '"':
		if !quoted {
			s.keyFrom = -1
		}
		return !quoted
	case c == ':' && !quoted && s.keyFrom >= 0:
		s.fault(s.keyFrom, "a variable cannot be part of a key")
		s.keyFrom = -1
	case c != ' ' && c != '\t' && c != '\r' && c != '\n' && !quoted:
		s.keyFrom = -1
	}
	return quoted
}

// escaped takes a backslash and what it escapes: \< is a <, and in a string of
// JSON the rest stands as it is.
func (s *templateScanner) escaped(quoted bool) bool {
	if s.src[s.at] != '\\' || s.at+1 == len(s.src) {
		return false
	}
	switch {
	case s.src[s.at+1] == '<' && (quoted || s.kind != jsonTemplate):
		s.at++
		s.literal(1)
	case quoted || s.kind == quotedTemplate:
		s.literal(2)
	default:
		return false
	}
	return true
}

func (s *templateScanner) literal(n int) {
	if s.lit.Len() == 0 {
		s.litAt = s.at
	}
	s.lit.WriteString(s.src[s.at : s.at+n])
	s.at += n
}

func (s *templateScanner) flush() {
	if s.lit.Len() > 0 {
		s.out = append(s.out, piece{text: s.lit.String(), at: s.litAt})
		s.lit.Reset()
	}
}

// variable reads <name>, or {name} in a path.
func (s *templateScanner) variable(quoted bool) {
	start, closer := s.at, ">"
	if s.src[s.at] == '{' {
		closer = "}"
	}
	n := strings.Index(s.src[s.at:], closer)
	name := ""
	if n >= 0 {
		name = s.src[s.at+1 : s.at+n]
	}
	switch {
	case n < 0 || strings.ContainsAny(name, "<\"\n{"):
		s.fault(start, "this %c has no %s: close the name of the variable, or write \\%[1]c for the sign itself", s.src[start], closer)
		s.at++
		return
	case strings.Trim(name, nameLetters+".") != "" || name == "":
		s.fault(start, "%q is not the name of a variable: write letters, digits, _ and -, or \\< for the sign itself", name)
	default:
		if v := s.find(start, name); v != nil {
			s.flush()
			s.out = append(s.out, piece{v: v, quoted: quoted, at: start})
		}
	}
	s.at += n + 1
}

func (s *templateScanner) find(at int, name string) *variable {
	v := s.p.t.paths[name]
	if v == nil {
		v = builtin(name)
	}
	if v == nil {
		s.fault(at, "there is no variable <%s>: %s", name, variableHint(name))
	}
	return v
}

func variableHint(name string) string {
	ours := map[string]string{
		"aws.events.rule-name": "sluice.rule", "aws.events.rule-arn": "sluice.rule", "aws.events.event": "sluice.attributes",
		"aws.events.event.json": "sluice.event", "aws.events.event.ingestion-time": "sluice.time",
	}[name]
	switch {
	case ours != "":
		return "here it is <" + ours + ">"
	case strings.Contains(name, "."):
		return "those that need no path are <sluice.rule>, <sluice.time>, <sluice.event>, <sluice.attributes> and <sluice.data>"
	}
	return "name it under paths"
}

// lines reads a text whose lines are in quotes. The quotes and what they escape are
// JSON's; the text is what they stand for.
func (s *templateScanner) lines() {
	read := 0
	for start := 0; start < len(s.src); {
		line, _, _ := strings.Cut(s.src[start:], "\n")
		next := start + len(line) + 1
		text := strings.TrimSpace(line)
		s.at = start + leadingSpace(line)
		switch {
		case text == "":
		case len(text) < 2 || text[0] != '"' || text[len(text)-1] != '"':
			s.fault(s.at, "this line is not in quotes: either every line of a text is, or none")
		default:
			if read++; read > 1 {
				s.lit.WriteByte('\n')
				s.flush()
			}
			s.line(s.at + len(text) - 1)
		}
		start = next
	}
}

// line reads what is between the quotes; the closing one is at end.
func (s *templateScanner) line(end int) {
	first := s.at
	s.at++
	text := len(s.out)
	for s.at < end {
		switch {
		case s.escaped(true):
		case s.src[s.at] == '<':
			s.variable(false)
		case s.src[s.at] == '"':
			s.fault(s.at, `a quote within the text needs a backslash: \"`)
			s.at++
		default:
			s.literal(1)
		}
	}
	s.flush()
	for i := text; i < len(s.out); i++ {
		if s.out[i].v != nil {
			continue
		}
		if err := json.Unmarshal([]byte(`"`+s.out[i].text+`"`), &s.out[i].text); err != nil {
			s.fault(first, "the text is not written as in JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
		}
	}
}

// check finds out whether a JSON template makes JSON. A variable outside of quotes
// is tried as null, which can stand only where any value can; one inside as a
// letter that completes no escape.
func (s *templateScanner) check() {
	var doc []byte
	starts := make([]int, len(s.out)) // of the pieces in doc
	for i, pc := range s.out {
		starts[i] = len(doc)
		switch {
		case pc.v == nil:
			doc = append(doc, pc.text...)
		case pc.quoted:
			doc = append(doc, 'x')
		default:
			doc = append(doc, "null"...)
		}
	}
	var v any
	err := json.Unmarshal(doc, &v)
	if err == nil {
		return
	}
	at := 0
	var wrong *json.SyntaxError
	if errors.As(err, &wrong) {
		offset := max(0, int(wrong.Offset)-1) // it counts the byte that is wrong
		for i, pc := range s.out {
			if starts[i] <= offset {
				at = pc.at
				if pc.v == nil {
					at += offset - starts[i]
				}
			}
		}
	}
	s.fault(min(at, len(s.src)), "is not JSON once its variables are filled in: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// render fills a template in.
func (t template) render(s *scope, kind templateKind) ([]byte, error) {
	out := []byte{}
	for _, pc := range t {
		if pc.v == nil {
			out = append(out, pc.text...)
			continue
		}
		r := s.value(pc.v)
		if r.err != nil {
			return nil, r.err
		}
		switch {
		case kind == jsonTemplate && pc.quoted:
			out = appendEscaped(out, r.text(true))
		case kind == jsonTemplate && !r.found:
			out = append(out, "null"...)
		case kind == jsonTemplate:
			out = append(out, r.raw...)
		default:
			out = append(out, r.text(kind == quotedTemplate)...)
		}
		if len(out) > maxTransformed {
			return nil, errTooLarge
		}
	}
	return out, nil
}

// text is a result where a text is wanted: nothing for what is not there and for
// null. bare takes the quotes out of objects and lists, as AWS does so that they
// fit into a string.
func (r result) text(bare bool) string {
	v := gjson.Parse(r.raw)
	switch {
	case !r.found || v.Type == gjson.Null:
		return ""
	case v.Type == gjson.String:
		return v.String()
	case bare && v.Type == gjson.JSON:
		return strings.ReplaceAll(r.raw, `"`, "")
	}
	return r.raw
}

func appendQuoted(dst []byte, s string) []byte {
	return append(appendEscaped(append(dst, '"'), s), '"')
}

// appendEscaped appends s as it stands between the quotes of a JSON string.
func appendEscaped(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r) // U+FFFD for what is no UTF-8
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return dst
}
