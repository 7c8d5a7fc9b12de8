package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// cat is a subject that no header can hold as it is.
const cat = `Kätzchen "Mia" 100% %41 \ 猫 🐈`

// shown is an event as a function of testdata/runtimes printed it.
type shown struct {
	ID, Source, Type, Subject, Time string
	Data                            struct{ N int }
	Buffer                          int // of a body that the framework could not read
}

func (r *runtimeServer) shown(t *testing.T) (all []shown) {
	t.Helper()
	for _, line := range r.lines() {
		var s shown
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, s)
	}
	return all
}

// shownIDs are the ids of the events that it printed, each once.
func (r *runtimeServer) shownIDs(t *testing.T) (ids map[string]bool) {
	t.Helper()
	ids = map[string]bool{}
	for _, s := range r.shown(t) {
		ids[s.ID] = true
	}
	return ids
}

// TestRuntimeFunctionsFramework delivers to functions of the signature cloudevent in
// the functions framework for Node.
func TestRuntimeFunctionsFramework(t *testing.T) {
	t.Parallel()
	simple, trapped, batches := newNodeFunction(t, "simple"), newNodeFunction(t, "simple"), newNodeFunction(t, "batches")
	const failing = ", retry: {schedule: [50ms, 50ms]}"
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+
		sinkYAML("binary", simple.base, failing)+
		fmt.Sprintf("  structured: {http: {url: %q, mode: structured}}\n", simple.base)+
		sinkYAML("trapped", trapped.base, ", batch: {max: 10, wait: 200ms}")+
		sinkYAML("batches", batches.base, ", batch: {max: 10, wait: 1s}"+failing)+`rules:
  binary: {match: {source: [/binary]}, to: [binary]}
  structured: {match: {source: [/structured]}, to: [structured]}
  trapped: {match: {source: [/trapped]}, to: [trapped]}
  batches: {match: {source: [/batches]}, to: [batches]}
`)
	p.start()

	t.Run("single", func(t *testing.T) {
		for i, source := range []string{"/binary", "/structured"} {
			p.send(source, fmt.Sprint("single", i), "made", cat, fmt.Sprintf(`{"n":%d}`, i))
			p.until(20*time.Second, "the function has it", func() bool { return len(simple.shown(t)) > i })
			got := simple.shown(t)[i]
			if source == "/binary" {
				got.Subject = unescaped(got.Subject)
			}
			want := shown{ID: fmt.Sprint("single", i), Source: source, Type: "made", Subject: cat, Time: "2026-05-01T12:00:00Z"}
			want.Data.N = i
			if got != want {
				t.Errorf("the function got %+v, want %+v", got, want)
			}
		}
	})
	t.Run("thrown", func(t *testing.T) {
		before := len(simple.shown(t))
		p.send("/binary", "thrown", "broken", "x", `{"n":1}`)
		p.until(20*time.Second, "a dead letter", func() bool { return p.attempts("thrown") != nil })
		if got := p.attempts("thrown"); !slices.Equal(got, []int{500, 500, 500}) || len(simple.shown(t)) != before+3 {
			t.Errorf("attempts %v, the function was called %d times", got, len(simple.shown(t))-before)
		}
		if out := p.mustCLI("dlq", "ls", "-o", "json"); !strings.Contains(out, "the function is broken") {
			t.Errorf("the dead letter does not say what was thrown: %s", out)
		}
	})
	// The framework does not know the media type of a batch: it calls the function
	// with the bytes, and answers 204 for one that makes nothing of them. That counts
	// as delivered, so a batch needs a function that knows it, like the next one.
	t.Run("a batch to a function that knows none", func(t *testing.T) {
		for i := range 3 {
			p.send("/trapped", fmt.Sprint("trapped", i), "broken", "x", `{"n":1}`)
		}
		p.until(20*time.Second, "the function was called", func() bool { return len(trapped.shown(t)) > 0 })
		p.settled(20 * time.Second)
		for _, s := range trapped.shown(t) {
			if s.Buffer == 0 || s.ID != "" {
				t.Errorf("the framework knows batches now: %+v", s)
			}
		}
		if got := p.attempts("trapped0"); got != nil {
			t.Errorf("attempts %v: the framework refuses batches now", got)
		}
	})
	t.Run("a batch to a function that knows it", func(t *testing.T) {
		for i := range 10 {
			kind := "made"
			if i == 4 {
				kind = "broken"
			}
			p.send("/batches", fmt.Sprint("batch", i), kind, cat, `{"n":1}`)
		}
		p.until(20*time.Second, "a dead letter", func() bool { return p.attempts("batch4") != nil })
		p.settled(20 * time.Second)
		if got := p.attempts("batch4"); len(got) != 3 || len(p.deadLetters()) != 2 {
			t.Errorf("attempts %v, %d dead letters", got, len(p.deadLetters()))
		}
		if calls := len(batches.lines()); calls > 6 {
			t.Errorf("%d calls for 10 events of which one fails", calls)
		}
	})
}

// TestRuntimeWorkerd runs a pipeline through workerd, by replies in binary and in
// structured mode; a worker that throws ends in a dead letter.
func TestRuntimeWorkerd(t *testing.T) {
	t.Parallel()
	worker, album := newWorkerd(t), newCollector(t)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+
		sinkYAML("resize", worker.base+"/resize", ", retry: {schedule: [50ms, 50ms]}")+
		sinkYAML("store", worker.base+"/store", "")+sinkYAML("album", album.URL, "")+`rules:
  uploaded: {match: {type: [object.created.put]}, to: [resize]}
  resized: {match: {type: [picture.resized], source: [/sinks/resize]}, to: [store]}
  stored: {match: {type: [picture.stored], source: [/workerd]}, to: [album]}
`)
	p.start()
	p.send("/uploads", "up1", "object.created.put", cat, `{"width":3200}`)
	p.send("/uploads", "up2", "object.created.put", cat, `{"width":32000}`)
	p.until(20*time.Second, "one in the album, one dead", func() bool { return len(album.got()) > 0 && p.attempts("up2") != nil })
	p.settled(20 * time.Second)
	if got := p.attempts("up2"); !slices.Equal(got, []int{500, 500, 500}) {
		t.Errorf("a worker that throws: attempts %v", got)
	}
	all := album.got()
	if len(all) != 1 {
		t.Fatalf("the album got %+v", all)
	}
	for name, want := range map[string]string{"id": "stored-" + cat, "correlationid": "up1", "sluicehops": "2", "source": "/workerd"} {
		if got := all[0].attributes[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	var picture struct {
		Name, From string
		Width      int
	}
	if err := json.Unmarshal([]byte(all[0].body), &picture); err != nil || picture.Name != cat || picture.From != "up1" || picture.Width != 320 {
		t.Errorf("%v: %s", err, all[0].body)
	}
}
