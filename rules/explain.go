package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// Explanation says why a pattern did or did not match one event.
type Explanation struct {
	Matched bool   `json:"matched"`
	Reason  string `json:"reason"` // one line
	// Missed is how many keys stand between the event and a match, for each
	// $or those of its nearest branch; 0 if it matched. The nearest rules of
	// an event are those that missed least.
	Missed int `json:"missed"`
	// Keys is the pattern's keys in the order written, those of $or branches
	// included.
	Keys []KeyExplanation `json:"keys"`
	// Error is set when there is no answer: the document is not valid JSON, or
	// it takes too long to match.
	Error string `json:"error,omitempty"`
}

// KeyExplanation is one key of the pattern.
type KeyExplanation struct {
	Path    string  `json:"path"`             // dotted
	Branch  string  `json:"branch,omitempty"` // the $or branch it is in: "$or[1]"
	Wanted  string  `json:"wanted"`           // as written in the pattern
	Found   string  `json:"found,omitempty"`  // the event's values there, as JSON; "" if none
	Verdict Verdict `json:"verdict"`
	// Near names near misses and what to do about them, likeliest first.
	Near []string `json:"near,omitempty"`
}

// Verdict is what became of one key.
type Verdict string

// The verdicts.
const (
	VerdictOK      Verdict = "ok"
	VerdictDiffers Verdict = "differs" // there are values, none is wanted
	VerdictMissing Verdict = "missing" // there is no value at this path
	// VerdictElement means some value is right, but not in the array element
	// that fulfils the other keys.
	VerdictElement Verdict = "other element"
)

// Explain says, key by key, why a pattern does or does not match a document.
// Its Matched is the answer of Set.Match.
func Explain(p Pattern, doc []byte) Explanation {
	return explain(p, func(x *explainer) bool {
		if !x.scan(doc) {
			return false
		}
		if v := gjson.ParseBytes(doc); v.IsObject() {
			x.collect("", v, 0)
		}
		return true
	})
}

// ExplainEvent is Explain for an event as Set.MatchEvent sees it.
func ExplainEvent(p Pattern, e EventView) Explanation {
	return explain(p, func(x *explainer) bool {
		if !x.scanEvent(e) {
			return false
		}
		for i := range e.NumAttributes() {
			name, value, literal := e.Attribute(i)
			if !literal {
				value = quoted(value)
			}
			x.values = append(x.values, pathValue{name, value})
		}
		if e.DataIsJSON() {
			x.collect("data", gjson.ParseBytes(e.Data()), 0)
		} else if len(e.Data()) > 0 {
			x.opaque = true
		}
		return true
	})
}

// explainer walks a pattern beside its compiled form.
type explainer struct {
	*scratch
	values    []pathValue // every value of the event
	objects   []string    // every path with an object
	opaque    bool        // there is data, but it is not JSON
	elemental bool        // the keys hold one by one, but not in one element
	keys      []KeyExplanation
}

type pathValue struct{ path, raw string }

func explain(p Pattern, read func(*explainer) bool) Explanation {
	s, err := Compile([]Rule{{Name: "explained", Pattern: p}})
	if err != nil {
		return Explanation{Error: err.Error(), Reason: err.Error()}
	}
	x := explainer{scratch: s.get()}
	if !read(&x) {
		return Explanation{Error: ErrInvalidJSON.Error(), Reason: ErrInvalidJSON.Error()}
	}
	hits, err := x.match(nil)
	if err != nil {
		return Explanation{Error: err.Error(), Reason: err.Error()}
	}
	e := Explanation{Matched: len(hits) > 0}
	root := &s.groups[s.rules[0].group]
	x.elemental = !e.Matched && x.group(root, true)
	x.explainGroup(p.root, root, "")
	e.Keys = x.keys
	if !e.Matched {
		e.Missed = max(1, x.missed(root))
	}
	e.Reason = x.reason(e.Matched)
	return e
}

// missed counts the keys of a group that are not fulfilled.
func (x *explainer) missed(g *groupCode) int {
	n := 0
	refs := x.set.refs
	for _, cl := range refs[g.clauses.off:g.clauses.end] {
		if !x.clause(cl) {
			n++
		}
	}
	for at := g.ors.off; at < g.ors.end; at += 2 {
		nearest := math.MaxInt
		for sub := refs[at]; sub < refs[at+1]; sub++ {
			nearest = min(nearest, x.missed(&x.set.groups[sub]))
		}
		n += nearest
	}
	return n
}

// collect lists the values below v for the search for near misses; values
// nested deeper than any pattern are left out.
func (x *explainer) collect(path string, v gjson.Result, depth int) {
	switch {
	case depth > maxDepth:
	case v.IsObject():
		x.objects = append(x.objects, path)
		v.ForEach(func(k, m gjson.Result) bool {
			below := k.String()
			if path != "" {
				below = path + "." + below
			}
			x.collect(below, m, depth+1)
			return true
		})
	case v.IsArray():
		v.ForEach(func(_, m gjson.Result) bool {
			x.collect(path, m, depth+1)
			return true
		})
	default:
		x.values = append(x.values, pathValue{path, v.Raw})
	}
}

