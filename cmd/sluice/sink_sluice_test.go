package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestProcessSluiceSink hands events on from one bus to another over the sluice sink,
// while both are killed again and again: each event that was acknowledged is at the
// function behind the other one.
func TestProcessSluiceSink(t *testing.T) {
	t.Parallel()
	const token = "t0ken-marker"
	f := newFunction(t, nil)
	there := newProgram(t, t.TempDir(), "", "dedup: {window: 1h}\nsinks:\n"+sinkYAML("fn", f.URL, "")+fmt.Sprintf(everythingTo, "fn"))
	there.change("drain_timeout", "auth: {tokens: [{name: here, token: \"${env:BUS_TOKEN}\", scopes: [publish]}]}, drain_timeout")
	here := newProgram(t, t.TempDir(), "", fmt.Sprintf(
		"sinks:\n  there: {sluice: {url: %q, token: \"${env:BUS_TOKEN}\"}, batch: {max: 20}, concurrency: 4, retry: {initial: 50ms, max: 200ms}, breaker: {probe_after: 100ms, probe_max: 300ms}}\n",
		there.base)+fmt.Sprintf(everythingTo, "there"))
	for _, p := range []*program{here, there} {
		p.env = append(p.env, "BUS_TOKEN="+token)
		p.start()
	}
	n := int64(scale(300, 2000))
	var next, acked atomic.Int64
	var publishing sync.WaitGroup
	for range 4 {
		publishing.Go(func() {
			for i := next.Add(1); i <= n && t.Context().Err() == nil; i = next.Add(1) {
				for {
					if ok, _ := here.publish(http.DefaultClient, fmt.Sprint("e", i), 200); ok {
						break
					}
					select {
					case <-t.Context().Done():
						return
					case <-time.After(20 * time.Millisecond):
					}
				}
				acked.Add(1)
			}
		})
	}
	kills := 0
	for round := range int64(4) {
		here.until(time.Minute, "more is acknowledged", func() bool { return acked.Load() >= (round+1)*n/6 })
		p := []*program{there, here}[round%2]
		p.kill()
		p.start()
		kills++
	}
	publishing.Wait()
	here.settled(60 * time.Second)
	there.until(60*time.Second, "all are at the function", func() bool { return int64(f.distinct()) >= n })
	t.Logf("%d events, %d kill -9 of either bus: %d at the function", n, kills, f.distinct())
	if int64(f.distinct()) != n {
		t.Errorf("%d events are at the function, want %d", f.distinct(), n)
	}
	for _, p := range []*program{here, there} {
		if strings.Contains(p.log.String(), token) {
			t.Error("a log shows the token")
		}
	}
}
