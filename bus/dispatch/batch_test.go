package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/memlog"
	"sluice/config/value"
	"sluice/sinks"
)

// farBatch is a far side that takes batches.
type farBatch struct {
	*far
	sizes []int
	judge func(ids []string) (failed []error, err error)
}

func (f *farBatch) DeliverBatch(ctx context.Context, ds []sinks.Delivery) ([]error, error) {
	var ids []string
	for _, d := range ds {
		ids = append(ids, d.Event.ID())
	}
	f.mu.Lock()
	f.sizes = append(f.sizes, len(ds))
	f.tries++
	judge := f.judge
	f.mu.Unlock()
	var failed []error
	if judge != nil {
		var err error
		if failed, err = judge(ids); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, id := range ids {
		if failed == nil || failed[i] == nil {
			f.got[id]++
		}
	}
	return failed, nil
}

// requests is how many events each request had.
func (f *farBatch) requests() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sizes)
}

func holds(ids []string, bad string) bool {
	return strings.Contains(" "+strings.Join(ids, " ")+" ", " "+bad+" ")
}

func batches(limit int, wait time.Duration) func(*dispatch.Options) {
	return func(o *dispatch.Options) {
		o.Batch.Max = limit
		o.Batch.Wait = value.Duration(wait)
		o.Retry.Jitter = "none"
	}
}

func TestBatchesFillUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := &farBatch{far: newFar(nil)}
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, batches(10, time.Second))))
		defer d.stop()
		d.publish(names("e", 100)...)
		synctest.Wait()
		if f.count() != 100 || f.attempts() != 10 {
			t.Fatalf("%d events in %d requests of %v", f.count(), f.attempts(), f.sizes)
		}
		d.publish("x", "y")
		synctest.Wait()
		if f.count() != 100 {
			t.Fatal("two events did not wait for company")
		}
		pass(time.Second)
		if f.count() != 102 || f.attempts() != 11 {
			t.Fatalf("%d events in %d requests after the wait", f.count(), f.attempts())
		}
		d.settled()
	})
}

// A batch is full when it has max events, or bytes of them; an event that is larger than
// that goes by itself.
func TestBatchesOfBytes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		size := event(t, "e0").Size()
		f := &farBatch{far: newFar(nil)}
		d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
			batches(100, time.Second)(o)
			o.Concurrency = 1
			o.Batch.Bytes = value.Bytes(4*size + size/2)
		})))
		defer d.stop()
		d.publish(names("e", 9)...)
		pass(time.Millisecond)
		if sizes := f.requests(); !slices.Equal(sizes, []int{4, 4}) {
			t.Fatalf("before the wait is over, requests of %v", sizes)
		}
		pass(2 * time.Second)
		large, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: "large"}, {Name: "source", Value: "test"}, {Name: "type", Value: "test.made"}},
			make([]byte, 10*size))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.pub.Publish(t.Context(), event(t, "e9"), large, event(t, "f0")); err != nil {
			t.Fatal(err)
		}
		pass(2 * time.Second)
		if sizes := f.requests(); !slices.Equal(sizes, []int{4, 4, 1, 1, 1, 1}) || f.count() != 12 {
			t.Errorf("%d events in requests of %v", f.count(), sizes)
		}
		d.settled()
	})
}

func TestPoisonIsFoundInABatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		judge  func(ids []string) ([]error, error)
		reason string
	}{
		{"rejected", func(ids []string) ([]error, error) {
			if holds(ids, "e37") {
				return nil, sinks.Answered(400, nil)
			}
			return nil, nil
		}, "rejected"},
		{"failing", func(ids []string) ([]error, error) {
			if holds(ids, "e37") {
				return nil, sinks.Answered(500, nil)
			}
			return nil, nil
		}, "expired"},
		{"named", func(ids []string) ([]error, error) {
			failed := make([]error, len(ids))
			for i, id := range ids {
				if id == "e37" {
					failed[i] = errors.New("this one")
				}
			}
			return failed, nil
		}, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := &farBatch{far: newFar(nil), judge: c.judge}
				d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, batches(64, 100*time.Millisecond))))
				defer d.stop()
				d.publish(names("e", 100)...)
				pass(25 * time.Hour)
				letters, _, err := d.DeadLetters(t.Context(), dispatch.DeadLetterFilter{}, bus.Position{}, 10)
				if err != nil || len(letters) != 1 || letters[0].Event.ID() != "e37" || letters[0].Reason != c.reason {
					t.Fatalf("dead letters %+v, error %v", letters, err)
				}
				if f.count() != 99 {
					t.Fatalf("%d of the 99 good events arrived", f.count())
				}
				d.settled()
			})
		})
	}
}

// A far side that takes some of each batch works, whichever they are: the breaker stays
// closed and the pace grows. One that takes none does not, and one that asks for fewer
// attempts gets them.
func TestHealthOfPartialBatches(t *testing.T) {
	t.Parallel()
	fail := func(err error, which func(i, n int) bool) func(ids []string) ([]error, error) {
		return func(ids []string) ([]error, error) {
			failed := make([]error, len(ids))
			for i := range ids {
				if which(i, len(ids)) {
					failed[i] = err
				}
			}
			return failed, nil
		}
	}
	first := func(i, n int) bool { return i == 0 && n > 1 }
	last := func(i, n int) bool { return i == n-1 && n > 1 }
	butFirst := func(i, _ int) bool { return i > 0 }
	all := func(int, int) bool { return true }
	plain := errors.New("the function reported the event as failed")
	for name, c := range map[string]struct {
		judge   func(ids []string) ([]error, error)
		broken  bool
		at, max int // attempts at the same time, in the end
	}{
		"the first":              {judge: fail(plain, first), at: 17, max: 1000},
		"the last":               {judge: fail(plain, last), at: 17, max: 1000},
		"all but the first":      {judge: fail(plain, butFirst), at: 17, max: 1000},
		"the first, by a status": {judge: fail(sinks.Answered(503, nil), first), at: 17, max: 1000},
		"all":                    {judge: fail(plain, all), broken: true, at: 1, max: 1},
		"all, by a status":       {judge: fail(sinks.Answered(503, nil), all), broken: true, at: 1, max: 1},
		"all are rejected":       {judge: fail(sinks.Answered(400, nil), all), at: 17, max: 1000},
		"the last is too much":   {judge: fail(sinks.Answered(429, nil), last), at: 1, max: 4},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				f := &farBatch{far: newFar(nil), judge: c.judge}
				d := start(t, memlog.New(memlog.Options{}), one(t, spec("f", f, func(o *dispatch.Options) {
					batches(16, 0)(o)
					o.Concurrency = dispatch.Auto
				})))
				defer d.stop()
				for i := range 100 {
					d.publish(names(string(rune('a'+i%26))+strings.Repeat("x", i/26), 16)...)
					pass(20 * time.Millisecond)
				}
				s := d.Sinks()[0]
				if (s.State == dispatch.StateBroken) != c.broken || s.Concurrency < c.at || s.Concurrency > c.max {
					t.Errorf("the sink is %s with %d attempts at the same time, after requests of %v", s.State, s.Concurrency, f.sizes)
				}
			})
		})
	}
}
