package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func parsed(t *testing.T, src string) Pattern {
	t.Helper()
	p, err := ParsePattern([]byte(src))
	if err != nil {
		t.Fatalf("%s: %v", src, err)
	}
	return p
}

func TestContradiction(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ pattern, general, event string }{
		{`{"a":["x"]}`, "", ""},
		{`{"a":["x"],"$or":[{"a":["y"]},{"a":["z"]}]}`, "", "a: has to have two values at once"},
		{`{"data":{"a":["x"],"$or":[{"a":["y"]},{"b":["z"]}]}}`, "", ""},
		{`{"data":{"a":["x"],"$or":[{"a":["y"]},{"a":["z"]}]}}`, "", ""},
		{`{"a":["x"],"$or":[{"a":[{"exists":false}]},{"b":[1],"a":[{"exists":false}]}]}`, "a: has to be there and", "a: has to be there and"},
		{`{"a":["x",{"exists":false}],"$or":[{"a":[{"exists":false}]},{"b":[1]}]}`, "", ""},
		{`{"a":["x"],"$or":[{"a":[{"exists":false}]},{"b":[1]}]}`, "", ""},
		{`{"data":{"a":[{"exists":false}],"a.b":["x"]}}`, "", ""},
		{`{"data":{"a":[{"numeric":[">",5,"<",5.000000000000001]}]}}`, "data.a: no number lies in", "data.a: no number lies in"},
		{`{"data":{"a":[{"numeric":[">",1.7976931348623157e308]}, 5]}}`, "", ""},
		{`{"data":{"a":[{"numeric":["<",-1.7976931348623157e308]}]}}`, "no number lies in", "no number lies in"},
		{`{"id":[{"exists":false}]}`, "", "id: every CloudEvent has this attribute"},
		{`{"type":[5]}`, "", "type: this attribute is always a text, never 5"},
		{`{"type":[5,"x"]}`, "", ""},
		{`{"retries":[5]}`, "", ""},
		{`{"retries":[null]}`, "", "no attribute is null"},
		{`{"detail-type":["x"]}`, "", "EventBridge's detail-type is type here"},
		{`{"detail":{"x":["y"]}}`, "", "write data.x"},
		{`{"detail-type":[{"exists":false}]}`, "", ""},
		{`{"traceParent":["x"]}`, "", ": write traceparent"},
		{`{"specversion":["0.3"]}`, "", `"1.0"`},
		{`{"specversion":["1.0"]}`, "", ""},
	} {
		p := parsed(t, c.pattern)
		for _, way := range []struct {
			name, want string
			of         func(Pattern) (string, bool)
		}{{"Contradiction", c.general, Contradiction}, {"EventContradiction", c.event, EventContradiction}} {
			why, never := way.of(p)
			if never != (way.want != "") || !strings.Contains(why, way.want) {
				t.Errorf("%s(%s) = %q, want %q", way.name, c.pattern, why, way.want)
			}
		}
	}
	if _, never := Contradiction(Pattern{}); !never {
		t.Error("the zero Pattern may match")
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"a":["x","y"],"b":[1]}`, `{"b":[1.0],"a":["y","x","x"]}`, true},
		{`{"a":{"b":["x"]}}`, `{"a.b":["x"]}`, true},
		{`{"a":[{"wildcard":"x*"}]}`, `{"a":[{"prefix":"x"}]}`, true},
		{`{"a":[{"wildcard":"*x"}]}`, `{"a":[{"suffix":"x"}]}`, true},
		{`{"a":[{"wildcard":"x\\*"}]}`, `{"a":["x*"]}`, true},
		{`{"a":[{"wildcard":"10.0.0.1"}]}`, `{"a":["10.0.0.1"]}`, false},
		{`{"a":["::1"]}`, `{"a":["0:0::1"]}`, true},
		{`{"a":[{"numeric":["=",5]}]}`, `{"a":[5e0]}`, true},
		{`{"a":[9007199254740993]}`, `{"a":[9007199254740992]}`, false},
		{`{"a":[{"anything-but":"x"}]}`, `{"a":[{"anything-but":["x"]}]}`, true},
		{`{"a":[{"equals-ignore-case":"X"}]}`, `{"a":[{"equals-ignore-case":"x"}]}`, true},
		{`{"$or":[{"a":[1]},{"b":[2]}]}`, `{"$or":[{"b":[2]},{"a":[1]}]}`, true},
		{`{"x":{"$or":[{"a":[1]},{"b":[2]}]}}`, `{"$or":[{"x":{"a":[1]}},{"x.b":[2]}]}`, true},
		{`{"a":["x"]}`, `{"a":[{"prefix":"x"}]}`, false},
		{`{"a":[{"exists":true}]}`, `{"a":[{"exists":false}]}`, false},
		{`{"a":["5"]}`, `{"a":[5]}`, false},
	} {
		if got := Equal(parsed(t, c.a), parsed(t, c.b)); got != c.want {
			t.Errorf("Equal(%s, %s) = %v", c.a, c.b, got)
		}
	}
}

func TestCovers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{`{"a":["x"]}`, `{"a":["x"],"b":[1]}`, true},
		{`{"a":["x"],"b":[1]}`, `{"a":["x"]}`, false},
		{`{"a":[{"prefix":"x"}]}`, `{"a":["xy",{"prefix":"xz"},{"wildcard":"x*y*z"}]}`, true},
		{`{"a":[{"suffix":".jpg"}]}`, `{"a":[{"wildcard":"a*.jpg"}]}`, true},
		{`{"a":[{"wildcard":"a*b*c"}]}`, `{"a":[{"wildcard":"ax*xby*yc"}, "a-b-c"]}`, true},
		{`{"a":[{"wildcard":"a*b*c"}]}`, `{"a":[{"wildcard":"ax*c"}]}`, false},
		{`{"a":[{"numeric":[">",0]}]}`, `{"a":[5,{"numeric":[">=",1,"<",3]}]}`, true},
		{`{"a":[{"numeric":[">",0]}]}`, `{"a":[9007199254740993]}`, false},
		{`{"a":[{"exists":true}]}`, `{"a":[5,"x",null,{"anything-but":"x"}]}`, true},
		{`{"a":[{"anything-but":["x"]}]}`, `{"a":[{"anything-but":["x","y"]},5,"z",{"prefix":"y"}]}`, true},
		{`{"a":[{"anything-but":["x","y"]}]}`, `{"a":[{"anything-but":["x"]}]}`, false},
		{`{"a":[{"cidr":"10.0.0.0/8"}]}`, `{"a":["10.1.2.3",{"cidr":"10.1.0.0/16"}]}`, true},
		{`{"a":[{"prefix":"10."}]}`, `{"a":["10.1.2.3"]}`, false}, // 010.1.2.3 is the same address
		{`{"a":[{"equals-ignore-case":"X"}]}`, `{"a":["x"]}`, true},
		{`{"$or":[{"a":[1]},{"b":[1]}]}`, `{"b":[1],"c":[2]}`, true},
		{`{"$or":[{"a":[1]},{"b":[1]}]}`, `{"$or":[{"b":[1],"d":[1]},{"a":[1]}]}`, true},
		{`{"a":[1]}`, `{"$or":[{"b":[1]},{"a":[1]}]}`, false},
		{`{"x":{"b":[{"exists":false}]}}`, `{"x":{"b":[{"exists":false}]},"y":[1]}`, true},
		// In [{"a":1},{"b":2}] the first element has no b, but x.b is there.
		{`{"x":{"b":[{"exists":false}]}}`, `{"x":{"a":[1],"b":[{"exists":false}]}}`, false},
		{`{"type":[{"exists":true}]}`, `{"source":["x"]}`, false},
	} {
		a, b := parsed(t, c.a), parsed(t, c.b)
		if got := Covers(a, b); got != c.want {
			t.Errorf("Covers(%s, %s) = %v", c.a, c.b, got)
		}
		if c.want && !EventCovers(a, b) {
			t.Errorf("EventCovers(%s, %s) = false", c.a, c.b)
		}
	}
	if all := parsed(t, `{"type":[{"prefix":""}],"id":[{"exists":true}]}`); !EventCovers(all, parsed(t, `{"source":["x"]}`)) {
		t.Error("every event has a type and an id")
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	got := Paths(parsed(t, `{"b":["x"],"a":{"c":[1],"d":[{"exists":false}]},"$or":[{"b":[1]},{"z.y":[{"exists":false},2]}]}`))
	if want := []string{"a.c", "b", "z.y"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestLintIsSound holds what is claimed of random patterns to what the matcher
// does with random events: those of the other tests, and some over very few
// paths, of which arrays have many elements.
func TestLintIsSound(t *testing.T) {
	t.Parallel()
	var seen soundness
	for seed := range uint64(200) {
		g := newGenerator(seed)
		seen.check(t, g, g.pattern, g.event)
		seen.check(t, g, func() string { return g.lean(true) }, g.leanEvent)
	}
	t.Logf("%+v", seen)
	if seen.never < 5 || seen.covers < 500 || seen.equal < 20 || seen.matches < 1000 {
		t.Error("too few to say something")
	}
}

// soundness counts what was claimed and checked.
type soundness struct{ never, covers, equal, matches int }

func (n *soundness) check(t *testing.T, g generator, pattern, event func() string) {
	t.Helper()
	b, err := ParsePattern([]byte(pattern()))
	if err != nil {
		return
	}
	rs := []Rule{{Pattern: b}}
	for range 12 {
		src := pattern()
		if g.IntN(2) == 0 {
			src = g.widened(b.root, pattern)
		}
		if a, err := ParsePattern([]byte(src)); err == nil && (Covers(a, b) || Equal(a, b)) {
			rs = append(rs, Rule{Pattern: a})
		}
	}
	n.covers += len(rs) - 1
	why, never := Contradiction(b)
	if never {
		n.never++
	}
	s := compile(t, rs)
	for range 40 {
		doc := event()
		hits, err := s.Match([]byte(doc), nil)
		if err != nil {
			t.Fatal(err)
		}
		matches := slices.Contains(hits, 0)
		if matches && never {
			t.Fatalf("%s matches %s, but cannot: %s", b, doc, why)
		}
		for i := 1; i < len(rs); i++ {
			same := Equal(rs[i].Pattern, b)
			if hit := slices.Contains(hits, i); matches && !hit || same && hit != matches {
				t.Fatalf("a = %s\nb = %s\non %s: b %v, a %v; equal: %v", rs[i].Pattern, b, doc, matches, hit, same)
			}
			if same {
				n.equal++
			}
			if matches {
				n.matches++
			}
		}
	}
}

// lean is a pattern over three paths.
func (g generator) lean(or bool) string {
	var parts []string
	for _, path := range []string{"x.a", "x.b", "y"} {
		if g.IntN(3) > 0 {
			parts = append(parts, fmt.Sprintf("%q:%s", path, g.list(2, g.leanCondition)))
		}
	}
	if or && g.IntN(2) == 0 || len(parts) == 0 {
		parts = append(parts, fmt.Sprintf(`"$or":[%s,%s]`, g.lean(false), g.lean(false)))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (g generator) leanCondition() string {
	if g.IntN(4) == 0 {
		return g.condition()
	}
	return g.pick(`{"exists":false}`, `{"exists":false}`, `{"exists":true}`, `1`, `"x"`, `{"anything-but":"x"}`, `{"prefix":"x"}`, `{"numeric":[">",0]}`)
}

// leanEvent is an event with an array of objects, which have some of the paths.
func (g generator) leanEvent() string {
	leaf := func() string { return g.pick(`1`, `"x"`, `"y"`, `"xy"`, `null`, `[]`, `{}`, `["x",1]`) }
	member := func() string {
		var parts []string
		for _, name := range []string{"a", "b"} {
			if g.IntN(2) == 0 {
				parts = append(parts, fmt.Sprintf("%q:%s", name, leaf()))
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	if g.IntN(4) == 0 {
		return fmt.Sprintf(`{"x":%s}`, g.list(3, func() string { return g.list(2, member) }))
	}
	return fmt.Sprintf(`{"x":%s,"y":%s}`, g.list(4, member), leaf())
}

// widened is a pattern made of some fields of a group, most of them with more
// values, so that it often covers the group.
func (g generator) widened(b *group, otherwise func() string) string {
	var parts []string
	for _, f := range b.fields {
		list := strings.TrimSuffix(f.src, "]")
		switch g.IntN(5) {
		case 0:
			continue
		case 1:
			list = "[" + g.condition()
		case 2, 3:
			list += "," + g.condition()
		}
		parts = append(parts, fmt.Sprintf("%q:%s]", f.path, list))
	}
	if len(parts) == 0 {
		return otherwise()
	}
	g.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return "{" + strings.Join(parts, ",") + "}"
}

func TestRedundancies(t *testing.T) {
	t.Parallel()
	var rs []Rule
	for _, src := range []string{
		`{"type":["a"],"source":["s"]}`,
		`{"type":["a"]}`,
		`{"source":["s"],"type":["a"]}`,
		`{"type":["b","a"]}`,
		`{"type":[{"prefix":"b"}],"data":{"n":[1]}}`,
		`{"$or":[{"type":["z"]},{"data":{"n":[1.0]}}]}`,
		`{"type":["y"]}`,
	} {
		rs = append(rs, Rule{Pattern: parsed(t, src)})
	}
	got, all := Redundancies(rs, func(rule, by int) bool { return rule != 6 })
	want := []Redundancy{{0, 1, false}, {1, 3, false}, {2, 0, true}, {4, 5, false}}
	if !slices.Equal(got, want) || !all {
		t.Errorf("got %+v, want %+v", got, want)
	}
	rs = append(rs, Rule{Pattern: parsed(t, `{"id":[{"exists":true}]}`)})
	if got, _ := Redundancies(rs, func(int, int) bool { return true }); len(got) != 7 {
		t.Errorf("one rule takes all: %+v", got)
	}
}

// BenchmarkRedundancies looks at a hundred thousand rules.
func BenchmarkRedundancies(b *testing.B) {
	w := newWorkload(100_000)
	rs := parseRules(b, w.patterns(100_000))
	for b.Loop() {
		Redundancies(rs, func(int, int) bool { return true })
	}
}
