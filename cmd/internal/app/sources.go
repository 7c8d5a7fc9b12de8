package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"sluice/bus"
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
	})
}

// source is one source of the config, and the goroutine that runs it.
type source struct {
	name   string
	run    sources.Source
	doors  map[string]sources.Door // the paths it has taken
	cancel context.CancelFunc      // nil until it runs
	done   chan struct{}
}

// openSources gives the sources of a config: those that fresh names are opened,
// all of them when it is nil, and the others are the ones that run. Nothing that
// runs is changed.
func (a *App) openSources(ctx context.Context, cfg *config.Config, fresh map[string]bool) (map[string]*source, error) {
	next := map[string]*source{}
	owners := map[string]string{}
	for _, s := range cfg.Sources {
		if old := a.sources[s.Name]; old != nil && fresh != nil && !fresh[s.Name] {
			next[s.Name] = old
			for path := range old.doors {
				owners[path] = s.Name
			}
		}
	}
	for _, s := range cfg.Sources {
		if next[s.Name] != nil {
			continue
		}
		opened, err := a.openSource(ctx, s, owners)
		if err != nil {
			return nil, fmt.Errorf("%s: source %s: %w", s.Pos, s.Name, err)
		}
		next[s.Name] = opened
	}
	return next, nil
}

func (a *App) openSource(ctx context.Context, s config.Source, owners map[string]string) (_ *source, err error) {
	opened := &source{name: s.Name, doors: map[string]sources.Door{}, done: make(chan struct{})}
	opened.run, err = s.Settings.Open(ctx, sources.Env{
		Name: s.Name, Log: a.log.With("source", s.Name), Observe: a.metrics.observe(s.Name),
		Handle: func(d sources.Door) error {
			path := d.Path
			if api.Reserved(path) {
				return fmt.Errorf("the path %s is the bus's own: choose another, such as /in%s", path, path)
			}
			if owner, taken := owners[path]; taken {
				return fmt.Errorf("the path %s is that of source %s already: choose another", path, owner)
			}
			owners[path] = s.Name
			opened.doors[path] = d
			return nil
		},
	})
	return opened, err
}

// swapSources brings opened sources into force: the new ones run before the old
// ones end, so that no path is without a door.
func (a *App) swapSources(next map[string]*source) {
	for _, s := range next {
		if s.cancel == nil {
			a.startSource(s)
		}
	}
	old := a.sources
	a.sources = next
	a.update(func(v *api.View) { v.Doors = doorsOf(next) })
	maps.DeleteFunc(old, func(name string, s *source) bool { return next[name] == s })
	limit, cancel := context.WithTimeout(context.Background(), time.Duration(a.Config().Server.DrainTimeout))
	defer cancel()
	a.endSources(limit, old)
}

func (a *App) startSource(s *source) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	pub := a.bus.Publisher(s.name)
	log := a.log.With("source", s.name)
	restarts := a.metrics.restarts.WithLabelValues(s.name)
	go func() {
		defer close(s.done)
		supervise(ctx, s.run, pub, log, restarts.Inc)
	}()
	if r, ok := s.run.(sources.Readier); ok {
		late := time.NewTimer(readyPatience)
		defer late.Stop()
		select {
		case <-r.Ready():
		case <-late.C:
			log.Warn("the source does not get ready; going on without it")
		}
	}
}

// readyPatience is how long a source may take until its path leads to it.
const readyPatience = 5 * time.Second

// endSources ends sources, and waits for them until ctx ends.
func (a *App) endSources(ctx context.Context, sources map[string]*source) {
	var all sync.WaitGroup
	for _, s := range sources {
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

// How long a source that failed is left alone: longer each time, unless it has
// run well for a while.
const (
	restartFirst = time.Second
	restartMax   = time.Minute
	restartFresh = 10 * time.Minute
)

var errEnded = errors.New("it ended by itself")

// supervise runs a source until ctx ends, and starts it again when it fails.
func supervise(ctx context.Context, s sources.Source, pub bus.Publisher, log *slog.Logger, restarted func()) {
	wait := restartFirst
	for ctx.Err() == nil {
		start := time.Now()
		err := runSource(ctx, s, pub)
		if ctx.Err() != nil {
			if err != nil {
				log.Warn("the source ended with an error", "err", err)
			}
			return
		}
		if time.Since(start) > restartFresh {
			wait = restartFirst
		}
		// Not all sources that one outage has stopped should come back at once.
		pause := wait/2 + rand.N(wait/2+1)
		log.Error("the source failed; it is started again", "err", err, "after", pause.Round(time.Millisecond))
		restarted()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		wait = min(2*wait, restartMax)
	}
}

func runSource(ctx context.Context, s sources.Source, pub bus.Publisher) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it panicked: %v\n%s", p, debug.Stack())
		}
	}()
	if err = s.Run(ctx, pub); err == nil {
		err = errEnded
	}
	if ctx.Err() != nil && errors.Is(err, errEnded) {
		return nil
	}
	return err
}
