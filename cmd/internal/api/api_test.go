package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/cmd/internal/api"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
	"sluice/sources"
)

// start runs a bus with a rule for orders, of which those over 100 fail, and
// holds every answer against the document.
func start(t *testing.T, change ...func(*app.Options)) (*apptest.Node, *apptest.Function) {
	t.Helper()
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Ce-Id"), "bad") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte{0xff, 'n', 'o'})
		}
	})
	n := apptest.Start(t, fmt.Sprintf(`
dedup: {window: 1h}
sources:
  orders: {http: {path: /in/orders}}
sinks:
  hook: {http: {url: %q}}
  spare: {http: {url: %q}}
  jobs: {queue: {visibility: 1m}}
rules:
  orders: {match: {type: [{prefix: order.}]}, to: [hook]}
  large: {match: {type: [order.created], data: {total: [{numeric: [">", 100]}]}}, to: [hook]}
  others: {match: {type: [other], source: [/nowhere]}, to: [spare]}
  queued: {match: {type: [job]}, to: [jobs]}
`, f.URL, f.URL), change...)
	n.Client.Transport = checked{t, openDocument(t), n.Client.Transport}
	return n, f
}

// Everything the API can say, said once and held against the document.
func TestAnswers(t *testing.T) {
	t.Parallel()
	n, f := start(t, apptest.OnDisk(t.TempDir()))
	n.MustPublish("1", "order.created", `{"total": 7}`)
	n.MustPublish("bad-1", "order.created", `{"total": 8}`)
	n.MustPublish("bad-2", "order.changed", ``)
	n.MustPublish("2", "unmatched", `"x"`)
	batch := `[{"specversion":"1.0","id":"3","source":"/t","type":"x"},{"specversion":"1.0","id":"4","type":"x"}]`
	if a := n.Do("POST", "/events", batch, "Content-Type", "application/cloudevents-batch+json"); a.Status != http.StatusMultiStatus {
		t.Errorf("batch: %d %s", a.Status, a.Body)
	}
	if a := n.Publish("2", "unmatched", `"x"`); !strings.Contains(string(a.Body), `"deduplicated"`) {
		t.Errorf("published twice: %d %s", a.Status, a.Body)
	}
	apptest.Eventually(t, "all have ended", func() bool { b := n.Bus().Balance(); return b.Delivered == 1 && b.Dead == 2 && b.Open() == 0 })

	var status struct {
		ConfigVersion string `json:"config_version"`
		Balance       struct{ Entered, Lost int }
		Store         struct{ Events struct{ Last int } }
	}
	if n.Get("/api/v1/status", &status); status.Balance.Entered != 3 || status.Balance.Lost != 0 || status.Store.Events.Last == 0 || status.ConfigVersion == "" {
		t.Errorf("status: %+v", status)
	}
	testSinks(t, n)
	testRules(t, n)
	testDeadLetters(t, n, f)
	testEvents(t, n)
	testSources(t, n)
	testQueues(t, n)
	testSubscriptions(t, n, f)
	var reload struct{ OK bool }
	if n.Post("/api/v1/reload", "{}", &reload); !reload.OK {
		t.Error("the reload failed")
	}
	var report struct {
		Findings []struct{ Check, Severity string }
	}
	if n.Get("/api/v1/doctor", &report); len(report.Findings) < 7 || report.Findings[0].Severity != "ok" {
		t.Errorf("doctor: %+v", report)
	}
	if a := n.Do("GET", "/api/v1/doctor?store=maybe", ""); a.Status != http.StatusBadRequest {
		t.Errorf("doctor, a store that is neither: %d", a.Status)
	}
	for _, path := range []string{"/livez", "/readyz", "/readyz?verbose", "/metrics", "/api/v1/openapi.json"} {
		if a := n.Do("GET", path, ""); a.Status != http.StatusOK {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
}

func testSinks(t *testing.T, n *apptest.Node) {
	t.Helper()
	var list struct {
		Sinks []struct{ Name, Kind, State string }
	}
	if n.Get("/api/v1/sinks", &list); len(list.Sinks) != 3 || list.Sinks[0].Name != "hook" || list.Sinks[0].Kind != "http" {
		t.Errorf("sinks: %+v", list)
	}
	var sink struct {
		State string
		Hold  struct{ Note string }
	}
	n.Post("/api/v1/sinks/spare/pause", `{"note": "maintenance"}`, &sink)
	if n.Get("/api/v1/sinks/spare", &sink); sink.State != "paused" || sink.Hold.Note != "maintenance" {
		t.Errorf("paused: %+v", sink)
	}
	if n.Post("/api/v1/sinks/spare/resume", "", &sink); sink.State != "active" {
		t.Errorf("resumed: %+v", sink)
	}
}

func testSubscriptions(t *testing.T, n *apptest.Node, f *apptest.Function) {
	t.Helper()
	doc := fmt.Sprintf(`{"sink": %q, "types": ["x"], "expires": "1h", "sinkcredential": {"credentialtype": "ACCESSTOKEN", "accesstoken": "x", "accesstokenexpiresutc": "2099-01-01T00:00:00Z"}}`, f.URL)
	a := n.Do("POST", "/subscriptions", doc)
	if a.Status != http.StatusCreated {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	location := a.Header.Get("Location")
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/subscriptions", "", http.StatusOK},
		{"GET", location, "", http.StatusOK},
		{"PUT", location, doc, http.StatusOK},
		{"OPTIONS", "/subscriptions", "", http.StatusOK},
		{"OPTIONS", location, "", http.StatusOK},
		{"OPTIONS", location + "?x=1", "", http.StatusBadRequest},
		{"PUT", location, `{"sink": ""}`, http.StatusBadRequest},
		{"PUT", location, `{"id": "other", "sink": "queue:"}`, http.StatusBadRequest},
		{"POST", location + "/renew", "", http.StatusNoContent},
		{"POST", location + "/renew", `{"expires": "2h"}`, http.StatusNoContent},
		{"POST", location + "/renew", `{"expires": "0s"}`, http.StatusBadRequest},
		{"POST", location + "/renew", `{"expires": "soon"}`, http.StatusBadRequest},
		{"POST", location + "/renew", `{"ttl": "1h"}`, http.StatusBadRequest},
		{"DELETE", location, "", http.StatusNoContent},
		{"DELETE", location, "", http.StatusNotFound},
		{"GET", location, "", http.StatusNotFound},
		{"POST", location + "/renew", "", http.StatusNotFound},
	} {
		if a := n.Do(c.method, c.path, c.body); a.Status != c.want {
			t.Errorf("%s %s: %d %s, want %d", c.method, c.path, a.Status, a.Body, c.want)
		}
	}
}

func testQueues(t *testing.T, n *apptest.Node) {
	t.Helper()
	type messages struct {
		Messages []struct {
			Receipt  string
			Receives int
			Event    struct{ ID string }
		}
	}
	var none messages
	if n.Post("/api/v1/queues/jobs/receive", "", &none); len(none.Messages) != 0 {
		t.Errorf("received of an empty queue: %+v", none)
	}
	for _, id := range []string{"j1", "j2", "j3"} {
		n.MustPublish(id, "job", `{"n": 1}`)
	}
	var peeked, got, again messages
	apptest.Eventually(t, "they are there", func() bool {
		n.Get("/api/v1/queues/jobs/peek?limit=5", &peeked)
		return len(peeked.Messages) == 3
	})
	n.Post("/api/v1/queues/jobs/receive", `{"max": 2, "wait": "5s", "visibility": "2m"}`, &got)
	if len(got.Messages) != 2 || got.Messages[0].Event.ID != "j1" || got.Messages[0].Receives != 1 {
		t.Fatalf("received: %+v", got)
	}
	var ended struct {
		Done   int
		Failed []struct{ Receipt, Error string }
	}
	one, two := got.Messages[0].Receipt, got.Messages[1].Receipt
	for _, verb := range []string{"ack", "nack", "extend"} {
		body := `{"receipts": ["nonsense", "` + one + `"], "visibility": "5m"}`
		if a := n.Do("POST", "/api/v1/queues/hook/"+verb, body); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), `receipts[1]: the receipt is not of the queue \"hook\"`) {
			t.Errorf("%s at another queue: %d %s", verb, a.Status, a.Body)
		}
		if a := n.Do("POST", "/api/v1/queues/hook/"+verb, `{"receipts": ["nonsense"], "visibility": "5m"}`); a.Status != http.StatusNotFound {
			t.Errorf("%s at what is no queue: %d %s", verb, a.Status, a.Body)
		}
	}
	if n.Post("/api/v1/queues/jobs/extend", `{"receipts": ["`+one+`"], "visibility": "5m"}`, &ended); ended.Done != 1 {
		t.Errorf("extend: %+v", ended)
	}
	if n.Post("/api/v1/queues/jobs/ack", `{"receipts": ["`+one+`", "`+one+`", "nonsense"]}`, &ended); ended.Done != 1 || len(ended.Failed) != 2 {
		t.Errorf("ack: %+v", ended)
	}
	if n.Post("/api/v1/queues/jobs/nack", `{"receipts": ["`+two+`"]}`, &ended); ended.Done != 1 {
		t.Errorf("nack: %+v", ended)
	}
	apptest.Eventually(t, "it comes again", func() bool {
		n.Post("/api/v1/queues/jobs/receive", `{"max": 10}`, &again)
		for _, m := range again.Messages {
			n.Post("/api/v1/queues/jobs/ack", `{"receipts": ["`+m.Receipt+`"]}`, &ended)
			if m.Event.ID == "j2" && m.Receives == 2 {
				return true
			}
		}
		return false
	})
	var queues struct{ Queues []struct{ Name string } }
	if n.Get("/api/v1/queues", &queues); len(queues.Queues) != 1 || queues.Queues[0].Name != "jobs" {
		t.Errorf("queues: %+v", queues)
	}
	var purged struct{ Discarded int }
	n.Post("/api/v1/queues/jobs/purge", "", &purged)
	for _, path := range []string{"receive", "ack", "purge"} {
		body := map[string]string{"ack": `{"receipts": []}`}[path]
		if a := n.Do("POST", "/api/v1/queues/hook/"+path, body); a.Status != http.StatusNotFound && path != "ack" {
			t.Errorf("%s of what is no queue: %d", path, a.Status)
		}
	}
	for body, path := range map[string]string{
		`{"max": 11}`: "receive", `{"wait": "21s"}`: "receive", `{"visibility": "x"}`: "receive", `{}`: "ack", `{"receipts": ["a"]}`: "extend",
	} {
		if a := n.Do("POST", "/api/v1/queues/jobs/"+path, body); a.Status != http.StatusBadRequest {
			t.Errorf("%s %s: %d %s", path, body, a.Status, a.Body)
		}
	}
}

