package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/sinks"
)

// story is what is told of an event of the source test.
func (b *bench) story(id string) *dispatch.Story {
	b.t.Helper()
	all := b.stories(dispatch.StoryQuery{ID: id, Source: "test"})
	if len(all.Stories) != 1 {
		b.t.Fatalf("stories of %s: %+v", id, all)
	}
	return all.Stories[0]
}

func (b *bench) stories(q dispatch.StoryQuery) dispatch.Stories {
	b.t.Helper()
	if q.Patience == 0 {
		q.Patience = time.Minute
	}
	if q.Since.IsZero() {
		q.Since = time.Now().Add(-24 * time.Hour)
	}
	all, err := b.Story(b.t.Context(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// want compares how a story goes: the stages with their sinks, and how each delivery
// stands.
func want(t *testing.T, what string, s *dispatch.Story, lines ...string) {
	t.Helper()
	var got []string
	for _, h := range s.Timeline {
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s", h.Stage, h.Sink)))
	}
	for _, d := range s.Deliveries {
		got = append(got, fmt.Sprintf("= %s %s", d.Sink, d.State))
	}
	if !slices.Equal(got, lines) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func noted(s *dispatch.Story, text string) bool {
	return slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, text) })
}

// Wherever a delivery waits, the story says where, and how often it was tried.
func TestStoryOfWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		lazy := newLessee(time.Hour)
		table := func() dispatch.Table {
			few := func(o *dispatch.Options) {
				o.Retry = dispatch.Retry{Preset: "default", MaxAttempts: 9, Initial: lasting(time.Minute), Jitter: "none"}
			}
			return one(t, spec("fails", newFar(always(errors.New("no"))), few), spec("hangs", newFar(hang), func(o *dispatch.Options) { o.Timeout = lasting(15 * time.Minute) }),
				spec("leases", lazy, leases(time.Hour)), spec("ok", newFar(nil), nil), spec("paused", newFar(nil), nil))
		}
		d := start(t, store, table())
		if err := d.Pause(t.Context(), "paused", ""); err != nil {
			t.Fatal(err)
		}
		due := time.Now().Add(3 * time.Minute)
		d.publish("e")
		pass(2*time.Minute + 30*time.Second) // attempts at 0, 1 and 3 minutes
		check := func(when, hangs string, old bool) {
			t.Helper()
			s := d.story("e")
			states := map[string]string{}
			for _, x := range s.Deliveries {
				states[x.Sink] = x.State
				if x.Sink == "fails" && (x.Attempts != 2 || !x.Due.Equal(due)) {
					t.Errorf("%s: %+v", when, x)
				}
			}
			if fmt.Sprint(states) != fmt.Sprintf("map[fails:retry hangs:%s leases:leased ok:delivered paused:backlog]", hangs) {
				t.Errorf("%s: %v", when, states)
			}
			var fails []int
			for _, h := range s.Timeline {
				if h.Sink == "fails" && h.Stage == dispatch.StageRetry && h.Error == "no" {
					fails = append(fails, h.Attempt)
				}
			}
			if !slices.Equal(fails, []int{1, 2}) {
				t.Errorf("%s: attempts %v", when, fails)
			}
			if old != noted(s, "ended without saving") {
				t.Errorf("%s: notes %q", when, s.Notes)
			}
		}
		check("while it runs", "in_flight", false)
		d.stop()
		d = start(t, store.Restart(), table())
		synctest.Wait()
		check("after a restart", "in_flight", false)
		d.stop()
	})
}

