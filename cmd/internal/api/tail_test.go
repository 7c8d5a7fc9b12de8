package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
)

// tail gives the lines of a tail, which is attached when it returns. The channel
// is closed at the end.
func tail(t *testing.T, n *apptest.Node, query url.Values) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL()+"/api/v1/tail?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.Client.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%v, %v", resp, err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

type notice struct {
	Stage, Rule, Sink, Reason string
	Rules                     []string
	Status, Attempt           int
	Event                     struct{ ID string }
}

// next is the next line that is no keep-alive.
func next(t *testing.T, lines <-chan string) (n notice) {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatal("the tail has ended")
			}
			if line == "" {
				continue
			}
			if err := json.Unmarshal([]byte(line), &n); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			return n
		case <-late:
			t.Fatal("nothing comes")
		}
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	n, _ := start(t)
	all := tail(t, n, nil)
	dead := tail(t, n, url.Values{"stage": {"dead_letter"}, "sink": {"hook"}, "pattern": {`{"type":["order.created"]}`}})
	n.MustPublish("other", "unmatched", `{}`)
	n.MustPublish("bad", "order.created", `{}`)
	if got := next(t, all); got.Stage != "accepted" || got.Event.ID != "other" || got.Rules == nil || len(got.Rules) != 0 {
		t.Errorf("got %+v", got)
	}
	if got := next(t, all); got.Stage != "accepted" || got.Event.ID != "bad" || strings.Join(got.Rules, " ") != "orders" {
		t.Errorf("got %+v", got)
	}
	for _, lines := range []<-chan string{all, dead} {
		got := next(t, lines)
		if got.Stage != "dead_letter" || got.Event.ID != "bad" || got.Reason != "rejected" || got.Status != 422 || got.Attempt != 1 {
			t.Errorf("got %+v", got)
		}
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range all { // it ends with the bus
	}
}

func TestTailKeepsAlive(t *testing.T) {
	t.Parallel()
	n, _ := start(t, func(o *app.Options) { o.KeepAlive = 5 * time.Millisecond })
	lines := tail(t, n, nil)
	for range 3 {
		if line := <-lines; line != "" {
			t.Errorf("got %q", line)
		}
	}
	n.MustPublish("1", "order.created", `{}`)
	if got := next(t, lines); got.Event.ID != "1" {
		t.Errorf("got %+v", got)
	}
}
