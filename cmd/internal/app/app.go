// Package app puts a running bus together: log, dispatcher, sources and the HTTP
// server, from a config and the tables of kinds. New reads the config, Start runs
// it, Reload replaces it, Stop drains. Several apps can run in one process.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/bus"
	"sluice/bus/dispatch"
	"sluice/bus/jetstream"
	"sluice/bus/memlog"
	"sluice/cmd/internal/api"
	"sluice/config"
)

// Options are what an App is made of. Path or Config has to be given.
type Options struct {
	Path   string         // of the config, a file or a directory: it can be reloaded
	Config *config.Config // one that never changes
	Kinds  config.Options // the kinds of sources and sinks there are

	Listen string  // instead of server.listen
	Dir    string  // instead of store.dir
	Store  bus.Log // instead of a store in Dir; the App closes it
	Memory bool    // keep everything in memory
	Watch  bool    // reload when the files of the config change

	Version   string // of the program
	Log       *slog.Logger
	Notify    string        // the socket of the service manager ($NOTIFY_SOCKET), if any
	Settle    time.Duration // how long changed files must stay the same before a reload; 0 for 150 ms
	KeepAlive time.Duration // of tails; 0 for 15 s
}

// App is a bus that can run. Make it with New, then call Start and Stop once each,
// or Run.
type App struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	view    atomic.Pointer[api.View]
	seen    fingerprint // of the files that were read last

	first  *config.Config // what runs since the start, for what only a restart changes
	store  bus.Log
	bus    *dispatch.Dispatcher
	server *server

	// change is held while the config is replaced, and by Stop.
	change  sync.Mutex
	sources map[string]*source
	stopped bool
	running atomic.Pointer[map[string]*source] // what sources is, for those who only look

	subscriptions atomic.Pointer[map[string]*subscription] // by id; changed under change

	background sync.WaitGroup // the watcher
	cancel     context.CancelFunc
	failed     chan error
}

// InvalidConfig is a config that cannot be used. What is wrong is a config.Faults
// or the TestFailures of its tests.
type InvalidConfig struct{ Err error }

func (e *InvalidConfig) Error() string { return e.Err.Error() }

func (e *InvalidConfig) Unwrap() error { return e.Err }

// New reads and checks the config. A config that is wrong is an *InvalidConfig.
func New(opts Options) (*App, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	a := &App{opts: opts, log: opts.Log, metrics: newMetrics(opts.Version), sources: map[string]*source{}, failed: make(chan error, 1)}
	a.metrics.registry.MustRegister(sourceCollector{a.Sources})
	a.seen = a.fingerprint()
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	a.first = cfg
	return a, nil
}

// Config is what runs now, or will after Start.
func (a *App) Config() *config.Config {
	if v := a.view.Load(); v != nil {
		return v.Config
	}
	return a.first
}

// Addr is where the bus listens, for instance 127.0.0.1:8484.
func (a *App) Addr() string { return a.view.Load().Listen }

// leaseURL is where a function says how the job of a delivery ended.
func (a *App) leaseURL(delivery string) string {
	base := a.URL()
	if public := a.Config().Server.URL; !public.IsZero() {
		base = strings.TrimSuffix(public.URL.String(), "/")
	}
	return base + "/api/v1/leases/" + url.PathEscape(delivery)
}

// URL is the address for clients on this machine.
func (a *App) URL() string {
	scheme := "http"
	if a.first.Server.TLS.Enabled() {
		scheme = "https"
	}
	addr := a.Addr()
	if addr == "" {
		addr = a.listenOn(a.first) // it does not listen yet
	}
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Dir is where the store is; "" in memory.
func (a *App) Dir() string { return a.view.Load().Dir }

// Bus is the dispatcher, after Start.
func (a *App) Bus() *dispatch.Dispatcher { return a.bus }

// Failed gives the error that ended the HTTP server, if one did.
func (a *App) Failed() <-chan error { return a.failed }

// Start runs the bus. It returns once events are taken, or with an error and
// nothing left running.
func (a *App) Start(ctx context.Context) error {
	steps := []func(context.Context) error{a.openStore, a.startBus, a.serve, a.startSources}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return errors.Join(err, a.abort())
		}
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.cancel = cancel
	a.background.Go(func() { a.expireSubscriptions(background) })
	if a.opts.Watch && a.opts.Path != "" {
		a.background.Go(func() { a.watch(background) })
	}
	a.notify("READY=1")
	a.warn()
	a.log.Info("sluice is ready", "listen", a.Addr(), "dir", a.Dir(), "config", a.opts.Path, "config_version", a.Config().Version(),
		"sources", len(a.Config().Sources), "sinks", len(a.Config().Sinks), "rules", len(a.Config().Rules))
	return nil
}