// A process that is killed takes what it remembered with it: the story has what the
// store holds, and says what is missing.
func TestStoryAfterACrash(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		bad := newFar(always(sinks.Permanent(errors.New("never"))))
		table := func() dispatch.Table { return one(t, spec("bad", bad, nil), spec("ok", newFar(nil), nil)) }
		d := start(t, store, table())
		d.publish("e")
		pass(time.Second)
		want(t, "before", d.story("e"), "accepted", "delivered ok", "dead_letter bad", "= ok delivered", "= bad dead_letter")
		if s := d.story("e"); len(s.Notes) > 0 || s.Timeline[0].Rules[0] != "all" || s.Timeline[0].Config != "v1" {
			t.Errorf("before: %+v", s)
		}

		store = store.Restart() // it crashes
		d.stop()
		d = start(t, store, table())
		pass(time.Second)
		s := d.story("e")
		want(t, "after the crash", s, "accepted", "dead_letter bad", "= bad dead_letter", "= ok unknown")
		if !noted(s, "ended without saving") || !noted(s, "which rules it went by when it came is not remembered") || s.Timeline[0].Rules != nil {
			t.Errorf("after the crash: %q, %+v", s.Notes, s.Timeline[0])
		}
		if len(s.Timeline) == 2 && (s.Timeline[1].Known != dispatch.KnownLetter || s.Timeline[1].Error != "never") {
			t.Errorf("after the crash: %+v", s.Timeline[1])
		}

		// The redrive is remembered, with the attempts that only the dead letter knew.
		bad.set(nil)
		if _, err := d.Redrive(t.Context(), dispatch.Redrive{}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		want(t, "after the redrive", d.story("e"), "accepted", "dead_letter bad", "redriven bad", "delivered bad", "= bad delivered", "= ok unknown")

		// Killed again: nothing is left of that, and nothing is made up.
		store = store.Restart()
		d.stop()
		d = start(t, store, table())
		defer d.stop()
		pass(time.Second)
		want(t, "after two crashes", d.story("e"), "accepted", "= bad unknown", "= ok unknown")
	})
}

// Reports, replays and a redrive to another sink belong to the story of the event.
func TestStoryOfReportsAndReplays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bad := newFar(always(sinks.Permanent(errors.New("never"))))
		table := one(t, spec("bad", bad, func(o *dispatch.Options) { o.OnFailure = "alarm" }))
		table.Sinks = append(table.Sinks, spec("alarm", newFar(nil), nil), spec("else", newFar(nil), nil))
		d := start(t, memlog.New(memlog.Options{}), table)
		defer d.stop()
		d.publish("e")
		pass(time.Second)
		want(t, "at first", d.story("e"), "accepted", "dead_letter bad", "delivered alarm", "= bad dead_letter", "= alarm delivered")
		if _, err := d.Redrive(t.Context(), dispatch.Redrive{To: "else"}); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		job, err := d.Replay(t.Context(), dispatch.Replay{Sinks: []string{"else"}})
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		s := d.story("e")
		want(t, "in the end", s, "accepted", "dead_letter bad", "delivered alarm", "redriven bad", "delivered else", "delivered else",
			"= bad redriven", "= alarm delivered", "= else delivered", "= else delivered")
		if last := s.Timeline[len(s.Timeline)-1]; last.Replay != job.ID {
			t.Errorf("the replay: %+v", last)
		}
	})
}

// An event that retention has removed is told of from its dead letter.
func TestStoryOfARemovedEvent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		store := memlog.New(memlog.Options{})
		d := start(t, store, one(t, spec("bad", newFar(always(sinks.Permanent(errors.New("never")))), nil)))
		defer d.stop()
		d.publish("e")
		pass(time.Second)
		if err := store.Stream(bus.Events).Trim(t.Context(), "", 2); err != nil {
			t.Fatal(err)
		}
		s := d.story("e")
		want(t, "of an event that is gone", s, "dead_letter bad", "= bad dead_letter")
		if !noted(s, "was not found in the log") || len(s.Accepted) > 0 || s.Event == nil {
			t.Errorf("%+v", s)
		}
		if all := d.stories(dispatch.StoryQuery{ID: "f"}); len(all.Stories) > 0 {
			t.Errorf("of nothing: %+v", all.Stories)
		}
	})
}

