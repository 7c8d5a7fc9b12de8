package sources

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"sluice/bus"
)

const (
	pgStopTime  = 5 * time.Second  // for what is in flight when the source is to stop
	pgWriteTime = 30 * time.Second // for the server to take a status
	pgSilence   = time.Minute      // after which a server that does not answer beside it is gone
)

// pgStream follows the changes over one connection. Three goroutines share it: one
// reads and fills the queue, one publishes from the queue, and one tells the
// server what is durable, in time also while the others wait for the bus: who is
// silent for wal_sender_timeout is thrown out.
type pgStream struct {
	*postgres
	feed    feed
	side    *pgSide
	conn    *pgconn.PgConn
	decoder pgDecoder
	queue   *pgQueue
	every   time.Duration // between two words to the server
	poke    chan struct{} // there is something to tell the server
	heard   atomic.Int64  // when the server said something, in Unix nanoseconds
}

// follow publishes changes from where the slot stands until ctx ends or something
// breaks.
func (s *postgres) follow(ctx context.Context, f feed, side *pgSide, conn *pgconn.PgConn, server *pgServer, slot pgSlot) error {
	from := max(slot.confirmed, slot.known)
	s.durable.Store(uint64(from))
	s.end.Store(uint64(from))
	st := &pgStream{
		postgres: s, feed: f, side: side, conn: conn, queue: newPgQueue(), poke: make(chan struct{}, 1),
		decoder: pgDecoder{
			source: s.source, history: s.history.String(), outbox: s.set.Outbox, takes: s.takes(server), skipped: s.skipped, relations: map[uint32]*pgRelation{},
			bases: func(ctx context.Context, oids []uint32) (map[uint32]uint32, error) { return pgBases(ctx, side, oids) },
		},
		every: time.Duration(s.set.Heartbeat),
	}
	if server.Timeout > 0 {
		st.every = max(min(st.every, time.Duration(server.Timeout)*time.Millisecond/3), time.Millisecond)
	}
	if err := st.start(ctx, from); err != nil {
		return err
	}
	s.env.Log.Info("following the changes of PostgreSQL", "slot", s.set.Slot, "publication", s.set.Publication, "lsn", from.String())
	s.env.report(nil)
	return st.run(ctx)
}

func (st *pgStream) start(ctx context.Context, from pglogrepl.LSN) error {
	ctx, cancel := context.WithTimeout(ctx, pgQueryTimeout)
	defer cancel()
	return pglogrepl.StartReplication(ctx, st.conn, pgQuote(st.set.Slot), from, pglogrepl.StartReplicationOptions{
		Mode:       pglogrepl.LogicalReplication,
		PluginArgs: []string{"proto_version '1'", "publication_names " + pgLiteral(pgQuote(st.set.Publication)), "messages 'true'"},
	})
}

func (st *pgStream) run(ctx context.Context) error {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late, done := graceful(work, pgStopTime)
	defer done()
	defer st.queue.wake(work)()
	defer context.AfterFunc(work, func() { _ = st.conn.Conn().SetReadDeadline(time.Unix(1, 0)) })()
	st.heard.Store(time.Now().UnixNano())
	var helpers sync.WaitGroup
	helpers.Go(func() { cancel(contained(func() error { return st.read(work) })) })
	helpers.Go(func() { cancel(contained(func() error { return st.watch(work) })) })
	published := make(chan struct{})
	go func() {
		defer close(published)
		cancel(contained(func() error { return st.publish(work, late) }))
	}()
	if err := st.tell(published); err != nil {
		cancel(err)
	}
	cancel(nil)
	<-published
	helpers.Wait()
	if ctx.Err() != nil {
		st.leave()
	}
	return context.Cause(work)
}

// graceful is a context that ends d after ctx has ended.
func graceful(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		if pause(late, 2*d) == nil { // which takes at least half of it
			cancel()
		}
	})
	return late, func() { stop(); cancel() }
}

// read fills the queue with what the server sends. It ends with ctx, which sets
// the deadline of the connection.
func (st *pgStream) read(ctx context.Context) error {
	for {
		// Without a ctx, since another goroutine writes to the connection meanwhile.
		msg, err := st.conn.ReceiveMessage(context.Background())
		if err != nil {
			return fmt.Errorf("the replication connection broke: %w", err)
		}
		st.heard.Store(time.Now().UnixNano())
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			err = st.receive(ctx, msg.Data)
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone:
			err = errors.New("the server ended the replication")
		}
		if err != nil {
			return err
		}
	}
}

func (st *pgStream) receive(ctx context.Context, data []byte) error {
	if len(data) == 0 {
		return errPgShort
	}
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		alive, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return err
		}
		raise(&st.end, alive.ServerWALEnd)
		if !st.decoder.tx.open {
			// Everything before was sent, and the rest of the WAL up to there is nothing
			// for us: without this a quiet database would keep the WAL of a busy one.
			st.queue.mark(alive.ServerWALEnd)
		}
		if alive.ReplyRequested {
			st.wakeTeller()
		}
		return nil
	case pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return err
		}
		raise(&st.end, x.WALStart)
		items, err := st.decoder.decode(ctx, x.WALStart, x.ServerTime, x.WALData)
		if err != nil {
			return err
		}
		for _, it := range items {
			if it.event == nil && it.poison == nil {
				st.queue.mark(it.done)
			} else if err := st.queue.put(ctx, it); err != nil {
				return err
			}
		}
	}
	return nil
}

