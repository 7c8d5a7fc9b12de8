package dispatch

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/bus"
)

// The oldest of what is there is known at any moment, whatever the times are.
func TestAges(t *testing.T) {
	t.Parallel()
	type one struct {
		number uint64
		at     time.Time
	}
	random := rand.New(rand.NewPCG(1, 2))
	var a ages
	var there []one
	number := uint64(1)
	for range 10_000 {
		switch random.IntN(3) {
		case 0:
			number += uint64(random.IntN(3))
			fallthrough
		case 1:
			next := one{number, time.Unix(0, int64(random.IntN(1000)))}
			there = append(there, next)
			a.add(next.number, next.at)
		default:
			upTo := number - min(number, uint64(random.IntN(20)))
			for len(there) > 0 && there[0].number <= upTo {
				there = there[1:]
			}
			a.drop(upTo)
		}
		var want time.Time
		for _, o := range there {
			if want.IsZero() || o.at.Before(want) {
				want = o.at
			}
		}
		if got := a.oldest(); !got.Equal(want) || len(a) > len(there) {
			t.Fatalf("the oldest of %v is %v, in %v", there, got, a)
		}
	}
}

// What is parked behind a group that somebody has counts too, until it is ready.
func TestAgeOfWhatIsParked(t *testing.T) {
	t.Parallel()
	q := queue{keyOf: keyFunc("subject"), keys: map[string]*orderKey{}}
	at := func(subject string, second int64) *delivery {
		e, err := bus.NewEvent([]bus.Attr{
			{Name: "specversion", Value: bus.SpecVersion}, {Name: "id", Value: "e"}, {Name: "source", Value: "s"},
			{Name: "type", Value: "t"}, {Name: "subject", Value: subject},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &delivery{event: e, accepted: time.Unix(second, 0), origin: origin{pos: bus.Position{Seq: uint64(second)}}}
	}
	for i := range int64(feedDeliveries) { // so many are in memory that others are parked
		subject := fmt.Sprint("new", i)
		q.reserve(at(subject, 0))
		q.pushBacklog(at(subject, 1000))
	}
	q.reserve(at("old", 0))
	const parked = parkAfter + 2
	for second := int64(1); second <= parked; second++ {
		q.pushBacklog(at("old", second))
	}
	oldest := func() (least int64) {
		least = 5000
		q.times(func(at time.Time) {
			if !at.IsZero() {
				least = min(least, at.Unix())
			}
		})
		return least
	}
	if got := oldest(); q.apart != parked || got != 1 {
		t.Fatalf("%d parked, the oldest is of second %d", q.apart, got)
	}
	for second := int64(1); second <= parked; second++ {
		if k := q.release("old"); k != nil {
			var read []*delivery
			places := q.unpark(k)
			for _, pos := range places {
				read = append(read, at("old", int64(pos.Seq)))
			}
			q.unparked("old", k, len(places), read)
		}
		if got := oldest(); got != second {
			t.Errorf("the oldest is of second %d, want %d", got, second)
		}
		if d := q.pop(); d == nil || d.accepted.Unix() != second {
			t.Fatalf("%d is not ready", second)
		}
	}
	if got := oldest(); got != 1000 || q.apart != 0 {
		t.Errorf("%d parked, the oldest is of second %d when all of the group is done", q.apart, got)
	}
}
