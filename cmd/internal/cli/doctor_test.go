package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/bus"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/doctor"
	"sluice/config"
)

// receiver notes the events that reach it; while it is shut they wait.
type receiver struct {
	mu   sync.Mutex
	got  map[string]bool
	shut chan struct{}
}

func (f *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-f.shut:
	case <-r.Context().Done():
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got[r.Header.Get("Ce-Id")] = true
}

func (f *receiver) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.got[id]
}

func (f *receiver) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

// onDisk runs a bus with one sink over a directory.
func onDisk(t *testing.T, dir, url string) *app.App {
	t.Helper()
	r := newRig("")
	cfg, err := config.Parse("test", fmt.Appendf(nil, `
sinks: {fn: {http: {url: %q}, spill_after: 1h, concurrency: 4, breaker: {failures: 0}}}
rules: {all: {match: {type: [{exists: true}]}, to: [fn]}}
`, url), r.kinds)
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(app.Options{Config: cfg, Listen: "127.0.0.1:0", Dir: dir, Log: slog.New(slog.DiscardHandler), Kinds: r.kinds})
	if err == nil {
		err = a.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// halt ends a bus, without waiting for what is under way.
func halt(t *testing.T, a *app.App) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func publishInto(t *testing.T, a *app.App, ids ...string) {
	t.Helper()
	for _, id := range ids {
		e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: id}, {Name: "source", Value: "/t"}, {Name: "type", Value: "x"}}, []byte("data of "+id))
		if err != nil {
			t.Fatal(err)
		}
		results, err := a.Bus().Publisher("test").Publish(t.Context(), e)
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit, tick := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// examine runs doctor over a directory.
func examine(t *testing.T, want int, args ...string) (doctor.Report, string) {
	t.Helper()
	r := newRig("")
	r.now = time.Now
	r.run(t, want, append([]string{"doctor", "-o", "json"}, args...)...)
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.out.String()), &report); err != nil {
		t.Fatal(err, r.out)
	}
	return report, r.err.String()
}

// named is how many packs of a stream the faults are about; those that tell no
// numbers count as one.
func named(r doctor.Report, stream string) (n int) {
	for _, f := range r.Findings {
		if f.Fault == nil || f.Severity != doctor.Bad || f.Fault.Stream != stream {
			continue
		}
		if n++; f.Fault.Last > f.Fault.First {
			n += int(f.Fault.Last - f.Fault.First)
		}
	}
	return n
}

func block(t *testing.T, dir, stream, name string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", stream, name))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s of %s: %v", name, stream, err)
	}
	return files[0]
}