func testSources(t *testing.T, n *apptest.Node) {
	t.Helper()
	reject := sources.Rejected{ID: "9", Where: "line 9", Reason: "no JSON", Data: []byte("{")}
	if err := n.Bus().Reject(t.Context(), "orders", reject.Event("orders"), reject.Reason); err != nil {
		t.Fatal(err)
	}
	var list struct{ Sources []api.Source }
	if n.Get("/api/v1/sources", &list); len(list.Sources) != 1 || list.Sources[0].State != api.SourceRunning || list.Sources[0].DeadLetters != 1 {
		t.Errorf("sources: %+v", list)
	}
	var one api.Source
	n.Post("/api/v1/sources/orders/pause", `{"note": "maintenance"}`, &one)
	if n.Get("/api/v1/sources/orders", &one); one.Hold == nil || one.Hold.Note != "maintenance" {
		t.Errorf("paused: %+v", one)
	}
	apptest.Eventually(t, "it takes nothing", func() bool {
		a := n.PublishTo("/in/orders", "p1", "order.made", `{}`)
		return a.Status == http.StatusServiceUnavailable && strings.Contains(string(a.Body), "paused")
	})
	n.Post("/api/v1/sources/orders/resume", "", &one)
	apptest.Eventually(t, "it takes events", func() bool { return n.PublishTo("/in/orders", "p1", "unmatched", `{}`).Status == http.StatusAccepted })
	one = api.Source{}
	if n.Get("/api/v1/sources/orders", &one); one.Hold != nil || one.Accepted != 1 || one.Refused["closed"] == 0 || one.LastEvent.IsZero() {
		t.Errorf("resumed: %+v", one)
	}
	for _, path := range []string{"/api/v1/sources/none", "/api/v1/sources/none/pause"} {
		method := map[bool]string{true: "POST", false: "GET"}[strings.HasSuffix(path, "pause")]
		if a := n.Do(method, path, ""); a.Status != http.StatusNotFound {
			t.Errorf("%s: %d", path, a.Status)
		}
	}
	var letters struct {
		DeadLetters []struct{ ID, Source, Sink, Reason string } `json:"dead_letters"`
	}
	n.Get("/api/v1/dead-letters?source=orders", &letters)
	if len(letters.DeadLetters) != 1 || letters.DeadLetters[0].Reason != "malformed" || letters.DeadLetters[0].Sink != "" {
		t.Errorf("what it rejected: %+v", letters)
	}
	if a := n.Do("POST", "/api/v1/dead-letters/redrive", `{"source": "orders"}`); a.Status != http.StatusBadRequest {
		t.Errorf("redriving what is no event: %d %s", a.Status, a.Body)
	}
	var purged struct{ Removed int }
	if n.Post("/api/v1/dead-letters/purge", `{"source": "orders"}`, &purged); purged.Removed != 1 {
		t.Errorf("purged: %+v", purged)
	}
}

