package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/client"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/protocol"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

// The three modes of an event over HTTP.
const (
	binaryMode     = "binary"
	structuredMode = "structured"
	batchMode      = "batch"
)

// hostile are values that an attribute may have and that a header makes difficult.
var hostile = map[string]string{
	"unicode": cat, "quotes": `"all of it"`, "escaped": "100%25 %zz %", "spaces": "a  b", "header": "x: y; z=\"1\", w", "high": "\U0010FFFD é",
}

// plainly are those of them that a sender of a binary event can send, although no SDK
// encodes what a header cannot hold: no escapes, and ASCII.
var plainly = map[string]string{"quote": `say "yes"`, "percent": "100% of it", "spaces": "a  b", "header": "x: y; z=1, w"}

// values are the hostile values for a mode.
func values(mode string) map[string]string {
	if mode == binaryMode {
		return plainly
	}
	return hostile
}

// sdkConfig is a bus whose events, of any sender, go to one receiver in each mode.
// Replies go to a collector.
func sdkConfig(receivers map[string]string, replies string) string {
	return "sinks:\n" + sinkYAML(binaryMode, receivers[binaryMode], "") +
		fmt.Sprintf("  %s: {http: {url: %q, mode: structured}}\n", structuredMode, receivers[structuredMode]) +
		sinkYAML(batchMode, receivers[batchMode], ", batch: {max: 100, wait: 100ms}") + sinkYAML("replies", replies, "") + `rules:
  sent: {match: {type: [sent]}, to: [binary, structured, batch]}
  replied: {match: {type: [replied]}, to: [replies]}
`
}

// sdkEvents collect what a receiver got, as CloudEvents in JSON.
type sdkEvents struct {
	mu   sync.Mutex
	all  map[string]map[string]any // by id
	more int                       // how often one came again
}

func (s *sdkEvents) add(t *testing.T, e any) {
	text, err := json.Marshal(e)
	var doc map[string]any
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err != nil {
		t.Error(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := fmt.Sprint(doc["id"])
	if s.all == nil {
		s.all = map[string]map[string]any{}
	}
	if s.all[id] != nil {
		s.more++
	}
	s.all[id] = doc
}

// check holds what arrived to what was sent: the value stands in the subject and in an
// extension. The SDKs leave the escapes of binary events as they are.
func (s *sdkEvents) check(t *testing.T, receiver, mode string, sent map[string]string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) != len(sent) || s.more > 0 {
		t.Errorf("%s in mode %s got %d of %d events, %d came again", receiver, mode, len(s.all), len(sent), s.more)
	}
	for id, value := range sent {
		doc := s.all[id]
		data, _ := json.Marshal(doc["data"])
		for _, name := range []string{"subject", "note"} {
			got := fmt.Sprint(doc[name])
			if mode == binaryMode {
				got = unescaped(got)
			}
			if got != value {
				t.Errorf("%s in mode %s: %s of %s is %q, want %q", receiver, mode, name, id, got, value)
			}
		}
		if doc["source"] != "/sdk" || doc["type"] != "sent" || !strings.HasPrefix(fmt.Sprint(doc["time"]), "2026-05-01T12:00:00") || string(data) != `{"n":1.5}` {
			t.Errorf("%s in mode %s: %v", receiver, mode, doc)
		}
	}
}

// newGoReceivers are functions made with the SDK for Go, one for each mode. They
// reply to the event that says so.
func newGoReceivers(t *testing.T) (map[string]string, map[string]*sdkEvents) {
	t.Helper()
	urls, got := map[string]string{}, map[string]*sdkEvents{binaryMode: {}, structuredMode: {}, batchMode: {}}
	for mode, events := range got {
		var handler http.Handler
		if mode == batchMode {
			handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				all, err := cehttp.NewEventsFromHTTPRequest(r)
				if err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
				for _, e := range all {
					events.add(t, e)
				}
			})
		} else {
			p, err := cehttp.New()
			if err != nil {
				t.Fatal(err)
			}
			handler, err = client.NewHTTPReceiveHandler(t.Context(), p, func(_ context.Context, e event.Event) (*event.Event, protocol.Result) {
				if err := e.Validate(); err != nil {
					return nil, cehttp.NewResult(http.StatusBadRequest, "%w", err)
				}
				events.add(t, e)
				reply := event.New()
				reply.SetID(mode + "-" + e.ID())
				reply.SetSource("/sdk")
				reply.SetType("replied")
				return &reply, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		urls[mode] = server.URL
	}
	return urls, got
}

// newJSReceivers are those made with the SDK for JavaScript, of which one process
// serves all modes.
func newJSReceivers(t *testing.T) map[string]*runtimeServer {
	t.Helper()
	all := map[string]*runtimeServer{}
	for _, mode := range []string{binaryMode, structuredMode, batchMode} {
		port := freePort(t)
		all[mode] = startRuntime(t, port, "node", "sdk.cjs", "receive", fmt.Sprint(port))
	}
	return all
}

// sdkEvent is an event to send.
func sdkEvent(t *testing.T, id, value string) event.Event {
	t.Helper()
	e := event.New()
	e.SetID(id)
	e.SetSource("/sdk")
	e.SetType("sent")
	e.SetSubject(value)
	e.SetTime(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	e.SetExtension("note", value)
	if err := e.SetData("application/json", json.RawMessage(`{"n":1.5}`)); err != nil {
		t.Fatal(err)
	}
	return e
}

// sendWithGo sends the values in a mode with the client of the SDK for Go, and adds
// them to what was sent.
func (p *program) sendWithGo(mode string, sent map[string]string) {
	p.t.Helper()
	c, err := client.NewHTTP(cehttp.WithTarget(p.base))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx := p.t.Context()
	if mode == structuredMode {
		ctx = binding.WithForceStructured(ctx)
	}
	var batch []event.Event
	for name, value := range values(mode) {
		id := "go-" + mode + "-" + name
		sent[id] = value
		e := sdkEvent(p.t, id, value)
		if mode == batchMode {
			batch = append(batch, e)
			continue
		}
		var answer *cehttp.Result
		if result := c.Send(ctx, e); !protocol.IsACK(result) || !errors.As(result, &answer) || answer.StatusCode != http.StatusAccepted {
			p.t.Errorf("%s: %v", id, result)
		}
	}
	if mode != batchMode {
		return
	}
	req, err := cehttp.NewHTTPRequestFromEvents(ctx, p.base, batch)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		p.t.Errorf("the batch is answered with %s", resp.Status)
	}
}

// sendWithJS is sendWithGo for the SDK for JavaScript. It gives the statuses.
func (p *program) sendWithJS(mode string, events []event.Event) (statuses []int) {
	p.t.Helper()
	text, err := json.Marshal(events)
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command("node", "sdk.cjs", "send", p.base, mode)
	cmd.Dir = filepath.Join("testdata", "runtimes")
	cmd.Env = append(os.Environ(), "NODE_PATH="+runtimes(p.t))
	cmd.Stdin = bytes.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		var answer struct{ Status int }
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			p.t.Fatalf("%v: %s", err, line)
		}
		statuses = append(statuses, answer.Status)
	}
	return statuses
}

