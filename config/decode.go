package config

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/value"
	"sluice/rules"
)

// decoder fills structs from a YAML tree and reports everything that does not
// fit. It goes by the yaml tags of the fields; enum:"a,b" limits a text and
// schemes:"redis,rediss" a URL. What was not written keeps its value, so defaults
// are filled in before.
type decoder struct {
	file     string
	src      []byte // of file
	resolver value.Resolver
	report   *report
	places   map[string]Pos // where the value of each path stands
}

func (d *decoder) pos(n *yaml.Node) Pos { return Pos{d.file, n.Line, n.Column} }

func (d *decoder) errorf(n *yaml.Node, path, format string, args ...any) {
	d.report.errorf(d.pos(n), path, format, args...)
}

// placeOf is where path stands, or the nearest thing around it.
func (d *decoder) placeOf(path string) Pos { return d.places[d.written(path)] }

// written is path, or the nearest path around it that was written.
func (d *decoder) written(path string) string {
	for {
		if _, ok := d.places[path]; ok || path == "" {
			return path
		}
		path = parent(path)
	}
}

// decode fills v, which must be settable, from n.
func (d *decoder) decode(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	n = resolve(n)
	d.places[path] = d.pos(n)
	if d.special(n, path, v, tag) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			fresh.Elem().Set(v.Elem())
		}
		d.decode(n, path, fresh.Elem(), tag)
		v.Set(fresh)
	case reflect.Struct:
		if d.wants(n, path, yaml.MappingNode) {
			d.fields(n, path, v)
		}
	case reflect.Map:
		if d.wants(n, path, yaml.MappingNode) {
			d.table(n, path, v, tag)
		}
	case reflect.Slice:
		if d.wants(n, path, yaml.SequenceNode) {
			d.list(n, path, v, tag)
		}
	default:
		d.scalar(n, path, v, tag)
	}
}

// special decodes the types that are not decoded by their kind.
func (d *decoder) special(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) bool {
	switch p := v.Addr().Interface().(type) {
	case *value.Secret:
		if d.text(n, path, func(s string) error { return p.Resolve(s, d.resolver) }) && p.Literal() {
			d.report.warnf(d.pos(n), path, "a secret is written out here: refer to it with ${env:NAME} or ${file:/path}")
		}
	case *value.Secrets:
		d.secrets(n, path, p)
	case *value.Text:
		d.text(n, path, func(s string) error { return p.Resolve(s, d.resolver) })
	case *value.URL:
		schemes := split(tag.Get("schemes"))
		if d.text(n, path, func(s string) error { return p.Resolve(s, d.resolver, schemes...) }) && p.Literal() {
			d.report.warnf(d.pos(n), path, "a password is written out here: refer to it with ${env:NAME} or ${file:/path}")
		}
	case *rules.Pattern:
		d.pattern(n, path, p)
	case *rules.Where:
		d.where(n, path, p)
	case *json.RawMessage:
		if doc, ok := d.toJSON(n, path); ok {
			*p = doc.text
		}
	case encoding.TextUnmarshaler:
		if n.Kind != yaml.ScalarNode && hasShortForm(v.Type()) {
			return false
		}
		if n.Kind != yaml.ScalarNode || n.ShortTag() == nullTag {
			d.errorf(n, path, "is %s, wants %s", describe(n), wanted(v.Type()))
			return true
		}
		if !d.refersInVain(n, path) {
			d.check(n, path, p.UnmarshalText([]byte(n.Value)))
		}
	default:
		return false
	}
	return true
}

// secrets decodes one secret, or a list of them.
func (d *decoder) secrets(n *yaml.Node, path string, p *value.Secrets) {
	if n.Kind == yaml.SequenceNode {
		d.list(n, path, reflect.ValueOf(p).Elem(), "")
		return
	}
	one := value.Secrets{{}}
	d.special(n, path, reflect.ValueOf(&one[0]).Elem(), "")
	*p = one
}

// text passes the text of n to set. Its messages never quote the text: it may be
// a secret.
func (d *decoder) text(n *yaml.Node, path string, set func(string) error) bool {
	if !d.isText(n, path) {
		return false
	}
	return d.check(n, path, set(n.Value))
}

func (d *decoder) check(n *yaml.Node, path string, err error) bool {
	if err != nil {
		d.errorf(n, path, "%s", err)
	}
	return err == nil
}

// isText reports anything but a text. A date is one: nothing here is a time.
func (d *decoder) isText(n *yaml.Node, path string) bool {
	switch {
	case n.Kind != yaml.ScalarNode:
		d.errorf(n, path, "is %s, wants a text", describe(n))
	case n.ShortTag() == nullTag:
		d.errorf(n, path, "has no value: give it one, or leave the key out")
	case n.ShortTag() != stringTag && n.ShortTag() != timeTag:
		d.errorf(n, path, "is %s, wants a text: put it in quotes", describe(n))
	default:
		return true
	}
	return false
}

