package rules

import (
	"fmt"
	"net/url"
	"strings"
)

// checkPath checks the literal text of a path.
func (p *transformParser) checkPath(path string) {
	if path[0] != '/' {
		p.add("http.path", 0, "must begin with /: it is appended to the path of the sink's URL")
	}
	var sample strings.Builder
	for _, pc := range p.t.path {
		if pc.v != nil {
			sample.WriteByte('x')
			continue
		}
		if at := strings.IndexFunc(pc.text, notInPath); at >= 0 {
			p.add("http.path", max(0, strings.Index(path, pc.text))+at, "%q cannot stand in a path: write it as %s, and a query under query",
				pc.text[at:at+1], url.PathEscape(pc.text[at:at+1]))
			return
		}
		sample.WriteString(pc.text)
	}
	text, err := url.PathUnescape(sample.String())
	switch {
	case err != nil:
		p.add("http.path", 0, "has a %% that no two hex digits follow: write %%25")
	case climbs(text):
		p.add("http.path", 0, "has . or .. as a step: the path must stay below that of the sink's URL")
	}
}

// notInPath tells what a URL's path cannot hold as it is (RFC 3986 §3.3).
func notInPath(r rune) bool {
	const pchar = "-._~!$&'()*+,;=:@%/"
	letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !letter && !strings.ContainsRune(pchar, r)
}

// climbs tells whether a path has a step that leads elsewhere, for servers too that
// decode %2F or take a backslash for a slash.
func climbs(path string) bool {
	for _, s := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		s, _, _ = strings.Cut(s, ";") // what some servers take for parameters of the step
		if s == "." || s == ".." {
			return true
		}
	}
	return false
}

// renderPath fills the path in. A path without its variable, such as /orders/,
// would name something else: that is an error.
func (t *Transform) renderPath(s *scope) (string, error) {
	if t.path == nil {
		return "", nil
	}
	var path, plain strings.Builder
	for _, pc := range t.path {
		if pc.v == nil {
			path.WriteString(pc.text)
			text, _ := url.PathUnescape(pc.text) // checked when the transform was parsed
			plain.WriteString(text)
			continue
		}
		r := s.value(pc.v)
		if r.err != nil {
			return "", r.err
		}
		text := r.text(false)
		if text == "" {
			return "", fmt.Errorf("the path of the request needs <%s>, which the event does not have", pc.v.name)
		}
		path.WriteString(url.PathEscape(text))
		plain.WriteString(text)
	}
	// A value may hold an escape that somebody decodes once more.
	again, err := url.PathUnescape(plain.String())
	if climbs(plain.String()) || err == nil && climbs(again) {
		return "", fmt.Errorf("the path of the request would leave that of the sink's URL: %q", plain.String())
	}
	return path.String(), nil
}

// checkHeader checks the name and the literal text of a header.
func (p *transformParser) checkHeader(field, name, text string) {
	const marks = "!#$%&'*+.^`|~" // RFC 9110 §5.6.2, beside the letters of a variable
	if name == "" || strings.Trim(name, nameLetters+marks) != "" {
		p.add(field, 0, "is not the name of a header")
	}
	if at := strings.IndexFunc(text, unsafeInHeader); at >= 0 {
		p.add(field, at, "has a character that no header can have")
	}
}

func unsafeInHeader(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }

// renderTable fills in the templates of a table. Those of which no variable has a
// value are left out.
func renderTable(s *scope, table map[string]template, safe func(string) string) (map[string]string, error) {
	if table == nil {
		return nil, nil
	}
	out := make(map[string]string, len(table))
	for name, t := range table {
		var text strings.Builder
		variables, empty := 0, 0
		for _, pc := range t {
			if pc.v == nil {
				text.WriteString(pc.text)
				continue
			}
			r := s.value(pc.v)
			if r.err != nil {
				return nil, r.err
			}
			v := r.text(false)
			if variables++; v == "" {
				empty++
			}
			if safe != nil {
				v = safe(v)
			}
			text.WriteString(v)
		}
		if variables == 0 || empty < variables {
			out[name] = text.String()
		}
	}
	return out, nil
}

// safeHeader percent-encodes what no header can have, and the percent sign, so
// that it can be read back.
func safeHeader(s string) string {
	const hex = "0123456789ABCDEF"
	if !strings.ContainsFunc(s, unsafeInHeader) && !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '%' {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
