package rules

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestAgainstEventRuler compares 40,000 random pairs with AWS's own engine,
// but for the differences that the package comment lists. It needs Java and
// RULER_CLASSPATH, the jars of software.amazon.event.ruler:event-ruler and
// what it depends on (mvn dependency:copy-dependencies).
func TestAgainstEventRuler(t *testing.T) {
	classpath := os.Getenv("RULER_CLASSPATH")
	if classpath == "" {
		t.Skip("RULER_CLASSPATH is not set")
	}
	var in bytes.Buffer
	var ours []string
	for seed := uint64(1); len(ours) < 40_000; seed++ {
		g := newGenerator(seed)
		src := g.pattern()
		p, err := ParsePattern([]byte(src))
		if err != nil || differs(t, src) {
			continue
		}
		s := compile(t, []Rule{{Pattern: p}})
		for range 8 {
			event := strings.NewReplacer("\n", " ", "\t", " ").Replace(g.event())
			if strings.Contains(event, `"":`) {
				continue
			}
			hits, err := s.Match([]byte(event), nil)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&in, "%s\t%s\n", src, event)
			ours = append(ours, map[bool]string{true: "yes", false: "no"}[len(hits) == 1])
		}
	}
	pairs := strings.Split(in.String(), "\n")
	cmd := exec.CommandContext(t.Context(), "java", "-cp", classpath, "testdata/ruler/Ruler.java")
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	tally := make(map[string]int)
	for i, theirs := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		tally[theirs]++
		if theirs != ours[i] {
			t.Errorf("%s\nevent-ruler: %s, ours: %s", pairs[i], theirs, ours[i])
		}
	}
	t.Log(tally)
}

// differs reports whether a pattern touches a documented difference.
func differs(t *testing.T, src string) bool {
	t.Helper()
	for _, part := range []string{`"":`, `\ud`, `/0"`, `/32"`, `/128"`} {
		if strings.Contains(src, part) {
			return true
		}
	}
	if strings.Contains(src, `"anything-but":{"wildcard":`) && strings.Contains(src, `"*"`) {
		return true // there, "*" among other exclusions does not exclude everything
	}
	if strings.Contains(src, `"wildcard":"*`) && strings.Contains(src, `{"equals-ignore-case":`) {
		return true // there, side by side, these two can match any string
	}
	v, err := readJSON([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range expand("", v) {
		seen := make(map[string]bool)
		for _, c := range r {
			if seen[c.path] {
				return true
			}
			seen[c.path] = true
		}
	}
	return false
}
