package dispatch_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/rules"
	"sluice/sinks"
)

// sent notes what a sink gets, as "id body of type at path".
type sent struct {
	mu  sync.Mutex
	all []string
	err error
}

func (s *sent) Deliver(_ context.Context, d sinks.Delivery) error {
	text := d.Event.ID() + " as it is"
	if p := d.Payload; p != nil {
		text = fmt.Sprintf("%s %s of %s at %q", d.Event.ID(), p.Body, p.ContentType, p.Path)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, text)
	return s.err
}

func (s *sent) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// got is what came since the last time.
func (s *sent) got() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.Join(s.all, "; ")
	s.all = nil
	return text
}

func transform(t testing.TB, spec rules.TransformSpec) *rules.Transform {
	t.Helper()
	tr, err := rules.ParseTransform(spec)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func where(t testing.TB, text string) *rules.Where {
	t.Helper()
	w, err := rules.ParseWhere(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// shaped is one's table with a transform that needs data.n of the event.
func shaped(t testing.TB, template string, specs ...dispatch.SinkSpec) dispatch.Table {
	t.Helper()
	table := one(t, specs...)
	table.Routes[0].Transform = transform(t, rules.TransformSpec{
		Paths: map[string]string{"n": "$.data.n"}, Template: template, HTTP: rules.TransformHTTP{Path: "/n/<n>"},
	})
	return table
}

func (b *bench) publishData(id, data string) {
	b.t.Helper()
	e, err := bus.NewEvent([]bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: "test"}, {Name: "type", Value: "test.made"},
	}, []byte(data))
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.pub.Publish(b.t.Context(), e); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) letters() []dispatch.DeadLetter {
	b.t.Helper()
	letters, _, err := b.DeadLetters(b.t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
	if err != nil {
		b.t.Fatal(err)
	}
	return letters
}

func TestTransformIsSent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &sent{}
		d := start(t, memlog.New(memlog.Options{}), shaped(t, `{"n": <n>, "rule": <sluice.rule>}`, spec("s", s, nil)))
		defer d.stop()
		d.publish("e")
		synctest.Wait()
		if got := s.got(); got != `e {"n": 1, "rule": "all"} of application/json at "/n/1"` {
			t.Fatalf("the sink got %s", got)
		}
		d.settled()
	})
}

// TestTransformFails is about an event that the transform has no result for: a dead
// letter with the event as it was, which a redrive delivers once the rule is mended.
func TestTransformFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &sent{}
		d := start(t, memlog.New(memlog.Options{}), shaped(t, `[<n>]`, spec("s", s, func(o *dispatch.Options) {
			o.Breaker.Failures = 1
		})))
		defer d.stop()
		d.publishData("bad", `{"m": 2}`)
		d.publish("good")
		synctest.Wait()
		if got := s.got(); got != `good [1] of application/json at "/n/1"` {
			t.Fatalf("the sink got %s", got)
		}
		letters := d.letters()
		if len(letters) != 1 {
			t.Fatalf("%d dead letters", len(letters))
		}
		l := letters[0]
		if l.Reason != "transform" || string(l.Event.Data()) != `{"m": 2}` || len(l.Attempts) != 1 || l.Attempts[0].Class != "transform" ||
			!strings.Contains(l.Attempts[0].Error, "needs <n>") {
			t.Fatalf("the dead letter is %+v", l)
		}
		if st := d.Sinks()[0]; st.State != dispatch.StateActive || st.LastError != "" {
			t.Fatalf("the sink is blamed for it: %+v", st)
		}
		d.settled()

		table := one(t, dispatch.SinkSpec{Name: "s"})
		table.Routes[0].Transform = transform(t, rules.TransformSpec{Paths: map[string]string{"m": "$.data.m"}, Template: "m is <m>"})
		d.mend(table)
		if got := s.got(); got != `bad m is 2 of text/plain; charset=utf-8 at ""` {
			t.Fatalf("after the redrive the sink got %s", got)
		}
		d.settled()
	})
}

