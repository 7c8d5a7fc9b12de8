package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/app"
	"sluice/cmd/internal/app/apptest"
)

// toOne is a config of one rule and one sink; options are YAML beside its kind.
func toOne(f *apptest.Function, options string) string {
	return fmt.Sprintf(`
sinks:
  hook: {http: {url: %q}%s}
rules:
  all: {match: {type: [{exists: true}]}, to: [hook]}
`, f.URL, options)
}

// stores runs a test over both stores.
func stores(t *testing.T, test func(t *testing.T, store func(*app.Options))) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, func(*app.Options) {})
	})
	t.Run("disk", func(t *testing.T) {
		t.Parallel()
		test(t, apptest.OnDisk(t.TempDir()))
	})
}

// The sums of promise 3: every accepted event was routed or matched nothing, and
// every delivery has ended or is open somewhere.
func TestNothingVanishes(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store func(*app.Options)) {
		good := apptest.NewFunction(t, nil)
		flaky := apptest.NewFunction(t, nil)
		flaky.Set(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.Header.Get("Ce-Id"), "3"):
				w.WriteHeader(http.StatusBadRequest)
			case r.Header.Get("Sluice-Attempt") == "1":
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		n := apptest.Start(t, fmt.Sprintf(`
sinks:
  good: {http: {url: %q}}
  flaky: {http: {url: %q}, retry: {schedule: [10ms, 10ms]}, breaker: {failures: 0}}
rules:
  orders: {match: {type: [{prefix: order.}]}, to: [good, flaky]}
`, good.URL, flaky.URL), store)
		const events = 100
		for i := range events {
			kind := "order.created"
			if i%4 == 0 {
				kind = "invoice.created"
			}
			n.MustPublish(fmt.Sprint(i), kind, `{"a":1}`)
		}
		apptest.Eventually(t, "every delivery ends", func() bool {
			b := n.Bus().Balance()
			return b.Entered == 2*events*3/4 && b.Open() == 0 && b.Lost() == 0
		})
		b := n.Bus().Balance()
		if b.Dead != events/10 || b.Delivered != b.Entered-b.Dead { // 3, 13, 23, …
			t.Errorf("%d dead, %d delivered", b.Dead, b.Delivered)
		}
		m := metricsOf(t, n)
		accepted := m["sluice_events_accepted_total"] + m["sluice_events_recovered_total"]
		if routed := m["sluice_events_unmatched_total"] + m["sluice_events_routed_total"]; accepted != events || routed != events {
			t.Errorf("accepted %v, unmatched and routed %v, want %d", accepted, routed, events)
		}
		if ended := m["sluice_deliveries_total"]; ended != float64(b.Entered) {
			t.Errorf("%v deliveries ended, %d came into being", ended, b.Entered)
		}
		if got := m[`sluice_ingest_events_total{outcome="accepted",source="(ingest)"}`]; got != events {
			t.Errorf("the door counts %v events", got)
		}
		if len(good.Delivered()) != events*3/4 || len(flaky.Delivered()) != int(b.Delivered)-events*3/4 {
			t.Errorf("delivered %d and %d", len(good.Delivered()), len(flaky.Delivered()))
		}
	})
}

type deadLetters struct {
	DeadLetters []struct {
		ID, Sink, Rule, Reason string
		Attempts               []struct {
			Status int
			Class  string
			Answer string
		}
		Event struct {
			ID   string
			Data map[string]any
		}
	} `json:"dead_letters"`
}

// The way of issue 2: attempts follow the policy, end in a dead letter with every
// attempt, and a redrive delivers it once the sink is mended.
func TestDeadLetterAndRedrive(t *testing.T) {
	t.Parallel()
	stores(t, func(t *testing.T, store func(*app.Options)) {
		f := apptest.NewFunction(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte("out of order"))
		})
		n := apptest.Start(t, toOne(f, ", retry: {schedule: [5ms, 10ms]}"), store)
		n.MustPublish("1", "order", `{"n":1}`)
		var dead deadLetters
		apptest.Eventually(t, "a dead letter", func() bool {
			n.Get("/api/v1/dead-letters?sink=hook&rule=all", &dead)
			return len(dead.DeadLetters) == 1
		})
		d := dead.DeadLetters[0]
		if d.Reason != "attempts_exhausted" || len(d.Attempts) != 3 || d.Event.ID != "1" || d.Event.Data["n"] != 1.0 {
			t.Errorf("got %+v", d)
		}
		for i, a := range d.Attempts {
			if a.Status != 500 || a.Class != "status_5xx" || a.Answer != "out of order" {
				t.Errorf("attempt %d: %+v", i+1, a)
			}
		}
		f.Set(nil)
		var job dispatch.Job
		n.Post("/api/v1/dead-letters/redrive", `{"ids": ["`+d.ID+`"]}`, &job)
		apptest.Eventually(t, "the redrive ends", func() bool {
			n.Get("/api/v1/jobs/"+job.ID, &job)
			return job.State != dispatch.JobRunning
		})
		if job.State != dispatch.JobDone || job.Sent != 1 {
			t.Errorf("job %+v", job)
		}
		apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["1"] == 1 })
		if n.Get("/api/v1/dead-letters", &dead); len(dead.DeadLetters) != 0 {
			t.Errorf("it is still there: %+v", dead)
		}
		apptest.Eventually(t, "nothing is lost", func() bool { b := n.Bus().Balance(); return b.Lost() == 0 && b.Open() == 0 })
	})
}

func TestBadRequestIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, apptest.Status(http.StatusBadRequest))
	n := apptest.Start(t, toOne(f, ""))
	n.MustPublish("1", "order", `{}`)
	var dead deadLetters
	apptest.Eventually(t, "a dead letter", func() bool {
		n.Get("/api/v1/dead-letters", &dead)
		return len(dead.DeadLetters) == 1
	})
	if d := dead.DeadLetters[0]; d.Reason != "rejected" || len(d.Attempts) != 1 || len(f.Requests()) != 1 {
		t.Errorf("got %+v after %d requests", d, len(f.Requests()))
	}
	if want := `"event_id":"1","source":"/test","rule":"all","attempt":1,"reason":"rejected"`; !strings.Contains(n.Logs.String(), want) {
		t.Errorf("not logged: %s", want)
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, nil)
	f.Set(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Sluice-Attempt") == "1" {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	n := apptest.Start(t, toOne(f, ", retry: {schedule: [1ms, 1ms]}"))
	n.MustPublish("1", "order", `{}`)
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["1"] == 1 })
	if r := f.Requests(); len(r) != 2 || r[1].Arrived.Sub(r[0].Arrived) < time.Second {
		t.Errorf("%d requests, the second %v after the first", len(r), r[1].Arrived.Sub(r[0].Arrived))
	}
}

func TestGoneDisables(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, apptest.Status(http.StatusGone))
	n := apptest.Start(t, toOne(f, ""))
	n.MustPublish("1", "order", `{}`)
	var sink struct {
		State string
		Hold  struct{ Reason, Note string }
	}
	apptest.Eventually(t, "the sink is disabled", func() bool {
		n.Get("/api/v1/sinks/hook", &sink)
		return sink.State == dispatch.StateGone
	})
	if sink.Hold.Reason != "gone" || !strings.Contains(sink.Hold.Note, "410") || !strings.Contains(n.Logs.String(), "disabled") {
		t.Errorf("got %+v", sink)
	}
	f.Set(nil)
	n.MustPublish("2", "order", `{}`)
	n.Post("/api/v1/sinks/hook/resume", "", &sink)
	apptest.Eventually(t, "what waited is delivered", func() bool { return f.Delivered()["2"] == 1 })
	if f.Delivered()["1"] != 0 {
		t.Error("the dead letter was delivered")
	}
}

// A restart goes on where the process before ended.
func TestRestart(t *testing.T) {
	t.Parallel()
	f := apptest.NewFunction(t, apptest.Status(http.StatusServiceUnavailable))
	dir := t.TempDir()
	first := apptest.Start(t, toOne(f, ""), apptest.OnDisk(dir))
	first.MustPublish("1", "order", `{}`)
	apptest.Eventually(t, "a first attempt", func() bool { return len(f.Requests()) > 0 })
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.Set(nil)
	second := apptest.Start(t, toOne(f, ""), apptest.OnDisk(dir))
	apptest.Eventually(t, "it is delivered", func() bool { return f.Delivered()["1"] == 1 })
	apptest.Eventually(t, "the balance is even", func() bool { b := second.Bus().Balance(); return b.Lost() == 0 && b.Open() == 0 })
	last := f.Requests()[len(f.Requests())-1]
	if last.Header.Get("Sluice-Attempt") == "1" || last.Header.Get("Sluice-Delivery-Id") != f.Requests()[0].Header.Get("Sluice-Delivery-Id") {
		t.Errorf("the history was forgotten: %v", last.Header)
	}
}
