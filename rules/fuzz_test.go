package rules

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/bus/jsonscan"
)

func FuzzParsePattern(f *testing.F) {
	for seed := range uint64(50) {
		f.Add([]byte(newGenerator(seed).pattern()))
	}
	for _, c := range badPatterns() {
		f.Add([]byte(c.pattern))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, err := ParsePattern(src)
		if err != nil {
			var pe *PatternError
			if !errors.As(err, &pe) || pe.Offset < 0 || pe.Offset > len(src) || pe.Msg == "" {
				t.Fatalf("%q: bad error %#v", src, err)
			}
			return
		}
		if !json.Valid(src) {
			t.Fatalf("%q: accepted, but it is not JSON", src)
		}
		if p.String() != string(src) {
			t.Fatalf("String() = %q, want %q", p.String(), src)
		}
		if _, err := Compile([]Rule{{Name: "r", Pattern: p}}); err != nil {
			t.Fatalf("%q: %v", src, err)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for seed := range uint64(100) {
		g := newGenerator(seed)
		f.Add([]byte(g.pattern()), []byte(g.event()))
	}
	for _, c := range answers(f) {
		f.Add([]byte(c.Pattern), []byte(c.Event))
	}
	f.Fuzz(func(t *testing.T, pattern, doc []byte) {
		if !utf8.Valid(doc) || !small(pattern, doc) {
			return // encoding/json replaces invalid UTF-8, we leave it alone
		}
		p, err := ParsePattern(pattern)
		if err != nil {
			return
		}
		agree(t, []Rule{{Pattern: p}}, doc)
	})
}

// small keeps inputs within what the oracle, which tries everything, can do.
func small(pattern, doc []byte) bool {
	return len(pattern) < 400 && len(doc) < 400 && strings.Count(string(pattern), "$or") < 5 &&
		strings.Count(string(pattern), "*") < 8 && len(doc)*len(pattern) < 60000
}

func FuzzSet(f *testing.F) {
	for seed := range uint64(30) {
		f.Add(seed, byte(seed*7))
	}
	f.Fuzz(func(t *testing.T, seed uint64, n byte) {
		g := newGenerator(seed)
		var rs []Rule
		for len(rs) < 1+int(n)%200 {
			if p, err := ParsePattern([]byte(g.pattern())); err == nil {
				rs = append(rs, Rule{Pattern: p})
			}
		}
		s := compile(t, rs)
		k := g.IntN(len(rs))
		amended, err := compile(t, rs[:k]).Amend(nil, rs[k:])
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			event := []byte(g.event())
			agreeWith(t, s, rs, event)
			want, _ := s.Match(event, nil)
			if got, err := amended.Match(event, nil); err != nil || !slices.Equal(got, want) {
				t.Fatalf("amended at %d: %v, %v, want %v", k, got, err, want)
			}
		}
	})
}

func compile(t testing.TB, rs []Rule) *Set {
	t.Helper()
	s, err := Compile(rs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func agree(t *testing.T, rs []Rule, doc []byte) {
	t.Helper()
	agreeWith(t, compile(t, rs), rs, doc)
}

// agreeWith holds the engine to the oracle's answer on one document.
func agreeWith(t *testing.T, s *Set, rs []Rule, doc []byte) {
	t.Helper()
	hits, err := s.Match(doc, []int{-1})
	if (err == nil) != json.Valid(doc) {
		t.Fatalf("Match(%q): error %v, json.Valid %v", doc, err, json.Valid(doc))
	}
	if hits[0] != -1 {
		t.Fatalf("Match did not append: %v", hits)
	}
	if err != nil {
		if len(hits) > 1 {
			t.Fatalf("Match(%q): hits %v with an error", doc, hits[1:])
		}
		return
	}
	hits = hits[1:]
	for i, r := range rs {
		want, err := naiveMatch([]byte(r.Pattern.String()), doc)
		if err != nil {
			t.Fatal(err)
		}
		got := len(hits) > 0 && hits[0] == i
		if got {
			hits = hits[1:]
		}
		if got != want {
			t.Fatalf("pattern %s\nevent   %s\nmatched %v, want %v", r.Pattern, doc, got, want)
		}
	}
	if len(hits) > 0 {
		t.Fatalf("hits out of order or unknown: %v", hits)
	}
}

func FuzzNumberKey(f *testing.F) {
	for _, s := range []string{"0", "-0", "5", "1e400", "0.30000000000000004", "123456789012345678", "1e22", "1e23", "2.2250738585072014e-308", "5e-324", "0.1e-5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 300 || jsonscan.Number([]byte(s), 0) != len(s) {
			return
		}
		r, want := naiveNumber(s)
		key, ok := numberKey(s)
		if ok != want {
			t.Fatalf("%s: comparable %v, want %v", s, ok, want)
		}
		if !ok {
			return
		}
		if v, _ := r.Float64(); v != keyValue(key) {
			t.Fatalf("%s: key of %v", s, keyValue(key))
		}
		if key == 0 {
			t.Fatalf("%s: key 0", s)
		}
	})
}
