package sources_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/bus"
	"sluice/sources"
	"sluice/sources/sourcetest"
)

// httpSubject is an http source behind a real server.
func httpSubject(t *testing.T) *sourcetest.Subject {
	t.Helper()
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	s := sources.NewHTTP()
	s.Path = "/in/test"
	if faults := s.Validate(); len(faults) > 0 {
		t.Fatal(faults)
	}
	src, err := s.Open(t.Context(), sources.Env{
		Name:   "test",
		Handle: func(d sources.Door) error { mux.Handle(d.Path, d.Handler); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	post := func(ctx context.Context, contentType string, body []byte) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/in/test", bytes.NewReader(body))
		if err != nil {
			return 0, err
		}
		req.Header.Set("Content-Type", contentType)
		res, err := srv.Client().Do(req)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, errors.Join(err, res.Body.Close())
	}
	return &sourcetest.Subject{
		Source: src,
		Send: func(ctx context.Context, e bus.Event) error {
			status, err := post(ctx, bus.TypeStructured, e.AppendJSON(nil))
			if err == nil && status != http.StatusAccepted {
				err = fmt.Errorf("answered %d", status)
			}
			return err
		},
		Poison: func(ctx context.Context) {
			for contentType, body := range map[string]string{bus.TypeStructured: `{"id":`, bus.TypeBatch: `[{}, 1, null]`, "text/plain": "hello"} {
				if status, err := post(ctx, contentType, []byte(body)); err != nil || status < 400 || status > 499 {
					t.Errorf("%s: %d, %v", body, status, err)
				}
			}
		},
	}
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	sourcetest.Run(t, httpSubject)
}

func TestHTTPPathIsTaken(t *testing.T) {
	t.Parallel()
	s := sources.NewHTTP()
	s.Path = "/in/x"
	taken := errors.New("taken")
	if _, err := s.Open(t.Context(), sources.Env{Handle: func(sources.Door) error { return taken }}); !errors.Is(err, taken) {
		t.Errorf("Open returned %v", err)
	}
}

func TestHTTPValidate(t *testing.T) {
	t.Parallel()
	for path, ok := range map[string]bool{"/in/x": true, "/": true, "": false, "in": false, "/a/": false, "/a//b": false, "/{x}": false, "/a?b": false} {
		s := sources.NewHTTP()
		s.Path = path
		if got := len(s.Validate()) == 0; got != ok {
			t.Errorf("%q: valid is %v", path, got)
		}
	}
	s := sources.NewHTTP()
	s.Path, s.Limits.Event, s.Limits.BatchEvents = "/x", 64<<20, -1
	if faults := s.Validate(); len(faults) != 2 {
		t.Errorf("%v, want faults of limits.batch_events and limits.batch", faults)
	}
}

// door is a handler with what it published and observed.
type door struct {
	http.Handler
	pub      *sourcetest.Publisher
	observed map[sources.Outcome]int
}

func newDoor(limits sources.Limits) *door {
	d := &door{pub: &sourcetest.Publisher{}, observed: make(map[sources.Outcome]int)}
	d.Handler = sources.NewHandler(d.pub, sources.HandlerOptions{
		Limits:  limits,
		Observe: func(o sources.Outcome, n int) { d.observed[o] += n },
		Now:     func() time.Time { return time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC) },
	})
	return d
}

// post sends one request; header lines are "Name: value".
func (d *door) post(body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

// answer is every answer there is.
type answer struct {
	Type, Title, Detail, Attribute string
	Status                         any
	ID, Source, Position           string
	Accepted, Rejected             int
	Events                         []struct {
		Index                          int
		ID, Position, Error, Attribute string
		OK                             bool
		Status                         int
	}
}

func read(t *testing.T, w *httptest.ResponseRecorder) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if w.Code >= 400 {
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" || a.Status != float64(w.Code) || a.Title == "" || a.Type != "about:blank" {
			t.Errorf("not a problem document: %s %s", got, w.Body)
		}
	}
	return a
}

