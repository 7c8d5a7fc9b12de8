package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sluice/sinks/sinktest"
)

// load publishes from several clients at once until it is stopped, and notes what
// was acknowledged.
type load struct {
	mu      sync.Mutex
	acked   map[string]bool
	refused map[int]int // by status; 0 for no answer
	stopped atomic.Bool
	wait    sync.WaitGroup
	client  *http.Client
}

func startLoad(p *program, clients int, prefix string) *load {
	return startLoadTo(p, "/", clients, prefix)
}

func startLoadTo(p *program, path string, clients int, prefix string) *load {
	l := &load{
		acked: map[string]bool{}, refused: map[int]int{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 10 * time.Second},
	}
	for w := range clients {
		l.wait.Go(func() {
			for i := 0; !l.stopped.Load(); i++ {
				id := fmt.Sprintf("%s.w%d.%d", prefix, w, i)
				ok, code := p.publishTo(path, l.client, id, 200)
				l.mu.Lock()
				if ok {
					l.acked[id] = true
				} else {
					l.refused[code]++
				}
				l.mu.Unlock()
				if !ok {
					<-time.After(5 * time.Millisecond) // as a client does that was refused
				}
			}
		})
	}
	return l
}

func (l *load) stop() {
	l.stopped.Store(true)
	l.wait.Wait()
	l.client.CloseIdleConnections()
}

// arrived counts the acknowledged events that the function has not, and those it
// has more than once.
func (l *load) arrived(f *function) (lost, twice int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range l.acked {
		if f.got[id] == 0 {
			lost++
		}
	}
	for _, n := range f.got {
		twice += n - 1
	}
	return lost, twice
}

