package app

import (
	"context"
	"errors"
	"os"
	"time"

	"sluice/cmd/internal/api"
)

// Run is Start and Wait.
func (a *App) Run(ctx context.Context, hup <-chan os.Signal) error {
	if err := a.Start(ctx); err != nil {
		return err
	}
	return a.Wait(ctx, hup)
}

// Wait reloads at each signal on hup, and stops the bus when ctx ends.
func (a *App) Wait(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-hup:
			a.Reload(ctx)
		case err := <-a.failed:
			return errors.Join(err, a.Stop(context.Background()))
		case <-ctx.Done():
			return a.Stop(context.Background())
		}
	}
}

// hangUp is how long clients may take to read their last answers.
const hangUp = 5 * time.Second

// Stop takes no more events (publishers get 503 and Retry-After), lets what is
// under way end for as long as server.drain_timeout says, or until ctx ends, and
// closes everything. What has not ended is in the store for the next start. A
// second call does nothing.
func (a *App) Stop(ctx context.Context) error {
	if a.view.Load() == nil {
		return nil // it never ran
	}
	a.update(func(v *api.View) { v.Draining = true })
	if a.cancel != nil {
		a.cancel()
	}
	a.background.Wait()
	a.change.Lock()
	defer a.change.Unlock()
	if a.stopped {
		return nil
	}
	a.stopped = true
	a.notify("STOPPING=1")
	limit := time.Duration(a.Config().Server.DrainTimeout)
	a.log.Info("shutting down: no more events are taken, what is under way may end", "drain_timeout", limit.String())
	drain, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a.endSources(drain, a.sources)
	err := a.bus.Stop(drain)
	b := a.bus.Balance()
	if drain.Err() != nil {
		a.log.Warn("drain_timeout is over: attempts under way were cut off, and are made again after the next start")
	}
	last, cancelLast := context.WithTimeout(context.Background(), hangUp)
	defer cancelLast()
	err = errors.Join(err, a.server.stop(last), a.store.Close())
	a.log.Info("stopped", "delivered", b.Delivered, "dead_lettered", b.Dead, "open", b.Open())
	return err
}

// abort closes what a failed Start has opened.
func (a *App) abort() error {
	a.stopped = true
	var errs []error
	now, cancel := context.WithCancel(context.Background())
	cancel()
	a.endSources(now, a.sources)
	if a.server != nil {
		errs = append(errs, a.server.stop(now))
	}
	if a.bus != nil {
		errs = append(errs, a.bus.Stop(now))
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}
