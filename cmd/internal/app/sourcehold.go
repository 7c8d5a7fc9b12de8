package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/cmd/internal/api"
	"sluice/sources"
)

// The keys of what the sources keep in the table of state.
const (
	statePrefix = "source."      // and the name, a dot, and the source's own key
	holdPrefix  = "source-hold." // and the name
)

// sourceState is a part of the table of state.
type sourceState struct {
	log    bus.Log
	prefix string
}

// Get is sources.State.Get.
func (s sourceState) Get(ctx context.Context, key string) ([]byte, error) {
	return s.log.State(ctx, s.prefix+key)
}

// Put is sources.State.Put.
func (s sourceState) Put(ctx context.Context, key string, value []byte) error {
	return s.log.PutState(ctx, s.prefix+key, value)
}

// sourceHold is whether a source is paused by hand. It is remembered over
// restarts.
type sourceHold struct {
	state sources.State

	mu      sync.Mutex
	hold    *dispatch.Hold
	changed chan struct{} // closed when it is paused or no longer is
	woken   chan struct{} // closed at each word on it, even one that changes nothing
}

func newSourceHold() sourceHold {
	return sourceHold{changed: make(chan struct{}), woken: make(chan struct{})}
}

func (h *sourceHold) load(ctx context.Context, name string) error {
	text, err := h.state.Get(ctx, name)
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return nil
	case errors.Is(err, bus.ErrDamaged):
		h.hold = &dispatch.Hold{Reason: dispatch.HoldPaused, Note: "why it was paused cannot be read in the store any more", Since: time.Now()}
		return nil
	case err != nil:
		return err
	}
	hold := &dispatch.Hold{}
	if err := json.Unmarshal(text, hold); err != nil {
		return fmt.Errorf("whether the source is paused: %w", err)
	}
	h.hold = hold
	return nil
}

func (h *sourceHold) set(ctx context.Context, name string, hold *dispatch.Hold) error {
	var text []byte
	if hold != nil {
		var err error
		if text, err = json.Marshal(hold); err != nil {
			return err
		}
	}
	if err := h.state.Put(ctx, name, text); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// One that runs well must not notice that it is resumed once more.
	if (h.hold == nil) != (hold == nil) {
		close(h.changed)
		h.changed = make(chan struct{})
	}
	h.hold = hold
	h.wakeLocked()
	return nil
}

// wake ends the pause of a source that failed.
func (h *sourceHold) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeLocked()
}

func (h *sourceHold) wakeLocked() {
	close(h.woken)
	h.woken = make(chan struct{})
}

// forget removes what is remembered over restarts.
func (h *sourceHold) forget(ctx context.Context, name string) error {
	if !h.held() {
		return nil
	}
	return h.state.Put(ctx, name, nil)
}

// look tells whether the source is paused, and what is closed when that changes.
func (h *sourceHold) look() (held bool, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hold != nil, h.changed
}

// word is closed when the source is paused or resumed the next time, whether or not that
// changes anything.
func (h *sourceHold) word() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.woken
}

func (h *sourceHold) held() bool {
	held, _ := h.look()
	return held
}

func (h *sourceHold) now() *dispatch.Hold {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hold
}

// Sources tells how every source is doing, by name.
func (a *App) Sources() []api.Source {
	running := a.running.Load()
	if running == nil {
		return nil
	}
	var all []api.Source
	for _, name := range slices.Sorted(maps.Keys(*running)) {
		all = append(all, (*running)[name].status())
	}
	return all
}

// PauseSource lets a source rest: it ends what is in flight and takes nothing, its
// path answers 503. That lasts over restarts, until ResumeSource or until a reload takes
// the source out of the config.
func (a *App) PauseSource(ctx context.Context, name, note string) error {
	return a.holdSource(ctx, name, &dispatch.Hold{Reason: dispatch.HoldPaused, Note: note, Since: time.Now()})
}

// ResumeSource lets a paused source go on; one that failed is started at once.
func (a *App) ResumeSource(ctx context.Context, name string) error {
	return a.holdSource(ctx, name, nil)
}

// holdSource waits for a reload to end: the source it changes is the one that runs.
func (a *App) holdSource(ctx context.Context, name string, hold *dispatch.Hold) error {
	a.change.Lock()
	defer a.change.Unlock()
	s := a.sources[name]
	if s == nil {
		return fmt.Errorf("source %q: %w: `sluice sources ls` lists what there is", name, bus.ErrNotFound)
	}
	return s.hold.set(ctx, name, hold)
}

// trigger makes a source with a schedule fire now.
func (a *App) trigger(ctx context.Context, name string) (bus.Event, error) {
	if s := a.runningSource(name); s != nil {
		if t, ok := s.run.(sources.Trigger); ok {
			return t.Trigger(ctx)
		}
	}
	return bus.Event{}, fmt.Errorf("source %q: %w", name, bus.ErrNotFound)
}

// ticks tells how far a schedule is.
func (a *App) ticks(name string) (sources.Ticks, bool) {
	if s := a.runningSource(name); s != nil {
		if t, ok := s.run.(sources.Ticker); ok {
			return t.Ticks(), true
		}
	}
	return sources.Ticks{}, false
}

func (a *App) runningSource(name string) *source {
	if running := a.running.Load(); running != nil {
		return (*running)[name]
	}
	return nil
}
