package rules

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// How many random pairs are compared with AWS's own engine: outside the
// documented differences, and at most for each of those.
const (
	rulerPairs      = 40_000
	rulerDifferents = 4_000
)

// rulerPair is a pattern, an event, and what both engines say of them.
type rulerPair struct {
	pattern, event string
	differs        int    // index into rulerDifferences, -1 for none
	ours, theirs   string // yes, no, or an error
}

// TestAgainstEventRuler compares random pairs with event-ruler. On every pair
// outside the documented differences both have to give the same answer, as they
// have to on testdata/answers.txt; pairs that a difference touches are counted.
func TestAgainstEventRuler(t *testing.T) {
	if os.Getenv("SLUICE_INTEGRATION") == "" {
		t.Skip("set SLUICE_INTEGRATION=1 to compare with event-ruler; it needs java and mvn")
	}
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("CI") != "" {
			t.Fatalf("%s is missing: install a JDK and Maven", tool)
		} else if err != nil {
			t.Skipf("%s is missing: install a JDK and Maven to compare with event-ruler", tool)
		}
	}
	pairs := append(labelledPairs(t), makeRulerPairs(t)...)
	askRuler(t, pairs)
	touched, differ := make([]int, len(rulerDifferences)), make([]int, len(rulerDifferences))
	tally, wrong := map[string]int{}, 0
	for _, p := range pairs {
		if p.differs >= 0 {
			touched[p.differs]++
			if p.ours != p.theirs {
				differ[p.differs]++
			}
			continue
		}
		tally[p.ours]++
		if p.ours != p.theirs {
			if wrong++; wrong <= 20 {
				t.Errorf("%s\n%s\nevent-ruler: %s, ours: %s", p.pattern, p.event, p.theirs, p.ours)
			}
		}
	}
	t.Logf("%d pairs outside the documented differences: %d match, %d do not; event-ruler differs in %d",
		tally["yes"]+tally["no"], tally["yes"], tally["no"], wrong)
	for i, d := range rulerDifferences {
		t.Logf("documented difference, %s: touches %d pairs, event-ruler differs in %d", d.name, touched[i], differ[i])
		if differ[i] == 0 {
			t.Errorf("%s: event-ruler says the same in every pair, is this a difference still?", d.name)
		}
	}
	if tally["yes"] < rulerPairs/20 {
		t.Errorf("only %d pairs match: the comparison says little", tally["yes"])
	}
}

