package sources_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sources"
)

// A request that was taken before, by its id or by its signature, makes no second
// event, and is answered as the first one was.
func TestWebhookRepeats(t *testing.T) {
	t.Parallel()
	for _, s := range senders() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := runHook(t, s.settings(), "/in/hook")
			now := time.Now()
			for i, at := range []time.Time{now, now, now.Add(-2 * time.Second)} {
				if a := r.do(t, s.request(r.url, "same", at)); a.status != s.status || i > 0 && a.status == 202 && !strings.Contains(a.body, `"deduplicated"`) {
					t.Errorf("%d: %d %s", i, a.status, a.body)
				}
			}
			r.do(t, s.request(r.url, "other", now))
			if got := r.Observed(); len(r.pub.Stored()) != 2 || got[sources.Accepted] != 2 || got[sources.Repeated] != 2 {
				t.Errorf("%d events, observed %v", len(r.pub.Stored()), got)
			}
		})
	}
}

// The same words under another id are another event, since services do say things
// twice; but not for who is strict, and not when the time is signed.
func TestWebhookReplayUnderAnotherID(t *testing.T) {
	t.Parallel()
	github := senders()[0]
	for repeats, want := range map[string]int{"once": 2, "strict": 1, "take": 2} {
		s := github.settings()
		s.Repeats = repeats
		r := runHook(t, s, "/in/hook")
		r.do(t, github.request(r.url, "1", time.Now()))
		req := github.request(r.url, "1", time.Now())
		req.Header.Set("X-GitHub-Delivery", "2")
		if a := r.do(t, req); a.status != 202 || len(r.pub.Stored()) != want {
			t.Errorf("%s: %d %s, %d events", repeats, a.status, a.body, len(r.pub.Stored()))
		}
	}
	slack := senders()[4]
	slack.event.ID = "<header.X-Unsigned>"
	r := runHook(t, slack.settings(), "/in/hook")
	now := time.Now()
	for _, id := range []string{"1", "2"} {
		req := slack.request(r.url, "1", now)
		req.Header.Set("X-Unsigned", id)
		if a := r.do(t, req); a.status != 200 || len(r.pub.Stored()) != 1 {
			t.Errorf("a replay of what has a time: %d, %d events", a.status, len(r.pub.Stored()))
		}
	}
	take := github.settings()
	take.Repeats = "take"
	r = runHook(t, take, "/in/hook")
	for range 2 {
		r.do(t, github.request(r.url, "1", time.Now()))
	}
	if got := r.pub.Stored(); len(got) != 2 || got[0].ID() != got[1].ID() {
		t.Errorf("repeats: take has taken %d", len(got))
	}
}

// Two requests with the same body and nothing that tells them apart are two events.
func TestWebhookSameBody(t *testing.T) {
	t.Parallel()
	r := runHook(t, (&sender{verify: sources.Verify{Bearer: one(secret)}}).settings(), "/in/hook")
	for range 2 {
		r.do(t, post(r.url, `{"pressed": true}`, "Authorization", "Bearer "+secret))
	}
	if got := r.pub.Stored(); len(got) != 2 || got[0].ID() != got[1].ID() {
		t.Errorf("stored %v", got)
	}
}

// A repetition that comes while the first is being stored waits for it: it is not
// answered 2xx before anything is durable, and takes over when the first fails.
func TestWebhookRepeatInFlight(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]error{"stored": nil, "failed": errors.New("no")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := senders()[0]
			r := runHook(t, s.settings(), "/in/hook")
			entered, release := make(chan struct{}, 2), make(chan error, 2)
			r.pub.Before = func(context.Context) error {
				entered <- struct{}{}
				return <-release
			}
			answers := make(chan int, 2)
			var wg sync.WaitGroup
			send := func() {
				wg.Go(func() {
					resp, err := http.DefaultTransport.RoundTrip(s.request(r.url, "1", time.Now()))
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					answers <- resp.StatusCode
				})
			}
			send()
			<-entered
			send()
			select {
			case got := <-answers:
				t.Fatalf("answered %d while nothing was durable", got)
			case <-entered:
				t.Fatal("both are being stored")
			case <-time.After(50 * time.Millisecond):
			}
			release <- first
			release <- nil
			wg.Wait()
			want := map[int]int{202: 2}
			if first != nil {
				want = map[int]int{202: 1, 503: 1}
			}
			got := map[int]int{<-answers: 1}
			got[<-answers]++
			if len(got) != len(want) || got[202] != want[202] || len(r.pub.Stored()) != 1 {
				t.Errorf("answered %v, %d events", got, len(r.pub.Stored()))
			}
		})
	}
}

// The handshake of CloudEvents senders, on both kinds of doors.
func TestHandshake(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		handshake    sources.Handshake
		origin, rate string
		allowed      string
		granted      string
	}{
		"all":          {sources.Handshake{Origins: []string{"*"}}, "events.example.com", "120", "events.example.com", "*"},
		"named":        {sources.Handshake{Origins: []string{"events.example.com"}}, "Events.Example.com", "", "Events.Example.com", "*"},
		"a stranger":   {sources.Handshake{Origins: []string{"events.example.com"}}, "evil.example", "", "", ""},
		"not asked":    {sources.Handshake{Origins: []string{"*"}}, "", "", "", ""},
		"less":         {sources.Handshake{Origins: []string{"*"}, Rate: value.Rate{Count: 2, Per: time.Second}}, "a.b", "60", "a.b", "60"},
		"more":         {sources.Handshake{Origins: []string{"*"}, Rate: value.Rate{Count: 2, Per: time.Second}}, "a.b", "6000", "a.b", "120"},
		"nothing said": {sources.Handshake{Origins: []string{"*"}, Rate: value.Rate{Count: 2, Per: time.Second}}, "a.b", "", "a.b", "120"},
		"nonsense":     {sources.Handshake{Origins: []string{"*"}, Rate: value.Rate{Count: 7, Per: time.Minute}}, "a.b", "-9", "a.b", "7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hook := (&sender{verify: sources.Verify{Bearer: one(secret)}}).settings()
			hook.Handshake = &tc.handshake
			plain := sources.NewHTTP()
			plain.Path, plain.Handshake = "/in/hook", &tc.handshake
			for _, settings := range []sources.Settings{hook, plain} {
				r := runHook(t, settings, "/in/hook")
				req, err := http.NewRequest(http.MethodOptions, r.url, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if tc.origin != "" {
					req.Header.Set("WebHook-Request-Origin", tc.origin)
				}
				if tc.rate != "" {
					req.Header.Set("WebHook-Request-Rate", tc.rate)
				}
				a := r.do(t, req)
				if a.status != 200 || a.header.Get("WebHook-Allowed-Origin") != tc.allowed || a.header.Get("WebHook-Allowed-Rate") != tc.granted || a.header.Get("Allow") != "POST" {
					t.Errorf("%T: %d %v", settings, a.status, a.header)
				}
				if len(r.pub.Stored()) != 0 {
					t.Error("it became an event")
				}
			}
		})
	}
}
