package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"sluice/bus"
	"sluice/cmd/internal/api"
	"sluice/sources"
)

// source is one source of the config, and the goroutine that runs it.
type source struct {
	name, kind  string
	run         sources.Source
	doors       map[string]sources.Door // the paths it has taken
	pub         bus.Publisher
	log         *slog.Logger
	restarted   func()     // counts
	deadLetters func() int // of what it rejected
	hold        sourceHold

	cancel context.CancelFunc // nil until it runs
	done   chan struct{}

	mu        sync.Mutex
	state     string
	since     time.Time // of state
	next      time.Time // when it is started again
	trouble   error     // that the source reports and deals with
	lastErr   error
	lastErrAt time.Time
	restarts  int
	counts    map[sources.Outcome]int64
	lastEvent time.Time
}

func newSource(name, kind string, log *slog.Logger) *source {
	return &source{
		name: name, kind: kind, log: log, restarted: func() {}, deadLetters: func() int { return 0 },
		doors: map[string]sources.Door{}, done: make(chan struct{}), counts: map[sources.Outcome]int64{},
		state: api.SourceStopped, since: time.Now(), hold: newSourceHold(),
	}
}

func (s *source) started() bool { return s.cancel != nil }

// over tells whether the source does not run any more.
func (s *source) over() bool {
	if !s.started() {
		return true
	}
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// start runs the source until cancel is called.
func (s *source) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() {
		defer close(s.done)
		s.supervise(ctx)
	}()
}

// await returns once the source takes events, or ctx ends. One that is paused takes
// none, and is not waited for.
func (s *source) await(ctx context.Context) {
	r, ok := s.run.(sources.Readier)
	if !ok || s.hold.held() {
		return
	}
	select {
	case <-r.Ready():
	case <-ctx.Done():
		s.log.Warn("the source does not get ready; going on without it")
	}
}

// startAll starts those of the sources that do not run yet and that which says, all at
// the same time, and returns once they take events.
func startAll(all map[string]*source, which func(*source) bool) {
	limit, cancel := context.WithTimeout(context.Background(), readyPatience)
	defer cancel()
	var fresh []*source
	for _, s := range all {
		if !s.started() && which(s) {
			s.start()
			fresh = append(fresh, s)
		}
	}
	for _, s := range fresh {
		s.await(limit)
	}
}

// readyPatience is how long sources may take until their paths lead to them.
const readyPatience = 5 * time.Second

// How long a source that failed is left alone: longer each time, unless it has
// run well for a while.
const (
	restartFirst = time.Second
	restartMax   = time.Minute
	restartFresh = 10 * time.Minute
)

var errEnded = errors.New("it ended by itself")

// supervise runs the source until ctx ends: it starts it again when it fails, and
// lets it rest while it is paused.
func (s *source) supervise(ctx context.Context) {
	defer func() { s.enter(api.SourceStopped) }()
	wait := restartFirst
	for ctx.Err() == nil {
		held, changed := s.hold.look()
		if held {
			s.enter(api.SourcePaused)
			if !sleep(ctx, changed, 0) {
				return
			}
			wait = restartFirst
			continue
		}
		s.enter(api.SourceRunning)
		start := time.Now()
		err := s.once(ctx, changed)
		if ctx.Err() != nil {
			if err != nil {
				s.log.Warn("the source ended with an error", "err", err)
			}
			return
		}
		if held, _ := s.hold.look(); held || err == nil {
			if err != nil {
				s.log.Warn("the source ended with an error as it was paused", "err", err)
			}
			continue
		}
		if time.Since(start) > restartFresh {
			wait = restartFirst
		}
		// Not all sources that one outage has stopped should come back at once.
		pause := wait/2 + rand.N(wait/2+1)
		s.log.Error("the source failed; it is started again", "err", err, "after", pause.Round(time.Millisecond))
		word := s.hold.word() // before it shows as failed, or who sees that might come too early
		s.failed(err, pause)
		sleep(ctx, word, pause)
		wait = min(2*wait, restartMax)
	}
}

// once runs the source until it fails, ctx ends or changed is closed; the error is
// nil in the last two cases.
func (s *source) once(ctx context.Context, changed <-chan struct{}) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-changed:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v\n%s", p, debug.Stack())
		}
	}()
	err = s.run.Run(ctx, s.pub)
	switch {
	case ctx.Err() == nil && err == nil:
		return errEnded
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return nil
	}
	return err
}

// sleep waits for d, for ever when it is 0, or until early is closed. It is false
// when ctx ended.
func sleep(ctx context.Context, early <-chan struct{}, d time.Duration) bool {
	var over <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-early:
	case <-ctx.Done():
		return false
	}
	return true
}

func (s *source) enter(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != state {
		s.state, s.since = state, time.Now()
	}
	s.trouble, s.next = nil, time.Time{}
}

func (s *source) failed(err error, pause time.Duration) {
	s.restarted()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.state, s.since, s.next = api.SourceFailed, now, now.Add(pause)
	s.lastErr, s.lastErrAt = err, now
	s.restarts++
}

// report is sources.Env.Report. Trouble is logged when it begins and when it ends.
func (s *source) report(err error) {
	s.mu.Lock()
	was := s.trouble
	s.trouble = err
	if err != nil {
		s.lastErr, s.lastErrAt = err, time.Now()
	}
	s.mu.Unlock()
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		s.log.Warn("the source has trouble and goes on trying", "err", err)
	case err == nil && was != nil:
		s.log.Info("the source is well again")
	}
}

func (s *source) observe(outcome sources.Outcome, events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[outcome] += int64(events)
	if outcome == sources.Accepted {
		s.lastEvent = time.Now()
	}
}

// status is how the source is doing.
func (s *source) status() api.Source {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := api.Source{
		Name: s.name, Kind: s.kind, State: s.state, Since: s.since, NextStart: s.next, Restarts: s.restarts,
		DeadLetters: s.deadLetters(), Refused: map[string]int64{}, LastEvent: s.lastEvent, Hold: s.hold.now(),
	}
	if s.state == api.SourceRunning && s.trouble != nil {
		got.State = api.SourceDegraded
	}
	for outcome, n := range s.counts {
		if outcome == sources.Accepted {
			got.Accepted = n
		} else {
			got.Refused[string(outcome)] = n
		}
	}
	for path := range s.doors {
		got.Paths = append(got.Paths, path)
	}
	if l, ok := s.run.(sources.Lagger); ok {
		if lag, known := l.Lag(); known {
			got.Lag = &api.SourceLag{Records: lag.Records, Bytes: lag.Bytes, AgeSeconds: lag.Age.Seconds()}
		}
	}
	if s.lastErr != nil {
		got.LastError, got.LastErrorAt = s.lastErr.Error(), s.lastErrAt
	}
	return got
}