func testRules(t *testing.T, n *apptest.Node) {
	t.Helper()
	var list struct {
		Rules []struct {
			Name    string
			Matches int
			Pattern json.RawMessage
		}
	}
	if n.Get("/api/v1/rules", &list); len(list.Rules) != 4 || list.Rules[0].Matches != 3 || !strings.Contains(string(list.Rules[0].Pattern), "prefix") {
		t.Errorf("rules: %+v", list)
	}
	event := `{"specversion":"1.0","id":"1","source":"/t","type":"order.created","data":{"total":200}}`
	var match struct{ Rules, Sinks []string }
	if n.Post("/api/v1/match", event, &match); fmt.Sprint(match) != "{[orders large] [hook]}" {
		t.Errorf("match: %v", match)
	}
	if n.Post("/api/v1/match", strings.Replace(event, "order.created", "none", 1), &match); len(match.Rules)+len(match.Sinks) != 0 {
		t.Errorf("no match: %v", match)
	}
	var why struct {
		Explanations []struct {
			Rule    string
			Matched bool
		}
	}
	n.Post("/api/v1/explain", `{"event": `+strings.Replace(event, "200", "20", 1)+`}`, &why)
	if got := fmt.Sprint(why.Explanations); got != "[{orders true} {large false} {queued false} {others false}]" {
		t.Errorf("explain: %v", got)
	}
	if n.Post("/api/v1/explain", `{"rule": "others", "event": `+event+`}`, &why); len(why.Explanations) != 1 {
		t.Errorf("explain one: %v", why)
	}
}

