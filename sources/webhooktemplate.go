package sources

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"
)

// template makes a text of a request. It is written as the templates of transforms
// are, with <name> for a variable and \ before a character that stands for itself:
//
//	<header.X-Topic>     a header
//	<query.tenant>       a parameter of the URL
//	<form.MessageSid>    a field of a form
//	<body.order.id>      a gjson path into JSON: a text, a number or a boolean
//	<body>               the whole body
//	<path>               the path of the source
//	<digest>             a hash of the body and the query
//	<a ?? b ?? "text">   the first that the request has, or else a text
//	[-<body.region>]     left out as a whole when a variable in it is not found
type template []piece

// piece is a text, one variable, or an optional part.
type piece struct {
	text string
	any  []variable // alternatives; the first one that is found
	part template   // in brackets
}

// variable is one thing of a request. Kind is the name before the dot, or "text".
type variable struct{ kind, name string }

func (v variable) String() string {
	if v.name == "" {
		return v.kind
	}
	return v.kind + "." + v.name
}

const maxTemplate = 4 << 10

func parseTemplate(src string) (template, error) {
	if len(src) > maxTemplate {
		return nil, fmt.Errorf("is longer than %d bytes", maxTemplate)
	}
	p := templateParser{src: src}
	t, err := p.parse(false)
	if err != nil {
		return nil, err
	}
	return t, nil
}

type templateParser struct {
	src string
	at  int
}

// parse reads up to the end, or to the ] of an optional part.
func (p *templateParser) parse(inside bool) (t template, err error) {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			t = append(t, piece{text: text.String()})
			text.Reset()
		}
	}
	for p.at < len(p.src) {
		c := p.src[p.at]
		p.at++
		switch {
		case c == '\\' && p.at < len(p.src):
			text.WriteByte(p.src[p.at])
			p.at++
		case c == '<':
			flush()
			alternatives, err := p.variables()
			if err != nil {
				return nil, err
			}
			t = append(t, piece{any: alternatives})
		case c == '[' && inside:
			return nil, errors.New(`has a [ inside of brackets: write \[ for a plain one`)
		case c == '[':
			flush()
			part, err := p.parse(true)
			if err != nil {
				return nil, err
			}
			t = append(t, piece{part: part})
		case c == ']' && inside:
			flush()
			return t, nil
		default:
			text.WriteByte(c)
		}
	}
	if inside {
		return nil, errors.New(`has a [ that is never closed: add the ], or write \[ for a plain one`)
	}
	flush()
	return t, nil
}

// variables reads what is between < and >. A > inside of quotes or parentheses, as
// gjson's queries have it, does not end it.
func (p *templateParser) variables() (list []variable, err error) {
	rest, quoted, depth := p.src[p.at:], false, 0
	end := strings.IndexFunc(rest, func(c rune) bool {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		}
		return c == '>' && !quoted && depth <= 0
	})
	if end < 0 {
		return nil, errors.New(`has a < that is never closed: add the >, or write \< for a plain one`)
	}
	p.at += end + 1
	for one := range strings.SplitSeq(rest[:end], "??") {
		v, err := parseVariable(strings.TrimSpace(one))
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func parseVariable(src string) (variable, error) {
	if strings.HasPrefix(src, `"`) {
		text, err := strconv.Unquote(src)
		if err != nil {
			return variable{}, fmt.Errorf("%s is no text in quotes", src)
		}
		return variable{"text", text}, nil
	}
	kind, name, dotted := strings.Cut(src, ".")
	switch kind {
	case "path", "digest":
		if !dotted {
			return variable{kind, ""}, nil
		}
	case "body":
		if !dotted || name != "" {
			return variable{kind, name}, nil
		}
	case "header":
		if isHeaderName(name) {
			return variable{kind, name}, nil
		}
	case "query", "form":
		if name != "" {
			return variable{kind, name}, nil
		}
	}
	return variable{}, fmt.Errorf("<%s> is no variable: write one of header.X-Name, query.name, form.name, body, body.path, path, digest", src)
}

// uses tells whether a variable stands in the template, outside of brackets and
// without alternatives: then it is always part of the text.
func (t template) uses(name string) bool {
	return slices.ContainsFunc(t, func(p piece) bool {
		return len(p.any) == 1 && strings.EqualFold(p.any[0].String(), name)
	})
}

// fill is the text for a request; lacks names a variable that it does not have.
func (t template) fill(h *hook) (text, lacks string) {
	var b strings.Builder
	for _, p := range t {
		switch {
		case p.any != nil:
			value, found := first(p.any, h)
			if !found {
				return "", p.any[0].String()
			}
			b.WriteString(value)
		case p.part != nil:
			if value, lacks := p.part.fill(h); lacks == "" {
				b.WriteString(value)
			}
		default:
			b.WriteString(p.text)
		}
	}
	return b.String(), ""
}

// digests tells whether the text for a request is made with its digest.
func (t template) digests(h *hook) bool {
	return slices.ContainsFunc(t, func(p piece) bool {
		for _, v := range p.any {
			if _, found := v.value(h); found {
				return v.kind == "digest"
			}
		}
		return p.part != nil && p.part.digests(h)
	})
}

func first(alternatives []variable, h *hook) (string, bool) {
	for _, v := range alternatives {
		if value, found := v.value(h); found {
			return value, true
		}
	}
	return "", false
}

// value is what a request has for a variable. What is empty is not found.
func (v variable) value(h *hook) (value string, found bool) {
	switch v.kind {
	case "text":
		return v.name, true
	case "header":
		value = h.r.Header.Get(v.name)
	case "query":
		value = h.r.URL.Query().Get(v.name)
	case "form":
		value = h.fields().Get(v.name)
	case "path":
		value = h.r.URL.Path
	case "digest":
		value = h.digest()
	case "body":
		if v.name == "" {
			return string(h.body), true
		}
		switch found := h.json().Get(v.name); found.Type {
		case gjson.String, gjson.Number, gjson.True, gjson.False:
			value = found.String()
			if found.Type == gjson.Number {
				value = found.Raw // as it was written
			}
		}
	}
	return value, value != ""
}

// digest is the same for a request that is sent again.
func (h *hook) digest() string {
	sum := sha256.New()
	_, _ = sum.Write([]byte(h.r.URL.RawQuery + "\n")) // a hash always takes it
	_, _ = sum.Write(h.body)
	return hex.EncodeToString(sum.Sum(nil)[:20])
}