// warn logs what is odd about the config, but no fault.
func (a *App) warn() {
	for _, w := range a.Config().Warnings {
		a.log.Warn("config: " + w.String())
	}
}

// openStore opens the log, and refuses a directory that another process uses.
func (a *App) openStore(ctx context.Context) (err error) {
	view := api.View{
		Version: a.opts.Version, Started: time.Now(), Config: a.first, ConfigPath: a.opts.Path, LastReload: time.Now(),
		Tokens: api.NewTokens(a.first.Server.Auth), Trigger: a.trigger, Ticks: a.ticks,
	}
	switch {
	case a.opts.Store != nil:
		a.store = a.opts.Store
	case a.opts.Memory:
		a.store = memlog.New(memlog.Options{Limit: int64(a.first.Store.MaxBytes)})
	default:
		if view.Dir, err = filepath.Abs(a.dir(a.first)); err != nil {
			return fmt.Errorf("store: %w", err)
		}
		a.store, err = jetstream.Open(ctx, jetstream.Options{
			Dir: view.Dir, Sync: a.first.Store.Sync.Every(), MaxBytes: int64(a.first.Store.MaxBytes), Log: a.log,
		})
		if err != nil {
			a.store = nil // and not an interface around a nil pointer
			return err
		}
	}
	a.view.Store(&view)
	return nil
}

func (a *App) dir(c *config.Config) string {
	if a.opts.Dir != "" {
		return a.opts.Dir
	}
	return c.Store.Dir
}

// startBus starts the dispatcher with the sinks and rules of the config.
func (a *App) startBus(ctx context.Context) (err error) {
	a.bus, err = dispatch.New(dispatch.Config{Store: a.store, Log: a.log, Registry: a.metrics.registry, Dedup: a.first.Dedup, LeaseURL: a.leaseURL})
	if err != nil {
		return err
	}
	if err := a.loadSubscriptions(ctx); err != nil {
		return err
	}
	table, err := a.table(ctx, a.first, nil)
	if err != nil {
		return err
	}
	return a.bus.Start(ctx, table)
}

// serve begins to listen. Until the sources run, their paths answer 503.
func (a *App) serve(context.Context) (err error) {
	handler := api.New(api.Options{
		Bus: a.bus, Store: a.store, Log: a.log, Gather: a.metrics.registry, View: a.view.Load, Reload: a.Reload,
		Sources: a, Subscriptions: a, KeepAlive: a.opts.KeepAlive,
	})
	a.server, err = listen(a.listenOn(a.first), a.first, handler, a.log)
	if err != nil {
		return err
	}
	a.metrics.registry.MustRegister(a.server.listener.collectors()...)
	a.update(func(v *api.View) {
		v.Listen = a.server.addr()
		v.Ingest = a.door(a.first.Server.Limits)
	})
	return nil
}

func (a *App) listenOn(c *config.Config) string {
	if a.opts.Listen != "" {
		return a.opts.Listen
	}
	return c.Server.Listen
}

// startSources opens the sources and lets events in.
func (a *App) startSources(ctx context.Context) error {
	a.change.Lock()
	defer a.change.Unlock()
	next, _, err := a.openSources(ctx, a.first, nil)
	if err != nil {
		return err
	}
	a.swapSources(next)
	a.server.run(func(err error) { a.failed <- err })
	return nil
}

// update replaces the view by a changed copy.
func (a *App) update(change func(*api.View)) {
	for {
		old := a.view.Load()
		next := *old
		change(&next)
		if a.view.CompareAndSwap(old, &next) {
			return
		}
	}
}
