package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The layout: which package may import which of ours, by longest prefix. "x/..."
// stands for x and everything below it.
var layout = map[string][]string{
	"sluice/bus/jsonscan":       {},
	"sluice/bus":                {"sluice/bus/jsonscan"},
	"sluice/rules":              {"sluice/bus/jsonscan"},
	"sluice/config/value":       {},
	"sluice/config/access":      {"sluice/config/value"},
	"sluice/config/aws":         {"sluice/config/value"},
	"sluice/config/kafka":       {"sluice/config/value"},
	"sluice/config/nats":        {"sluice/config/value"},
	"sluice/bus/bustest":        {"sluice/bus"},
	"sluice/bus/memlog":         {"sluice/bus"},
	"sluice/bus/jetstream":      {"sluice/bus"},
	"sluice/bus/dispatch":       {"sluice/bus", "sluice/rules", "sluice/sinks", "sluice/config/value"},
	"sluice/sinks":              {"sluice/bus", "sluice/config/aws", "sluice/config/kafka", "sluice/config/nats", "sluice/config/value"},
	"sluice/sinks/sinktest":     {"sluice/bus", "sluice/sinks", "sluice/config/value"},
	"sluice/sources":            {"sluice/bus", "sluice/config/access", "sluice/config/aws", "sluice/config/kafka", "sluice/config/nats", "sluice/config/value"},
	"sluice/sources/sourcetest": {"sluice/bus", "sluice/sources", "sluice/config/value"},
	"sluice/config":             {"sluice/bus", "sluice/bus/dispatch", "sluice/rules", "sluice/sinks", "sluice/sources", "sluice/config/access", "sluice/config/aws", "sluice/config/kafka", "sluice/config/nats", "sluice/config/value"},
	"sluice/cmd":                {"sluice/..."},
}

// only names the packages that alone may import a module.
var only = map[string][]string{
	"github.com/nats-io/":       {"sluice/bus/jetstream", "sluice/config/nats", "sluice/config/nats/natstest", "sluice/sinks", "sluice/sources"},
	"github.com/spf13/cobra":    {"sluice/cmd/internal/cli"},
	"go.yaml.in/yaml/":          {"sluice/config"},
	"github.com/fsnotify/":      {"sluice/cmd/internal/app"},
	"github.com/schollz/":       {"sluice/cmd/internal/cli"},
	"github.com/lmittmann/tint": {"sluice/cmd/internal/cli"},
	"github.com/segmentio/":     {"sluice/config/kafka", "sluice/sinks", "sluice/cmd/internal/bench"},
	"github.com/twmb/franz-go/": {"sluice/config/kafka", "sluice/sources", "sluice/cmd/internal/bench"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

// TestTopLevel holds what stands at the top: who comes new finds their way there.
func TestTopLevel(t *testing.T) {
	t.Parallel()
	want := []string{
		"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "bus", "cmd", "config", "deploy", "go.mod", "go.sum", "rules", "sinks", "sources",
	}
	out, err := exec.Command("git", "-C", "../..", "ls-files").Output()
	if err != nil {
		t.Skipf("this is no checkout: %v", err)
	}
	var got []string
	for name := range strings.Lines(string(out)) {
		name, _, _ = strings.Cut(strings.TrimSpace(name), "/")
		if !strings.HasPrefix(name, ".") && !slices.Contains(got, name) {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("at the top stand %v, want %v", got, want)
	}
}

// TestImportRules holds the direction of imports that CONTRIBUTING.md describes.
func TestImportRules(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "sluice/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		allowed := allowedFor(p.ImportPath)
		if allowed == nil {
			t.Errorf("%s is not in the layout", p.ImportPath)
		}
		for _, imported := range p.Imports {
			checkImport(t, p.ImportPath, imported, allowed)
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were listed", seen)
	}
}

func checkImport(t *testing.T, from, imported string, allowed []string) {
	t.Helper()
	if strings.HasPrefix(imported, "sluice/") && !slices.ContainsFunc(allowed, func(a string) bool {
		below, tree := strings.CutSuffix(a, "...")
		return imported == a || tree && strings.HasPrefix(imported, below)
	}) {
		t.Errorf("%s must not import %s", from, imported)
	}
	for module, owners := range only {
		if strings.HasPrefix(imported, module) && !slices.Contains(owners, from) {
			t.Errorf("%s imports %s: only %s may", from, imported, strings.Join(owners, ", "))
		}
	}
}

func allowedFor(path string) []string {
	for p := path; p != ""; p = p[:max(0, strings.LastIndex(p, "/"))] {
		if allowed, ok := layout[p]; ok {
			return allowed
		}
	}
	return nil
}
