package config

import (
	"errors"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/rules"
	"sluice/sinks"
)

// where reads the expression of a rule.
func (d *decoder) where(n *yaml.Node, path string, into *rules.Where) {
	if !d.isText(n, path) || d.refersInVain(n, path) {
		return
	}
	w, err := rules.ParseWhere(n.Value)
	if err == nil {
		*into = *w
		return
	}
	at, msg := d.pos(n), err.Error()
	var fault *rules.WhereError
	if errors.As(err, &fault) {
		at, msg = d.within(n, fault.Offset), fault.Msg
	}
	d.report.errorf(at, path, "%s", msg)
}

// transform checks the transform of a rule, which n is, and makes it ready.
func (l *loader) transform(rule *Rule, n *yaml.Node, path string) {
	if rule.Transform == nil || l.report.around[path] {
		return
	}
	told := map[string]bool{}
	for name := range rule.Transform.HTTP.Headers {
		if msg := sinks.CheckHeader(name); msg != "" {
			at := join(path+".http.headers", name)
			told[at] = true
			l.report.errorf(l.placeOf(at), at, "%s", msg)
		}
	}
	t, err := rules.ParseTransform(*rule.Transform)
	if rule.transform = t; err == nil {
		return
	}
	var faults rules.TransformErrors
	if !errors.As(err, &faults) {
		l.report.errorf(l.placeOf(path), path, "%s", err)
		return
	}
	for _, f := range faults {
		at, field := path, n
		for _, key := range fieldPath(f.Field) {
			at, field = join(at, key), valueOf(field, key)
		}
		if told[at] {
			continue
		}
		if field == nil {
			l.report.errorf(l.placeOf(at), at, "%s", f.Msg)
			continue
		}
		l.report.errorf(l.within(field, f.Offset), at, "%s", f.Msg)
	}
}

// fieldPath are the keys to a field of a transform. The last may hold any sign.
func fieldPath(field string) []string {
	if field == "" {
		return nil
	}
	for _, group := range []string{"paths.", "http.query.", "http.headers."} {
		if name, ok := strings.CutPrefix(field, group); ok {
			return append(strings.Split(strings.TrimSuffix(group, "."), "."), name)
		}
	}
	return strings.Split(field, ".")
}

// valueOf is the value of a key of a mapping, or nil.
func valueOf(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for _, p := range pairs(n) {
		if p.key.Value == key {
			return p.val
		}
	}
	return nil
}

// within is the place of a byte of a text: exactly where it was written, if the
// text stands in the file as it is, and else where the text begins.
func (d *decoder) within(n *yaml.Node, offset int) Pos {
	at := d.pos(n)
	if n.Kind != yaml.ScalarNode || offset > len(n.Value) || n.Anchor != "" {
		return at
	}
	lines := strings.Split(string(d.src), "\n")
	before := n.Value[:offset]
	row := strings.Count(before, "\n")
	start := strings.LastIndexByte(before, '\n') + 1
	text, _, _ := strings.Cut(n.Value[start:], "\n")
	col := len([]rune(before[start:]))
	switch {
	case n.Style&yaml.LiteralStyle != 0:
		row += n.Line // a block begins in the line after its |
		if row < len(lines) {
			if line := strings.TrimRight(lines[row], "\r"); strings.HasSuffix(line, text) {
				return Pos{d.file, row + 1, len([]rune(line)) - len([]rune(text)) + col + 1}
			}
		}
	case row == 0 && n.Line <= len(lines):
		line := []rune(lines[n.Line-1])
		first := n.Column - 1
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			first++
		}
		if first <= len(line) && strings.HasPrefix(string(line[first:]), text) {
			return Pos{d.file, n.Line, first + col + 1}
		}
	}
	return at
}
