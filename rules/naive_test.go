package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The oracle: the semantics of patterns written down as plainly as possible.
// It reads patterns and events with encoding/json, expands every $or into the
// product of its branches and tries every combination of values. It shares
// with the engine only the table of Unicode's special upper cases.

type jsonValue struct {
	kind    byte // { [ " n t f 0 (null)
	text    string
	members []jsonMember
}

type jsonMember struct {
	key string
	val jsonValue
}

func readJSON(src []byte) (jsonValue, error) {
	if !json.Valid(src) {
		return jsonValue{}, errors.New("invalid")
	}
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	v, err := readTokens(d)
	if err != nil {
		return v, err
	}
	if _, err := d.Token(); err != io.EOF {
		return v, errors.New("trailing data")
	}
	return v, nil
}

func readTokens(d *json.Decoder) (jsonValue, error) {
	t, err := d.Token()
	if err != nil {
		return jsonValue{}, err
	}
	switch t := t.(type) {
	case string:
		return jsonValue{kind: '"', text: t}, nil
	case json.Number:
		return jsonValue{kind: 'n', text: string(t)}, nil
	case bool:
		if t {
			return jsonValue{kind: 't'}, nil
		}
		return jsonValue{kind: 'f'}, nil
	case json.Delim:
		v := jsonValue{kind: byte(t)}
		for d.More() {
			var key string
			if t == '{' {
				k, err := d.Token()
				if err != nil {
					return v, err
				}
				key = k.(string)
			}
			m, err := readTokens(d)
			if err != nil {
				return v, err
			}
			v.members = append(v.members, jsonMember{key, m})
		}
		_, err := d.Token()
		return v, err
	}
	return jsonValue{kind: '0'}, nil
}

// naiveField is one value of an event with the array elements around it.
type naiveField struct {
	path string
	val  jsonValue
	in   map[int]int // array → index
}

type flattener struct {
	fields []naiveField
	arrays int
}

func flatten(doc jsonValue) []naiveField {
	var f flattener
	if doc.kind == '{' {
		f.object(nil, doc, map[int]int{})
	}
	return f.fields
}

func (f *flattener) object(path []string, v jsonValue, in map[int]int) {
	for _, m := range v.members {
		f.value(append(slices.Clone(path), m.key), m.val, in)
	}
}

func (f *flattener) value(path []string, v jsonValue, in map[int]int) {
	switch v.kind {
	case '{':
		f.object(path, v, in)
	case '[':
		array := f.arrays
		f.arrays++
		for i, m := range v.members {
			inner := in
			if m.val.kind == '{' || m.val.kind == '[' {
				inner = map[int]int{array: i}
				for k, v := range in {
					inner[k] = v
				}
			}
			f.value(path, m.val, inner)
		}
	default:
		f.fields = append(f.fields, naiveField{strings.Join(path, "."), v, in})
	}
}

type naiveClause struct {
	path string
	any  []jsonValue
}

// expand gives the pattern as an OR of ANDs.
func expand(prefix string, v jsonValue) [][]naiveClause {
	rules := [][]naiveClause{nil}
	for _, m := range v.members {
		var alts [][]naiveClause
		switch {
		case m.key == "$or":
			for _, branch := range m.val.members {
				alts = append(alts, expand(prefix, branch.val)...)
			}
		case m.val.kind == '{':
			alts = expand(prefix+m.key+".", m.val)
		default:
			c := naiveClause{path: prefix + m.key}
			for _, e := range m.val.members {
				c.any = append(c.any, e.val)
			}
			alts = [][]naiveClause{{c}}
		}
		var product [][]naiveClause
		for _, r := range rules {
			for _, a := range alts {
				product = append(product, append(slices.Clone(r), a...))
			}
		}
		rules = product
	}
	return rules
}

func naiveMatch(pattern, doc []byte) (bool, error) {
	p, err := readJSON(pattern)
	if err != nil {
		return false, err
	}
	d, err := readJSON(doc)
	if err != nil {
		return false, err
	}
	fields := flatten(d)
	for _, r := range expand("", p) {
		sort.SliceStable(r, func(i, j int) bool { return r[i].path < r[j].path })
		if naiveConjunction(r, fields, map[int]int{}) {
			return true, nil
		}
	}
	return false, nil
}

func naiveConjunction(clauses []naiveClause, fields []naiveField, chosen map[int]int) bool {
	if len(clauses) == 0 {
		return true
	}
	c := clauses[0]
	missing := true
	for _, f := range fields {
		if f.path != c.path {
			continue
		}
		merged := map[int]int{}
		ok := true
		for k, v := range chosen {
			merged[k] = v
		}
		for k, v := range f.in {
			if have, bound := merged[k]; bound && have != v {
				ok = false
			}
			merged[k] = v
		}
		if !ok {
			continue
		}
		missing = false
		for _, want := range c.any {
			if naiveValue(want, f.val) && naiveConjunction(clauses[1:], fields, merged) {
				return true
			}
		}
	}
	for _, want := range c.any {
		if missing && want.kind == '{' && want.members[0].key == "exists" && want.members[0].val.kind == 'f' {
			return naiveConjunction(clauses[1:], fields, chosen)
		}
	}
	return false
}