// labelledPairs are those of testdata/answers.txt, and one that shows each
// difference.
func labelledPairs(t *testing.T) []rulerPair {
	var pairs []rulerPair
	for _, a := range answers(t) {
		if !strings.HasPrefix(a.Note, "difference") {
			pairs = append(pairs, newRulerPair(t, a.Pattern, a.Event))
		}
	}
	for i, d := range rulerDifferences {
		pair := newRulerPair(t, d.pattern, d.event)
		if pair.differs != i {
			t.Errorf("%s: its example is one of difference %d", d.name, pair.differs)
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

// makeRulerPairs makes random pairs until there are enough.
func makeRulerPairs(t *testing.T) []rulerPair {
	var pairs []rulerPair
	touched := make([]int, len(rulerDifferences))
	for seed, same := uint64(1), 0; same < rulerPairs; seed++ {
		g := newGenerator(seed)
		src := g.pattern()
		if _, err := ParsePattern([]byte(src)); err != nil {
			continue // most of them name a path twice
		}
		for range 8 {
			pair := newRulerPair(t, src, g.event())
			switch {
			case pair.differs < 0:
				same++
			case touched[pair.differs] == rulerDifferents:
				continue
			default:
				touched[pair.differs]++
			}
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

func newRulerPair(t *testing.T, pattern, event string) rulerPair {
	t.Helper()
	p, err := ParsePattern([]byte(pattern))
	if err != nil {
		t.Fatal(err)
	}
	hits, err := compile(t, []Rule{{Pattern: p}}).Match([]byte(event), nil)
	if err != nil {
		t.Fatal(err)
	}
	pair := rulerPair{pattern: pattern, event: event, ours: "no"}
	if len(hits) == 1 {
		pair.ours = "yes"
	}
	pair.differs = slices.IndexFunc(rulerDifferences[:], func(d rulerDifference) bool { return d.touches(p, event) })
	return pair
}

// fetchRuler puts event-ruler and what it needs into a directory.
func fetchRuler(t *testing.T) string {
	jars := t.TempDir()
	fetch := exec.CommandContext(t.Context(), "mvn", "-q", "-B", "-f", "testdata/ruler/pom.xml",
		"dependency:copy-dependencies", "-DoutputDirectory="+jars)
	if out, err := fetch.CombinedOutput(); err != nil {
		t.Fatalf("mvn: %v\n%s", err, out)
	}
	return jars
}

// askRuler fetches event-ruler and puts its answers into the pairs.
func askRuler(t *testing.T, pairs []rulerPair) {
	jars := fetchRuler(t)
	var in bytes.Buffer
	for _, p := range pairs {
		line, err := json.Marshal([]string{p.pattern, p.event})
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(line, '\n'))
	}
	run := exec.CommandContext(t.Context(), "java", "-cp", jars+"/*", "testdata/ruler/Ruler.java")
	run.Stdin, run.Stderr = &in, os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(pairs) {
		t.Fatalf("event-ruler gave %d answers to %d pairs", len(answers), len(pairs))
	}
	for i := range pairs {
		pairs[i].theirs = answers[i]
	}
}

// rulerDifference is one deliberate difference from event-ruler, as the package
// comment lists them, and a pair that shows it.
type rulerDifference struct {
	name           string
	pattern, event string
	touches        func(p Pattern, event string) bool
}

// rulerDifferences are those that a pair of a valid pattern and a valid event
// can show. The others are about patterns and documents that are refused here.
var rulerDifferences = [...]rulerDifference{
	{"an empty key is a step of a path", `{"a":["x"]}`, `{"":{"a":"x"}}`, func(p Pattern, event string) bool {
		return strings.Contains(p.src, `"":`) || strings.Contains(event, `"":`)
	}},
	{"a key outside and inside $or is an AND", `{"a":["x"],"$or":[{"a":["y"]},{"b":[1]}]}`, `{"a":"y"}`,
		func(p Pattern, _ string) bool { return overrides(p.root) }},
	{"cidr takes /32 and /128, and only addresses", `{"a":[{"cidr":"10.0.0.1/32"}]}`, `{"a":"10.0.0.1"}`,
		func(p Pattern, _ string) bool {
			return anyCondition(p.root, func(c condition) bool {
				return c.op == opCIDR && (c.block.bits == 0 || strings.HasSuffix(c.text, "/32") || strings.HasSuffix(c.text, "/128"))
			})
		}},
	{"equals-ignore-case beyond the basic plane", `{"a":[{"equals-ignore-case":"\ud83d\ude00"}]}`, `{"a":"\ud83d\ude00"}`,
		func(p Pattern, event string) bool {
			return strings.Contains(p.src, "equals-ignore-case") && strings.Contains(p.src+event, `\ud`)
		}},
	{"wildcard and equals-ignore-case side by side", `{"a":[{"wildcard":"*x"},{"equals-ignore-case":"y"}]}`, `{"a":"q"}`,
		func(p Pattern, _ string) bool {
			return anyField(p.root, func(f field) bool { return uses(f.conds, opGlob) && uses(f.conds, opFold) })
		}},
}

// uses reports an operator among conditions, inside anything-but or not.
func uses(list []condition, o op) bool {
	return slices.ContainsFunc(list, func(c condition) bool { return c.op == o || uses(c.not, o) })
}

func anyCondition(g *group, ok func(condition) bool) bool {
	return anyField(g, func(f field) bool { return slices.ContainsFunc(f.conds, ok) })
}

func anyField(g *group, ok func(field) bool) bool {
	if slices.ContainsFunc(g.fields, ok) {
		return true
	}
	for _, alt := range g.anyOf {
		for i := range alt.groups {
			if anyField(&alt.groups[i], ok) {
				return true
			}
		}
	}
	return false
}

// overrides reports that some choice of $or branches names a path twice.
func overrides(g *group) bool {
	return slices.ContainsFunc(choices(g), func(paths []string) bool {
		slices.Sort(paths)
		return len(slices.Compact(slices.Clone(paths))) < len(paths)
	})
}

// choices are the paths of a group, once for each choice of $or branches.
func choices(g *group) [][]string {
	var own []string
	for _, f := range g.fields {
		own = append(own, f.path)
	}
	all := [][]string{own}
	for _, alt := range g.anyOf {
		var next [][]string
		for _, paths := range all {
			for i := range alt.groups {
				for _, more := range choices(&alt.groups[i]) {
					next = append(next, slices.Concat(paths, more))
				}
			}
		}
		all = next
	}
	return all
}
