package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// block is the first fenced block of the README behind a marker.
func block(t *testing.T, marker string) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- "+marker+" -->")
	if !ok {
		t.Fatalf("README.md has no marker %q", marker)
	}
	_, rest, _ = strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "\n")
	body, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatalf("README.md has no block behind %q", marker)
	}
	return body
}

// TestReadmeWalk runs the README's walk from publish to redrive, command by
// command, with other ports.
func TestReadmeWalk(t *testing.T) {
	t.Parallel()
	f := newFunction(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) })
	dir := t.TempDir()
	p := &program{t: t, dir: dir, config: filepath.Join(dir, "sluice.yaml"), base: fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), log: &lockedBuffer{}}
	config := strings.NewReplacer(
		"127.0.0.1:8484", strings.TrimPrefix(p.base, "http://"),
		"http://127.0.0.1:9000", f.URL,
		"./data", filepath.Join(dir, "data"),
	).Replace(block(t, "walk: config"))
	if err := os.WriteFile(p.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "sluice")
	wrapper := fmt.Sprintf("#!/bin/sh\n%s=1 SLUICE_SERVER=%s exec %q \"$@\"\n", asProgram, p.base, os.Args[0])
	if err := os.WriteFile(program, []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{ // what a command has to print
		"sluice validate":      "1 rule",
		"sluice explain":       "differs only in case",
		"sluice dlq ls":        "attempts_exhausted",
		"sluice dlq show":      "broken",
		"sluice dlq redrive":   "done",
		"sluice replay":        "done",
		"sluice publish":       "published 1",
		"sluice events show 2": "",
	}
	checked := 0
	for line := range strings.Lines(block(t, "walk: commands")) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "sluice serve"):
			p.start()
			continue
		case strings.HasPrefix(line, "sluice dlq ls"):
			p.until(20*time.Second, "a dead letter", func() bool { return len(p.deadLetters()) == 1 })
		case strings.HasPrefix(line, "sluice dlq redrive"):
			f.set(nil)
		}
		out := run(t, dir, line)
		for command, text := range want {
			if strings.Contains(line, command) {
				checked++
				if !strings.Contains(out, text) {
					t.Errorf("%s\nprinted no %q:\n%s", line, text, out)
				}
			}
		}
	}
	if checked < len(want) {
		t.Errorf("only %d of %d expectations met a command of the README", checked, len(want))
	}
	p.until(20*time.Second, "the redriven and the replayed delivery", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.got["1"] == 2
	})
	p.settled(10 * time.Second)
	p.stop()
}

// run runs a line of the README in a shell.
func run(t *testing.T, dir, line string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 4 || !strings.Contains(line, "explain")) {
		t.Fatalf("%s\n%v\n%s", line, err, out)
	}
	return string(out)
}