func (x *explainer) explainGroup(g *group, code *groupCode, branch string) {
	for i := range g.fields {
		x.keys = append(x.keys, x.explainField(&g.fields[i], x.set.refs[int(code.clauses.off)+i], branch))
	}
	for i, alt := range g.anyOf {
		first := x.set.refs[int(code.ors.off)+2*i]
		for j := range alt.groups {
			name := fmt.Sprintf("$or[%d]", j)
			if len(g.anyOf) > 1 {
				name = fmt.Sprintf("$or#%d[%d]", i+1, j)
			}
			if branch != "" {
				name = branch + " " + name
			}
			x.explainGroup(&alt.groups[j], &x.set.groups[int(first)+j], name)
		}
	}
}

func (x *explainer) explainField(f *field, id uint32, branch string) KeyExplanation {
	k := KeyExplanation{Path: f.path, Branch: branch, Wanted: f.src, Verdict: VerdictOK}
	cl := &x.set.clauses[id]
	k.Found = x.found(cl.path)
	switch {
	case x.clause(id):
		if x.elemental && x.paths[cl.path].gen == x.gen && x.paths[cl.path].inArray {
			k.Verdict = VerdictElement
			k.Near = append(k.Near, x.whichElements(cl))
		}
	case k.Found == "":
		k.Verdict = VerdictMissing
		k.Near = x.nearPaths(f)
	case cl.absent && x.elemental:
		k.Verdict = VerdictElement
		k.Near = []string{"the elements that fulfil the other keys have this one, or nothing fixes an element before it"}
	default:
		k.Verdict = VerdictDiffers
		k.Near = x.nearValues(f, cl.path)
	}
	return k
}

// maxShown is how many values or elements of one path are shown.
const maxShown = 5

// found is the event's values on a path, as JSON.
func (x *explainer) found(path uint32) string {
	var shown []string
	n := 0
	for at := x.leavesOf(path); at >= 0; at = x.leaves[at].next {
		if n++; n <= maxShown {
			shown = append(shown, x.leaves[at].json())
		}
	}
	if n > maxShown {
		shown = append(shown, fmt.Sprintf("… (%d values)", n))
	}
	return strings.Join(shown, ", ")
}

// whichElements names the array elements whose values fulfil a clause.
func (x *explainer) whichElements(cl *clause) string {
	var names []string
	n := 0
	for at := x.leavesOf(cl.path); at >= 0; at = x.leaves[at].next {
		l := &x.leaves[at]
		if l.elem == 0 || !x.clauseTakes(cl, l) {
			continue
		}
		if name := x.elemName(l.elem); !slices.Contains(names, name) {
			if n++; n <= maxShown {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return "fulfilled by its absence, but all keys under one array must hold in the same element"
	}
	return "fulfilled in " + strings.Join(names, ", ") + ", but all keys under one array must hold in the same element"
}

// elemName is an element as a path with indexes: data.items[2].
func (x *explainer) elemName(e uint32) string {
	el := &x.elems[e]
	index := fmt.Sprintf("[%d]", el.index)
	if el.parent == 0 {
		return x.nodeName(el.node) + index
	}
	outer := &x.elems[el.parent]
	below := strings.TrimPrefix(x.nodeName(el.node), x.nodeName(outer.node))
	return x.elemName(el.parent) + below + index
}

// nodeName is the dotted path of a trie node.
func (x *explainer) nodeName(node int32) string {
	n := &x.set.trie.nodes[node]
	if n.parent < 0 {
		return ""
	}
	p := &x.set.trie.nodes[n.parent]
	name := ""
	for i := range p.kids {
		if p.kids[i].node == node {
			name = p.kids[i].name
		}
	}
	if n.parent == 0 {
		return name
	}
	return x.nodeName(n.parent) + "." + name
}

// reason sums the explanation up in one line.
func (x *explainer) reason(matched bool) string {
	if matched {
		return "every key of the pattern is fulfilled"
	}
	if x.elemental {
		return "each key is fulfilled by some array element, but no element fulfils all of them"
	}
	var failed []string
	branches := 0
	for _, k := range x.keys {
		switch {
		case k.Verdict == VerdictOK:
		case k.Branch != "":
			branches++
		default:
			failed = append(failed, k.Path)
		}
	}
	if len(failed) == 0 {
		return fmt.Sprintf("no branch of $or is fulfilled; %s", plural(branches, "key fails", "keys fail"))
	}
	if len(failed) > 3 {
		failed = append(failed[:3], "…")
	}
	return "not fulfilled: " + strings.Join(failed, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

// String is the explanation for people, one line per key.
func (e Explanation) String() string {
	var b strings.Builder
	verdict := "no match"
	if e.Matched {
		verdict = "match"
	}
	fmt.Fprintf(&b, "%s: %s\n", verdict, e.Reason)
	branch := ""
	for _, k := range e.Keys {
		indent := "  "
		if k.Branch != "" {
			if indent = "    "; k.Branch != branch {
				fmt.Fprintf(&b, "  %s\n", k.Branch)
			}
		}
		branch = k.Branch
		mark := "✗"
		if k.Verdict == VerdictOK {
			mark = "✓"
		}
		found := k.Found
		if found == "" {
			found = "nothing"
		}
		fmt.Fprintf(&b, "%s%s %s: wanted %s, found %s\n", indent, mark, k.Path, oneLine(k.Wanted), found)
		for _, n := range k.Near {
			fmt.Fprintf(&b, "%s    %s\n", indent, n)
		}
	}
	return b.String()
}

// oneLine shows a part of a pattern on one line, shortened if it is long.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
