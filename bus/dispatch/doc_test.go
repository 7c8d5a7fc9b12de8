package dispatch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocNamesWhatIsThere checks that the tests that the documentation tells of, the
// files that it names and the commands that it gives are there.
func TestDocNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.Join(strings.Fields(strings.ReplaceAll(string(text), "\n//", "\n")), " ")
	tests := map[string][]string{}
	of := func(dir string) []string {
		if tests[dir] == nil {
			tests[dir] = testsOf(t, filepath.Join("..", "..", dir))
		}
		return tests[dir]
	}
	commands := regexp.MustCompile(`go test (?:-v )?-run '([^']+)' \./(\S+)`).FindAllStringSubmatch(doc, -1)
	for _, m := range commands {
		wanted, err := regexp.Compile(m[1])
		if err != nil {
			t.Fatalf("%s: %v", m[0], err)
		}
		if !matches(of(m[2]), wanted) {
			t.Errorf("%q runs nothing: %s has no such test", m[0], m[2])
		}
	}
	var here []string
	for _, dir := range []string{"bus/dispatch", "bus/jetstream", "cmd/sluice", "sinks", "sources"} {
		here = append(here, of(dir)...)
	}
	named := regexp.MustCompile(`\bTest\w+(\.\.\.)?`).FindAllString(doc, -1)
	for _, name := range named {
		prefix, open := strings.CutSuffix(name, "...")
		wanted := "^" + prefix + "$"
		if open || strings.Contains(doc, "'^"+prefix+"'") || prefix == "TestProcess" { // the beginning of a pattern
			wanted = "^" + prefix
		}
		if !matches(here, regexp.MustCompile(wanted)) {
			t.Errorf("there is no test %s", name)
		}
	}
	files := regexp.MustCompile(`\b[a-z]+(_[a-z]+)*\.go\b`).FindAllString(doc, -1)
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	if len(commands) < 4 || len(named) < 20 || len(files) < 30 {
		t.Errorf("found %d commands, %d tests and %d files: that is not all", len(commands), len(named), len(files))
	}
}

// testsOf are the names of the tests of a directory.
func testsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

func matches(names []string, wanted *regexp.Regexp) bool {
	for _, name := range names {
		if wanted.MatchString(name) {
			return true
		}
	}
	return false
}