// mend brings a table into force and redrives all dead letters.
func (b *bench) mend(table dispatch.Table) {
	b.t.Helper()
	if err := b.Reload(b.t.Context(), table); err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.Redrive(b.t.Context(), dispatch.Redrive{}); err != nil {
		b.t.Fatal(err)
	}
	pass(time.Second)
}

// TestTransformOfARuleThatIsGone never sends the event in place of what the rule
// would have made of it.
func TestTransformOfARuleThatIsGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &sent{err: sinks.Answered(503, nil)}
		store := memlog.New(memlog.Options{})
		slow := func(o *dispatch.Options) {
			o.Retry = dispatch.Retry{Initial: 10e9, Max: 10e9, Multiplier: 1, Jitter: "none", Preset: "default"}
		}
		d := start(t, store, shaped(t, `[<n>]`, spec("s", s, slow)))
		d.publish("e")
		synctest.Wait()
		d.stop()
		s.fail(nil)
		s.got()

		other := one(t, spec("s", s, slow))
		other.Routes[0].Name = "other"
		d = start(t, store, other)
		defer d.stop()
		pass(11 * time.Second)
		letters := d.letters()
		if len(letters) != 1 || letters[0].Reason != "transform" || !strings.Contains(letters[0].Attempts[1].Error, `"all" is not in force`) {
			t.Fatalf("the dead letters are %+v", letters)
		}
		d.settled()
		// And neither does a redrive; only the rule itself can say that it has no
		// transform any more.
		d.mend(dispatch.Table{Routes: other.Routes, Sinks: []dispatch.SinkSpec{{Name: "s"}}})
		if got := s.got(); got != "" || len(d.letters()) != 1 {
			t.Fatalf("the sink got %s", got)
		}
		d.mend(one(t, dispatch.SinkSpec{Name: "s"}))
		if got := s.got(); got != "e as it is" {
			t.Fatalf("the sink got %s", got)
		}
		d.settled()
	})
}

// TestTransformComesLater applies the rule as it is at the attempt.
func TestTransformComesLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &sent{err: sinks.Answered(503, nil)}
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("s", s, nil)))
		defer d.stop()
		d.publish("e")
		synctest.Wait()
		s.fail(nil)
		s.got()
		if err := d.Reload(t.Context(), shaped(t, "n=<n>", dispatch.SinkSpec{Name: "s"})); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := s.got(); got != `e n=1 of text/plain; charset=utf-8 at "/n/1"` {
			t.Fatalf("the sink got %s", got)
		}
		// What goes to the sinks of a replay by name goes by no rule.
		if _, err := d.Replay(t.Context(), dispatch.Replay{Sinks: []string{"s"}}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if got := s.got(); got != "e as it is" {
			t.Fatalf("the replay sent %s", got)
		}
		d.settled()
	})
}

// TestTransformsGoOutAlone mixes them with events that share requests.
func TestTransformsGoOutAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &farBatch{far: newFar(nil)}
		table := shaped(t, "n=<n>", spec("f", f, batches(10, time.Second)))
		plain := table.Routes[0]
		plain.Name, plain.Transform = "plain", nil
		table.Routes = append(table.Routes, plain)
		d := start(t, memlog.New(memlog.Options{}), table)
		defer d.stop()
		d.publish(names("e", 20)...)
		pass(2 * time.Second)
		inBatches := 0
		for _, n := range f.sizes {
			inBatches += n
		}
		if inBatches != 20 || f.attempts() != 20+len(f.sizes) || f.times("e0") != 2 {
			t.Fatalf("%d requests, of which batches of %v", f.attempts(), f.sizes)
		}
		d.settled()
	})
}

