package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/config"
)

// TestFaults loads each file of testdata/faults and compares what is wrong with it
// with the .want file beside it; UPDATE_GOLDEN=1 writes those.
func TestFaults(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/faults/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = config.Parse(filepath.Base(file), src, options())
			var faults config.Faults
			if !errors.As(err, &faults) {
				t.Fatalf("no faults but %v", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", faults.Error()+"\n")
			if strings.Contains(faults.Error(), marker) || strings.Contains(faults.Error(), "hunter2") {
				t.Error("a fault shows a secret")
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestFaultsOfBytes(t *testing.T) {
	t.Parallel()
	for src, want := range map[string]string{
		"a: \x00b":                 "f:1:4: is no plain UTF-8 text from here on: save the file as UTF-8 with Unix line ends and no control characters",
		"a: 1\nä: \xff":            "f:2:4: is no plain UTF-8 text from here on: save the file as UTF-8 with Unix line ends and no control characters",
		"":                         "f:1:1: the config is empty: begin with sinks and rules",
		"\ufeff":                   "f:1:1: the config is empty: begin with sinks and rules",
		strings.Repeat("#", 5<<20): "f: is larger than 4MiB: split it into a directory of files",
		strings.Repeat("[", 20000): "f:1:1: is nested too deeply: 64 levels are the most",
	} {
		if _, err := config.Parse("f", []byte(src), options()); err == nil || err.Error() != want {
			t.Errorf("%.20q\n got %v\nwant %s", src, err, want)
		}
	}
}

func TestFaultsAreLimited(t *testing.T) {
	t.Parallel()
	var src strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&src, "key%d: 1\n", i)
	}
	_, err := config.Parse("f", []byte(src.String()), options())
	var faults config.Faults
	if !errors.As(err, &faults) || len(faults) != 1001 {
		t.Errorf("%d faults", len(faults))
	}
}
