package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"sluice/cmd/internal/api"
	"sluice/config"
	"sluice/sources"
)

// ingestSource stands for / and /events in the metrics. No source can be called
// so.
const ingestSource = "(ingest)"

// door takes the events that come to no source's path.
func (a *App) door(l config.Limits) http.Handler {
	return sources.NewHandler(a.bus.Publisher(ingestSource), sources.HandlerOptions{
		Limits: sources.Limits{
			Event: l.EventBytes, Batch: l.BatchBytes, BatchEvents: l.BatchEvents,
			BodyTimeout: l.BodyTimeout, Stall: l.Stall, MinRate: l.MinRate,
		},
		Observe: a.metrics.observe(ingestSource),
		Await:   a.bus.Await,
	})
}

// openSources gives the sources of a config: those that fresh names are opened,
// all of them when it is nil, and the others are the ones that run. Nothing that
// runs is changed: those that take their new settings as they run do so in adjust.
func (a *App) openSources(ctx context.Context, cfg *config.Config, fresh map[string]bool) (next map[string]*source, adjust []func(), err error) {
	next = map[string]*source{}
	owners := map[string]string{}
	for _, s := range cfg.Sources {
		old := a.sources[s.Name]
		if old == nil || fresh == nil {
			continue
		}
		if fresh[s.Name] {
			apply := old.adjustment(s)
			if apply == nil {
				continue
			}
			adjust = append(adjust, apply)
		}
		next[s.Name] = old
		for path := range old.doors {
			owners[path] = s.Name
		}
	}
	for _, s := range cfg.Sources {
		if next[s.Name] != nil {
			continue
		}
		opened, err := a.openSource(ctx, s, owners)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: source %s: %w", s.Pos, s.Name, err)
		}
		if f, ok := opened.run.(sources.Follower); ok && a.sources[s.Name] != nil {
			f.Follow(a.sources[s.Name].run)
		}
		next[s.Name] = opened
	}
	return next, adjust, nil
}

// adjustment is what brings new settings into force while the source runs; nil when it
// has to be opened anew.
func (s *source) adjustment(to config.Source) (apply func()) {
	a, ok := s.run.(sources.Adjuster)
	if !ok || s.kind != to.Kind {
		return nil
	}
	inside := a.Adjust(to.Settings)
	if inside == nil {
		return nil
	}
	return func() {
		inside()
		s.hold.wake() // one that failed is tried with them at once
	}
}

func (a *App) openSource(ctx context.Context, s config.Source, owners map[string]string) (*source, error) {
	opened := newSource(s.Name, s.Kind, a.log.With("source", s.Name))
	opened.pub = a.bus.Publisher(s.Name)
	opened.restarted = a.metrics.restarts.WithLabelValues(s.Name).Inc
	opened.deadLetters = func() int { return a.bus.Rejections(s.Name) }
	opened.hold.state = sourceState{a.store, holdPrefix}
	if err := opened.hold.load(ctx, s.Name); err != nil {
		return nil, err
	}
	count := a.metrics.observe(s.Name)
	env := sources.Env{
		Name: s.Name, Log: opened.log, State: sourceState{a.store, statePrefix + s.Name + "."}, Report: opened.report,
		Await: a.bus.Await,
		Observe: func(outcome sources.Outcome, events int) {
			count(outcome, events)
			opened.observe(outcome, events)
		},
		Reject: func(ctx context.Context, r sources.Rejected) error {
			opened.log.Warn("input that is no event becomes a dead letter", "event_id", r.ID, "where", r.Where, "reason", r.Reason)
			return a.bus.Reject(ctx, s.Name, r.Event(s.Name), r.Reason)
		},
		Handle: func(d sources.Door) error {
			if api.Reserved(d.Path) {
				return fmt.Errorf("the path %s is the bus's own: choose another, such as /in%s", d.Path, d.Path)
			}
			if owner, taken := owners[d.Path]; taken {
				return fmt.Errorf("the path %s is that of source %s already: choose another", d.Path, owner)
			}
			owners[d.Path] = s.Name
			opened.doors[d.Path] = d
			return nil
		},
	}
	if dir := a.Dir(); dir != "" {
		env.Dir = filepath.Join(dir, "sources", s.Name)
	}
	var err error
	opened.run, err = s.Settings.Open(ctx, env)
	return opened, err
}

// swapSources brings opened sources into force. Those with a door run before the
// ones they replace end, so that no path is without; the others start afterwards,
// because two of them may want the same port or the same place in a stream.
func (a *App) swapSources(next map[string]*source) {
	startAll(next, func(s *source) bool { return len(s.doors) > 0 })
	old := a.sources
	a.sources = next
	a.running.Store(&next)
	a.update(func(v *api.View) { v.Doors = doorsOf(next) })
	gone := maps.Clone(old)
	maps.DeleteFunc(gone, func(name string, s *source) bool { return next[name] == s })
	limit, cancel := context.WithTimeout(context.Background(), time.Duration(a.Config().Server.DrainTimeout))
	defer cancel()
	a.endSources(limit, gone)
	for name, s := range gone {
		if next[name] == nil {
			a.forgetSource(limit, s)
		}
	}
	startAll(next, func(*source) bool { return true })
}

// forgetSource removes what is kept of a source that is not in the config any more: one
// that is added under its name later is another.
func (a *App) forgetSource(ctx context.Context, s *source) {
	a.metrics.forget(s.name)
	err := s.hold.forget(ctx, s.name)
	if f, ok := s.run.(sources.Forgetter); ok && s.over() {
		err = errors.Join(err, f.Forget(ctx))
	}
	if err != nil {
		s.log.Error("cannot forget a source that was removed: one that is added under its name may be paused, or go on where this one was", "err", err)
	}
}

// endSources ends sources, and waits for them until ctx ends.
func (a *App) endSources(ctx context.Context, sources map[string]*source) {
	var all sync.WaitGroup
	for _, s := range sources {
		if !s.started() {
			continue
		}
		s.cancel()
		all.Go(func() {
			select {
			case <-s.done:
			case <-ctx.Done():
				a.log.Warn("the source does not end; going on without it", "source", s.name)
			}
		})
	}
	all.Wait()
}

// doorsOf are the paths of sources.
func doorsOf(all map[string]*source) map[string]sources.Door {
	doors := map[string]sources.Door{}
	for _, s := range all {
		maps.Copy(doors, s.doors)
	}
	return doors
}