func testDeadLetters(t *testing.T, n *apptest.Node, f *apptest.Function) {
	t.Helper()
	var list struct {
		DeadLetters []struct {
			ID       string
			Attempts []struct {
				AnswerBase64 string `json:"answer_base64"`
			}
		} `json:"dead_letters"`
		Next string
	}
	n.Get("/api/v1/dead-letters?limit=1", &list)
	if len(list.DeadLetters) != 1 || list.Next == "" || list.DeadLetters[0].Attempts[0].AnswerBase64 != "/25v" {
		t.Fatalf("a page: %+v", list)
	}
	first := list.DeadLetters[0].ID
	if n.Get("/api/v1/dead-letters?from="+list.Next, &list); len(list.DeadLetters) != 1 || list.DeadLetters[0].ID == first {
		t.Errorf("the next page: %+v", list)
	}
	for query, want := range map[string]int{
		"sink=hook": 2, "sink=spare": 0, "rule=orders": 2, "reason=rejected": 2, "reason=expired": 0, "since=1h": 2, "until=1h": 0,
		"id=" + first: 1, "pattern=" + url.QueryEscape(`{"type":["order.changed"]}`): 1, "since=2020-01-02T15:04:05Z": 2,
	} {
		if n.Get("/api/v1/dead-letters?"+query, &list); len(list.DeadLetters) != want {
			t.Errorf("%s: %d dead letters, want %d", query, len(list.DeadLetters), want)
		}
	}
	n.Get("/api/v1/dead-letters/"+first, &struct{}{})
	f.Set(nil)
	job := startJob(t, n, "/api/v1/dead-letters/redrive", `{"ids": ["`+first+`"], "to": "spare", "canary": 1}`)
	if job.State != "done" || job.Sent != 1 {
		t.Errorf("redrive: %+v", job)
	}
	if job = startJob(t, n, "/api/v1/dead-letters/redrive", `{"reroute": true, "dry_run": true}`); job.Chosen != 1 || job.Sent != 0 {
		t.Errorf("dry run: %+v", job)
	}
	var jobs struct{ Jobs []struct{ ID string } }
	if n.Get("/api/v1/jobs", &jobs); len(jobs.Jobs) != 2 {
		t.Errorf("jobs: %+v", jobs)
	}
	n.Post("/api/v1/jobs/"+jobs.Jobs[0].ID+"/cancel", "", &struct{}{})
	var purged struct{ Removed int }
	if n.Post("/api/v1/dead-letters/purge", `{"all": true}`, &purged); purged.Removed != 1 {
		t.Errorf("purged %d", purged.Removed)
	}
}

