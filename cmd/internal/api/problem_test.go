package api_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/cmd/internal/api"
)

// Every error that the bus exports has an answer of its own, wrapped or not, and none
// is taken for a fault of the bus.
func TestErrorsOfTheBusHaveAnAnswer(t *testing.T) {
	t.Parallel()
	table := map[string]struct {
		err    error
		status int
		again  string // Retry-After
	}{
		"bus.ErrFull":            {bus.ErrFull, 507, "30"},
		"bus.ErrOverloaded":      {bus.ErrOverloaded, 503, "1"},
		"bus.ErrUnavailable":     {bus.ErrUnavailable, 503, "1"},
		"bus.ErrClosed":          {bus.ErrClosed, 503, "2"},
		"bus.ErrTooLarge":        {bus.ErrTooLarge, 413, ""},
		"bus.ErrNotFound":        {bus.ErrNotFound, 404, ""},
		"bus.ErrTooMany":         {bus.ErrTooMany, 413, ""},
		"bus.AttributeError":     {&bus.AttributeError{Name: "id", Msg: "missing"}, 400, ""},
		"bus.MediaTypeError":     {&bus.MediaTypeError{Msg: "no"}, 415, ""},
		"bus.BadEvent":           {&bus.BadEvent{Err: errors.New("no")}, 400, ""},
		"bus.ErrDamaged":         {bus.ErrDamaged, 500, ""},
		"dispatch.ErrLease":      {dispatch.ErrLease, 401, ""},
		"dispatch.ErrReceipt":    {dispatch.ErrReceipt, 400, ""},
		"dispatch.ErrOtherQueue": {dispatch.ErrOtherQueue, 400, ""},
		"dispatch.ErrHeld":       {dispatch.ErrHeld, 409, ""},
	}
	exported := append(exportedErrors(t, "../../../bus"), exportedErrors(t, "../../../bus/dispatch")...)
	slices.Sort(exported)
	if known := slices.Sorted(maps.Keys(table)); !slices.Equal(known, exported) {
		t.Errorf("the table has %v, the packages export %v", known, exported)
	}
	for name, c := range table {
		for _, err := range []error{c.err, fmt.Errorf("queue \"q\": %w", c.err)} {
			status, header, detail := api.ProblemOf(err)
			if status != c.status || header.Get("Retry-After") != c.again || detail == "" {
				t.Errorf("%s (%v): %d %q after %q, want %d after %q", name, err, status, detail, header.Get("Retry-After"), c.status, c.again)
			}
		}
	}
	if status, _, detail := api.ProblemOf(errors.New("/var/lib/sluice: torn")); status != 500 || strings.Contains(detail, "torn") {
		t.Errorf("any other error: %d %s", status, detail)
	}
}

// exportedErrors are the names of the error values and types that a package exports.
func exportedErrors(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			for _, found := range errorsOf(decl) {
				names = append(names, filepath.Base(dir)+"."+found)
			}
		}
	}
	return names
}

// errorsOf are the exported errors that a declaration makes: variables named Err… and
// types with a method Error.
func errorsOf(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			values, ok := spec.(*ast.ValueSpec)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, id := range values.Names {
				if strings.HasPrefix(id.Name, "Err") {
					names = append(names, id.Name)
				}
			}
		}
	case *ast.FuncDecl:
		if d.Recv == nil || d.Name.Name != "Error" {
			return nil
		}
		of := d.Recv.List[0].Type
		if star, ok := of.(*ast.StarExpr); ok {
			of = star.X
		}
		if id, ok := of.(*ast.Ident); ok && id.IsExported() {
			names = append(names, id.Name)
		}
	}
	return names
}