// wants reports a node of another kind. Nothing at all is an empty mapping, as
// in "audit: {stdout: }".
func (d *decoder) wants(n *yaml.Node, path string, kind yaml.Kind) bool {
	switch {
	case n.Kind == kind:
		return true
	case kind == yaml.MappingNode && n.Kind == yaml.ScalarNode && n.ShortTag() == nullTag:
	case kind == yaml.MappingNode:
		d.errorf(n, path, "is %s, wants a mapping", describe(n))
	case n.Kind == yaml.ScalarNode && n.ShortTag() == nullTag:
		d.errorf(n, path, "has no value: write a list such as [a, b], or leave the key out")
	case n.Kind == yaml.ScalarNode:
		d.errorf(n, path, "is %s, wants a list: put it in brackets, [ ]", describe(n))
	default:
		d.errorf(n, path, "is %s, wants a list", describe(n))
	}
	return false
}

// fields fills the fields of a struct.
func (d *decoder) fields(n *yaml.Node, path string, v reflect.Value) {
	fields := fieldsOf(v.Type())
	for _, p := range pairs(n) {
		d.field(p, path, v, fields, nil)
	}
}

// field fills the field of a struct that a key names; others are what the key may
// be besides.
func (d *decoder) field(p pair, path string, v reflect.Value, fields []field, others []string) {
	at := join(path, p.key.Value)
	for _, f := range fields {
		if f.key == p.key.Value {
			d.decode(p.val, at, v.FieldByIndex(f.index), f.tag)
			return
		}
	}
	d.unknownKey(p.key, at, slices.Concat(others, keysOf(fields)))
}

// unknownKey reports a key that is none of known.
func (d *decoder) unknownKey(key *yaml.Node, path string, known []string) {
	const few = 8
	hint := didYouMean(key.Value, known)
	if hint == "" && len(known) > 0 && len(known) <= few {
		hint = ": what can stand here is " + oneOf(known)
	}
	d.errorf(key, path, "unknown key%s", hint)
}

// table fills a map, whose keys are texts or whole numbers.
func (d *decoder) table(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	t := v.Type()
	m := reflect.MakeMap(t)
	for _, p := range pairs(n) {
		at := join(path, p.key.Value)
		key := reflect.New(t.Key()).Elem()
		if t.Key().Kind() == reflect.String {
			key.SetString(p.key.Value)
		} else {
			d.scalar(p.key, at, key, "")
		}
		val := reflect.New(t.Elem()).Elem()
		d.decode(p.val, at, val, tag)
		m.SetMapIndex(key, val)
	}
	v.Set(m)
}

func (d *decoder) list(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(item, index(path, i), items.Index(i), tag)
	}
	v.Set(items)
}

func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	switch v.Kind() {
	case reflect.String:
		d.string(n, path, v, tag)
	case reflect.Bool:
		d.bool(n, path, v)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		d.int(n, path, v)
	case reflect.Float32, reflect.Float64:
		d.float(n, path, v)
	default:
		d.errorf(n, path, "cannot be configured: %s is a type that the loader does not know", v.Type())
	}
}

func (d *decoder) string(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if !d.isText(n, path) || d.refersInVain(n, path) {
		return
	}
	if enum := split(tag.Get("enum")); len(enum) > 0 && !contains(enum, n.Value) {
		d.errorf(n, path, "%s is not %s%s", quote(n.Value), oneOf(enum), didYouMean(n.Value, enum))
		return
	}
	v.SetString(n.Value)
}

// refersInVain reports a reference where none is resolved: taken as it stands it
// would be a surprise.
func (d *decoder) refersInVain(n *yaml.Node, path string) bool {
	if !strings.Contains(n.Value, "${env:") && !strings.Contains(n.Value, "${file:") {
		return false
	}
	d.errorf(n, path, "references are not resolved here: write the value itself")
	return true
}

func (d *decoder) bool(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != boolTag {
		d.errorf(n, path, "is %s, wants true or false", describe(n))
		return
	}
	v.SetBool(strings.EqualFold(n.Value, "true"))
}

func (d *decoder) int(n *yaml.Node, path string, v reflect.Value) {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == floatTag:
		d.errorf(n, path, "%s is not a whole number", quote(n.Value))
		return
	case n.Kind != yaml.ScalarNode || n.ShortTag() != intTag:
		d.errorf(n, path, "is %s, wants a whole number", describe(n))
		return
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	switch {
	case err != nil || !isJSONNumber(n.Value):
		d.errorf(n, path, "%s is not a number that can stand here: write it with digits only", quote(n.Value))
	case v.OverflowInt(i):
		d.errorf(n, path, "%d is too large", i)
	default:
		v.SetInt(i)
	}
}

func (d *decoder) float(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != intTag && n.ShortTag() != floatTag {
		d.errorf(n, path, "is %s, wants a number", describe(n))
		return
	}
	f, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || !isJSONNumber(n.Value) {
		d.errorf(n, path, "%s is not a number that can stand here: write one such as 1.5", quote(n.Value))
		return
	}
	v.SetFloat(f)
}
