package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestProcessDamagedState kills the program and damages a copy of what it keeps of its
// state: what was delivered does not come again, a sink that is paused stays so, and the
// log and doctor tell of it.
func TestProcessDamagedState(t *testing.T) {
	t.Parallel()
	damages := damages()
	damages["a flipped byte"] = func(t *testing.T, block string) {
		text, err := os.ReadFile(block)
		if err != nil {
			t.Fatal(err)
		}
		text[len(text)/2] ^= 1
		if err := os.WriteFile(block, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, stream := range []string{"STATE", "STATE_COPY"} {
		for name, damage := range damages {
			t.Run(stream+"/"+name, func(t *testing.T) {
				t.Parallel()
				p, f, paused := pausedProgram(t)
				damage(t, p.block(stream))
				p.start()
				if ok, code := p.publish(http.DefaultClient, "after", 10); !ok {
					t.Fatalf("publish answered %d", code)
				}
				p.until(20*time.Second, "new events are delivered", func() bool { return f.times("after") == 1 })
				if f.total() != f.distinct() || paused.total() > 0 {
					t.Errorf("%d deliveries of %d events; the paused function got %d", f.total(), f.distinct(), paused.total())
				}
				if !strings.Contains(p.log.String(), "the table of state was damaged") {
					t.Errorf("the log does not tell of it:\n%s", p.tail())
				}
				if out, _ := p.cli("doctor"); !strings.Contains(out, stream+": mended: ") {
					t.Errorf("doctor does not tell of it:\n%s", out)
				}
				p.mustCLI("sinks", "resume", "paused")
				p.until(20*time.Second, "what waited arrives", func() bool { return paused.distinct() == f.distinct() })
				p.settled(20 * time.Second)
				p.stop()
			})
		}
	}
	t.Run("both are gone", func(t *testing.T) {
		t.Parallel()
		p, f, _ := pausedProgram(t)
		had := f.total()
		for _, stream := range []string{"STATE", "STATE_COPY"} {
			damages["a block that is gone"](t, p.block(stream))
		}
		p.start()
		p.until(20*time.Second, "the events come again", func() bool { return f.total() == 2*had })
		p.until(20*time.Second, "the job tells how it ended", func() bool {
			return strings.Contains(p.mustCLI("jobs", "ls"), "offered again of the retained events")
		})
		if out, _ := p.cli("doctor"); !strings.Contains(out, "what is settled was not known at the start") {
			t.Errorf("doctor does not tell of it:\n%s", out)
		}
		p.stop()
	})
}

// pausedProgram was killed when one function had all events, and another, which is
// paused, none.
func pausedProgram(t *testing.T) (p *program, f, paused *function) {
	t.Helper()
	f, paused = newFunction(t, nil), newFunction(t, nil)
	p = newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+sinkYAML("paused", paused.URL, "")+fmt.Sprintf(everythingTo, "f, paused"))
	p.start()
	p.mustCLI("sinks", "pause", "paused")
	const events = 100
	for i := range events {
		if i == events-1 {
			<-time.After(1200 * time.Millisecond) // more than a crash would explain
		}
		if ok, code := p.publish(http.DefaultClient, strconv.Itoa(i), 300); !ok {
			t.Fatalf("publish answered %d", code)
		}
	}
	p.until(20*time.Second, "everything is delivered or waits", func() bool { return f.total() == events && p.status().Unsettled == 0 })
	<-time.After(500 * time.Millisecond) // until that is saved
	p.kill()
	return p, f, paused
}
