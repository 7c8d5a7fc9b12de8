package dispatch

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"sluice/bus"
	"sluice/config/value"
)

// Dedup makes a second publish of the same event do nothing for a while.
type Dedup struct {
	Window value.Duration `yaml:"window" doc:"How long an event is remembered; nothing is, when left out."`
	Key    string         `yaml:"key" doc:"What makes two events the same: an attribute, or data. and a gjson path. source and id when left out, and for events that have nothing there or answer another event."`
}

// Validate finds what is wrong.
func (o Dedup) Validate() value.Faults {
	if o.Window < 0 || time.Duration(o.Window) > maxDedup {
		return value.Faults{{Key: "window", Msg: "must be from 0 to " + value.Duration(maxDedup).String()}}
	}
	return nil
}

// maxDedup is the longest window: every event of it takes up to 48 bytes of memory.
const maxDedup = 7 * 24 * time.Hour

// dedup remembers the events of the last window by 128 bits of a keyed hash: two
// events would be taken for one with a chance of about one in 10^20 among a
// billion, and nobody outside can make that happen, since the key is random.
//
// It is kept in generations of a quarter of the window, so that forgetting costs
// nothing: an event is remembered for at least the window, and at most a quarter
// longer. It lives in memory and is read back from the log at the start.
type dedup struct {
	window time.Duration
	keyOf  func(bus.Event) string // nil: source and id
	seeds  [2]maphash.Seed

	mu          sync.Mutex
	generations [5]*sums  // the newest first; nil is none
	turned      time.Time // when the newest began
	pending     map[sum]*pending
}

type sum [2]uint64

// place is a position in eight bytes: the index in the lowest two.
type place uint64

func placeOf(pos bus.Position) place { return place(pos.Seq<<16 | uint64(pos.Index)&0xffff) }

func (p place) position() bus.Position {
	return bus.Position{Seq: uint64(p >> 16), Index: int(p & 0xffff)}
}

// pending is an event on its way to the disk: who publishes it a second time
// waits for the outcome, since "accepted before" must be true.
type pending struct {
	done chan struct{}
	pos  bus.Position
	err  error
}

func newDedup(o Dedup) *dedup {
	if o.Window <= 0 {
		return nil
	}
	return &dedup{
		window: time.Duration(o.Window), keyOf: keyFunc(o.Key), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		pending: map[sum]*pending{}, turned: time.Now(),
	}
}

// sum is what an event is known by. Its key makes no two events one that have none;
// and what a function answers often has the key of what it was asked, which is no
// reason to drop it.
func (d *dedup) sum(e bus.Event) (s sum) {
	key := ""
	if d.keyOf != nil && e.Get(CauseAttribute) == "" {
		key = d.keyOf(e)
	}
	for i, seed := range d.seeds {
		var h maphash.Hash
		h.SetSeed(seed)
		if key != "" {
			h.WriteByte(0) // no source begins with one
			h.WriteString(key)
		} else {
			h.WriteString(e.Source())
			h.WriteByte(0) // no attribute holds one
			h.WriteString(e.ID())
		}
		s[i] = h.Sum64()
	}
	s[0] = max(s[0], 1) // as sums wants it
	return s
}

// claim asks whether an event is new. If not, known says where it is, or wait is
// the publish that is storing it now.
func (d *dedup) claim(s sum, now time.Time) (known bus.Position, wait *pending, fresh bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn(now)
	for _, g := range d.generations {
		if g == nil {
			continue
		}
		if at, ok := g.get(s); ok {
			return at.position(), nil, false
		}
	}
	if p := d.pending[s]; p != nil {
		return bus.Position{}, p, false
	}
	d.pending[s] = &pending{done: make(chan struct{})}
	return bus.Position{}, nil, true
}

// resolve notes what became of a claimed event.
func (d *dedup) resolve(s sum, pos bus.Position, err error, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pending[s]
	delete(d.pending, s)
	if err == nil {
		d.remember(s, pos, now)
	}
	if p != nil {
		p.pos, p.err = pos, err
		close(p.done)
	}
}

func (d *dedup) remember(s sum, pos bus.Position, now time.Time) {
	d.turn(now)
	if d.generations[0] == nil {
		d.generations[0] = new(sums)
	}
	d.generations[0].put(s, placeOf(pos))
}

// turn begins new generations as time passes.
func (d *dedup) turn(now time.Time) {
	quarter := d.window / 4
	for i := 0; now.Sub(d.turned) >= quarter; i++ {
		if i == len(d.generations) {
			d.turned = now // long idle: everything is forgotten
			return
		}
		copy(d.generations[1:], d.generations[:len(d.generations)-1])
		d.generations[0] = nil
		d.turned = d.turned.Add(quarter)
	}
}

// recover reads the events of the last window back from the log. now is the wall
// clock, by which the log goes. When that was set back meanwhile, events seem to
// come from the future: they count from now on.
func (d *dedup) recover(ctx context.Context, stream bus.Stream, now time.Time) error {
	from, err := stream.Since(ctx, now.Add(-d.window))
	if err != nil {
		return err
	}
	d.mu.Lock()
	began := time.Now() // by the clock of the process, as everything here
	d.turned = began.Add(-d.window)
	d.mu.Unlock()
	return eachPack(ctx, stream, max(from, 1), func(pack bus.Pack) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		for i, rec := range pack.Records {
			if e, err := bus.DecodeRecord(rec); err == nil {
				d.remember(d.sum(e), bus.Position{Seq: pack.Seq, Index: i}, began.Add(-max(0, now.Sub(pack.Time))))
			}
		}
		return true
	})
}