// Functions that answer each other in a circle make a story that ends; events of other
// sources with the same id have their own.
func TestStoryOfALoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := 0
		f := newReplying(func(sinks.Delivery) (sinks.Answer, error) {
			n++
			return sinks.Answer{Events: []bus.Event{typed(t, fmt.Sprint("r", n), "loop")}}, nil
		})
		d := start(t, memlog.New(memlog.Options{}), byType(t, spec("loop", f, func(o *dispatch.Options) { o.Concurrency = 1 })))
		defer d.stop()
		other, err := typed(t, "e", "none").With(bus.Attr{Name: "source", Value: "other"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.pub.Publish(t.Context(), typed(t, "e", "loop"), other); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		depth := 0
		s := d.story("e")
		for ; len(s.Replies) == 1; s = s.Replies[0] {
			depth++
		}
		if depth != dispatch.MaxHops || s.Timeline[len(s.Timeline)-1].Class != "loop" {
			t.Errorf("%d replies; the last is %+v", depth, s)
		}
		all := d.stories(dispatch.StoryQuery{ID: "e"})
		if len(all.Stories) != 2 {
			t.Fatalf("%+v", all)
		}
		want(t, "of the other source", all.Stories[1], "accepted")
	})
}

// A look that is out of time says how far it came.
func TestStoryInALongLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("ok", newFar(nil), nil)))
		defer d.stop()
		d.publish("e")
		for range 50 {
			d.publish(names("x", 10)...)
			pass(10 * time.Minute)
		}
		if s := d.story("e"); len(s.Accepted) != 1 || len(s.Notes) > 0 {
			t.Errorf("%+v", s)
		}
		all := d.stories(dispatch.StoryQuery{ID: "e", Since: time.Now().Add(-time.Hour)})
		if len(all.Stories) > 0 || !all.Search.Complete || time.Since(all.Search.From) != time.Hour {
			t.Errorf("of the last hour: %+v", all)
		}
		all = d.stories(dispatch.StoryQuery{ID: "unknown", Patience: -1})
		if len(all.Stories) > 0 || all.Search.Complete || len(all.Search.Notes) == 0 || !strings.Contains(all.Search.Notes[0], "that took all the time there was") {
			t.Errorf("without time: %+v", all.Search)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Story(ctx, dispatch.StoryQuery{ID: "e", Patience: time.Minute}); err == nil {
			t.Error("a caller who has gone got an answer")
		}
	})
}

// While deliveries change their places, a story loses sight of none: each is somewhere,
// or was seen to end.
func TestStoryWhileItHappens(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	flaky := newFar(func(context.Context, sinks.Delivery) error {
		if tries.Add(1)%3 != 0 {
			return errors.New("not now")
		}
		return nil
	})
	quick := func(o *dispatch.Options) {
		o.Concurrency, o.SpillAfter = 2, lasting(5*time.Millisecond)
		o.Retry = dispatch.Retry{Schedule: slices.Repeat([]value.Duration{lasting(2 * time.Millisecond)}, 3)}
		o.Breaker.Failures = 1 << 30
	}
	d := start(t, memlog.New(memlog.Options{}), one(t, spec("flaky", flaky, quick), spec("ok", newFar(nil), nil)))
	defer d.stop()
	ids := names("e", 100)
	var asking sync.WaitGroup
	for i := 0; i < len(ids); i += 10 {
		d.publish(ids[i : i+10]...)
		asking.Go(func() {
			for _, id := range ids[i : i+10] {
				for over := 0; over < 2; <-time.After(time.Millisecond) {
					over = 0
					for _, x := range d.story(id).Deliveries {
						switch x.State {
						case dispatch.DeliveryEnded, dispatch.DeliveryUnknown, "":
							t.Errorf("%s → %s: %q", id, x.Sink, x.State)
							return
						case dispatch.DeliveryDelivered, dispatch.DeliveryDead:
							over++
						}
					}
				}
			}
		})
	}
	asking.Wait()
}
