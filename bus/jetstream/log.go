package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/bus"
)

// Options of a Log.
type Options struct {
	// Dir is the data directory. It is made if it is not there, and belongs to one
	// process at a time.
	Dir string
	// Sync is how often what was written is fsynced. 0 is always: an append returns
	// when it is on disk. With any other value an append that returned survives a
	// crash of the process, and a loss of power after that time.
	Sync time.Duration
	// MaxBytes is what all streams together may hold; 0 for four fifths of the volume.
	MaxBytes int64
	// MaxPack is the size of the largest pack, 8 MiB if 0: the bytes of its records
	// and 8 for each of them.
	MaxPack int
	// Reserve is what is left free on the volume: EVENTS takes no more once less
	// would be left, the others later. 0 for an eighth of the volume, but no more
	// than 16 MiB or two packs.
	Reserve int64
	// Inspect keeps what the last Close noted of the streams as it is: for a look at a
	// log after which the next one still finds what this one does.
	Inspect bool
	// Log hears of everything worth knowing, slog.Default if nil.
	Log *slog.Logger
	// Clock stamps the packs; nil is time.Now.
	Clock func() time.Time
}

const (
	defaultMaxPack = 8 << 20
	maxMaxPack     = 31 << 20 // JetStream takes a message of 32 MiB for a corrupt one
	callTimeout    = 10 * time.Second
	restartPause   = time.Second
	eventsTail     = 16 << 20 // bytes of recent packs kept for readers
	otherTail      = 4 << 20
)

// Log is a bus.Log on an embedded JetStream.
type Log struct {
	opts    Options
	lock    *os.File
	space   *space
	streams map[string]*stream
	state   *table

	running sync.WaitGroup // calls
	menders sync.WaitGroup // the goroutine that watches the engine

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	engine  *engine       // nil while there is none
	changed chan struct{} // closed when the engine changes
	end     error         // what Close returned
	faults  []bus.Fault   // that were found at a start of the engine
	ended   chan struct{} // closed when Close is through
}

var (
	_ bus.Log     = (*Log)(nil)
	_ bus.Checker = (*Log)(nil)
)

// Open starts the embedded server on the directory. It waits for the recovery of
// the streams, which after a crash takes about half a second for each GiB.
func Open(ctx context.Context, opts Options) (*Log, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	lock, err := lockDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	l := &Log{
		opts: opts, lock: lock,
		space:   &space{dir: opts.Dir, reserve: opts.Reserve},
		streams: map[string]*stream{},
		changed: make(chan struct{}), ended: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	for _, name := range bus.StreamNames() {
		l.streams[name] = &stream{log: l, name: name, tail: newTail(otherTail)}
	}
	l.streams[bus.Events].tail.limit = eventsTail
	l.state = newTable(l)
	e, err := l.start(ctx)
	if err == nil {
		if err = l.checkHeads(ctx, e); err != nil {
			e.stop(err)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("jetstream: opening %s: %w", opts.Dir, err), unlockDir(lock))
	}
	l.engine = e
	l.menders.Go(l.mend)
	return l, nil
}

func (o *Options) complete() error {
	if o.Dir == "" {
		return errors.New("jetstream: no data directory is given")
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("jetstream: making the data directory: %w", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	_, size, err := volume(dir)
	if err != nil {
		size = math.MaxInt64 / 64
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = size / 5 * 4
	}
	if o.MaxPack <= 0 {
		o.MaxPack = defaultMaxPack
	}
	if o.MaxPack > maxMaxPack {
		return fmt.Errorf("jetstream: a pack may have %d MiB at most", maxMaxPack>>20)
	}
	if o.Reserve <= 0 {
		o.Reserve = min(size/8, max(16<<20, 2*int64(o.MaxPack)))
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return nil
}

// start gives an engine whose streams are there and known.
func (l *Log) start(ctx context.Context) (_ *engine, err error) {
	e, err := startEngine(ctx, l.opts)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.stop(err)
		}
	}()
	known, _ := readManifest(l.opts.Dir) // ensureStreams reports what is wrong with it
	err = e.run(ctx, func(ctx context.Context, e *engine) error {
		ids, err := ensureStreams(ctx, e, l.opts, l.found)
		if err != nil {
			return err
		}
		for _, s := range l.streams {
			if err := s.attach(ctx, e, ids[s.name]); err != nil {
				return err
			}
		}
		if err := l.state.recover(ctx, e, known); err != nil {
			return err
		}
		return l.loadQuarantine(ctx, e)
	})
	return e, err
}

// mend replaces an engine that failed by a new one, without the callers seeing more
// than an error or a delay.
func (l *Log) mend() {
	for {
		e := l.current()
		select {
		case <-l.ctx.Done():
			return
		case <-e.ctx.Done():
		}
		l.opts.Log.Error("the store failed and is started again", "err", context.Cause(e.ctx))
		l.setEngine(nil)
		e.stop(bus.ErrUnavailable)
		if !l.restart() {
			return
		}
		l.opts.Log.Info("the store is back")
	}
}

// restart tries until there is an engine; false when the log was closed first.
func (l *Log) restart() bool {
	for {
		e, err := l.start(l.ctx)
		if err == nil {
			l.setEngine(e)
			return true
		}
		if l.ctx.Err() != nil {
			return false
		}
		l.opts.Log.Error("the store cannot be started, trying again", "err", err)
		select {
		case <-time.After(restartPause):
		case <-l.ctx.Done():
			return false
		}
	}
}

func (l *Log) current() *engine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.engine
}

func (l *Log) setEngine(e *engine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.engine = e
	close(l.changed)
	l.changed = make(chan struct{})
}

// enter counts the caller as running. The caller calls l.running.Done.
func (l *Log) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("jetstream: %w", bus.ErrClosed)
	}
	l.running.Add(1)
	return nil
}

