package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sluice/bus/dispatch"
	"sluice/cmd/internal/api"
	"sluice/config"
	"sluice/sinks"
)

// Reload reads the config again and brings it into force as a whole, or not at
// all: then the one before runs on, and the log, the metrics and /readyz?verbose
// say so.
func (a *App) Reload(ctx context.Context) api.Reload {
	a.change.Lock()
	defer a.change.Unlock()
	switch {
	case a.stopped:
		return api.Reload{Error: "the bus is shutting down"}
	case a.opts.Path == "":
		return api.Reload{Error: "this config is part of the program: there is nothing to read again"}
	}
	a.notifyReloading()
	defer a.notify("READY=1")
	// Who asked may hang up: what is opened lives on.
	result, err := a.reload(context.WithoutCancel(ctx))
	a.metrics.reloaded(err == nil)
	a.update(func(v *api.View) { v.LastReload, v.ReloadError = time.Now(), err })
	if err != nil {
		a.log.Error("the config was not reloaded; the one before still runs", "config", a.opts.Path, "config_version", a.Config().Version(), "err", err)
		return api.Reload{Error: err.Error()}
	}
	a.log.Info("config reloaded", "config", a.opts.Path, "config_version", a.Config().Version(), "changes", result.Changes)
	a.warn()
	if len(result.NeedRestart) > 0 {
		a.log.Warn("settings that changed wait for a restart", "settings", result.NeedRestart)
	}
	return result
}

func (a *App) reload(ctx context.Context) (api.Reload, error) {
	a.seen = a.fingerprint()
	next, err := a.load()
	if err != nil {
		return api.Reload{}, err
	}
	now := a.Config()
	changes := config.Diff(now, next)
	opened, adjust, err := a.openSources(ctx, next, changed(changes.Sources))
	if err != nil {
		return api.Reload{}, err
	}
	if err := a.server.check(next); err != nil {
		return api.Reload{}, err
	}
	fresh := changed(changes.Sinks)
	if was, is := now.Subscriptions, next.Subscriptions; was.PrivateSinks != is.PrivateSinks || !slices.Equal(was.Allow, is.Allow) {
		for _, s := range a.current() {
			fresh[s.name()] = true // what it may reach has changed
		}
	}
	table, err := a.table(ctx, next, fresh)
	if err != nil {
		return api.Reload{}, err
	}
	if err := a.bus.Reload(ctx, table); err != nil {
		return api.Reload{}, err
	}
	if err := a.server.renew(next); err != nil {
		a.log.Error("cannot read the certificate again; the one before stays", "err", err)
	}
	restart := a.needRestart(next)
	a.update(func(v *api.View) {
		v.Config, v.NeedRestart = next, restart
		v.Tokens = api.NewTokens(next.Server.Auth).Follow(v.Tokens)
		v.Ingest = a.door(next.Server.Limits)
	})
	for _, apply := range adjust {
		apply()
	}
	a.swapSources(opened)
	return api.Reload{OK: true, Changes: changes, NeedRestart: restart}, nil
}

// changed tells which names have to be opened; nil of it means all.
func changed(d config.Difference) map[string]bool {
	names := map[string]bool{}
	for _, name := range slices.Concat(d.Added, d.Changed) {
		names[name] = true
	}
	return names
}

// needRestart are the settings in which a config differs from what runs, and
// which a reload cannot change.
func (a *App) needRestart(next *config.Config) (settings []string) {
	was, is := a.first, next
	for _, s := range []struct {
		name string
		same bool
	}{
		{"server.listen", a.listenOn(was) == a.listenOn(is)},
		{"server.read_header_timeout", was.Server.ReadHeaderTimeout == is.Server.ReadHeaderTimeout},
		{"server.read_timeout", was.Server.ReadTimeout == is.Server.ReadTimeout},
		{"server.limits.connections", was.Server.Limits.Connections == is.Server.Limits.Connections},
		{"server.tls", was.Server.TLS.Enabled() == is.Server.TLS.Enabled()},
		{"store.dir", a.dir(was) == a.dir(is)},
		{"store.sync", was.Store.Sync == is.Store.Sync},
		{"dedup", was.Dedup == is.Dedup},
		{"store.max_bytes", was.Store.MaxBytes == is.Store.MaxBytes},
	} {
		if !s.same {
			settings = append(settings, s.name)
		}
	}
	return settings
}

// table is what the dispatcher works with under a config. It opens the sinks that
// fresh names, all of them when that is nil; the others run on.
func (a *App) table(ctx context.Context, cfg *config.Config, fresh map[string]bool) (dispatch.Table, error) {
	return a.tableWith(ctx, cfg, fresh, a.current())
}

// tableWith is table with other subscriptions than those in force.
func (a *App) tableWith(ctx context.Context, cfg *config.Config, fresh map[string]bool, subscriptions map[string]*subscription) (dispatch.Table, error) {
	t := dispatch.Table{
		Version: cfg.Version(), Routes: Routes(cfg), Unmatched: cfg.Unmatched, Removed: cfg.RemovedSinks,
		Retain: dispatch.Retention{
			Age: time.Duration(cfg.Store.Retain.Age), Size: int64(cfg.Store.Retain.Size),
			DeadLetters: time.Duration(cfg.DeadLetters.Retain),
		},
	}
	for _, s := range cfg.Sinks {
		spec := dispatch.SinkSpec{Name: s.Name, Options: s.Options}
		if fresh == nil || fresh[s.Name] {
			var err error
			spec.Sink, err = s.Settings.Open(ctx, sinks.Env{Name: s.Name, Log: a.log.With("sink", s.Name), OrderBy: s.Options.OrderBy})
			if err != nil {
				return t, errors.Join(fmt.Errorf("%s: sink %s: %w", s.Pos, s.Name, err), closeSinks(t.Sinks))
			}
		}
		t.Sinks = append(t.Sinks, spec)
	}
	if err := a.addSubscriptions(ctx, &t, cfg.Subscriptions, fresh, subscriptions); err != nil {
		return t, errors.Join(err, closeSinks(t.Sinks))
	}
	return t, nil
}

func closeSinks(specs []dispatch.SinkSpec) error {
	var errs []error
	for _, s := range specs {
		if c, ok := s.Sink.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
