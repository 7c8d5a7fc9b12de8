package rules

import (
	"slices"
	"strings"
)

// ParsePattern reads an EventBridge pattern: a JSON object whose keys are
// fields (nested, or dotted: "data.key" and {"data": {"key": …}} are the same)
// and whose leaves are arrays of values and operators. An error is always a
// *PatternError.
func ParsePattern(src []byte) (Pattern, error) {
	text := string(src)
	p := parser{reader: reader{src: text}}
	if err := p.checkText(); err != nil {
		return Pattern{}, err
	}
	if p.peek() != '{' {
		return Pattern{}, p.fail("a pattern is a JSON object, found %s", p.describe())
	}
	root := new(group)
	if err := p.object(root, ""); err != nil {
		return Pattern{}, err
	}
	p.path = ""
	if p.peek() != 0 || p.pos < len(text) {
		return Pattern{}, p.fail("the pattern ends before this; found %s", p.describe())
	}
	return Pattern{src: text, root: root}, nil
}

type parser struct {
	reader
	depth int // of objects and $or
	conds int
	globs int
	inOr  int
}

// object reads an object of fields below prefix into g.
func (p *parser) object(g *group, prefix string) error {
	if p.depth++; p.depth > maxDepth {
		return p.fail("nested deeper than %d levels", maxDepth)
	}
	defer func() { p.depth-- }()
	p.pos++ // the brace
	if p.peek() == '}' {
		return p.fail("an empty object matches nothing useful and is not allowed: name a field, or leave it out")
	}
	var keys keySet
	for more := true; more; {
		p.path = strings.TrimSuffix(prefix, ".")
		p.peek()
		at := p.pos
		key, err := p.readString("as a field name")
		if err != nil {
			return err
		}
		p.path = prefix + key
		if !keys.add(key) {
			return p.failAt(at, "this key appears twice in one object: put all its values into one array")
		}
		if err := p.expect(':', "after a field name"); err != nil {
			return err
		}
		if err := p.member(g, prefix, key, at); err != nil {
			return err
		}
		if more, err = p.more('}', "in an object"); err != nil {
			return err
		}
	}
	return nil
}

// member reads the value of one key of an object.
func (p *parser) member(g *group, prefix, key string, at int) error {
	if key == "$or" {
		return p.or(g, prefix)
	}
	if p.inOr > 0 && isOperator(key) {
		return p.failAt(at, "%q is an operator, not a field; inside $or name the field: {\"field\": [{%q: …}]}", key, key)
	}
	path := prefix + key
	if strings.Count(path, ".") >= maxDepth {
		return p.failAt(at, "a path of more than %d steps", maxDepth)
	}
	switch p.peek() {
	case '{':
		return p.object(g, path+".")
	case '[':
		return p.field(g, path, at)
	}
	if isOperator(key) {
		name := strings.TrimSuffix(prefix, ".")
		return p.failAt(at, "operators belong inside an array: %q: [{%q: …}]", name[strings.LastIndexByte(name, '.')+1:], key)
	}
	return p.fail("the value of a field is an array of what it may be, or an object of further fields; found %s, put it in [ ]", p.describe())
}

// field reads the array of conditions on one path.
func (p *parser) field(g *group, path string, at int) error {
	if slices.ContainsFunc(g.fields, func(f field) bool { return f.path == path }) {
		return p.failAt(at, "this path appears twice, once nested and once dotted: put all its values into one array")
	}
	start := p.pos
	p.pos++
	if p.peek() == ']' {
		return p.fail("an empty array matches nothing: list the values that should match")
	}
	f := field{path: path}
	for more := true; more; {
		c, err := p.condition()
		if err != nil {
			return err
		}
		f.conds = append(f.conds, c)
		if more, err = p.more(']', "in an array of values"); err != nil {
			return err
		}
	}
	f.src = p.src[start:p.pos]
	f.conds = slices.Clip(f.conds)
	g.fields = append(g.fields, f)
	return nil
}

// or reads the array after "$or".
func (p *parser) or(g *group, prefix string) error {
	if p.peek() != '[' {
		return p.fail("$or takes an array of at least two objects, found %s", p.describe())
	}
	start := p.pos
	p.pos++
	p.inOr++
	defer func() { p.inOr-- }()
	if p.depth++; p.depth > maxDepth {
		return p.fail("nested deeper than %d levels", maxDepth)
	}
	defer func() { p.depth-- }()
	var a alternatives
	path := p.path
	for more := p.peek() != ']'; more; {
		p.path = path
		if p.peek() != '{' {
			return p.fail("$or takes objects, found %s: write {\"field\": [ … ]}", p.describe())
		}
		var alt group
		if err := p.object(&alt, prefix); err != nil {
			return err
		}
		a.groups = append(a.groups, alt)
		p.path = path
		var err error
		if more, err = p.more(']', "in $or"); err != nil {
			return err
		}
	}
	if len(a.groups) < 2 {
		return p.failAt(start, "$or needs at least two objects to choose from, found %d", len(a.groups))
	}
	g.anyOf = append(g.anyOf, a)
	return nil
}

// keySet finds duplicate keys; most objects have too few for a map.
type keySet struct {
	few  [4]string
	n    int
	many map[string]bool
}

// add reports whether the key is new.
func (s *keySet) add(key string) bool {
	if slices.Contains(s.few[:s.n], key) || s.many[key] {
		return false
	}
	if s.n < len(s.few) {
		s.few[s.n] = key
		s.n++
		return true
	}
	if s.many == nil {
		s.many = make(map[string]bool)
	}
	s.many[key] = true
	return true
}