// TestProcessReloadUnderLoad reloads every 100 ms under load, each time with
// another config: now with faults, now with another sink.
func TestProcessReloadUnderLoad(t *testing.T) {
	t.Parallel()
	f, other := newFunction(t, nil), newFunction(t, nil)
	sections := func(options string) string {
		return "sinks:\n" + sinkYAML("f", f.URL, options) + sinkYAML("other", other.URL, "") + fmt.Sprintf(everythingTo, "f, other")
	}
	p := newProgram(t, t.TempDir(), "", sections(""))
	p.start()
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	head := string(text[:bytes.Index(text, []byte("sinks:"))])
	l := startLoad(p, 8, "e")
	good, bad := 0, 0
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for i := range scale(20, 80) {
		<-ticker.C
		body := head + sections(fmt.Sprintf(", concurrency: %d", 1+i%20))
		if i%4 == 3 {
			body = head + "sinks: {f: {nosuchkind: {}}}\n"
		}
		if err := os.WriteFile(p.config, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(p.base+"/api/v1/reload", "application/json", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK && bytes.Contains(answer, []byte(`"ok":true`)) {
			good++
		} else {
			bad++
		}
	}
	l.stop()
	p.settled(30 * time.Second)
	lost, twice := l.arrived(f)
	lostOther, twiceOther := l.arrived(other)
	t.Logf("%d reloads and %d refused ones, 100 ms apart: %d events acknowledged, %d not, %d and %d lost, %d and %d twice",
		good, bad, len(l.acked), len(l.refused), lost, lostOther, twice, twiceOther)
	if lost+lostOther > 0 || len(l.refused) > 0 || good == 0 || bad == 0 {
		t.Errorf("lost %d and %d, refused %v, %d reloads and %d refused", lost, lostOther, l.refused, good, bad)
	}
	p.stop()
}

// TestProcessTermUnderLoad ends the program by SIGTERM under load, with a sink that
// hangs, and starts it again: the end is bounded and nothing is lost.
func TestProcessTermUnderLoad(t *testing.T) {
	t.Parallel()
	f := newFunction(t, nil)
	hung := newFunction(t, nil)
	hung.set(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+sinkYAML("hung", hung.URL, "")+fmt.Sprintf(everythingTo, "f, hung"))
	var longest time.Duration
	loads := []*load{}
	rounds := scale(2, 6)
	for round := range rounds {
		p.start()
		l := startLoad(p, 8, fmt.Sprint("r", round))
		loads = append(loads, l)
		<-time.After(time.Duration(200+rand.IntN(500)) * time.Millisecond)
		start := time.Now()
		p.stop()
		longest = max(longest, time.Since(start))
		l.stop()
	}
	hung.set(nil)
	p.start()
	p.settled(60 * time.Second)
	acked, lost := 0, 0
	for _, l := range loads {
		for _, far := range []*function{f, hung} {
			n, _ := l.arrived(far)
			lost += n
		}
		acked += len(l.acked)
	}
	_, twice := loads[0].arrived(f)
	t.Logf("%d times SIGTERM under load beside a sink that hangs: %d events acknowledged, %d lost, %d twice at the healthy sink, at most %v until the exit (drain_timeout 2s)",
		rounds, acked, lost, twice, longest.Round(time.Millisecond))
	if lost > 0 || longest > 8*time.Second || acked == 0 {
		t.Errorf("%d acknowledged, %d lost, the longest end took %v", acked, lost, longest)
	}
	p.stop()
}

// TestProcessRogueSinks runs every misbehaving far side at once, over HTTP, with
// wrong certificates beside them, and looks at a healthy sink.
func TestProcessRogueSinks(t *testing.T) {
	t.Parallel()
	healthy := newTimed(t)
	sections, names := "sinks:\n"+sinkYAML("healthy", healthy.URL, ""), []string{"healthy"}
	add := func(url string) {
		name := fmt.Sprint("rogue", len(names))
		sections += sinkYAML(name, url, ", timeout: 2s, concurrency: 4")
		names = append(names, name)
	}
	for _, rogue := range sinktest.Rogues() {
		add("http://" + rogue.Listen(t, nil).Addr)
	}
	known, unknown := sinktest.NewAuthority(t), sinktest.NewAuthority(t)
	quiet := sinktest.Rogues()[0]
	add("https://" + quiet.Listen(t, known.Server("127.0.0.1", -time.Hour)).Addr)
	add("https://" + quiet.Listen(t, known.Server("elsewhere.example", time.Hour)).Addr)
	add("https://" + quiet.Listen(t, unknown.Server("127.0.0.1", time.Hour)).Addr)
	p := newProgram(t, t.TempDir(), "", sections+fmt.Sprintf(everythingTo, strings.Join(names, ", ")))
	authority := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(authority, known.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = []string{"SSL_CERT_FILE=" + authority}
	p.start()
	const rate = 100
	events := rate * scale(3, 20)
	healthy.publish(p, rate, events)
	p.until(20*time.Second, "the healthy sink has everything", func() bool { return healthy.distinct() == events })
	ages := healthy.waited()
	p99, p50 := at(ages, 99), at(ages, 50)
	if limit := time.Duration(scale(2000, 500)) * time.Millisecond; p99 > limit {
		t.Errorf("p99 of the healthy sink is %v, more than %v", p99, limit)
	}
	memory := p.memory() >> 20
	if memory > 300 {
		t.Errorf("%d MB of memory", memory)
	}
	p.until(20*time.Second, "the deliveries add up", func() bool { return p.status().Balance.Lost == 0 })
	for _, says := range []string{"has expired", "SSL_CERT_FILE", "write a name into the sink's url"} {
		p.until(20*time.Second, "the log says "+says, func() bool { return strings.Contains(p.log.String(), says) })
	}
	t.Logf("%d sinks that misbehave beside a healthy one, %d events/s: delivery to the healthy one p50 %v p99 %v, memory %d MB", len(names)-1, rate, p50, p99, memory)
	p.kill()
}

// TestProcessManyConnections opens 10,000 connections which their clients keep, all at
// the same time or many more than the limit: each gets an answer to its one event.
func TestProcessManyConnections(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	n := min(scale(1_000, 10_000), int(limit.Cur)-2_000)
	connect(t, n, n+100, 350)
	connect(t, n, n*2/5, 300)
}

// connect lets n clients publish an event each and keep their connection, where there
// may be most, and megabytes of memory.
func connect(t *testing.T, n, most int, megabytes int64) {
	t.Helper()
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.change("drain_timeout: 2s", fmt.Sprintf("drain_timeout: 2s, limits: {connections: %d}", most))
	p.start()
	before := p.memory()
	var acked, failed atomic.Int64
	var slowest atomic.Int64
	start := time.Now()
	var clients sync.WaitGroup
	gate := make(chan struct{}, 512) // that connect at the same time
	for i := range n {
		clients.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			began := time.Now()
			client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute} // a connection of its own, kept open
			t.Cleanup(client.CloseIdleConnections)
			if ok, _ := p.publish(client, strconv.Itoa(i), 200); ok {
				acked.Add(1)
			} else {
				failed.Add(1)
			}
			for took := int64(time.Since(began)); ; {
				was := slowest.Load()
				if took <= was || slowest.CompareAndSwap(was, took) {
					break
				}
			}
		})
	}
	clients.Wait()
	took, memory := time.Since(start), p.memory()
	m := p.metrics()
	t.Logf("%d clients that keep their connections, %d at a time (server.limits.connections): %d acknowledged, %d not, in %v, the slowest answer after %v, memory %d MB (%d MB before); %v idle connections closed for others",
		n, most, acked.Load(), failed.Load(), took.Round(time.Millisecond), time.Duration(slowest.Load()).Round(time.Millisecond), memory>>20, before>>20, m["sluice_http_connections_evicted_total"])
	// An event that got no answer may be published again.
	if failed.Load() > int64(n)/100 || int64(f.distinct()) > int64(n) {
		t.Errorf("%d of %d clients got no answer", failed.Load(), n)
	}
	if memory > megabytes<<20 {
		t.Errorf("%d MB of memory", memory>>20)
	}
	if evicted := m["sluice_http_connections_evicted_total"]; (evicted > 0) != (most < n) {
		t.Errorf("%v connections were closed for others", evicted)
	}
	p.settled(30 * time.Second)
	p.stop()
}