// with runs f as a call; see retry.
func (l *Log) with(ctx context.Context, f func(context.Context, *engine) error) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.running.Done()
	return l.retry(ctx, f)
}

// retry runs f, which must be safe to run twice, and runs it again when the engine
// fails under it. f's context ends with the engine.
func (l *Log) retry(ctx context.Context, f func(context.Context, *engine) error) error {
	limited, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("jetstream: no answer: %w", bus.ErrUnavailable))
	defer cancel()
	for {
		l.mu.Lock()
		e, changed := l.engine, l.changed
		l.mu.Unlock()
		if e != nil {
			err := e.run(limited, f)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if limited.Err() != nil {
				return context.Cause(limited)
			}
			if e.ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return context.Cause(limited)
		case <-l.ctx.Done():
			return fmt.Errorf("jetstream: %w", bus.ErrClosed)
		}
	}
}

// run gives f a context that ends with the engine too.
func (e *engine) run(ctx context.Context, f func(context.Context, *engine) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(e.ctx, func() { cancel(context.Cause(e.ctx)) })()
	return f(ctx, e)
}

// Stream implements bus.Log.
func (l *Log) Stream(name string) bus.Stream {
	s, ok := l.streams[name]
	if !ok {
		panic(fmt.Sprintf("jetstream: no stream is named %q", name))
	}
	return s
}

// Usage implements bus.Log.
func (l *Log) Usage() bus.Usage {
	u := bus.Usage{Limit: l.opts.MaxBytes, Free: l.space.left()}
	if e := l.current(); e != nil {
		u.Stored = e.stored()
	}
	return u
}

// stored is what JetStream counts of all streams, the small state table included.
func (e *engine) stored() int64 { return int64(e.srv.GlobalAccount().JetStreamUsage().Store) }

// Close implements bus.Log.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		<-l.ended
		return l.end
	}
	l.closed = true
	l.cancel()
	l.mu.Unlock()
	defer close(l.ended)

	l.running.Wait()
	l.menders.Wait()
	if e := l.current(); e != nil {
		if err := l.saveHeads(e); err != nil { // those saved before tell less, and are true
			l.opts.Log.Warn("cannot note what the store holds; the next check of it sees less", "err", err)
		}
		e.stop(bus.ErrClosed)
	}
	var err error
	if l.opts.Sync != 0 {
		err = errors.Join(err, syncTree(l.opts.Dir))
	}
	if err = errors.Join(err, unlockDir(l.lock)); err != nil {
		l.end = fmt.Errorf("jetstream: closing %s: %w", l.opts.Dir, err)
	}
	return l.end
}
