package sources

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/bus"
)

// pubFunc is a bus.Publisher.
type pubFunc func(events []bus.Event) ([]bus.Result, error)

func (f pubFunc) Publish(_ context.Context, events ...bus.Event) ([]bus.Result, error) {
	return f(events)
}

func numbered(t *testing.T, n int) (events []bus.Event) {
	t.Helper()
	for i := range n {
		e, err := bus.NewEvent([]bus.Attr{{Name: "id", Value: fmt.Sprint(i)}, {Name: "source", Value: "/s"}, {Name: "type", Value: "t"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// A feed repeats from the first event that is not stored, so the order stays, and
// reports the trouble while it lasts.
func TestFeed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var stored, rejected []string
		var reports []error
		observed := map[Outcome]int{}
		calls, failing := 0, 3
		pub := pubFunc(func(events []bus.Event) ([]bus.Result, error) {
			calls++
			results := make([]bus.Result, len(events))
			for i, e := range events {
				switch {
				case e.ID() == "2":
					results[i].Err = fmt.Errorf("no: %w", bus.ErrTooLarge)
				case e.ID() >= "4" && failing > 0:
					results[i].Err = bus.ErrFull
				default:
					stored = append(stored, e.ID())
				}
			}
			failing--
			return results, nil
		})
		env := &Env{
			Observe: func(o Outcome, n int) { observed[o] += n },
			Report:  func(err error) { reports = append(reports, err) },
			Reject:  func(_ context.Context, r Rejected) error { rejected = append(rejected, r.ID); return nil },
		}
		f := feed{env, pub}
		if err := f.publish(t.Context(), numbered(t, 7)...); err != nil {
			t.Fatal(err)
		}
		if want := []string{"0", "1", "3", "4", "5", "6"}; !slices.Equal(stored, want) {
			t.Errorf("stored %v, want %v", stored, want)
		}
		if !slices.Equal(rejected, []string{"2"}) || calls != 4 {
			t.Errorf("rejected %v in %d calls", rejected, calls)
		}
		if observed[Accepted] != 6 || observed[Invalid] != 1 {
			t.Errorf("observed %v", observed)
		}
		if n := len(reports); n != 4 || !errors.Is(reports[0], bus.ErrFull) || reports[n-1] != nil {
			t.Errorf("reported %v", reports)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		failing = 1000
		if err := f.publish(ctx, numbered(t, 5)[4:]...); !errors.Is(err, context.Canceled) {
			t.Errorf("after ctx ended: %v", err)
		}
	})
}

// Of a Publish that stored nothing the results say why, event by event, and not the
// error alone: what is too large would be tried for ever.
func TestFeedOfWhatIsTooLargeAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rejected []string
		env := &Env{Reject: func(_ context.Context, r Rejected) error { rejected = append(rejected, r.ID); return nil }}
		var full bool
		pub := pubFunc(func(events []bus.Event) ([]bus.Result, error) {
			results := make([]bus.Result, len(events))
			for i, e := range events {
				if e.ID() == "0" {
					results[i].Err = fmt.Errorf("no: %w", bus.ErrTooLarge)
				} else if full {
					results[i].Err = bus.ErrFull
				}
			}
			full = false
			return results, results[0].Err
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, n := range []int{1, 2} {
			rejected, full = nil, true
			if err := (feed{env, pub}).publish(ctx, numbered(t, n)...); err != nil || !slices.Equal(rejected, []string{"0"}) {
				t.Errorf("of %d: %v, dead letters %v", n, err, rejected)
			}
		}
	})
}
