package sinks_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/bus"
	"sluice/config/value"
	"sluice/sinks"
	"sluice/sinks/sinktest"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// otherBus is the ingest of a bus: the real one, or what a test wants it to say.
type otherBus struct {
	*sourcetest.Publisher
	ingest http.Handler
	answer atomic.Pointer[sinktest.Answer]
	hang   atomic.Bool
	over   chan struct{}
	got    chan sinktest.Got // what single requests brought
	url    string
}

func newOtherBus(t *testing.T, limits sources.Limits) *otherBus {
	t.Helper()
	o := &otherBus{Publisher: &sourcetest.Publisher{}, over: make(chan struct{}), got: make(chan sinktest.Got, 1024)}
	o.ingest = sources.NewHandler(o.Publisher, sources.HandlerOptions{Limits: limits})
	srv := httptest.NewServer(o)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(o.over) })
	o.url = srv.URL
	return o
}

func (o *otherBus) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/bus/events" || r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, "unknown", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if mode, err := bus.ModeOf(r.Header); err == nil && mode != bus.Batch {
		o.note(r.Header, body)
	}
	if o.hang.Load() {
		select {
		case <-r.Context().Done():
		case <-o.over:
		}
		return
	}
	if a := o.answer.Load(); a != nil {
		if a.RetryAfter != "" {
			w.Header().Set("Retry-After", a.RetryAfter)
		}
		w.WriteHeader(a.Status)
		_, _ = io.WriteString(w, a.Body)
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	o.ingest.ServeHTTP(w, r)
}

// note writes down a single event without its hop.
func (o *otherBus) note(h http.Header, body []byte) {
	e, err := bus.FromHTTP(h, body)
	if err != nil || e.Get("sluicehops") != "1" {
		return // then the test waits in vain
	}
	var attrs []bus.Attr
	for _, a := range e.Attrs() {
		if a.Name != "sluicehops" {
			attrs = append(attrs, a)
		}
	}
	if e, err = bus.NewEvent(attrs, e.Data()); err != nil {
		return
	}
	attempt, _ := strconv.Atoi(h.Get("Sluice-Attempt"))
	o.got <- sinktest.Got{Event: e, ID: h.Get("Sluice-Delivery-Id"), Rule: h.Get("Sluice-Rule"), Attempt: attempt}
}

func (o *otherBus) sink(t *testing.T) sinks.BatchSink {
	t.Helper()
	return open(t, sluiceSettings(t, o.url)).(sinks.BatchSink)
}

func sluiceSettings(t *testing.T, url string) *sinks.Sluice {
	t.Helper()
	s := sinks.NewSluice()
	s.URL, s.Token = parse(t, url+"/bus/"), value.NewSecret(token)
	return s
}

func TestSluice(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T, env sinks.Env) *sinktest.Subject {
		o := newOtherBus(t, sources.Limits{})
		return &sinktest.Subject{
			Sink: openIn(t, sluiceSettings(t, o.url), env), Received: o.got, Carries: true, KeepsKinds: true, Secrets: []string{token},
			Hang:   func() { o.hang.Store(true) },
			Answer: func(a sinktest.Answer) { o.answer.Store(&a) },
			Elsewhere: func(t *testing.T, addr string, tls *tls.Config) sinks.Sink {
				return openIn(t, sluiceSettings(t, schemeOf(tls)+"://"+addr), env)
			},
		}
	})
}