func TestWhere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := &sent{}
		registry := prometheus.NewRegistry()
		raw, err := dispatch.New(dispatch.Config{Store: memlog.New(memlog.Options{}), Log: quiet(), Registry: registry})
		if err != nil {
			t.Fatal(err)
		}
		table := one(t, spec("s", s, nil), spec("rest", &sent{}, nil))
		table.Routes = []dispatch.Route{
			{Name: "yes", Pattern: everything(t), Where: where(t, "id = 'e'"), To: []string{"s"}},
			{Name: "no", Pattern: everything(t), Where: where(t, "id = 'x'"), To: []string{"s"}},
			{Name: "fails", Pattern: everything(t), Where: where(t, "absent = 1"), To: []string{"s"}},
		}
		table.Unmatched = []string{"rest"}
		if err := raw.Start(t.Context(), table); err != nil {
			t.Fatal(err)
		}
		d := &bench{Dispatcher: raw, t: t, pub: raw.Publisher("test")}
		defer d.stop()
		told := make(chan dispatch.Notice, 8)
		go func() {
			_ = d.Tail(t.Context(), dispatch.TailFilter{Stages: []string{dispatch.StageAccepted}}, func(n dispatch.Notice, _ int64) error {
				told <- n
				return nil
			})
		}()
		synctest.Wait()
		d.publish("e", "f")
		synctest.Wait()
		if got := s.got(); got != "e as it is" {
			t.Fatalf("the sink got %s", got)
		}
		status := d.Rules()
		for i, want := range []dispatch.RuleStatus{{Matches: 1, WhereRejections: 1}, {WhereRejections: 2}, {WhereErrors: 2, LastWhereError: "missing attribute error: absent"}} {
			got := status[i]
			if got.Matches != want.Matches || got.WhereRejections != want.WhereRejections || got.WhereErrors != want.WhereErrors || got.LastWhereError != want.LastWhereError {
				t.Errorf("rule %s is %+v, want %+v", got.Name, got, want)
			}
		}
		err = testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP sluice_rule_where_errors_total Events that matched the pattern and for which where had no answer, by rule.
# TYPE sluice_rule_where_errors_total counter
sluice_rule_where_errors_total{rule="fails"} 2
sluice_rule_where_errors_total{rule="no"} 0
sluice_rule_where_errors_total{rule="yes"} 0
# HELP sluice_rule_where_rejections_total Events that matched the pattern and for which where was false, by rule.
# TYPE sluice_rule_where_rejections_total counter
sluice_rule_where_rejections_total{rule="fails"} 0
sluice_rule_where_rejections_total{rule="no"} 2
sluice_rule_where_rejections_total{rule="yes"} 1
# HELP sluice_events_unmatched_total Events that no rule matched.
# TYPE sluice_events_unmatched_total counter
sluice_events_unmatched_total 1
`), "sluice_rule_where_errors_total", "sluice_rule_where_rejections_total", "sluice_events_unmatched_total")
		if err != nil {
			t.Error(err)
		}
		n := <-told
		if len(n.Misses) != 2 || n.Misses[0].Rule != "no" || n.Misses[0].Err != nil || n.Misses[1].Rule != "fails" || n.Misses[1].Err == nil {
			t.Errorf("the notice has the misses %+v", n.Misses)
		}
		to, err := d.Match(event(t, "f"))
		if err != nil || len(to.Rules) != 0 || strings.Join(to.Sinks, " ") != "rest" || len(to.Misses) != 3 {
			t.Errorf("f goes to %+v, error %v", to, err)
		}
		d.settled()
	})
}

func TestExplainWhere(t *testing.T) {
	t.Parallel()
	never, err := rules.ParsePattern([]byte(`{"type":["other"]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pattern rules.Pattern
		where   string
		matched bool
		verdict string
		line    string
	}{
		{everything(t), "id = 'e'", true, dispatch.WhereTrue, "  ✓ where id = 'e': true\n"},
		{everything(t), "id = 'f'", false, dispatch.WhereFalse, "  ✗ where id = 'f': false\n"},
		{everything(t), "absent = 1", false, dispatch.WhereError, "  ✗ where absent = 1: error: missing attribute error: absent\n"},
		{never, "id = 'e'", false, dispatch.WhereUnasked, "  ✗ where id = 'e': not evaluated\n"},
	} {
		x := dispatch.Explain(dispatch.Route{Name: "r", Pattern: c.pattern, Where: where(t, c.where)}, event(t, "e"))
		if x.Matched != c.matched || x.Where.Verdict != c.verdict || !strings.HasSuffix(x.String(), c.line) || !c.matched && x.Missed != 1 {
			t.Errorf("%s: %+v\n%s", c.where, x, x)
		}
	}
}
