package sources

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/bus"
)

// Trigger is a Source that can be told to make an event now, beside those it makes
// by itself.
type Trigger interface {
	// Trigger returns the event once it is durable. While Run does not run it is
	// bus.ErrClosed.
	Trigger(ctx context.Context) (bus.Event, error)
}

// Ticker is a Source with a schedule.
type Ticker interface {
	// Ticks is how far it is. It must not do I/O.
	Ticks() Ticks
}

// Ticks is how far a schedule is.
type Ticks struct {
	Last    time.Time // the tick that fired last; zero for none
	Next    time.Time // the tick that is waited for; zero for none
	Dropped int64     // the late ones that catch_up dropped, since the start
}

const (
	// cronGrace is how late a tick may fire without being a missed one: a restart
	// or a busy store must not cost it.
	cronGrace = time.Minute
	// cronGlance is how often the clock is looked at: it may be set, and a machine
	// may sleep, of which a timer does not know.
	cronGlance = 5 * time.Second
	// cronBack is how far the clock may go back before the ticks that lie ahead
	// count as a mistake of the clock then, rather than as fired.
	cronBack = 25 * time.Hour
	// cronLinger is how long a tick that is under way may take at the end.
	cronLinger = 10 * time.Second
	// cronKey is where the state is kept.
	cronKey = "ticks"
)

// cronClock is the clock on the wall.
type cronClock struct {
	now  func() time.Time
	wait func(ctx context.Context, d time.Duration) error // until d is over, or ctx
}

func realClock() cronClock {
	return cronClock{
		now: func() time.Time { return time.Now().Round(0) }, // without what a timer counts
		wait: func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

// cronState is what is kept of a schedule.
type cronState struct {
	// Schedule is what the times were counted by. With another one nothing was
	// missed.
	Schedule string    `json:"schedule"`
	Settled  time.Time `json:"settled"`       // everything up to here has fired, or never will
	Last     time.Time `json:"last,omitzero"` // the tick that fired last
}

type cronSource struct {
	settings *Cron
	env      Env
	times    *Schedule
	clock    cronClock
	gate     gate
	ready    chan struct{}
	once     sync.Once

	state cronState // of Run
	dirty bool      // the state is not saved

	mu    sync.Mutex
	ticks Ticks
}

// Ready is Readier.Ready.
func (s *cronSource) Ready() <-chan struct{} { return s.ready }

// Ticks is Ticker.Ticks.
func (s *cronSource) Ticks() Ticks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ticks
}

// Trigger is Trigger.Trigger.
func (s *cronSource) Trigger(ctx context.Context) (bus.Event, error) {
	now := s.clock.now()
	e, err := s.settings.event(s.env.Name, now, now, trigManual)
	if err != nil {
		return e, err
	}
	results, err := s.gate.Publish(ctx, e)
	if err = faultOf(results, err, 0); err == nil {
		s.env.observe(Accepted, 1)
	}
	return e, err
}

// Run is Source.Run. A tick is settled once its event is durable and that it fired
// is too. A crash in between fires it again, with the same id.
func (s *cronSource) Run(ctx context.Context, pub bus.Publisher) error {
	if err := s.load(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	s.gate.open(pub)
	defer s.gate.close()
	s.once.Do(func() { close(s.ready) })
	for ctx.Err() == nil {
		wait, err := s.turn(ctx, pub)
		if err != nil {
			return err
		}
		if s.dirty {
			s.save(ctx)
		}
		if s.clock.wait(ctx, wait) != nil {
			break
		}
	}
	return nil
}

// identity is what the times depend on.
func (s *cronSource) identity() string {
	return s.settings.Schedule + "|" + s.settings.Timezone + "|" + s.settings.Start
}

// load reads where to go on. A schedule that is new, or not the same any more, has
// missed nothing.
func (s *cronSource) load(ctx context.Context) error {
	now := s.clock.now()
	kept, err := s.stored(ctx)
	if err != nil {
		return fmt.Errorf("cannot read which ticks have fired: %w", err)
	}
	fresh := kept.Schedule != s.identity()
	switch ours := s.state; {
	case fresh:
		kept.Schedule = s.identity()
		if kept.Settled.Before(now) {
			kept.Settled = now
		}
	case ours.Schedule == kept.Schedule && ours.Settled.After(kept.Settled):
		kept = ours // what the last run could not save
	}
	s.state = kept
	if fresh {
		s.save(ctx)
	}
	s.show()
	return nil
}

// stored is the state that is kept; empty when there is none.
func (s *cronSource) stored(ctx context.Context) (state cronState, err error) {
	text, err := s.env.State.Get(ctx, cronKey)
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return state, nil
	case errors.Is(err, bus.ErrDamaged):
		s.env.Log.Error("what is kept of the schedule cannot be read: it goes on from now", "err", err)
		return state, nil
	case err != nil:
		return state, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		s.env.Log.Error("what is kept of the schedule cannot be read: it goes on from now", "err", err)
		return cronState{}, nil
	}
	return state, nil
}

// Forget is Forgetter.Forget: of the time in which there is no such source, no tick was
// missed.
func (s *cronSource) Forget(ctx context.Context) error { return s.env.State.Put(ctx, cronKey, nil) }

// save makes the state durable. Until that works it is tried again at each turn;
// the schedule goes on, since a tick that fires again has the same id.
func (s *cronSource) save(ctx context.Context) {
	limited, cancel := lingering(ctx, cronLinger)
	defer cancel()
	text, err := json.Marshal(s.state)
	if err == nil {
		err = s.env.State.Put(limited, cronKey, text)
	}
	if s.dirty = err != nil; s.dirty {
		s.env.report(fmt.Errorf("cannot keep which ticks have fired: %w", err))
		return
	}
	s.env.report(nil)
}

// lingering is a context that outlives another for a while, for what should not be
// left half done.
func lingering(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(d, cancel)
		context.AfterFunc(longer, func() { t.Stop() })
	})
	return longer, func() { stop(); cancel() }
}