// hopped is an event that was handed on so many times.
func hopped(t *testing.T, id, hops string, data string) bus.Event {
	t.Helper()
	attrs := []bus.Attr{{Name: "id", Value: id}, {Name: "source", Value: "/s"}, {Name: "type", Value: "made"}, {Name: "datacontenttype", Value: "text/plain"}}
	if hops != "" {
		attrs = append(attrs, bus.Attr{Name: "sluicehops", Value: hops})
	}
	e, err := bus.NewEvent(attrs, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSluiceHops(t *testing.T) {
	t.Parallel()
	o := newOtherBus(t, sources.Limits{})
	sink := o.sink(t)
	for hops, want := range map[string]string{"": "1", "0": "1", "7": "8", "15": "16", "16": "", "400": "", "-3": "1", "many": "1"} {
		n := len(o.Stored())
		err := sink.Deliver(t.Context(), sinks.Delivery{Event: hopped(t, "h"+hops, hops, "x"), ID: "d", Sink: "s", Attempt: 1})
		if want == "" {
			var e *sinks.Error
			if !errors.Is(err, sinks.ErrLoop) || !errors.As(err, &e) || !e.Permanent || len(o.Stored()) != n || !strings.Contains(err.Error(), "was handed on "+hops+" times") {
				t.Errorf("%q hops: %v", hops, err)
			}
			continue
		}
		if stored := o.Stored(); err != nil || len(stored) != n+1 || stored[n].Get("sluicehops") != want {
			t.Errorf("%q hops: %v %v", hops, err, stored)
		}
	}
}

// Each event of a batch has its own fate: those of the other bus, and loops.
func TestSluiceBatch(t *testing.T) {
	t.Parallel()
	o := newOtherBus(t, sources.Limits{Event: 1 << 10})
	ds := make([]sinks.Delivery, 0, 6)
	for i, e := range []bus.Event{
		hopped(t, "0", "", "x"), hopped(t, "1", "16", "x"), hopped(t, "2", "3", "x"),
		hopped(t, "3", "", strings.Repeat("\"", 900)), // too large as JSON only
		hopped(t, "4", "", strings.Repeat("x", 2<<10)),
		hopped(t, "5", "", "x"),
	} {
		ds = append(ds, sinks.Delivery{Event: e, ID: fmt.Sprint("d", i), Sink: "s", Attempt: 1})
	}
	sink := o.sink(t)
	failed, err := sink.DeliverBatch(t.Context(), ds)
	if err != nil || len(failed) != len(ds) {
		t.Fatal(failed, err)
	}
	for i, err := range failed {
		var e *sinks.Error
		switch bad := errors.As(err, &e); {
		case i == 1 && !errors.Is(err, sinks.ErrLoop), i == 4 && (!bad || e.Status != 413), i != 1 && i != 4 && err != nil:
			t.Errorf("event %d: %v", i, err)
		}
	}
	ids := map[string]bool{}
	for _, e := range o.Stored() {
		ids[e.ID()+"/"+e.Get("sluicehops")] = true
	}
	if len(ids) != 4 || !ids["0/1"] || !ids["2/4"] || !ids["3/1"] || !ids["5/1"] {
		t.Errorf("stored are %v", ids)
	}
}

// What the other bus says of a whole batch, and what is not said by a Sluice.
func TestSluiceBatchAnswers(t *testing.T) {
	t.Parallel()
	full := sources.DefaultLimits()
	full.BatchEvents = 1
	for name, c := range map[string]struct {
		limits sources.Limits
		before func(context.Context) error
		answer *sinktest.Answer
		status int
		after  bool
		each   bool // the error is that of each event
		want   string
	}{
		"full":          {before: func(context.Context) error { return bus.ErrFull }, status: 507, after: true, each: true, want: "the store is full"},
		"overloaded":    {before: func(context.Context) error { return bus.ErrOverloaded }, status: 429, after: true, each: true, want: "the bus is overloaded"},
		"too many":      {limits: full, status: 413, want: "413"},
		"down":          {answer: &sinktest.Answer{Status: 503, RetryAfter: "3", Body: "upstream"}, status: 503, after: true, want: "503"},
		"no Sluice":     {answer: &sinktest.Answer{Status: 200, Body: "<html>"}, want: "does not say what became of each event"},
		"fewer results": {answer: &sinktest.Answer{Status: 202, Body: `{"events":[{"index":0,"ok":true}]}`}, want: "does not say what became of each event"},
		"odd results":   {answer: &sinktest.Answer{Status: 202, Body: `{"events":[{"index":0,"ok":true},{"index":0,"ok":true}]}`}, want: "does not say what became of each event"},
		"empty":         {answer: &sinktest.Answer{Status: 204}, want: "does not say what became of each event"},
		"its secret":    {answer: &sinktest.Answer{Status: 400, Body: token}, status: 400, want: "400"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOtherBus(t, c.limits)
			o.Before = c.before
			o.answer.Store(c.answer)
			ds := []sinks.Delivery{{Event: hopped(t, "0", "", "x"), ID: "a", Sink: "s"}, {Event: hopped(t, "1", "", "x"), ID: "b", Sink: "s"}}
			failed, err := o.sink(t).DeliverBatch(t.Context(), ds)
			if c.each && err == nil && len(failed) == 2 && failed[0] != nil {
				err = failed[1]
			} else if c.each {
				t.Fatalf("not each has its error: %v %v", failed, err)
			}
			var e *sinks.Error
			errors.As(err, &e)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.status != 0 && (e == nil || e.Status != c.status) ||
				e != nil && ((e.RetryAfter > 0) != c.after || e.Permanent || strings.Contains(string(e.Answer), token)) {
				t.Errorf("%+v", err)
			}
		})
	}
}

func TestSluiceCredentials(t *testing.T) {
	t.Parallel()
	o := newOtherBus(t, sources.Limits{})
	s := sinks.NewSluice()
	s.URL, s.Token = parse(t, o.url+"/bus"), value.NewSecret("another-secret")
	err := open(t, s).Deliver(t.Context(), sinks.Delivery{Event: hopped(t, "0", "", "x"), ID: "a", Sink: "s"})
	var e *sinks.Error
	if !errors.As(err, &e) || e.Status != 401 || !strings.Contains(err.Error(), "check token") || strings.Contains(err.Error(), "another-secret") {
		t.Errorf("%v", err)
	}
}

func TestSluiceValidate(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*sinks.Sluice){
		"url is missing":       func(s *sinks.Sluice) { s.URL = value.URL{} },
		"url has a user in it": func(s *sinks.Sluice) { s.URL = parse(t, "http://u:p@a") },
		"url has a query":      func(s *sinks.Sluice) { s.URL = parse(t, "http://a?b") },
		"path is not a path":   func(s *sinks.Sluice) { s.Path = "events" },
		"token has a space":    func(s *sinks.Sluice) { s.Token = value.NewSecret("Bearer x") },
		"tls":                  func(s *sinks.Sluice) { s.TLS = &sinks.HTTPTLS{CA: "ca.pem"} },
	} {
		s := sinks.NewSluice()
		s.URL = parse(t, "http://a")
		change(s)
		if faults := s.Validate(); len(faults) != 1 || !strings.HasPrefix(faults[0].Key+" "+faults[0].Msg, want) {
			t.Errorf("%v, want %q", faults, want)
		}
	}
}
