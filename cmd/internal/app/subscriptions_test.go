package app_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"sluice/bus/memlog"
	"sluice/cmd/internal/api"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
)

// subscribing is a config that lets functions subscribe themselves.
const subscribing = `
subscriptions: {private_sinks: true, max: 2}
sinks: {out: {stdout: {}}}
rules: {all: {match: {type: [none]}, to: [out]}}
`

// A subscription is durable when it is answered, keeps its secret to itself, and
// expands nothing of what a caller wrote.
func TestSubscriptionIsDurable(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	dir := t.TempDir()
	n := apptest.Start(t, subscribing, apptest.OnDisk(dir))
	doc := fmt.Sprintf(`{
		"types": ["order.created"], "filters": [{"not": {"exact": {"subject": "test"}}}], "sink": "%s/?key=in-url",
		"protocolsettings": {"headers": {"X-Custom": "${env:HOME}"}},
		"sinkcredential": {"credentialtype": "ACCESSTOKEN", "accesstoken": "marker-secret"}
	}`, f.URL)
	a := n.Do("POST", "/subscriptions", doc)
	location := a.Header.Get("Location")
	if a.Status != http.StatusCreated || !strings.HasPrefix(location, "/subscriptions/") {
		t.Fatalf("%d %s %s", a.Status, location, a.Body)
	}
	if a := n.Do("PUT", "/subscriptions/second", `{"sink": "queue:", "match": {"type": ["order.created"]}}`); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if a := n.Do("POST", "/subscriptions", doc); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "subscriptions.max") {
		t.Errorf("one too many: %d %s", a.Status, a.Body)
	}
	if a := n.Do("POST", location+"/renew", `{"expires": "2h"}`); a.Status != http.StatusNoContent {
		t.Errorf("renewed for longer: %d %s", a.Status, a.Body)
	}
	n.MustPublish("1", "order.created", "{}")
	n.MustPublish("2", "order.changed", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return len(f.Delivered()) == 1 })
	if log := n.Logs.String(); strings.Contains(log, "in-url") || strings.Contains(log, "marker-secret") {
		t.Errorf("the log shows a secret: %s", log)
	}
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}

	n = apptest.Start(t, subscribing, apptest.OnDisk(dir))
	var one api.Subscription
	if n.Get(location, &one); time.Duration(one.Expires) != 2*time.Hour {
		t.Errorf("it expires after %s", one.Expires)
	}
	if one.Sink != f.URL+"/?key=in-url" || one.Credential != nil || len(one.Filters) != 1 {
		t.Errorf("after a restart: %+v", one)
	}
	n.MustPublish("3", "order.created", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["3"] == 1 })
	for _, r := range f.Requests() {
		if r.Header.Get("Authorization") != "Bearer marker-secret" || r.Header.Get("X-Custom") != "${env:HOME}" {
			t.Errorf("the request says %q and %q", r.Header.Get("Authorization"), r.Header.Get("X-Custom"))
		}
	}
	for _, path := range []string{"/subscriptions", location, "/api/v1/sinks", "/metrics"} {
		if strings.Contains(string(n.Do("GET", path, "").Body), "marker-secret") {
			t.Errorf("%s shows the secret", path)
		}
	}
	var got struct{ Messages []struct{ Receipt string } }
	if n.Post("/api/v1/queues/sub.second/receive", `{"max": 10, "wait": "5s"}`, &got); len(got.Messages) != 2 {
		t.Errorf("%d messages in its queue", len(got.Messages))
	}
	for _, m := range got.Messages {
		n.Post("/api/v1/queues/sub.second/ack", `{"receipts": ["`+m.Receipt+`"]}`, &struct{}{})
	}
	n.MustPublish("3b", "order.created", `{}`)
	if a := n.Do("DELETE", "/subscriptions/second", ""); a.Status != http.StatusNoContent {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := n.Do("DELETE", location, ""); a.Status != http.StatusNoContent {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	apptest.Eventually(t, "what waited is discarded", func() bool { b := n.Bus().Balance(); return b.Open() == 0 && b.Lost() == 0 })
	n.MustPublish("4", "order.created", "{}")
	apptest.Eventually(t, "nothing is sent any more", func() bool { return n.Bus().Unsettled() == 0 })
	if f.Delivered()["4"] != 0 {
		t.Error("delivered after the end of the subscription")
	}
	if strings.Contains(n.Logs.String(), "marker-secret") {
		t.Error("the log shows the secret")
	}
}

// What is wrong with a subscription is said, and nothing is changed.
func TestBadSubscription(t *testing.T) {
	t.Parallel()
	n := apptest.Start(t, subscribing)
	for doc, want := range map[string]string{
		`{}`:                           "sink: is missing",
		`{"sink": "nowhere"}`:          "is not an absolute URL",
		`{"sink": "http://a:b@c/"}`:    "send them as sinkcredential",
		`{"sink": "http://a", "x": 1}`: "unknown field",
		`{"sink": "http://a", "filters": [{"like": {}}]}`:                                                  "is not a dialect",
		`{"sink": "http://a", "match": {"type": "x"}}`:                                                     "match:",
		`{"sink": "http://a", "protocol": "MQTT5"}`:                                                        "write HTTP",
		`{"sink": "http://a", "protocolsettings": {"headers": {"Ce-Id": "1"}}}`:                            "is a header of the delivery itself",
		`{"sink": "http://a", "protocolsettings": {"headers": {"X": "a\r\nB: c"}}}`:                        "line break",
		`{"sink": "http://a", "protocolsettings": {"headers": {"authorization": "Bearer marker-secret"}}}`: "send it as sinkcredential",
		`{"sink": "http://a", "sinkcredential": {"credentialtype": "PLAIN"}}`:                              "sinkcredential.identifier: must be",
		`{"sink": "queue:", "protocolsettings": {"method": "POST"}}`:                                       "a queue is fetched from",
		`{"sink": "http://a", "types": [""]}`:                                                              "types: one of them is empty",
		`{"sink": "http://a", "expires": "soon"}`:                                                          "soon",
	} {
		if a := n.Do("POST", "/subscriptions", doc); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), want) {
			t.Errorf("%s: %d %s, want %q", doc, a.Status, a.Body, want)
		}
	}
	if a := n.Do("PUT", "/subscriptions/a.b", `{"sink": "queue:"}`); a.Status != http.StatusBadRequest {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	var all []api.Subscription
	if n.Get("/subscriptions", &all); len(all) != 0 {
		t.Errorf("made: %+v", all)
	}
}