// turn fires what is due, and says how long to wait before the next.
func (s *cronSource) turn(ctx context.Context, pub bus.Publisher) (time.Duration, error) {
	now := s.clock.now()
	if s.state.Settled.After(now.Add(cronBack)) {
		s.env.Log.Warn("the clock went back: the schedule goes on from now", "settled", s.state.Settled, "now", now)
		s.state.Settled, s.dirty = now, true
	}
	plan := s.due(ctx, now)
	for _, tick := range plan.ticks {
		if ctx.Err() != nil {
			break // the rest fires after the restart
		}
		if err := s.fire(ctx, pub, tick); err != nil {
			return 0, err
		}
	}
	if len(plan.ticks) == 0 && plan.settled.After(s.state.Settled) {
		s.state.Settled, s.dirty = plan.settled, true
	}
	s.show()
	if len(plan.ticks) > 0 {
		return 0, nil // it took a while: look again
	}
	next := s.times.next(s.state.Settled, nil)
	if next.IsZero() {
		return cronGlance, nil
	}
	return max(0, min(s.at(next).Sub(s.clock.now()), cronGlance)), nil
}

// dueTick is a tick to fire now.
type dueTick struct {
	scheduled time.Time
	missed    bool
}

// cronPlan is what to do about the ticks that are due.
type cronPlan struct {
	ticks   []dueTick // in their order
	settled time.Time // the last that is dropped
}

// due goes through the ticks that are due: the late ones as catch_up says, then
// those in time.
func (s *cronSource) due(ctx context.Context, now time.Time) cronPlan {
	var plan cronPlan
	var missed, onTime []dueTick
	most := map[string]int{catchNone: 0, catchOne: 1, catchAll: s.settings.CatchUpMax}[s.settings.CatchUp]
	dropped, from := int64(0), time.Time{}
	for t := s.times.next(s.state.Settled, nil); !t.IsZero() && ctx.Err() == nil; t = s.times.next(t, nil) {
		due := s.at(t)
		if due.After(now) {
			break
		}
		if now.Sub(due) <= cronGrace {
			onTime = append(onTime, dueTick{t, false})
			continue
		}
		if missed = append(missed, dueTick{t, true}); len(missed) > 2*most+1024 {
			dropped += int64(len(missed) - most)
			plan.settled = missed[len(missed)-most-1].scheduled
			missed = append(missed[:0], missed[len(missed)-most:]...)
		}
		if from.IsZero() {
			from = t
		}
	}
	if ctx.Err() != nil {
		return cronPlan{}
	}
	if n := len(missed) - most; n > 0 {
		dropped += int64(n)
		plan.settled = missed[n-1].scheduled
		missed = missed[n:]
	}
	if dropped > 0 {
		s.env.Log.Warn("late ticks are dropped", "catch_up", s.settings.CatchUp, "ticks", dropped, "first", from, "last", plan.settled)
		s.mu.Lock()
		s.ticks.Dropped += dropped
		s.mu.Unlock()
	}
	plan.ticks = append(missed, onTime...)
	return plan
}

// at is when a tick fires: its delay is its own, whoever works it out, and never
// reaches the next tick.
func (s *cronSource) at(scheduled time.Time) time.Time {
	window := time.Duration(s.settings.Jitter)
	if window == 0 {
		return scheduled
	}
	if next := s.times.next(scheduled, nil); !next.IsZero() {
		window = min(window, next.Sub(scheduled))
	}
	sum := tickHash(s.env.Name, scheduled, "jitter")
	return scheduled.Add(time.Duration(binary.BigEndian.Uint64(sum[:]) % uint64(window)).Truncate(time.Millisecond))
}

// fire publishes the event of a tick and keeps that it fired, unless another node,
// or the same source before a reload, has done so in the meantime.
func (s *cronSource) fire(ctx context.Context, pub bus.Publisher, tick dueTick) error {
	limited, cancel := lingering(ctx, cronLinger)
	defer cancel()
	if kept, err := s.stored(limited); err == nil && kept.Schedule == s.state.Schedule && !kept.Settled.Before(tick.scheduled) && !s.dirty {
		s.state = kept
		return nil
	}
	trigger := trigSchedule
	if tick.missed {
		trigger = trigCatchUp
	}
	e, err := s.settings.event(s.env.Name, tick.scheduled, s.clock.now(), trigger)
	if err != nil {
		return err
	}
	if err := (feed{&s.env, pub}).publish(limited, e); err != nil {
		return nil // the end came first: the tick fires after the restart
	}
	s.state.Settled, s.state.Last = tick.scheduled, tick.scheduled
	s.save(ctx)
	s.show()
	return nil
}

// show brings Ticks up to date.
func (s *cronSource) show() {
	next := s.times.next(s.state.Settled, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks.Last, s.ticks.Next = s.state.Last, next
}

// tickHash is a hash of a tick, the same on every node.
func tickHash(name string, scheduled time.Time, salt string) [sha256.Size]byte {
	return sha256.Sum256([]byte(name + "\x00" + scheduled.UTC().Format(time.RFC3339Nano) + "\x00" + salt))
}

// tickID is the id of the event of a tick. A tick that is caught up is the same
// tick; one by hand is none of the schedule's.
func tickID(name string, scheduled time.Time, trigger string) string {
	salt := "tick"
	if trigger == trigManual {
		salt = trigManual
	}
	sum := tickHash(name, scheduled, salt)
	return hex.EncodeToString(sum[:16])
}
