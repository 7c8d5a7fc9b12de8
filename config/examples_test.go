package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/config"
	"sluice/sinks"
	"sluice/sources"
)

// realKinds are the kinds that the program has, with secrets for everything that a
// config may refer to.
func realKinds() config.Options {
	return config.Options{
		Sinks: sinks.Kinds(), Sources: sources.Kinds(),
		Env: func(name string) (string, bool) {
			if !strings.HasSuffix(name, "_TOKEN") {
				return "", false
			}
			return "env-" + name, true
		},
		ReadFile: func(path string) ([]byte, error) { return []byte("file-" + path), nil },
	}
}

// examples are the configs in examples/: files, and directories that count as one.
func examples(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("examples")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) == ".yaml" {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestExamples loads every example without a warning and runs its tests, which
// have to use every rule.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, name := range examples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := config.Load(filepath.Join("examples", name), realKinds())
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Warnings) > 0 || len(c.Tests) == 0 {
				t.Errorf("%d tests, warnings: %v", len(c.Tests), c.Warnings)
			}
			used := map[string]bool{}
			for _, test := range c.Tests {
				matching, to := route(t, c, test.Event)
				for _, rule := range matching {
					used[rule] = true
				}
				if diff := cmp.Diff(slices.Sorted(slices.Values(test.Expect)), to); diff != "" {
					t.Errorf("%s: %s: -expected +got\n%s", test.Pos, test.Name, diff)
				}
			}
			for _, rule := range c.Rules {
				if !used[rule.Name] {
					t.Errorf("%s: no test uses the rule %s", rule.Pos, rule.Name)
				}
			}
		})
	}
}

// route gives the rules that match an event, and the sinks it goes to, sorted.
func route(t *testing.T, c *config.Config, event []byte) (matching, to []string) {
	t.Helper()
	routes := make([]dispatch.Route, len(c.Rules))
	for i := range c.Rules {
		routes[i] = c.Rules[i].Route()
	}
	matcher, err := dispatch.NewMatcher(routes)
	if err != nil {
		t.Fatal(err)
	}
	e, err := bus.ParseJSON(append([]byte(`{"specversion":"1.0","id":"1",`), bytes.TrimPrefix(event, []byte("{"))...))
	if err != nil {
		t.Fatal(err)
	}
	found, err := matcher.Route(e, c.Unmatched)
	if err != nil {
		t.Fatal(err)
	}
	return found.Rules, slices.Sorted(slices.Values(found.Sinks))
}

// TestExamplesAreListed holds examples/README.md to what is there.
func TestExamplesAreListed(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples(t) {
		if !strings.Contains(string(text), "]("+name) {
			t.Errorf("README.md does not list %s", name)
		}
	}
	for _, link := range strings.Split(string(text), "](")[1:] {
		link, _, _ = strings.Cut(link, ")")
		if _, err := os.Stat(filepath.Join("examples", link)); err != nil {
			t.Errorf("README.md: %v", err)
		}
	}
}