// TestProcessSlowloris fills the server with clients that send a byte now and then:
// they are cut off in time, and others get their answers.
func TestProcessSlowloris(t *testing.T) {
	t.Parallel()
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.change("drain_timeout: 2s", "drain_timeout: 2s, read_header_timeout: 1s, limits: {connections: 100, body_timeout: 1s}")
	p.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var cut atomic.Int64
	var slow sync.WaitGroup
	for i := range 200 {
		slow.Go(func() {
			for ctx.Err() == nil {
				conn, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
				if err != nil {
					return
				}
				text := "POST / HTTP/1.1\r\nHost: x\r\nX-A: "
				if i%2 == 0 {
					text += "b\r\nce-specversion: 1.0\r\nce-id: s\r\nce-source: /s\r\nce-type: t\r\nContent-Length: 1000\r\n\r\n"
				}
				_, err = io.WriteString(conn, text)
				for err == nil && ctx.Err() == nil {
					_, err = io.WriteString(conn, "a")
					<-time.After(100 * time.Millisecond)
				}
				cut.Add(1)
				_ = conn.Close()
			}
		})
	}
	<-time.After(500 * time.Millisecond)
	var waits []time.Duration
	for i := range scale(5, 20) {
		start := time.Now()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
		if ok, code := p.publish(client, strconv.Itoa(i), 100); !ok {
			t.Errorf("beside slow clients publish answered %d", code)
		}
		waits = append(waits, time.Since(start))
	}
	memory := p.memory()
	cancel()
	slow.Wait()
	t.Logf("200 clients that drip into 100 connections: %d cut off, others waited p50 %v and at most %v for a connection and an answer, memory %d MB",
		cut.Load(), at(waits, 50), at(waits, 100), memory>>20)
	if at(waits, 100) > 15*time.Second {
		t.Errorf("an answer took %v", at(waits, 100))
	}
	p.settled(30 * time.Second)
	p.stop()
}
