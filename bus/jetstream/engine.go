package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
)

// stateStream and stateCopy hold the state table twice: one message for each key.
const (
	stateStream = "STATE"
	stateCopy   = "STATE_COPY"
)

// ownStreams are all streams of a log, with those that nobody reads as a stream.
func ownStreams() []string { return append(bus.StreamNames(), stateStream, stateCopy) }

// adminTimeout bounds what has no other bound: making a stream over blocks that are
// there reads all of them.
const adminTimeout = 10 * time.Minute

// engine is one run of the embedded server with our connections to it. A server
// that failed to write once does not write again, so a Log may go through several.
type engine struct {
	srv   *server.Server
	js    jetstream.JetStream // what is rare: streams, trimming, info
	api   *conn               // reads and removals
	write map[string]*conn    // one for each stream, so that none waits behind another

	// ctx ends, with the cause, when the engine is of no use any more.
	ctx  context.Context
	fail context.CancelCauseFunc
}

// startEngine starts the server and waits until it has recovered its streams,
// which after a crash reads all of what they hold.
func startEngine(ctx context.Context, opts Options) (_ *engine, err error) {
	e := &engine{write: map[string]*conn{}}
	e.ctx, e.fail = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			e.stop(err)
		}
	}()
	e.srv, err = server.NewServer(serverOptions(opts))
	if err != nil {
		return nil, err
	}
	e.srv.SetLoggerV2(&logger{log: opts.Log, failed: e.fail}, opts.Log.Enabled(ctx, slog.LevelDebug), false, false)
	go e.srv.Start()
	for !e.srv.ReadyForConnections(50 * time.Millisecond) {
		if e.ctx.Err() != nil {
			return nil, context.Cause(e.ctx)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if !e.srv.JetStreamEnabled() {
		return nil, errors.Join(errors.New("JetStream did not start"), context.Cause(e.ctx))
	}
	if err := e.connect(); err != nil {
		return nil, fmt.Errorf("connecting to the embedded server: %w", err)
	}
	return e, nil
}

func serverOptions(opts Options) *server.Options {
	o := &server.Options{
		ServerName: "sluice",
		DontListen: true,
		NoSigs:     true,
		NoLog:      true, // it has ours
		MaxPayload: int32(opts.MaxPack + packHead),
		JetStream:  true,
		StoreDir:   opts.Dir,
		// What the streams may hold together is for Append to see to; JetStream would
		// not open those whose limits were set when MaxBytes was larger.
		JetStreamMaxStore:  math.MaxInt64 / 2,
		JetStreamMaxMemory: 16 << 20, // no stream is in memory
		SyncAlways:         opts.Sync == 0,
		SyncInterval:       opts.Sync,
	}
	if opts.Sync == 0 {
		o.SyncInterval = 2 * time.Minute // of the index files alone
	}
	return o
}

func (e *engine) connect() (err error) {
	if e.api, err = newConn(e.srv, e.fail); err != nil {
		return err
	}
	if e.js, err = jetstream.New(e.api.nc, jetstream.WithDefaultTimeout(adminTimeout)); err != nil {
		return err
	}
	for _, name := range ownStreams() {
		c, err := newConn(e.srv, e.fail)
		if err != nil {
			return err
		}
		e.write[name] = c
	}
	return nil
}

// stop ends everything the engine runs and waits for it.
func (e *engine) stop(cause error) {
	e.fail(cause)
	for _, c := range e.write {
		c.nc.Close()
	}
	if e.api != nil {
		e.api.nc.Close()
	}
	if e.srv != nil {
		e.srv.Shutdown()
		e.srv.WaitForShutdown()
	}
}
