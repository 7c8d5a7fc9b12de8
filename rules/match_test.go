package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/bus/jsonscan"
)

func mustParse(tb testing.TB, src string) Pattern {
	tb.Helper()
	p, err := ParsePattern([]byte(src))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func TestInvalidDocuments(t *testing.T) {
	t.Parallel()
	// The first rule matches as soon as "a" is read, the others match anything.
	s := compile(t, parseStrings(t, []string{`{"a":["x"]}`, `{"zz":[{"exists":false}]}`, `{"q":["x"]}`}))
	whole := `{"a":"x","b":[1,-2.5e+3,true,false,null,{"c":"\u00e9\n"}],"d":{},"e":[]}`
	if hits, err := s.Match([]byte(whole), nil); err != nil || !slices.Equal(hits, []int{0, 1}) {
		t.Fatalf("whole document: %v %v", hits, err)
	}
	docs := []string{``, ` `, `{"a":"x"} x`, `{"a":"x"}{}`, `{"a":"x",}`, `{"a":"x" "b":1}`, `{"a":"x","b"}`, `{"a":"x","b":}`, `{a:"x"}`,
		`{"a":"x","b":01}`, `{"a":"x","b":1.}`, `{"a":"x","b":.5}`, `{"a":"x","b":1e}`, `{"a":"x","b":+1}`, `{"a":"x","b":tru}`, `{"a":"x","b":nul}`,
		`{"a":"x","b":[1,]}`, `{"a":"x","b":[1 2]}`, `{"a":"x","b":[}`, `{"a":"x","b":{]}`, `{"a":"x","b":"\x"}`, `{"a":"x","b":"\u12g4"}`,
		"{\"a\":\"x\",\"b\":\"\x01\"}", "{\"a\":\"x\",\"b\":\"\n\"}", "\ufeff{\"a\":\"x\"}", `nul`, `"`, `[`, `{"a":"x"`, `{"a":"x"]`, `{"a":["x"}}`}
	for i := range len(whole) {
		docs = append(docs, whole[:i])
	}
	for _, doc := range docs {
		hits, err := s.Match([]byte(doc), []int{7})
		if !errors.Is(err, ErrInvalidJSON) || !slices.Equal(hits, []int{7}) {
			t.Errorf("%q: hits %v, error %v", doc, hits, err)
		}
		if json.Valid([]byte(doc)) {
			t.Errorf("%q is valid after all", doc)
		}
	}
	for _, doc := range []string{`5`, `"x"`, `null`, `[{"a":"x"}]`, ` [ ] `, `{}`} {
		if hits, err := s.Match([]byte(doc), nil); err != nil || !slices.Equal(hits, []int{1}) {
			t.Errorf("%s has no fields: hits %v, error %v", doc, hits, err)
		}
	}
	deep := strings.Repeat("[", jsonscan.MaxDepth+1) + strings.Repeat("]", jsonscan.MaxDepth+1)
	for _, doc := range []string{deep, `{"a":` + deep[1:len(deep)-1] + `}`, `{"q":` + deep[1:len(deep)-1] + `}`} {
		if _, err := s.Match([]byte(doc), nil); !errors.Is(err, ErrInvalidJSON) {
			t.Errorf("nested too deep: %v", err)
		}
	}
}

// fakeEvent is an EventView made of its parts.
type fakeEvent struct {
	attributes [][3]string // name, value, "literal" or ""
	data       string
	isJSON     bool
}

func (e fakeEvent) NumAttributes() int { return len(e.attributes) }
func (e fakeEvent) Attribute(i int) (name, value string, literal bool) {
	a := e.attributes[i]
	return a[0], a[1], a[2] != ""
}
func (e fakeEvent) Data() []byte     { return []byte(e.data) }
func (e fakeEvent) DataIsJSON() bool { return e.isJSON }

// json is the event's JSON form.
func (e fakeEvent) json() string {
	var parts []string
	for _, a := range e.attributes {
		value := a[1]
		if a[2] == "" {
			b, _ := json.Marshal(value)
			value = string(b)
		}
		parts = append(parts, fmt.Sprintf("%q:%s", a[0], value))
	}
	if e.isJSON {
		parts = append(parts, `"data":`+e.data)
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func TestMatchEvent(t *testing.T) {
	t.Parallel()
	patterns := []string{`{"type":["a.b"],"data":{"key":["k"]}}`, `{"data.key":["k"]}`, `{"sequence":[5]}`, `{"sequence":["5"]}`, `{"fine":[true]}`,
		`{"data":["text"]}`, `{"data":[{"exists":false}]}`, `{"data":{"key":[{"exists":false}]}}`, `{"data":[7]}`, `{"subject":[{"suffix":"\"é"}]}`, `{"type":[{"exists":true}]}`}
	s := compile(t, parseStrings(t, patterns))
	attributes := [][3]string{{"type", "a.b", ""}, {"sequence", "5", "literal"}, {"fine", "true", "literal"}, {"subject", `a"é`, ""}}
	for _, c := range []struct {
		data   string
		isJSON bool
		want   []int
	}{
		{`{"key":"k"}`, true, []int{0, 1, 2, 4, 6, 9, 10}},
		{`{"key":"k"}`, false, []int{2, 4, 6, 7, 9, 10}},
		{` "text" `, true, []int{2, 4, 5, 7, 9, 10}},
		{`[{"key":"x"},{"key":"k"},7]`, true, []int{0, 1, 2, 4, 8, 9, 10}},
		{``, false, []int{2, 4, 6, 7, 9, 10}},
	} {
		e := fakeEvent{attributes, c.data, c.isJSON}
		hits, err := s.MatchEvent(e, nil)
		if err != nil || !slices.Equal(hits, c.want) {
			t.Errorf("%s: hits %v, error %v, want %v", c.data, hits, err, c.want)
		}
		asDoc, err := s.Match([]byte(e.json()), nil)
		if err != nil || !slices.Equal(asDoc, hits) {
			t.Errorf("%s: as a document %v, %v", c.data, asDoc, err)
		}
		for i, p := range patterns {
			if got := ExplainEvent(mustParse(t, p), e).Matched; got != slices.Contains(c.want, i) {
				t.Errorf("ExplainEvent(%s) on %s: %v", p, c.data, got)
			}
		}
	}
	for _, broken := range []string{``, `{"key":`, `{} x`, `{"key":"k"`} {
		if hits, err := s.MatchEvent(fakeEvent{attributes, broken, true}, nil); err == nil || len(hits) > 0 {
			t.Errorf("%q: hits %v, error %v", broken, hits, err)
		}
	}
}

func FuzzMatchEvent(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		g := newGenerator(seed)
		var rs []Rule
		for len(rs) < 30 {
			src := g.pattern()
			if g.IntN(2) == 0 {
				src = `{"data":` + src + `}`
			}
			if p, err := ParsePattern([]byte(src)); err == nil {
				rs = append(rs, Rule{Pattern: p})
			}
		}
		e := fakeEvent{data: g.eventValue(3), isJSON: g.IntN(4) > 0}
		for _, name := range []string{"a", "b", "c"} {
			switch g.IntN(3) {
			case 0:
				e.attributes = append(e.attributes, [3]string{name, g.pick("x", "xy", "5", "", `"`, "straße"), ""})
			case 1:
				e.attributes = append(e.attributes, [3]string{name, g.pick("5", "-5", "true", "false", "0"), "literal"})
			}
		}
		s := compile(t, rs)
		got, err := s.MatchEvent(e, nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := s.Match([]byte(e.json()), nil)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%s: as event %v, as document %v, %v", e.json(), got, want, err)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	if racing {
		t.Skip("the race detector allocates")
	}
	for _, n := range []int{1, 100, 3000} {
		w := newWorkload(n)
		rs := parseRules(t, w.patterns(n))
		g := newGenerator(5)
		for range n / 2 {
			if p, err := ParsePattern([]byte(g.pattern())); err == nil {
				rs = append(rs, Rule{Pattern: p})
			}
		}
		s := compile(t, rs)
		events := make([][]byte, 200)
		for i := range events {
			events[i] = w.event()
			if i%2 == 0 {
				events[i] = []byte(g.event())
			}
		}
		hits := make([]int, 0, len(rs))
		run := func() {
			for _, e := range events {
				hits, _ = s.Match(e, hits[:0])
			}
		}
		run()
		if allocs := testing.AllocsPerRun(10, run); allocs > 0 {
			t.Errorf("%d rules: %v allocations for %d events", n, allocs, len(events))
		}
		var err error
		if s, err = s.Amend([]int{0}, rs[:1]); err != nil {
			t.Fatal(err)
		}
		run()
		if allocs := testing.AllocsPerRun(10, run); allocs > 0 {
			t.Errorf("%d rules amended: %v allocations for %d events", n, allocs, len(events))
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	w := newWorkload(500)
	s := compile(t, parseRules(t, w.patterns(500)))
	events := make([][]byte, 100)
	want := make([][]int, len(events))
	for i := range events {
		events[i] = w.event()
		want[i], _ = s.Match(events[i], nil)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				for i, e := range events {
					if got, err := s.Match(e, nil); err != nil || !slices.Equal(got, want[i]) {
						t.Errorf("event %d: %v %v, want %v", i, got, err, want[i])
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestGenerationWrap matches across the point where marks are cleared.
func TestGenerationWrap(t *testing.T) {
	t.Parallel()
	s := compile(t, parseStrings(t, []string{`{"a":["x"]}`, `{"a":[{"wildcard":"*y*"}]}`, `{"b":[{"numeric":[">",1]}],"a":["x"]}`}))
	c := s.get()
	c.gen = maxGeneration - 3
	c.globs.text = 1<<32 - 3
	s.put(c)
	for i := range 8 {
		doc, want := `{"a":"x","b":2}`, []int{0, 2}
		if i%2 == 0 {
			doc, want = `{"a":"ay","b":2}`, []int{1}
		}
		if hits, err := s.Match([]byte(doc), nil); err != nil || !slices.Equal(hits, want) {
			t.Fatalf("round %d: %v %v", i, hits, err)
		}
	}
}

func TestEmptySet(t *testing.T) {
	t.Parallel()
	s := compile(t, nil)
	if hits, err := s.Match([]byte(`{"a":1}`), nil); err != nil || len(hits) > 0 || s.Len() != 0 {
		t.Errorf("%v %v", hits, err)
	}
	if _, err := s.Match([]byte(`{"a":1`), nil); !errors.Is(err, ErrInvalidJSON) {
		t.Errorf("truncated: %v", err)
	}
}

func TestAmend(t *testing.T) {
	t.Parallel()
	s := compile(t, parseStrings(t, []string{`{"a":["x"]}`, `{"a":["y"]}`, `{"a":[{"exists":true}]}`}))
	check := func(s *Set, doc string, want ...int) {
		t.Helper()
		hits, err := s.Match([]byte(doc), []int{-1})
		if err != nil || !slices.Equal(hits[1:], want) {
			t.Errorf("%s: hits %v, error %v, want %v", doc, hits, err, want)
		}
		e := fakeEvent{attributes: [][3]string{{"a", doc[6:7], ""}}}
		if hits, err = s.MatchEvent(e, nil); err != nil || !slices.Equal(hits, want) {
			t.Errorf("%s: hits %v as an event, error %v, want %v", doc, hits, err, want)
		}
	}
	one, err := s.Amend([]int{0}, parseStrings(t, []string{`{"a":["z"]}`, `{"a":[{"prefix":"x"}]}`}))
	if err != nil {
		t.Fatal(err)
	}
	two, err := one.Amend([]int{2, 3}, parseStrings(t, []string{`{"a":["z"]}`}))
	if err != nil {
		t.Fatal(err)
	}
	check(s, `{"a":"x"}`, 0, 2)
	check(one, `{"a":"x"}`, 2, 4)
	check(one, `{"a":"z"}`, 2, 3)
	check(two, `{"a":"x"}`, 4)
	check(two, `{"a":"y"}`, 1)
	check(two, `{"a":"z"}`, 5)
	if s.Len() != 3 || one.Len() != 5 || two.Len() != 6 {
		t.Errorf("lengths %d %d %d", s.Len(), one.Len(), two.Len())
	}
	if hits, err := two.Match([]byte(`{"a":"x"`), []int{9}); err == nil || !slices.Equal(hits, []int{9}) {
		t.Errorf("truncated: %v %v", hits, err)
	}
	if _, err := two.Amend([]int{6}, nil); err == nil {
		t.Error("removed a rule that is not there")
	}
	if _, err := two.Amend(nil, []Rule{{Name: "zero"}}); err == nil {
		t.Error("added the zero pattern")
	}
}