// rewrite changes a file.
func rewrite(t *testing.T, path string, to func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, to(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedStore stops a bus with 20 acknowledged events that have not arrived,
// damages its store, and starts it again: each event arrives whose record in EVENTS is
// whole, and doctor names as many as do not. Never is there silence.
func TestDamagedStore(t *testing.T) {
	t.Parallel()
	flipped := func(t *testing.T, dir, stream string) {
		rewrite(t, block(t, dir, stream, "msgs/*.blk"), func(b []byte) []byte {
			b[bytes.Index(b, []byte("data of e7"))] ^= 0x20
			return b
		})
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir, stream string)
		lost   int // at most
		repair bool
	}{
		"flipped byte": {flipped, 1, true},
		"flipped byte, and no index": {func(t *testing.T, dir, stream string) {
			flipped(t, dir, stream)
			if err := os.Remove(block(t, dir, stream, "msgs/index.db")); err != nil {
				t.Fatal(err)
			}
		}, 20, false},
		"truncated block": {func(t *testing.T, dir, stream string) {
			rewrite(t, block(t, dir, stream, "msgs/*.blk"), func(b []byte) []byte { return b[:len(b)-100] })
		}, 20, false},
		"torn meta file": {func(t *testing.T, dir, stream string) {
			rewrite(t, block(t, dir, stream, "meta.inf"), func(b []byte) []byte { return b[:20] })
		}, 0, false},
		"nothing": {func(*testing.T, string, string) {}, 0, false},
	} {
		for _, stream := range []string{bus.Events, bus.Backlog} {
			t.Run(name+"/"+stream, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				f := &receiver{got: map[string]bool{}, shut: make(chan struct{})}
				url := serve(t, f.ServeHTTP).URL
				a := onDisk(t, dir, url)
				if stream == bus.Backlog {
					if err := a.Bus().Pause(t.Context(), "fn", ""); err != nil {
						t.Fatal(err)
					}
				}
				for i := range 20 {
					publishInto(t, a, fmt.Sprint("e", i))
					if stream == bus.Backlog { // a pack for each
						until(t, "spilled", func() bool { return a.Bus().Balance().Backlog == int64(i+1) })
					}
				}
				halt(t, a)
				c.damage(t, dir, stream)
				close(f.shut)

				lost := c.lost
				if stream == bus.Backlog {
					lost = 0 // it comes again from the events
				}
				found := examineDamage(t, name, dir, stream, c.repair)
				a = onDisk(t, dir, url)
				defer halt(t, a)
				if err := a.Bus().Resume(t.Context(), "fn"); err != nil {
					t.Fatal(err)
				}
				publishInto(t, a, "new1", "new2", "new3")
				until(t, "everything that is left has arrived", func() bool {
					b := a.Bus().Balance()
					return f.has("new1") && f.has("new2") && f.has("new3") && f.count() >= 23-lost && b.Open() == 0 && b.Lost() == 0 && a.Bus().Unsettled() == 0
				})
				missing := 0
				for i := range 20 {
					if !f.has(fmt.Sprint("e", i)) {
						missing++
					}
				}
				if missing > 0 && (found == 0 || stream == bus.Backlog) || missing > found {
					t.Errorf("%d of 20 acknowledged events did not arrive, and doctor named %d", missing, found)
				}
				t.Logf("%d of 20 did not arrive, %d named", missing, found)
			})
		}
	}
}

// examineDamage runs doctor over the damaged store, twice and with a repair where
// there is one, and tells how many packs it named.
func examineDamage(t *testing.T, name, dir, stream string, repair bool) int {
	t.Helper()
	want := exitFailure
	again := name == "truncated block" && stream == bus.Backlog // nothing is lost for good
	if again || name == "nothing" || name == "torn meta file" {
		want = exitOK
	}
	report, _ := examine(t, want, "--dir", dir)
	found := named(report, stream)
	if told := strings.Contains(fmt.Sprint(report.Findings), "offers it again"); again && !told {
		t.Errorf("what comes again is not told: %+v", report.Findings)
	}
	if name == "torn meta file" && !strings.Contains(fmt.Sprint(report.Findings), "mended") {
		t.Errorf("a torn meta file is not told: %+v", report.Findings)
	}
	if want == exitFailure {
		if again, _ := examine(t, want, "--dir", dir); named(again, stream) != found {
			t.Errorf("the second look names %d, the first %d", named(again, stream), found)
		}
	}
	if !repair {
		return found
	}
	r := newRig("")
	r.run(t, exitUsage, "doctor", "--dir", dir, "--repair") // nobody is there to ask
	if files, _ := filepath.Glob(filepath.Join(dir, "quarantine", "*")); len(files) > 0 {
		t.Errorf("something was done without a yes: %v", files)
	}
	if _, said := examine(t, exitOK, "--dir", dir, "--repair", "--yes"); !strings.Contains(said, "in quarantine: "+dir) {
		t.Errorf("the repair says %s", said)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "quarantine", stream+"-*.blk"))
	if len(files) != 1 {
		t.Fatalf("in quarantine are %v", files)
	}
	if raw, err := os.ReadFile(files[0]); err != nil || !bytes.Contains(raw, []byte("ata of e7")) {
		t.Errorf("the raw bytes of the damaged pack are not in quarantine: %v", err)
	}
	examine(t, exitOK, "--dir", dir)
	return found
}

