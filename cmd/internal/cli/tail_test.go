package cli

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	acceptedLine = `{"at":"2026-05-01T12:00:00Z","stage":"accepted","event":{"id":"e1","type":"a","source":"s"},"position":"1.0","rules":["r"]}`
	deliverLine  = `{"at":"2026-05-01T12:00:00Z","stage":"delivered","event":{"id":"e1","type":"a"},"rule":"r","sink":"fn","attempt":1,"status":200,"duration_seconds":0.012}`
	retryLine    = `{"at":"2026-05-01T12:00:00Z","stage":"retry","event":{"id":"e2","type":"a"},"rule":"r","sink":"fn","attempt":3,"status":503,"class":"status_5xx","error":"answered 503","duration_seconds":1,"after_seconds":8}`
	deadLine     = `{"at":"2026-05-01T12:00:00Z","stage":"dead_letter","event":{"id":"e3\u001b[2J","type":"a"},"rule":"r","sink":"fn","attempt":1,"class":"timeout","duration_seconds":30,"reason":"expired"}`
	nobodyLine   = `{"at":"2026-05-01T12:00:00Z","stage":"accepted","event":{"id":"e4","type":"a","source":"s"},"rules":[],"missed":12}`
)

func TestTail(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if want := "/api/v1/tail?pattern=%7B%22type%22%3A%5B%22a%22%5D%7D&rule=r&sink=fn&stage=retry&stage=dead_letter"; r.URL.String() != want {
			t.Errorf("asked for %s, want %s", r.URL, want)
		}
		fmt.Fprintf(w, "\n%s\n%s\n\n%s\n%s\n%s\n", acceptedLine, deliverLine, retryLine, deadLine, nobodyLine)
	})
	args := []string{"tail", "-n", "5", "--rule", "r", "--sink", "fn", "--stage", "retry", "--stage", "dead_letter", "--pattern", `{"type":["a"]}`}
	r := newRig(s.URL)
	r.run(t, exitOK, args...)
	lines := strings.Split(r.out.String(), "\n")
	for i, want := range []string{
		" accepted    id=e1 a from s rules=r",
		" delivered   id=e1 → fn rule=r 200 took=12ms",
		" retry       id=e2 → fn rule=r 503 answered 503 attempt=3 took=1s next in 8s",
		" dead letter id=e3 [2J → fn rule=r timeout attempt=1 took=30s reason=expired",
		" accepted    id=e4 a from s no rule matches",
		"",
	} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Fatalf("line %d does not end with %q:\n%s", i+1, want, r.out)
		}
	}
	contains(t, r.err, "watching "+s.URL, "12 left out")

	r = newRig(s.URL)
	r.run(t, exitOK, append(args, "-o", "json")...)
	contains(t, r.out, acceptedLine+"\n"+deliverLine+"\n")

	r = newRig(s.URL)
	r.terminal = func(any) bool { return true }
	r.run(t, exitOK, args...)
	contains(t, r.out, "\x1b[31mdead letter\x1b[0m")
	r = newRig(s.URL)
	r.terminal = func(any) bool { return true }
	r.vars["NO_COLOR"] = "1"
	r.run(t, exitOK, args...)
	if strings.Contains(r.out.String(), "\x1b") {
		t.Error("coloured in spite of NO_COLOR")
	}
}

// A server that goes away comes back; one that was never there does not.
func TestTailReconnects(t *testing.T) {
	t.Parallel()
	calls := 0
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		switch calls++; calls {
		case 1:
			fmt.Fprintf(w, "%s\n%s", acceptedLine, deliverLine) // the second is cut off
		case 2:
			answer(w, 503, map[string]any{"status": 503, "detail": "shutting down"})
		case 3:
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			fmt.Fprintf(w, "%s\n", retryLine)
		}
	})
	r := newRig(s.URL)
	r.run(t, exitOK, "tail", "-n", "2")
	contains(t, r.out, "id=e1 a from s", "id=e2 → fn")
	if strings.Contains(r.out.String(), "delivered") {
		t.Error("half a line is shown")
	}
	contains(t, r.err, "the server has gone away; trying again in 500ms", "the server is back")
	if want := []time.Duration{firstReconnect, 2 * firstReconnect, firstReconnect}; fmt.Sprint(r.slept) != fmt.Sprint(want) {
		t.Errorf("slept %v, want %v", r.slept, want)
	}
}

func TestTailRefused(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 400, map[string]any{"status": 400, "detail": `there is no stage "x"`})
	})
	r := newRig(s.URL)
	r.run(t, exitFailure, "tail", "--stage", "x")
	contains(t, r.err, `(400): there is no stage "x"`)
}

// Ctrl-C is how a tail ends: no error.
func TestTailInterrupted(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, acceptedLine)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	r := newRig(s.URL)
	r.out.wake = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int)
	go func() { code <- run(ctx, []string{"tail"}, r.env) }()
	<-r.out.wake
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d: %s", got, r.err)
	}
}