// A kept subscription that cannot be used any more is shown as that, and stays with what
// waits for it until somebody replaces or ends it.
func TestBrokenSubscription(t *testing.T) {
	t.Parallel()
	config := strings.Replace(subscribing, "max: 2", "max: 9", 1)
	store := memlog.New(memlog.Options{})
	n := apptest.Start(t, config, func(o *app.Options) { o.Store = store })
	const queue = `{"sink": "queue:", "types": ["a"]}`
	for _, id := range []string{"old", "well"} {
		if a := n.Do("PUT", "/subscriptions/"+id, queue); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
	}
	n.MustPublish("1", "a", "{}")
	apptest.Eventually(t, "it waits", func() bool { return n.Bus().Balance().Open() == 2 })
	if err := n.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	store = store.Restart()
	for key, text := range map[string]string{
		"subscription.old":  `{"id": "old", "sink": "queue:", "match": {"type": [{"like": "a"}]}}`,
		"subscription.torn": `{"id": "to`,
	} {
		if err := store.PutState(t.Context(), key, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}

	for range 2 { // and after one more restart
		n = apptest.Start(t, config, func(o *app.Options) { o.Store = store })
		for _, want := range []string{`"subscription":"old"`, `"subscription":"torn"`, "cannot be used any more", "like"} {
			if !strings.Contains(n.Logs.String(), want) {
				t.Errorf("the log does not say %s:\n%s", want, n.Logs)
			}
		}
		if a := n.Do("PUT", "/subscriptions/new", queue); a.Status != http.StatusOK { // what is in force is replaced
			t.Errorf("%d %s", a.Status, a.Body)
		}
		broken := map[string]string{}
		var all []api.Subscription
		n.Get("/subscriptions", &all)
		for _, s := range all {
			broken[s.ID] = s.Error
		}
		if len(all) != 4 || !strings.Contains(broken["old"], "like") || broken["torn"] == "" || broken["well"] != "" {
			t.Errorf("listed: %+v", all)
		}
		for _, id := range []string{"old", "torn"} {
			if a := n.Do("POST", "/subscriptions/"+id+"/renew", `{"expires": "1h"}`); a.Status != http.StatusConflict {
				t.Errorf("%d %s", a.Status, a.Body)
			}
			if doctor := string(n.Do("GET", "/api/v1/doctor", "").Body); !strings.Contains(doctor, "the subscription "+id+" was taken before and cannot be used any more") {
				t.Errorf("doctor says: %s", doctor)
			}
		}
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		store = store.Restart()
	}

	n = apptest.Start(t, config, func(o *app.Options) { o.Store = store })
	if a := n.Do("DELETE", "/subscriptions/torn", ""); a.Status != http.StatusNoContent {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := n.Do("PUT", "/subscriptions/old", queue); a.Status != http.StatusOK || strings.Contains(string(a.Body), "error") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	var got struct{ Messages []struct{ Receipt string } }
	if n.Post("/api/v1/queues/sub.old/receive", `{"wait": "5s"}`, &got); len(got.Messages) != 1 {
		t.Errorf("%d messages had waited for it", len(got.Messages))
	}
	if doctor := string(n.Do("GET", "/api/v1/doctor", "").Body); strings.Contains(doctor, "cannot be used") {
		t.Errorf("doctor says: %s", doctor)
	}
}

// Subscriptions that are gone leave nothing behind: callers make them without end. The
// test is not parallel to others: it counts goroutines and bytes of the process.
func TestSubscriptionsWithoutEnd(t *testing.T) {
	n := apptest.Start(t, subscribing)
	f := apptest.NewFunction(t, nil)
	cycles := func(from, count int) (heap uint64, goroutines int) {
		for i := range count {
			path := fmt.Sprintf("/subscriptions/s%d", from+i)
			for _, sink := range []string{api.QueueSink, f.URL} {
				if a := n.Do("PUT", path, `{"sink": "`+sink+`", "types": ["a"]}`); a.Status != http.StatusOK {
					t.Fatalf("%d %s", a.Status, a.Body)
				}
			}
			if i%20 == 0 {
				n.MustPublish(fmt.Sprint(from+i), "a", "{}")
			}
			if a := n.Do("DELETE", path, ""); a.Status != http.StatusNoContent {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
		}
		apptest.Eventually(t, "the lanes go", func() bool { return len(n.Bus().Sinks()) == 1 })
		if metrics := string(n.Do("GET", "/metrics", "").Body); strings.Contains(metrics, `"sub.`) {
			t.Errorf("series of subscriptions that are gone:\n%s", metrics)
		}
		n.Client.CloseIdleConnections()
		f.CloseClientConnections()
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	heap, goroutines := cycles(0, 200)
	after, then := cycles(200, 1000)
	t.Logf("after 200: %d KiB, %d goroutines; after 1,000 more: %d KiB, %d goroutines", heap>>10, goroutines, after>>10, then)
	if after > heap+4<<20 || then > goroutines+5 {
		t.Error("something stays")
	}
	var status struct {
		Balance struct{ Entered, Lost, Open, Delivered, Discarded int64 }
	}
	n.Get("/api/v1/status", &status)
	if b := status.Balance; b.Lost != 0 || b.Open != 0 || b.Entered == 0 || b.Entered != b.Delivered+b.Discarded {
		t.Errorf("%+v", b)
	}
}

// What a subscriber answers comes onto the bus only when who subscribed it could
// publish that too.
func TestSubscriberPublishesByRight(t *testing.T) {
	t.Parallel()
	last := apptest.NewFunction(t, nil)
	f := apptest.NewFunction(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/cloudevents+json")
		_, _ = fmt.Fprintf(w, `{"specversion":"1.0","id":%q,"source":"/fn","type":"done"}`, r.URL.Path)
	})
	n := apptest.Start(t, fmt.Sprintf(`
server:
  auth:
    tokens:
      - {name: ops, token: ops, scopes: [admin]}
      - {name: reader, token: reader, scopes: [subscribe]}
      - {name: both, token: both, scopes: [subscribe, publish]}
      - {name: narrow, token: narrow, scopes: [subscribe, publish], paths: [/in/*]}
subscriptions: {private_sinks: true}
sinks: {last: {http: {url: %q}}}
rules: {end: {match: {type: [done]}, to: [last]}}
`, last.URL))
	for _, c := range []struct {
		token, id, replies string
		status             int
		want               string
	}{
		{"reader", "reader", "", 200, "ignore"},
		{"both", "both", "", 200, "publish"},
		{"both", "quiet", "ignore", 200, "ignore"},
		{"narrow", "narrow", "", 200, "ignore"},
		{"ops", "ops", "publish", 200, "publish"},
		{"reader", "refused", "publish", 403, ""},
		{"ops", "wrong", "perhaps", 400, ""},
	} {
		doc := fmt.Sprintf(`{"types": ["begin"], "sink": "%s/%s", "replies": %q}`, f.URL, c.id, c.replies)
		a := n.Do("PUT", "/subscriptions/"+c.id, doc, "Authorization", "Bearer "+c.token)
		if a.Status != c.status || !strings.Contains(string(a.Body), `"replies":"`+c.want) && !strings.Contains(string(a.Body), "replies:") {
			t.Errorf("%s: %d %s", c.id, a.Status, a.Body)
		}
	}
	a := n.Do("POST", "/events", "{}", "Ce-Specversion", "1.0", "Ce-Id", "1", "Ce-Source", "/test", "Ce-Type", "begin", "Authorization", "Bearer ops")
	if a.Status != http.StatusAccepted {
		t.Fatal(a.Status)
	}
	apptest.Eventually(t, "all is delivered", func() bool {
		b := n.Bus().Balance()
		return len(f.Requests()) == 5 && b.Open() == 0 && b.Lost() == 0 && b.Delivered >= 7
	})
	if got := last.Delivered(); len(got) != 2 || got["/both"] != 1 || got["/ops"] != 1 {
		t.Errorf("answers on the bus: %v", got)
	}
}

// What subscriptions may reach is what the config says now: a reload closes the way to
// what it does not allow any more.
func TestSubscriptionsReachWhatIsAllowed(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	const config = `
subscriptions: {%s}
sinks: {out: {stdout: {}}}
rules: {all: {match: {type: [none]}, to: [out]}}
`
	n := apptest.Start(t, fmt.Sprintf(config, "allow: [127.0.0.0/8]"))
	if a := n.Do("PUT", "/subscriptions/s", `{"sink": "`+f.URL+`"}`); a.Status != http.StatusOK {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	n.MustPublish("allowed", "a", "{}")
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["allowed"] == 1 })
	for i, c := range []struct {
		settings string
		reached  bool
	}{
		{"max: 5", false}, {"allow: [10.0.0.0/8, 127.0.0.2]", false}, {"private_sinks: true", true}, {"allow: [127.0.0.1]", true},
	} {
		n.WriteConfig(fmt.Sprintf(config, c.settings))
		var reload struct{ OK bool }
		if n.Post("/api/v1/reload", "{}", &reload); !reload.OK {
			t.Fatal("the reload failed")
		}
		dead := n.Bus().Balance().Dead
		id := fmt.Sprint(i)
		n.MustPublish(id, "a", "{}")
		apptest.Eventually(t, "it has ended", func() bool { return f.Delivered()[id] == 1 || n.Bus().Balance().Dead > dead })
		if reached := f.Delivered()[id] == 1; reached != c.reached {
			t.Errorf("%s: it was reached: %v, want %v", c.settings, reached, c.reached)
		}
	}
}