func naiveValue(want, got jsonValue) bool {
	switch want.kind {
	case '"':
		if got.kind != '"' {
			return false
		}
		a, ok1 := naiveAddr(want.text)
		b, ok2 := naiveAddr(got.text)
		return want.text == got.text || ok1 && ok2 && a == b
	case 'n':
		return got.kind == 'n' && naiveNumbersEqual(want.text, got.text)
	case 't', 'f', '0':
		return got.kind == want.kind
	}
	name, arg := want.members[0].key, want.members[0].val
	switch name {
	case "exists":
		return arg.kind == 't'
	case "anything-but":
		return !naiveExcluded(arg, got)
	case "numeric":
		return got.kind == 'n' && naiveNumeric(arg.members, got.text)
	}
	return got.kind == '"' && naiveText(name, arg, got.text)
}

func naiveText(name string, arg jsonValue, got string) bool {
	if arg.kind == '{' {
		fold := arg.members[0].val.text
		for i := range len(got) + 1 {
			if name == "prefix" && naiveFold(fold, got[:i]) || name == "suffix" && naiveFold(fold, got[i:]) {
				return true
			}
		}
		return false
	}
	switch name {
	case "prefix":
		return strings.HasPrefix(got, arg.text)
	case "suffix":
		return strings.HasSuffix(got, arg.text)
	case "equals-ignore-case":
		return naiveFold(arg.text, got)
	case "wildcard":
		return naiveGlob(arg.text, got)
	}
	return naiveCIDR(arg.text, got)
}

func naiveExcluded(arg, got jsonValue) bool {
	name := ""
	if arg.kind == '{' {
		name, arg = arg.members[0].key, arg.members[0].val
	}
	list := []jsonMember{{val: arg}}
	if arg.kind == '[' {
		list = arg.members
	}
	for _, m := range list {
		switch {
		case name == "" && m.val.kind == '"' && got.kind == '"' && m.val.text == got.text:
			return true
		case name == "" && m.val.kind == 'n' && got.kind == 'n' && naiveNumbersEqual(m.val.text, got.text):
			return true
		case name != "" && got.kind == '"' && naiveText(name, m.val, got.text):
			return true
		}
	}
	return false
}

func naiveNumber(text string) (*big.Rat, bool) {
	mantissa, exp, _ := strings.Cut(strings.ToLower(text), "e")
	if strings.Trim(mantissa, "-0.") == "" {
		return new(big.Rat), true
	}
	if n, err := strconv.Atoi(exp); exp != "" && (err != nil || n > 2000 || n < -2000) {
		return nil, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, false
	}
	exact, _ := new(big.Rat).SetString(text)
	short, _ := new(big.Rat).SetString(strconv.FormatFloat(f, 'g', -1, 64))
	return exact, exact.Cmp(short) == 0
}

func naiveNumbersEqual(a, b string) bool {
	if a == b {
		return true
	}
	x, ok1 := naiveNumber(a)
	y, ok2 := naiveNumber(b)
	return ok1 && ok2 && x.Cmp(y) == 0
}

func naiveNumeric(args []jsonMember, got string) bool {
	x, ok := naiveNumber(got)
	if !ok {
		return false
	}
	for i := 0; i < len(args); i += 2 {
		y, _ := naiveNumber(args[i+1].val.text)
		cmp := x.Cmp(y)
		holds := map[string]bool{"=": cmp == 0, "<": cmp < 0, "<=": cmp <= 0, ">": cmp > 0, ">=": cmp >= 0}
		if !holds[args[i].val.text] {
			return false
		}
	}
	return true
}

func naiveFold(operand, text string) bool {
	if operand == "" {
		return text == ""
	}
	r, n := utf8.DecodeRuneInString(operand)
	for _, v := range []string{operand[:n], string(appendLower(nil, r)), string(appendUpper(nil, r))} {
		if rest, ok := strings.CutPrefix(text, v); ok && naiveFold(operand[n:], rest) {
			return true
		}
	}
	return false
}

func naiveGlob(glob, text string) bool {
	switch {
	case glob == "":
		return text == ""
	case glob[0] == '*':
		return naiveGlob(glob[1:], text) || text != "" && naiveGlob(glob, text[1:])
	case glob[0] == '\\':
		glob = glob[1:]
	}
	return text != "" && text[0] == glob[0] && naiveGlob(glob[1:], text[1:])
}

func naiveAddr(s string) (netip.Addr, bool) {
	if strings.Count(s, ".") == 3 && !strings.Contains(s, ":") {
		var ip [4]byte
		for i, part := range strings.Split(s, ".") {
			n, err := strconv.ParseUint(part, 10, 8)
			if err != nil || len(part) > 3 {
				return netip.Addr{}, false
			}
			ip[i] = byte(n)
		}
		return netip.AddrFrom4(ip), true
	}
	if strings.ContainsAny(s, ".%") {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil
}

func naiveCIDR(block, text string) bool {
	addr, bits, _ := strings.Cut(block, "/")
	n, _ := strconv.Atoi(bits)
	a, _ := naiveAddr(addr)
	b, ok := naiveAddr(text)
	return ok && netip.PrefixFrom(a, n).Contains(b)
}
