package cli

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestExamplesAreValid runs sluice validate on every example: it has nothing to
// complain of, and the tests pass.
func TestExamplesAreValid(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("../../../config/examples/*")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, path := range paths {
		if filepath.Base(path) == "README.md" {
			continue
		}
		checked++
		r := newRig("")
		r.kinds.Env = func(name string) (string, bool) {
			if !strings.HasSuffix(name, "_TOKEN") {
				return "", false
			}
			return "a-secret", true
		}
		r.kinds.ReadFile = func(string) ([]byte, error) { return []byte("another-secret\n"), nil }
		r.run(t, exitOK, "validate", "--config", path)
		if out := r.out.String(); !strings.HasPrefix(out, "ok: ") || strings.Count(out, "\n") != 1 || strings.HasSuffix(out, " 0 tests\n") {
			t.Errorf("sluice validate --config %s: %s", path, out)
		}
	}
	if checked < 15 {
		t.Errorf("only %d examples were found", checked)
	}
}
