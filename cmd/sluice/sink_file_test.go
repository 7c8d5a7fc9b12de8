package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/bus"
)

// TestProcessFileSink kills a bus that writes to a file which is rotated. Every
// event that was acknowledged is in the files in the end, and every line is whole.
func TestProcessFileSink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := newProgram(t, t.TempDir(), "", fmt.Sprintf("sinks:\n  out: {file: {path: %q, rotate: {size: 100KiB}}}\n", filepath.Join(dir, "out.ndjson"))+fmt.Sprintf(everythingTo, "out"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}, Timeout: 10 * time.Second}
	rounds := scale(3, 20)
	acked := p.killUnderLoad(client, rounds, 300)
	p.start()
	if ok, code := p.publish(client, "last", 10); !ok { // whose line mends what a kill has left
		t.Fatalf("publish answered %d", code)
	}
	p.settled(60 * time.Second)
	p.stop()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, lines := map[string]bool{}, 0
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			e, err := bus.ParseJSON(bytes.TrimSuffix(line, []byte("\n")))
			if err != nil || line[len(line)-1] != '\n' {
				t.Fatalf("%s: %v: %q", f.Name(), err, line)
			}
			got[e.ID()] = true
			lines++
		}
	}
	missing := 0
	for id := range acked {
		if !got[id] {
			missing++
		}
	}
	t.Logf("%d kills: %d events acknowledged, %d missing, %d lines in %d files, %d of them again", rounds, len(acked), missing, lines, len(files), lines-len(got))
	if missing > 0 || len(acked) < 20*rounds {
		t.Errorf("%d of %d events are missing", missing, len(acked))
	}
	if rounds > 3 && len(files) < 2 {
		t.Error("the file was never rotated")
	}
}
