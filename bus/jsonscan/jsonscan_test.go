package jsonscan_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/bus/jsonscan"
)

// seeds are documents at the edges of the grammar, valid and not.
func seeds() []string {
	list := []string{
		``, ` `, `{}`, ` [ ] `, `7`, `-0`, `01`, `1.`, `.5`, `1e`, `1e+`, `-`, `+1`, `1.5E-07`, `1 2`, `true`, `tru`, `truex`, `null`, `nul`, `nan`,
		`"`, `"\`, `"a`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\u00e9\n\"\\\/\b\f\r\t"`, `"\ud83c\udf89"`, `"\ud83c"`, `"\udf89\ud83c"`, `"\ud83c\u0041"`,
		"\"\n\"", "\"\x00\"", "\"\x7f\"", "\"é\"", "\ufeff1", "1\x00", "[1\v]", "[\t1\r\n]",
		`[1,]`, `[,1]`, `[1 2]`, `[true false]`, `[`, `[1`, `[1,`, `]`, `[[]`, `[]]`, `[}`, `{]`, `[{]}`,
		`{"a":1,}`, `{,}`, `{"a" 1}`, `{"a":}`, `{a:1}`, `{"a":1 "b":2}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{1:2}`, `{"a":{"b":[1,{"c":"d"},[]]},"e":{}}`,
	}
	// The same with every length before it, for what is read eight bytes at a time.
	for _, end := range []string{`"`, "\n\"", `\"`, `\u0041"`, ``, `\`, "é\""} {
		for n := range 18 {
			list = append(list, `"`+strings.Repeat("x", n)+end)
		}
	}
	for c := range byte(0x21) {
		list = append(list, `"abc`+string(rune(c))+`defghijklm"`, string(rune(c))+`1`)
	}
	return list
}

// agree holds Valid to encoding/json, which allows as many levels.
func agree(t *testing.T, doc []byte) {
	t.Helper()
	if got, want := jsonscan.Valid(doc, jsonscan.MaxDepth), json.Valid(doc); got != want {
		t.Fatalf("Valid(%q) is %v, encoding/json says %v", doc, got, want)
	}
}

func TestValidIsEncodingJSONs(t *testing.T) {
	t.Parallel()
	for _, doc := range seeds() {
		agree(t, []byte(doc))
		agree(t, []byte(`[`+doc+`]`))
		agree(t, []byte(`{"k":`+doc+` }`))
	}
}

func TestValidCountsLevels(t *testing.T) {
	t.Parallel()
	for _, depth := range []int{1, 63, 64, 65, 1000, jsonscan.MaxDepth} {
		for _, level := range [][2]string{{"[", "]"}, {`{"a": `, " }"}, {`[{"a":1},`, `,"b"]`}} {
			doc := []byte(strings.Repeat(level[0], depth) + "[]" + strings.Repeat(level[1], depth))
			if jsonscan.Valid(doc, depth) || depth < jsonscan.MaxDepth && !jsonscan.Valid(doc, depth+1) {
				t.Errorf("%d levels are not told from %d of %s", depth, depth+1, level[0])
			}
		}
	}
}

func TestOpenAndNextGoThroughAnArray(t *testing.T) {
	t.Parallel()
	for doc, want := range map[string]int{ // how many elements, or -1
		`[]`: 0, "[\n]": 0, `[1]`: 1, `[ 1 , "a,]" ,[2,3] ]`: 3, `{}`: -1, ``: -1, `[`: -1, `[1`: -1, `[1,`: -1, `[1}`: -1, `[1 2]`: -1, `[1,]`: -1, `[,]`: -1,
	} {
		d, n := []byte(doc), 0
		var open jsonscan.Nesting
		i, more := jsonscan.Open(d, 0, '[')
		for more {
			end := jsonscan.Value(d, i, &open, jsonscan.MaxDepth)
			if end < 0 {
				i = -1
				break
			}
			n++
			i, more = jsonscan.Next(d, end, ']')
		}
		if got := n; i < 0 && want != -1 || i >= 0 && (got != want || i != len(d)) {
			t.Errorf("%s: %d elements up to %d, want %d", doc, got, i, want)
		}
	}
}

func FuzzValid(f *testing.F) {
	for _, doc := range seeds() {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		agree(t, doc)
		if end, _ := jsonscan.String(doc, 0); end >= 0 {
			unescapes(t, doc[:end])
		}
	})
}

func TestUnescapeIsEncodingJSONs(t *testing.T) {
	t.Parallel()
	for _, doc := range seeds() {
		if end, _ := jsonscan.String([]byte(doc+`"`), 1); strings.HasPrefix(doc, `"`) && end >= 0 {
			unescapes(t, []byte(doc + `"`)[1:end])
		}
	}
}

// unescapes holds Unescape to encoding/json for the text of one string, if that is in
// UTF-8: encoding/json replaces what is not.
func unescapes(t *testing.T, raw []byte) {
	t.Helper()
	var want string
	if err := json.Unmarshal(slices.Concat([]byte(`"`), raw, []byte(`"`)), &want); err != nil {
		t.Fatalf("%q is no string: %v", raw, err)
	}
	if got, ok := jsonscan.Unescape(nil, raw); utf8.Valid(raw) && (!ok || string(got) != want) {
		t.Fatalf("Unescape(%q) is %q, %v, encoding/json says %q", raw, got, ok, want)
	}
}