// publish empties the queue until ctx ends; what it has taken then it finishes
// within late.
func (st *pgStream) publish(ctx, late context.Context) error {
	var items []pgItem
	for {
		var err error
		clear(items)
		if items, err = st.queue.take(ctx, items[:0]); err != nil {
			return err
		}
		done, err := st.store(late, items)
		if err != nil {
			return err
		}
		if done > 0 {
			raise(&st.durable, done)
			raise(&st.end, done)
			st.wakeTeller()
		}
	}
}

// store makes the items durable, in order, and tells how far the server may forget.
func (st *pgStream) store(ctx context.Context, items []pgItem) (done pglogrepl.LSN, err error) {
	events := make([]bus.Event, 0, len(items))
	flush := func() error {
		if len(events) == 0 {
			return nil
		}
		err := st.feed.publish(ctx, events...)
		events = events[:0]
		return err
	}
	for _, it := range items {
		done = max(done, it.done)
		switch {
		case it.event != nil:
			events = append(events, *it.event)
		case it.poison != nil:
			if err := flush(); err != nil {
				return 0, err
			}
			if err := st.feed.reject(ctx, *it.poison); err != nil {
				return 0, err
			}
		}
	}
	return done, flush()
}

func (st *pgStream) wakeTeller() {
	select {
	case st.poke <- struct{}{}:
	default: // it is awake already
	}
}

// tell tells the server what is durable, when that has changed and at least every
// st.every, until the publisher has ended.
func (st *pgStream) tell(published <-chan struct{}) error {
	beat := time.NewTicker(st.every)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-published:
			return nil
		case <-st.poke:
			err = st.status()
		case <-beat.C:
			err = st.status()
		}
		if err != nil {
			return fmt.Errorf("the replication connection broke: %w", err)
		}
	}
}

func (st *pgStream) status() error {
	if err := st.conn.Conn().SetWriteDeadline(time.Now().Add(pgWriteTime)); err != nil {
		return err
	}
	return pglogrepl.SendStandbyStatusUpdate(context.Background(), st.conn, pglogrepl.StandbyStatusUpdate{
		WALWritePosition: pglogrepl.LSN(st.durable.Load()),
	})
}

// leave says what became durable last and waits until the server has read it: to
// close the connection at once could undo that. What the server still sends is
// left out and comes again.
func (st *pgStream) leave() {
	if st.conn.Conn().SetReadDeadline(time.Now().Add(pgCloseTimeout)) != nil || st.status() != nil {
		return
	}
	st.conn.Frontend().Send(&pgproto3.CopyDone{})
	if st.conn.Frontend().Flush() != nil {
		return
	}
	for {
		msg, err := st.conn.ReceiveMessage(context.Background())
		if err != nil {
			return
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			return
		}
	}
}

// watch looks at the slot from beside every now and then: how far it is behind, and
// whether the server still serves it. A silent connection alone says nothing: the
// server is silent while it reads through a large transaction of other tables.
func (st *pgStream) watch(ctx context.Context) error {
	beat := time.NewTicker(time.Duration(st.set.Heartbeat))
	defer beat.Stop()
	pid, status := 0, ""
	for {
		found, err := pgQuery(ctx, st.side, pgx.RowToStructByPos[struct {
			End    string
			PID    int
			Status string
		}], `SELECT coalesce(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0')::text,
				coalesce(active_pid, 0), coalesce(wal_status, '')
			FROM pg_replication_slots WHERE slot_name = $1`, st.set.Slot)
		quiet := time.Since(time.Unix(0, st.heard.Load()))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && quiet > max(pgSilence, 3*time.Duration(st.set.Heartbeat)):
			return fmt.Errorf("the server has been silent for %s and does not answer: %w", quiet.Round(time.Second), err)
		case err != nil: // the replication may go on without
		case len(found) == 0 || found[0].PID == 0 || pid != 0 && found[0].PID != pid:
			return fmt.Errorf("the server does not serve the replication slot %s to this source any more", st.set.Slot)
		default:
			if end, err := pglogrepl.ParseLSN(found[0].End); err == nil {
				raise(&st.end, end)
			}
			if pid = found[0].PID; found[0].Status != status && found[0].Status == "unreserved" {
				st.env.Log.Warn("the replication slot is about to be lost: it keeps more WAL than max_slot_wal_keep_size allows", "slot", st.set.Slot)
			}
			status = found[0].Status
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pgBases gives the base types of those types that are domains.
func pgBases(ctx context.Context, side *pgSide, oids []uint32) (map[uint32]uint32, error) {
	var all []int64
	for _, oid := range oids {
		all = append(all, int64(oid))
	}
	found, err := pgQuery(ctx, side, pgx.RowToStructByPos[struct{ OID, Base int64 }], `
		WITH RECURSIVE step(oid, base) AS (
			SELECT oid, typbasetype FROM pg_type WHERE oid = ANY($1::bigint[]::oid[]) AND typtype = 'd'
			UNION ALL
			SELECT s.oid, t.typbasetype FROM step s JOIN pg_type t ON t.oid = s.base WHERE t.typtype = 'd')
		SELECT s.oid::bigint, s.base::bigint FROM step s JOIN pg_type t ON t.oid = s.base WHERE t.typtype <> 'd'`, all)
	if err != nil {
		return nil, err
	}
	bases := make(map[uint32]uint32, len(found))
	for _, f := range found {
		bases[uint32(f.OID)] = uint32(f.Base)
	}
	return bases, nil
}