func binary() []string {
	return []string{"ce-specversion: 1.0", "ce-id: 1", "ce-source: /s", "ce-type: t", "Content-Type: application/json"}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	d := newDoor(sources.Limits{})
	w := d.post(`{"a": 1}`, binary()...)
	a := read(t, w)
	if w.Code != http.StatusAccepted || a.ID != "1" || a.Source != "/s" || a.Status != "accepted" || a.Position != "1.0" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	e := d.pub.Stored()[0]
	if string(e.Data()) != `{"a": 1}` || e.Get("time") != "2026-02-03T04:05:06.000007Z" {
		t.Errorf("stored is %s", e.AppendJSON(nil))
	}
	w = d.post(`{"specversion":"1.0","id":"a\"\u003cé","source":"/s","type":"t","time":"2020-01-01T00:00:00Z"}`, "Content-Type: application/cloudevents+json; charset=utf-8")
	if a := read(t, w); w.Code != http.StatusAccepted || a.ID != `a"<é` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := d.pub.Stored()[1].Get("time"); got != "2020-01-01T00:00:00Z" {
		t.Errorf("the event's own time became %s", got)
	}
	if d.observed[sources.Accepted] != 2 || len(d.observed) != 1 {
		t.Errorf("observed %v", d.observed)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	structured := "Content-Type: " + bus.TypeStructured
	for name, c := range map[string]struct {
		body    string
		header  []string
		status  int
		attr    string
		detail  string
		outcome sources.Outcome
	}{
		"no event":          {"{}", []string{"Content-Type: application/json"}, 415, "", "application/cloudevents+json", sources.Unsupported},
		"no type":           {"{}", nil, 415, "", "ce-specversion", sources.Unsupported},
		"other format":      {"", []string{"Content-Type: application/cloudevents+avro"}, 415, "", "application/cloudevents-batch+json", sources.Unsupported},
		"other charset":     {"", []string{structured + "; charset=latin1"}, 415, "", "UTF-8", sources.Unsupported},
		"compressed":        {"", append(binary(), "Content-Encoding: gzip"), 415, "", "uncompressed", sources.Unsupported},
		"no specversion":    {"", binary()[1:], 400, "specversion", "ce-specversion: 1.0", sources.Invalid},
		"old specversion":   {"", append(binary()[1:], "ce-specversion: 0.3"), 400, "specversion", "1.0", sources.Invalid},
		"no id":             {"", append(binary()[2:], "ce-specversion: 1.0"), 400, "id", "missing", sources.Invalid},
		"id twice":          {"", append(binary(), "ce-id: 2"), 400, "id", "twice", sources.Invalid},
		"bad name":          {"", append(binary(), "ce-my-ext: 2"), 400, "my-ext", "lower-case", sources.Invalid},
		"bad time":          {"", append(binary(), "ce-time: today"), 400, "time", "RFC 3339", sources.Invalid},
		"datacontenttype":   {"", append(binary(), "ce-datacontenttype: text/plain"), 400, "datacontenttype", "Content-Type", sources.Invalid},
		"invalid UTF-8":     {"", append(binary(), "ce-subject: %C0%A0"), 400, "subject", "UTF-8", sources.Invalid},
		"bad data":          {"{", binary(), 400, "data", "byte 1", sources.Invalid},
		"broken structured": {`{"id":1`, []string{structured}, 400, "", "byte 7", sources.Invalid},
		"number id":         {`{"specversion":"1.0","id":1,"source":"/s","type":"t"}`, []string{structured}, 400, "id", "quotes", sources.Invalid},
		"large":             {strings.Repeat(" ", 101), binary(), 413, "", "100 bytes", sources.TooLarge},
		"broken batch":      {`[{},`, []string{"Content-Type: " + bus.TypeBatch}, 400, "", "byte 4", sources.Invalid},
		"no batch":          {`{}`, []string{"Content-Type: " + bus.TypeBatch}, 400, "", "array", sources.Invalid},
		"many":              {`[1,1,1,1]`, []string{"Content-Type: " + bus.TypeBatch}, 413, "", "limit is 3", sources.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(sources.Limits{Event: 100, BatchEvents: 3})
			w := d.post(c.body, c.header...)
			a := read(t, w)
			if w.Code != c.status || a.Attribute != c.attr || !strings.Contains(a.Detail, c.detail) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if d.observed[c.outcome] != 1 || len(d.observed) != 1 || len(d.pub.Stored()) != 0 {
				t.Errorf("observed %v", d.observed)
			}
			if accepts := w.Header().Get("Accept-Post"); (accepts != "") != (c.status == 415) {
				t.Errorf("Accept-Post: %q", accepts)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS"} {
		w := httptest.NewRecorder()
		newDoor(sources.Limits{}).ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: %d, Allow: %s", method, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestStoreErrors(t *testing.T) {
	t.Parallel()
	one := `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`
	for cause, want := range map[error]struct {
		status  int
		after   string
		outcome sources.Outcome
	}{
		bus.ErrOverloaded:  {429, "1", sources.Overloaded},
		bus.ErrFull:        {507, "30", sources.Full},
		bus.ErrUnavailable: {503, "1", sources.Unavailable},
		bus.ErrClosed:      {503, "2", sources.Closed},
		bus.ErrTooLarge:    {413, "", sources.TooLarge},
		errors.New("open /secret/path: no space"): {503, "1", sources.Unavailable},
	} {
		for _, batch := range []bool{false, true} {
			d := newDoor(sources.Limits{})
			d.pub.Before = func(context.Context) error { return fmt.Errorf("append: %w", cause) }
			body, contentType := one, bus.TypeStructured
			if batch {
				body, contentType = "["+one+","+one+"]", bus.TypeBatch
			}
			w := d.post(body, "Content-Type: "+contentType)
			status, events := want.status, 1
			if batch {
				events = 2
				if status == 413 {
					status = 400
				}
			}
			if a := read(t, w); w.Code != status || w.Header().Get("Retry-After") != want.after || batch && a.Events[1].Status != want.status {
				t.Errorf("%v: %d, Retry-After %q, %s", cause, w.Code, w.Header().Get("Retry-After"), w.Body)
			}
			if d.observed[want.outcome] != events || strings.Contains(w.Body.String(), "/secret") {
				t.Errorf("%v: observed %v, %s", cause, d.observed, w.Body)
			}
		}
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	event := func(id string) string { return `{"specversion":"1.0","id":"` + id + `","source":"/s","type":"t"}` }
	for name, c := range map[string]struct {
		body               string
		status             int
		accepted, rejected int
	}{
		"good":  {"[" + event("1") + " , " + event("2") + "]", 202, 2, 0},
		"empty": {"[]", 202, 0, 0},
		"mixed": {`[` + event("1") + `,{"specversion":"1.0","id":"bad","source":"/s"},7,` + event("2") + `]`, 207, 2, 2},
		"bad":   {`[{"specversion":"1.0","id":"bad","source":"/s"},null]`, 400, 0, 2},
		"large": {`[` + event("1") + `,` + event(strings.Repeat("2", 200)) + `]`, 207, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoor(sources.Limits{Event: 200})
			w := d.post(c.body, "Content-Type: application/CloudEvents-Batch+JSON; charset=UTF-8")
			a := read(t, w)
			if w.Code != c.status || a.Accepted != c.accepted || a.Rejected != c.rejected || len(a.Events) != c.accepted+c.rejected {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			ok := 0
			for i, e := range a.Events {
				if e.Index != i || e.OK != (e.Error == "") || e.OK != (e.Position != "") || e.OK != (e.Status == 0) {
					t.Errorf("%+v", e)
				}
				if e.OK {
					ok++
				}
			}
			if ok != c.accepted || len(d.pub.Stored()) != c.accepted || d.observed[sources.Accepted] != c.accepted {
				t.Errorf("stored %d, observed %v, %s", len(d.pub.Stored()), d.observed, w.Body)
			}
		})
	}
	d := newDoor(sources.Limits{})
	a := read(t, d.post(`[`+event("1")+`,{"specversion":"1.0","id":"bad","source":"/s"}]`, "Content-Type: "+bus.TypeBatch))
	if bad := a.Events[1]; bad.ID != "bad" || bad.Attribute != "type" || bad.Status != 400 || !strings.Contains(bad.Error, "missing") {
		t.Errorf("%+v", bad)
	}
}

// When some events of a batch are bad and the others cannot be stored now, the
// sender has to come back: a 400 would tell it not to.
func TestBatchWorthRepeating(t *testing.T) {
	t.Parallel()
	d := newDoor(sources.Limits{})
	d.pub.Before = func(context.Context) error { return bus.ErrOverloaded }
	w := d.post(`[7,{"specversion":"1.0","id":"1","source":"/s","type":"t"},8]`, "Content-Type: "+bus.TypeBatch)
	if a := read(t, w); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" || a.Rejected != 3 || a.Events[0].Status != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// nowhere stores nothing: the first event is too large, and for the rest there is no room.
type nowhere struct{}

func (nowhere) Publish(_ context.Context, events ...bus.Event) ([]bus.Result, error) {
	results := make([]bus.Result, len(events))
	for i := range results {
		results[i].Err = bus.ErrFull
	}
	results[0].Err = bus.ErrTooLarge
	return results, results[0].Err
}

// What only has to wait is not refused for good because of its neighbour.
func TestBatchOfWhichNothingIsStored(t *testing.T) {
	t.Parallel()
	h := sources.NewHandler(nowhere{}, sources.HandlerOptions{})
	one := `{"specversion":"1.0","id":"1","source":"/s","type":"t"}`
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("["+one+","+one+"]"))
	r.Header.Set("Content-Type", bus.TypeBatch)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if a := read(t, w); w.Code != http.StatusInsufficientStorage || a.Events[0].Status != 413 || a.Events[1].Status != 507 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// forgetful says yes and forgets results.
type forgetful struct{}

func (forgetful) Publish(context.Context, ...bus.Event) ([]bus.Result, error) { return nil, nil }

func TestNoResultIsNoAcceptance(t *testing.T) {
	t.Parallel()
	h := sources.NewHandler(forgetful{}, sources.HandlerOptions{})
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`[{"specversion":"1.0","id":"1","source":"/s","type":"t"}]`))
	r.Header.Set("Content-Type", bus.TypeBatch)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// nothing is a Publisher that has stored everything already.
type nothing struct{ results atomic.Uint64 }

func (p *nothing) Publish(_ context.Context, events ...bus.Event) ([]bus.Result, error) {
	results := make([]bus.Result, len(events))
	for i := range results {
		results[i].Position.Seq = p.results.Add(1)
	}
	return results, nil
}
