package dispatch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/rules"
	"sluice/sinks"
)

// replying is a sink whose far side answers.
type replying struct {
	*far
	mu    sync.Mutex
	reply func(d sinks.Delivery) (sinks.Answer, error)
}

func newReplying(reply func(sinks.Delivery) (sinks.Answer, error)) *replying {
	return &replying{far: newFar(nil), reply: reply}
}

func (r *replying) DeliverReply(ctx context.Context, d sinks.Delivery) (sinks.Answer, error) {
	r.mu.Lock()
	reply := r.reply
	r.mu.Unlock()
	a, err := reply(d)
	if err != nil {
		return a, err
	}
	return a, r.Deliver(ctx, d)
}

// typed is an event.
func typed(t testing.TB, id, eventType string, attrs ...bus.Attr) bus.Event {
	t.Helper()
	e, err := bus.NewEvent(append([]bus.Attr{
		{Name: "id", Value: id}, {Name: "source", Value: "test"}, {Name: "type", Value: eventType},
	}, attrs...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// byType is a table that sends each type to the sink of the same name, whatever
// stands behind a dot in it.
func byType(t testing.TB, specs ...dispatch.SinkSpec) dispatch.Table {
	t.Helper()
	table := dispatch.Table{Version: "v1", Sinks: specs}
	for _, s := range specs {
		p, err := rules.ParsePattern([]byte(`{"type":["` + s.Name + `"]}`))
		if err != nil {
			t.Fatal(err)
		}
		table.Routes = append(table.Routes, dispatch.Route{Name: "to-" + s.Name, Pattern: p, To: []string{s.Name}})
	}
	return table
}

// Functions make a pipeline by their replies: each is stored before the delivery
// counts, and says where it comes from.
func TestPipeline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		step := func(next string) *replying {
			return newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
				if !d.Ask.Events || d.Ask.Body {
					t.Errorf("asked for %+v", d.Ask)
				}
				return sinks.Answer{Events: []bus.Event{typed(t, d.Event.ID()+"'", next)}}, nil
			})
		}
		seen := map[string]bus.Event{}
		var mu sync.Mutex
		last := newFar(func(_ context.Context, d sinks.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			seen[d.Event.ID()] = d.Event
			return nil
		})
		resize, store := step("store"), step("notify")
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("resize", resize, nil), spec("store", store, nil), spec("notify", last, nil)))
		defer d.stop()
		for _, id := range names("e", 20) {
			if _, err := d.pub.Publish(t.Context(), typed(t, id, "resize")); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Second)
		if last.count() != 20 || last.times("e7''") != 1 {
			t.Fatalf("%d came to the end", last.count())
		}
		d.settled()
		e := seen["e7''"]
		if e.Get("causationid") != "e7'" || e.Get("correlationid") != "e7" || e.Get("sluicehops") != "2" {
			t.Errorf("the last event: %s", e.AppendJSON(nil))
		}
	})
}

// A reply that cannot be stored makes the delivery fail: the sink is called again,
// and nothing is lost.
func TestReplyIsDurable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		full := newSwitch()
		store := memlog.New(memlog.Options{Hook: full.hook})
		f := newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
			full.set(d.Attempt < 3)
			return sinks.Answer{Events: []bus.Event{typed(t, "reply", "end")}}, nil
		})
		last := newFar(nil)
		d := start(t, store, byType(t, spec("begin", f, nil), spec("end", last, nil)))
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "begin")); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if f.attempts() != 3 || last.times("reply") != 1 {
			t.Errorf("%d attempts, %d replies arrived", f.attempts(), last.times("reply"))
		}
		if s := d.Sinks()[0]; s.State != dispatch.StateActive {
			t.Errorf("the sink is %s for the store's fault", s.State)
		}
		d.settled()
	})
}

// A function that answers itself is stopped by name.
func TestReplyLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
			return sinks.Answer{Events: []bus.Event{typed(t, d.Event.ID()+"x", "f")}}, nil
		})
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("f", f, nil)))
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "f")); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
		if err != nil || len(letters) != 1 || letters[0].Reason != "loop" || len(letters[0].Event.ID()) != 1+dispatch.MaxHops {
			t.Fatalf("%+v, %v", letters, err)
		}
		if text := letters[0].Attempts[0].Error; !strings.Contains(text, `of type "f"`) {
			t.Errorf("it says: %s", text)
		}
		d.settled()
	})
}