// TestDoctorNeedsTheStoreForItself runs doctor over the store of a running bus.
func TestDoctorNeedsTheStoreForItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := &receiver{got: map[string]bool{}, shut: make(chan struct{})}
	close(f.shut)
	a := onDisk(t, dir, serve(t, f.ServeHTTP).URL)
	defer halt(t, a)
	publishInto(t, a, "e1")
	until(t, "delivered", func() bool { return f.count() == 1 })
	r := newRig("")
	r.run(t, exitFailure, "doctor", "--dir", dir)
	contains(t, r.err, "is in use by process", "stop that one first", "asks a server that runs")

	r = newRig(a.URL())
	r.now = time.Now
	r.run(t, exitOK, "doctor")
	contains(t, r.out, "ok       conservation", "ok       store", "every record can be read")
	r = newRig(a.URL())
	r.run(t, exitUsage, "doctor", "--repair")
	contains(t, r.err, "stop the server")

	r = newRig("")
	r.run(t, exitFailure, "doctor", "--dir", t.TempDir())
	contains(t, r.err, "there is no store in")
}

// TestDoctorComparesWithTheConfig takes a sink with a backlog out of the config.
func TestDoctorComparesWithTheConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := &receiver{got: map[string]bool{}, shut: make(chan struct{})}
	a := onDisk(t, dir, serve(t, f.ServeHTTP).URL)
	if err := a.Bus().Pause(t.Context(), "fn", ""); err != nil {
		t.Fatal(err)
	}
	publishInto(t, a, "e1", "e2")
	until(t, "spilled", func() bool { return a.Bus().Balance().Backlog == 2 })
	halt(t, a)

	path := filepath.Join(t.TempDir(), "sluice.yaml")
	write := func(yaml string) {
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look := func(want ...string) {
		t.Helper()
		r := newRig("")
		r.now = time.Now
		r.run(t, exitOK, "doctor", "--config", path)
		contains(t, r.out, want...)
	}
	other := fmt.Sprintf("store: {dir: %q}\nsinks: {other: {stdout: {}}}\nrules: {all: {match: {type: [x]}, to: [other]}}\n", dir)
	write(other)
	look("warning  sinks", "fn: it is not in the config", "removed_sinks: {fn: dead_letter}")
	write(other + "removed_sinks: {fn: keep}\n")
	look("fn: it is paused", "sluice sinks resume fn")
	r := newRig("")
	r.now = func() time.Time { return time.Now().Add(-time.Hour) }
	r.run(t, exitFailure, "doctor", "--config", path)
	contains(t, r.out, "fault    clock", "in the future")
	write("sinks: 5\n")
	newRig("").run(t, exitInvalid, "doctor", "--config", path)
}

// TestRepairOfAGap cuts off packs of events that were never removed: doctor names the
// gap, a repair notes it, and the bus goes on.
func TestRepairOfAGap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := &receiver{got: map[string]bool{}, shut: make(chan struct{})}
	close(f.shut)
	url := serve(t, f.ServeHTTP).URL
	a := onDisk(t, dir, url)
	for i := range 20 {
		publishInto(t, a, fmt.Sprint("e", i))
	}
	until(t, "delivered", func() bool { return f.count() == 20 && a.Bus().Unsettled() == 0 })
	halt(t, a)
	rewrite(t, block(t, dir, bus.Events, "msgs/*.blk"), func(b []byte) []byte { return b[:len(b)-100] })

	report, _ := examine(t, exitFailure, "--dir", dir)
	var gap *bus.Fault
	for _, found := range report.Findings {
		if found.Fault != nil && found.Fault.Kind == bus.FaultMissing && found.Fault.Stream == bus.Events {
			gap = found.Fault
		}
	}
	if gap == nil || !gap.Repairable || gap.First == 0 {
		t.Fatalf("the gap is not named: %+v", report.Findings)
	}
	if _, said := examine(t, exitOK, "--dir", dir, "--repair", "--yes"); !strings.Contains(said, "in quarantine: "+dir) {
		t.Errorf("the repair says %s", said)
	}
	// The bytes that were cut off are nowhere: what is kept says which packs they were.
	note, err := os.ReadFile(filepath.Join(dir, "quarantine", fmt.Sprintf("EVENTS-%d.json", gap.First)))
	if err != nil || !bytes.Contains(note, []byte(`"kind": "missing"`)) {
		t.Errorf("in quarantine is %s, %v", note, err)
	}
	for range 2 {
		examine(t, exitOK, "--dir", dir) // the gap is known
		a = onDisk(t, dir, url)
		publishInto(t, a, "new")
		until(t, "new events are delivered", func() bool { return f.has("new") && a.Bus().Unsettled() == 0 })
		halt(t, a)
	}
}