type job struct {
	ID, State, Note string
	Chosen, Sent    int
}

func startJob(t *testing.T, n *apptest.Node, path, body string) (j job) {
	t.Helper()
	if a := n.Do("POST", path, body); a.Status != http.StatusAccepted || json.Unmarshal(a.Body, &j) != nil || a.Header.Get("Location") == "" {
		t.Fatalf("%s: %d %s", path, a.Status, a.Body)
	}
	apptest.Eventually(t, "the job ends", func() bool {
		n.Get("/api/v1/jobs/"+j.ID, &j)
		return j.State != "running"
	})
	return j
}

func testEvents(t *testing.T, n *apptest.Node) {
	t.Helper()
	var list struct {
		Events []struct {
			Position string
			Event    struct{ ID string }
		}
		Next string
	}
	var got []string
	for from := "0.0"; from != ""; from = list.Next {
		list.Next = ""
		n.Get("/api/v1/events?limit=2&from="+from, &list)
		for _, e := range list.Events {
			got = append(got, e.Event.ID)
		}
	}
	if strings.Join(got, " ") != "1 bad-1 bad-2 2 3" {
		t.Errorf("events %v", got)
	}
	for query, want := range map[string]int{
		"since=1h": 5, "until=1h": 0, "id=1&id=3": 2, "pattern=" + url.QueryEscape(`{"type":[{"prefix":"order."}]}`): 3,
	} {
		if n.Get("/api/v1/events?"+query, &list); len(list.Events) != want {
			t.Errorf("%s: %d events, want %d", query, len(list.Events), want)
		}
	}
	j := startJob(t, n, "/api/v1/replays", `{"since": "1h", "pattern": {"type": ["unmatched"]}, "sinks": ["spare"]}`)
	if j.State != "done" || j.Sent != 1 {
		t.Errorf("replay: %+v", j)
	}
}

