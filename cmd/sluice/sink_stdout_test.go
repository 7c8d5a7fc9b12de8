package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Who reads the standard output of a bus may go away. That is one sink that is down:
// the bus runs on, and the event is tried again.
func TestProcessStdoutClosed(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := newProgram(t, t.TempDir(), "", "sinks:\n  out: {stdout: {}}\n"+fmt.Sprintf(everythingTo, "out"))
	p.out = write
	p.start()
	_ = write.Close()
	_ = read.Close()
	client := &http.Client{Timeout: 10 * time.Second}
	if ok, code := p.publish(client, "1", 10); !ok {
		t.Fatalf("publish answered %d", code)
	}
	var sink struct {
		Retries   int
		LastError string `json:"last_error"`
	}
	p.until(20*time.Second, "the delivery waits for its next attempt", func() bool {
		p.get("/api/v1/sinks/out", &sink)
		return sink.Retries == 1
	})
	if !strings.Contains(sink.LastError, "broken pipe") {
		t.Errorf("the error is %q", sink.LastError)
	}
	if ok, code := p.publish(client, "2", 10); !ok {
		t.Errorf("publish answered %d", code)
	}
	p.stop()
}
