package rules

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// mistake is one typical reason for a pattern that does not match.
type mistake struct {
	name, pattern string
	event         string
}

func mistakes() []mistake {
	const order = `{"specversion":"1.0","id":"1","type":"com.shop.order.created","source":"/eu/checkout",` +
		`"data":{"orderId":"4711","size":5,"zip":"01067","key":"images/2026/cat.JPG","Customer":"ada",` +
		`"items":[{"sku":"a","qty":1},{"sku":"b","qty":7}],"address":{"city":"Dresden","country":"DE"},"account":9007199254740993}}`
	return []mistake{
		{"case", `{"type": ["com.shop.Order.created"], "data": {"key": [{"suffix": ".jpg"}]}}`, order},
		{"string_for_number", `{"data": {"size": ["5"], "orderId": [4711], "zip": [{"numeric": [">", 1000]}]}}`, order},
		{"other_path", `{"orderId": ["4711"], "data.type": ["com.shop.order.created"], "data": {"customer": ["ada"]}}`, order},
		{"other_element", `{"data": {"items": {"sku": ["a"], "qty": [{"numeric": [">", 5]}]}}}`, order},
		{"one_character_off", `{"type": [{"prefix": "com.shop.ordar."}], "source": ["/eu/chekout"]}`, order},
		{"star_in_a_value", `{"type": ["com.shop.*"], "source": [{"wildcard": "eu/*"}]}`, order},
		{"object_not_value", `{"data": {"address": [{"exists": true}], "address.city": ["Dresden"]}}`, order},
		{"no_branch", `{"type": ["com.shop.order.created"], "$or": [{"data": {"size": [{"numeric": [">", 5]}]}}, {"source": [{"prefix": "/us/"}]}]}`, order},
		{"excluded", `{"source": [{"anything-but": {"prefix": "/eu/"}}], "data": {"size": [{"exists": false}], "account": [{"numeric": [">", 0]}]}}`, order},
		{"exact_for_prefix", `{"source": ["/eu"], "type": ["order.created"], "data": {"items": {"price": [{"exists": true}]}}}`, order},
		{"matched", `{"source": ["/eu/checkout"], "data": {"items": {"sku": ["b"], "qty": [7]}}}`, order},
	}
}

var update = flag.Bool("update", false, "rewrite the golden files")

func TestExplainGolden(t *testing.T) {
	t.Parallel()
	for _, m := range mistakes() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			p, err := ParsePattern([]byte(m.pattern))
			if err != nil {
				t.Fatal(err)
			}
			e := Explain(p, []byte(m.event))
			if e.Matched != (m.name == "matched") {
				t.Errorf("Matched = %v", e.Matched)
			}
			var b bytes.Buffer
			b.WriteString("pattern " + m.pattern + "\nevent   " + m.event + "\n\n" + e.String() + "\n")
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			if err := enc.Encode(e); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "explain", m.name+".golden")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("%s: got\n%s", file, b.Bytes())
			}
		})
	}
}

func TestExplainErrors(t *testing.T) {
	t.Parallel()
	p, err := ParsePattern([]byte(`{"a":["x"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if e := Explain(p, []byte(`{"a":`)); e.Matched || e.Error == "" {
		t.Errorf("truncated document: %+v", e)
	}
	if e := Explain(Pattern{}, []byte(`{}`)); e.Matched || e.Error == "" {
		t.Errorf("zero pattern: %+v", e)
	}
}

// FuzzExplain holds Explain to the answer of Match.
func FuzzExplain(f *testing.F) {
	for seed := range uint64(200) {
		g := newGenerator(seed)
		f.Add([]byte(g.pattern()), []byte(g.event()))
	}
	for _, m := range mistakes() {
		f.Add([]byte(m.pattern), []byte(m.event))
	}
	f.Fuzz(func(t *testing.T, pattern, doc []byte) {
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		hits, err := compile(t, []Rule{{Pattern: p}}).Match(doc, nil)
		e := Explain(p, doc)
		if e.Matched != (len(hits) == 1) || (e.Error != "") != (err != nil) {
			t.Fatalf("%s on %q: Match %v %v, explained %+v", pattern, doc, hits, err, e)
		}
		if e.String() == "" || e.Error == "" && (e.Missed == 0) != e.Matched {
			t.Fatalf("no text, or missed %d keys: %+v", e.Missed, e)
		}
		if err != nil || e.Matched {
			return
		}
		for _, k := range e.Keys {
			if k.Verdict != VerdictOK {
				return
			}
		}
		t.Fatalf("%s on %q: no match, but every key is ok: %s", pattern, doc, e)
	})
}