// Whoever waits for a reply gets the first one.
func TestAwait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
			return sinks.Answer{Events: []bus.Event{typed(t, "answer to "+d.Event.ID(), "none")}}, nil
		})
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("f", f, nil)))
		defer d.stop()
		e := typed(t, "e", "f")
		reply, stop := d.Await(e)
		other, stopOther := d.Await(typed(t, "another", "f"))
		defer stopOther()
		if _, err := d.pub.Publish(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if got := <-reply; got.ID() != "answer to e" {
			t.Errorf("got %s", got.AppendJSON(nil))
		}
		stop()
		stop()
		synctest.Wait()
		select {
		case <-other:
			t.Error("the other got a reply")
		default:
		}
		d.stop()
		late, stopLate := d.Await(e)
		defer stopLate()
		for _, c := range []<-chan bus.Event{other, late} {
			if _, ok := <-c; ok {
				t.Error("a reply of a bus that has stopped")
			}
		}
	})
}

// on_success and on_failure get a report, with the event and the answer, and of
// reports nothing is reported.
func TestReports(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		reports := map[string]string{}
		observer := newFar(func(_ context.Context, d sinks.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			reports[d.Rule] = string(d.Event.Data())
			return nil
		})
		f := newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
			if d.Event.ID() == "bad" {
				return sinks.Answer{}, sinks.Permanent(errors.New("no"))
			}
			if !d.Ask.Body {
				t.Error("the body is not wanted")
			}
			return sinks.Answer{Status: 201, ContentType: "application/json", Body: []byte(`{"size":3}`)}, nil
		})
		both := func(o *dispatch.Options) { o.OnSuccess, o.OnFailure = "observer", "observer" }
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("f", f, both), spec("observer", observer, both)))
		defer d.stop()
		for _, id := range []string{"good", "bad"} {
			if _, err := d.pub.Publish(t.Context(), typed(t, id, "f")); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute)
		d.settled()
		mu.Lock()
		defer mu.Unlock()
		if len(reports) != 2 || observer.attempts() != 2 {
			t.Fatalf("%d reports: %v", observer.attempts(), reports)
		}
		var good struct {
			Sink, Rule string
			Answer     struct{ JSON struct{ Size int } }
			Event      struct{ ID string }
		}
		if err := json.Unmarshal([]byte(reports["(on_success)"]), &good); err != nil || good.Event.ID != "good" || good.Answer.JSON.Size != 3 || good.Sink != "f" {
			t.Errorf("of success: %s, %v", reports["(on_success)"], err)
		}
		var bad struct {
			Reason string
			Event  struct{ ID string }
		}
		if err := json.Unmarshal([]byte(reports["(on_failure)"]), &bad); err != nil || bad.Event.ID != "bad" || bad.Reason != "rejected" {
			t.Errorf("of failure: %s, %v", reports["(on_failure)"], err)
		}
	})
}

// aSwitch makes a store full and empty again, for events.
type aSwitch struct {
	mu sync.Mutex
	on bool
}

func newSwitch() *aSwitch { return &aSwitch{} }

func (s *aSwitch) set(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
}

func (s *aSwitch) hook(_ context.Context, op memlog.Op) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on && op.Name == memlog.OpAppend && op.Stream == bus.Events {
		return bus.ErrFull
	}
	return nil
}

func lasting(d time.Duration) value.Duration { return value.Duration(d) }

// A loop that goes through the report of on_success is a loop too.
func TestLoopThroughReports(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := 0
		var mu sync.Mutex
		b := newReplying(func(d sinks.Delivery) (sinks.Answer, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > 100 {
				return sinks.Answer{}, nil
			}
			return sinks.Answer{Events: []bus.Event{typed(t, fmt.Sprint("r", n), "a")}}, nil
		})
		a := newFar(nil)
		table := byType(t, spec("a", a, func(o *dispatch.Options) { o.OnSuccess = "b" }), spec("b", b, nil))
		d := start(t, memlog.New(memlog.Options{}), table)
		defer d.stop()
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "a")); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if n > 2*dispatch.MaxHops {
			t.Errorf("%d rounds", n)
		}
	})
}

// What a publisher writes into the count of hops does not let a loop go on.
func TestHopsOfStrangers(t *testing.T) {
	t.Parallel()
	for _, hops := range []string{"9223372036854775807", "99999999999999999999999", "-100", "x"} {
		t.Run(hops, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := 0
				a := newReplying(func(sinks.Delivery) (sinks.Answer, error) {
					if n++; n > 50 {
						return sinks.Answer{}, nil
					}
					return sinks.Answer{Events: []bus.Event{typed(t, fmt.Sprint("r", n), "a")}}, nil
				})
				d := start(t, memlog.New(memlog.Options{}), byType(t, spec("a", a, nil)))
				defer d.stop()
				if _, err := d.pub.Publish(t.Context(), typed(t, "e", "a", bus.Attr{Name: "sluicehops", Value: hops})); err != nil {
					t.Fatal(err)
				}
				pass(time.Minute)
				if n > dispatch.MaxHops+1 {
					t.Errorf("%d rounds", n)
				}
			})
		})
	}
}