// What is refused, and that the answer says what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	n, _ := start(t)
	const v1 = "/api/v1"
	for _, c := range []struct {
		method, path, body string
		status             int
		detail             string
	}{
		{"GET", v1 + "/nothing", "", 404, "/api/v1/openapi.json"},
		{"GET", v1 + "/match", "", 405, "answers POST only"},
		{"DELETE", v1 + "/sinks", "", 405, "answers GET only"},
		{"GET", "/", "", 405, "POST only"},
		{"GET", v1 + "/sinks/nobody", "", 404, `there is no sink "nobody"`},
		{"POST", v1 + "/sinks/nobody/pause", "", 404, "not found"},
		{"POST", v1 + "/sinks/hook/pause", `{"not": "x"}`, 400, `unknown field "not"`},
		{"POST", v1 + "/sinks/hook/pause", `{"note": 7}`, 400, "note wants string and got a number"},
		{"POST", v1 + "/sinks/hook/pause", `{"note": "a"} more`, 400, "something follows"},
		{"POST", v1 + "/dead-letters/purge", `{}`, 400, "all: true"},
		{"POST", v1 + "/dead-letters/purge", `{"sinks": "hook"}`, 400, `unknown field "sinks"`},
		{"POST", v1 + "/dead-letters/purge", `{"sink": "a", "all": true}`, 400, "either"},
		{"POST", v1 + "/dead-letters/purge", `{"reason": "bad luck"}`, 400, "attempts_exhausted"},
		{"POST", v1 + "/dead-letters/purge", `{"ids": ["x"]}`, 400, "1042.7"},
		{"POST", v1 + "/dead-letters/purge", `{"since": "yesterday"}`, 400, "a duration back from now such as 24h"},
		{"POST", v1 + "/dead-letters/purge", `{"since": "1h", "until": "2h"}`, 400, "until lies before since"},
		{"POST", v1 + "/dead-letters/purge", `{"pattern": {"type": "x"}}`, 400, "pattern"},
		{"POST", v1 + "/dead-letters/purge", `{"sink": `, 400, "ends in the middle"},
		{"POST", v1 + "/dead-letters/redrive", `{"to": "spare", "reroute": true}`, 400, "not both"},
		{"POST", v1 + "/dead-letters/redrive", `{"to": "nobody"}`, 404, `"nobody"`},
		{"POST", v1 + "/dead-letters/redrive", `{"rate": -1}`, 400, "cannot be negative"},
		{"POST", v1 + "/replays", `{"sinks": ["nobody"]}`, 404, `"nobody"`},
		{"POST", v1 + "/replays", `{"rate": -1}`, 400, "negative"},
		{"GET", v1 + "/dead-letters?sinks=a", "", 400, "there is no parameter"},
		{"GET", v1 + "/dead-letters?sink=a&sink=b", "", 400, "give it once"},
		{"GET", v1 + "/dead-letters?limit=0", "", 400, "from 1 to 1000"},
		{"GET", v1 + "/dead-letters?from=x", "", 400, "next"},
		{"GET", v1 + "/dead-letters?pattern=x", "", 400, "pattern"},
		{"GET", v1 + "/dead-letters/1.0", "", 404, "not found"},
		{"GET", v1 + "/dead-letters/x", "", 404, "not found"},
		{"GET", v1 + "/jobs/x", "", 404, "not found"},
		{"POST", v1 + "/jobs/x/cancel", "", 404, "not found"},
		{"GET", v1 + "/tail?stage=lost", "", 400, "dead_letter"},
		{"GET", v1 + "/events?id=%zz", "", 400, "well-formed"},
		{"POST", v1 + "/match", `{"specversion": "1.0", "id": "1"}`, 400, "source: missing"},
		{"POST", v1 + "/match", `nonsense`, 400, "not a CloudEvent in JSON"},
		{"POST", v1 + "/match", strings.Repeat(" ", 1<<20+1), 413, "larger than"},
		{"POST", v1 + "/explain", `{}`, 400, "event is missing"},
		{"POST", v1 + "/explain", `{"rule": "x", "event": {"id": "1", "source": "a", "type": "b", "specversion": "1.0"}}`, 404, `no rule "x"`},
	} {
		a := n.Do(c.method, c.path, c.body)
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal(a.Body, &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: no problem: %d %s", c.method, c.path, a.Status, a.Body)
			continue
		}
		if a.Status != c.status || p.Status != c.status || p.Title == "" || !strings.Contains(p.Detail, c.detail) {
			t.Errorf("%s %s %s: %s", c.method, c.path, c.body[:min(80, len(c.body))], a.Body)
		}
	}
}