// TestRuntimeSDKs sends events with the SDKs for Go and JavaScript in each mode, and
// receives every one of them in each mode with the SDKs: no attribute changes on the
// way. Replies of the SDK for Go come back as events.
func TestRuntimeSDKs(t *testing.T) {
	t.Parallel()
	js := newJSReceivers(t)
	urls, goGot := newGoReceivers(t)
	replies := newCollector(t)
	toGo := newProgram(t, t.TempDir(), "", sdkConfig(urls, replies.URL))
	toJS := newProgram(t, t.TempDir(), "", sdkConfig(map[string]string{
		binaryMode: js[binaryMode].base, structuredMode: js[structuredMode].base, batchMode: js[batchMode].base,
	}, replies.URL))
	sent := map[string]string{}
	for _, p := range []*program{toGo, toJS} {
		p.start()
		for _, mode := range []string{binaryMode, structuredMode, batchMode} {
			p.sendWithGo(mode, sent)
			var events []event.Event
			for name, value := range values(mode) {
				id := "js-" + mode + "-" + name
				sent[id] = value
				events = append(events, sdkEvent(t, id, value))
			}
			for _, status := range p.sendWithJS(mode, events) {
				if status/100 != 2 {
					t.Errorf("an event of the SDK for JavaScript in mode %s is answered with %d", mode, status)
				}
			}
		}
		p.settled(30 * time.Second)
		if dead := p.deadLetters(); len(dead) > 0 {
			t.Errorf("dead letters: %+v", dead)
		}
	}
	for mode, events := range goGot {
		events.check(t, "Go", mode, sent)
	}
	for mode, server := range js {
		events := &sdkEvents{}
		for _, line := range server.lines() {
			var all []map[string]any
			if err := json.Unmarshal(line, &all); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			for _, e := range all {
				events.add(t, e)
			}
		}
		events.check(t, "JavaScript", mode, sent)
	}
	if n := len(replies.got()); n != 2*len(sent) {
		t.Errorf("%d replies of the SDK for Go came back, want %d", n, 2*len(sent))
	}
	t.Logf("%d events sent by two SDKs in three modes, received by two SDKs in three modes; %d replies", len(sent), len(replies.got()))
}

// TestRuntimeSDKRefused sends with the SDKs what no event may have: they see a 400.
func TestRuntimeSDKRefused(t *testing.T) {
	t.Parallel()
	runtimes(t)
	f := newFunction(t, nil)
	p := newProgram(t, t.TempDir(), "", "sinks:\n"+sinkYAML("f", f.URL, "")+fmt.Sprintf(everythingTo, "f"))
	p.start()
	c, err := client.NewHTTP(cehttp.WithTarget(p.base))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"control": "a\x01b", "line": "a\r\nX-Injected: 1", "delete": "a\x7fb", "noncharacter": "a\uFFFEb"} {
		var answer *cehttp.Result
		result := c.Send(binding.WithForceStructured(t.Context()), sdkEvent(t, name, value))
		if !protocol.IsNACK(result) || !errors.As(result, &answer) || answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %v", name, result)
		}
	}
	// It sends é as one byte, which is no UTF-8.
	if got := p.sendWithJS(binaryMode, []event.Event{sdkEvent(t, "latin", "é")}); !slices.Equal(got, []int{http.StatusBadRequest}) {
		t.Errorf("a header in Latin-1 is answered with %v", got)
	}
	p.settled(10 * time.Second)
	if n := f.distinct(); n != 0 {
		t.Errorf("%d events got through", n)
	}
}