// A page that some browser shows cannot administrate the bus.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	n, _ := start(t)
	for header, value := range map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"} {
		if a := n.Do("POST", "/api/v1/dead-letters/purge", `{"all":true}`, header, value); a.Status != http.StatusForbidden {
			t.Errorf("%s: %d %s", header, a.Status, a.Body)
		}
	}
	if a := n.Do("POST", "/api/v1/dead-letters/purge", `{"all":true}`, "Sec-Fetch-Site", "same-origin"); a.Status != http.StatusOK {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// A name that a page's author lets lead to this machine is none that the bus answers
// under: to the browser all that answers there is the page's own.
func TestRebinding(t *testing.T) {
	t.Parallel()
	alone, _ := start(t)
	f := apptest.NewFunction(t, nil)
	everybody := apptest.Start(t, `
sinks: {hook: {http: {url: "`+f.URL+`"}}}
rules: {all: {match: {type: [order]}, to: [hook]}}
server: {auth: none}
`)
	ask := func(n *apptest.Node, method, path, host string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, n.URL()+path, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := n.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	for _, host := range []string{"evil.example:8484", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example.", "internal.evil.example"} {
		for _, route := range []string{"GET /api/v1/events", "GET /metrics", "POST /api/v1/dead-letters/redrive", "POST /events", "POST /in/orders", "GET /subscriptions"} {
			method, path, _ := strings.Cut(route, " ")
			if status := ask(alone, method, path, host); status != http.StatusForbidden {
				t.Errorf("%s as %s: %d", route, host, status)
			}
		}
		if status := ask(alone, "GET", "/livez", host); status != http.StatusOK {
			t.Errorf("/livez as %s: %d", host, status)
		}
		if status := ask(everybody, "GET", "/api/v1/events", host); status != http.StatusOK {
			t.Errorf("as %s, where everybody may: %d", host, status)
		}
	}
	for _, host := range []string{"127.0.0.1:8484", "127.0.0.1", "localhost:8484", "LOCALHOST.", "app.localhost", "[::1]:8484", "[::1]", "sluice:8484", "host.docker.internal:8484", "mac.local"} {
		if status := ask(alone, "GET", "/api/v1/events", host); status != http.StatusOK {
			t.Errorf("as %s: %d", host, status)
		}
	}
}

// A query that a URL does not read would seem to be obeyed: a redrive of one sink would
// be one of all.
func TestUnknownQuery(t *testing.T) {
	t.Parallel()
	n, _ := start(t)
	for _, r := range api.Routes() {
		path := strings.NewReplacer("{name}", "hook", "{id}", "1.0").Replace(r.Path)
		switch path {
		case "/", "/events", "/livez", "/readyz", "/metrics": // taken from all the world, and probes
			continue
		}
		if a := n.Do(r.Method, path+"?sikn=hook", ""); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "sikn") {
			t.Errorf("%s %s: %d %s", r.Method, path, a.Status, a.Body)
		}
	}
}

// A list ends where it grows too large: attempts and answers count, not the events
// alone.
func TestDeadLettersAreWeighed(t *testing.T) {
	t.Parallel()
	event, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "1"}, {Name: "source", Value: "/s"}, {Name: "type", Value: "t"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	letter := dispatch.DeadLetter{Event: event}
	for range 16 {
		letter.Attempts = append(letter.Attempts, dispatch.Attempt{Error: strings.Repeat("e", 1<<10), Answer: bytes.Repeat([]byte{0xff}, 4<<10)})
	}
	if counted, shown := api.DeadWeight(&letter); counted < shown/2 {
		t.Errorf("a dead letter of %d bytes counts as %d", shown, counted)
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	logs := &apptest.Buffer{}
	log := slog.New(slog.NewJSONHandler(logs, nil))
	srv := httptest.NewServer(api.Guarded(log, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			_, _ = w.Write([]byte("half an answer"))
			_ = http.NewResponseController(w).Flush()
		}
		panic("a fault")
	}))
	defer srv.Close()
	client := srv.Client()
	resp, err := client.Get(srv.URL + "/early")
	if err != nil || resp.StatusCode != http.StatusInternalServerError || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%v, %v", resp, err)
	}
	_ = resp.Body.Close()
	resp, err = client.Get(srv.URL + "/late")
	if err == nil {
		_, err = resp.Body.Read(make([]byte, 1<<10))
		for err == nil {
			_, err = resp.Body.Read(make([]byte, 1<<10))
		}
		_ = resp.Body.Close()
	}
	if err == nil || err.Error() == "EOF" {
		t.Error("half an answer looks like a whole one")
	}
	if got := logs.String(); strings.Count(got, "a handler panicked") != 2 || !strings.Contains(got, "stack") {
		t.Errorf("logged %s", got)
	}
}
