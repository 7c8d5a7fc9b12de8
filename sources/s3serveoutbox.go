package sources

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"sluice/bus"
)

// outbox holds the events of what was done to objects until the bus has them. An
// event goes into it in the transaction that does the thing itself, so that a crash
// loses neither or both, and leaves it when the bus has said durable. Events of one
// object are published in their order.
type outbox struct {
	db  *bbolt.DB
	pub bus.Publisher
	env *Env

	// happened tells, for an event in doubt, whether what it tells was done.
	happened func(ctx context.Context, name objectName, doubt string) (bool, error)

	objectLocks

	mu      sync.Mutex
	waiting map[objectName][]dueEvent // that the bus did not take
	settled [][]byte                  // keys in the database of what it took
	clock   int64                     // the last sequencer
	faults  map[bool]error            // of the last round over what is in doubt, and over the rest
}

// dueEvent is an event that the bus is owed.
type dueEvent struct {
	name  objectName
	id    []byte // the key in the database
	event bus.Event
	doubt string // what tells whether it happened at all; "" when it did
}

// savedEvent is a dueEvent in the database.
type savedEvent struct {
	Bucket string          `json:"bucket"`
	Key    string          `json:"key"`
	Event  json.RawMessage `json:"event"`
	Doubt  string          `json:"doubt,omitempty"`
}

const (
	// s3PublishTimeout bounds how long an upload waits for the bus after it is stored.
	s3PublishTimeout = 30 * time.Second
	// outboxPause is between two rounds over what is waiting and what is settled.
	// What was settled since is published again after a crash, with the same ids.
	outboxPause = 100 * time.Millisecond
	// maxOwed is how many objects may have events that the bus did not take yet: they are
	// in memory.
	maxOwed = 10_000
)

// The tables of the database.
const (
	tableDue     = "due"
	tableObjects = "objects" // a table of each bucket, by key
	tableBlobs   = "blobs"   // how often each file is used
	tableUploads = "uploads"
	tableParts   = "parts" // a table of each upload, by number
	tableClock   = "clock" // under the same name, the last sequencer of an event
)

// newOutbox takes up what an earlier process still owed.
func newOutbox(db *bbolt.DB, pub bus.Publisher, env *Env) (*outbox, error) {
	o := &outbox{db: db, pub: pub, env: env, waiting: make(map[objectName][]dueEvent), faults: make(map[bool]error)}
	o.locks = make(map[objectName]*objectLock)
	o.happened = o.noted
	err := db.View(func(tx *bbolt.Tx) error {
		if last := tx.Bucket([]byte(tableClock)).Get([]byte(tableClock)); len(last) == 8 {
			o.clock = int64(binary.BigEndian.Uint64(last)) //nolint:gosec // it was one
		}
		return tx.Bucket([]byte(tableDue)).ForEach(func(id, doc []byte) error {
			var saved savedEvent
			if err := json.Unmarshal(doc, &saved); err != nil {
				return err
			}
			e, err := bus.ParseJSON(saved.Event)
			if err != nil {
				return err
			}
			name := objectName{saved.Bucket, saved.Key}
			o.waiting[name] = append(o.waiting[name], dueEvent{name: name, id: slices.Clone(id), event: e, doubt: saved.Doubt})
			return nil
		})
	})
	return o, err
}

// sequencer is larger than every one before it, those of earlier processes too: who
// drops what is older than what they have must not drop what comes after the clock was
// set back.
func (o *outbox) sequencer(now time.Time) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clock = max(o.clock+1, now.UnixNano())
	return fmt.Sprintf("%016X", o.clock)
}

func (o *outbox) saveClock(tx *bbolt.Tx) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return tx.Bucket([]byte(tableClock)).Put([]byte(tableClock), binary.BigEndian.AppendUint64(nil, uint64(o.clock))) //nolint:gosec // it is a time
}

// add puts an event in, in the transaction that does what the event tells.
func (o *outbox) add(tx *bbolt.Tx, name objectName, e bus.Event, doubt string) (dueEvent, error) {
	table := tx.Bucket([]byte(tableDue))
	n, err := table.NextSequence()
	if err != nil {
		return dueEvent{}, err
	}
	doc, err := json.Marshal(savedEvent{Bucket: name.bucket, Key: name.key, Event: e.AppendJSON(nil), Doubt: doubt})
	if err != nil {
		return dueEvent{}, err
	}
	id := binary.BigEndian.AppendUint64(nil, n)
	return dueEvent{name: name, id: id, event: e, doubt: doubt}, errors.Join(table.Put(id, doc), o.saveClock(tx))
}

// publish returns nil once all of the events are durable. Those that are not wait
// for flush. The objects are locked. Who asked may be gone meanwhile: the events are
// owed all the same.
func (o *outbox) publish(due []dueEvent) error {
	if len(due) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s3PublishTimeout)
	defer cancel()
	events := make([]bus.Event, len(due))
	for i, d := range due {
		events[i] = d.event
	}
	results, err := o.pub.Publish(ctx, events...)
	o.mu.Lock()
	defer o.mu.Unlock()
	var fault error
	for i, d := range due {
		cause := faultOf(results, err, i)
		if cause == nil {
			o.settled = append(o.settled, d.id)
			o.env.observe(Accepted, 1)
			continue
		}
		fault = cause
		o.waiting[d.name] = append(o.waiting[d.name], d)
		o.env.observe(badStore(ctx, cause).outcome, 1)
	}
	return fault
}

// room is an error while the bus is owed so much that nothing more may happen.
func (o *outbox) room() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) >= maxOwed {
		return fmt.Errorf("events of %d objects wait for the bus", len(o.waiting))
	}
	return nil
}

// flush publishes what waits for the objects, which are locked.
func (o *outbox) flush(names ...objectName) error {
	return o.flushIn(context.Background(), names...)
}

// flushIn is flush that asks about what is in doubt until ctx ends.
func (o *outbox) flushIn(ctx context.Context, names ...objectName) error {
	var due []dueEvent
	o.mu.Lock()
	for _, name := range names {
		due = append(due, o.waiting[name]...)
		delete(o.waiting, name)
	}
	o.mu.Unlock()
	due, err := o.clear(ctx, due)
	return errors.Join(err, o.publish(due))
}

// clear leaves out what turns out not to have happened. What cannot be told waits on,
// and what comes after it.
func (o *outbox) clear(ctx context.Context, due []dueEvent) (sure []dueEvent, err error) {
	ctx, cancel := context.WithTimeout(ctx, s3PublishTimeout)
	defer cancel()
	for _, d := range due {
		if err == nil && d.doubt != "" {
			var happened bool
			if happened, err = o.happened(ctx, d.name, d.doubt); err == nil && !happened {
				o.mu.Lock()
				o.settled = append(o.settled, d.id)
				o.mu.Unlock()
				continue
			}
		}
		if err != nil {
			o.wait(d)
			continue
		}
		d.doubt = ""
		sure = append(sure, d)
	}
	return sure, err
}

// noted is happened for an endpoint whose objects are on disk: the doubts are those of
// a time when they were forwarded, and the S3 that knew is not in the settings any
// more. Nobody was told that such a change was made, since that is said only once its
// event is on the bus: so leaving the event out takes nothing back, whereas publishing
// it may tell of an object that never was. But a multipart upload that the other S3
// completed is noted here, and who asks once more is told so: its event counts.
func (o *outbox) noted(_ context.Context, name objectName, doubt string) (bool, error) {
	done, err := o.completed(doubt)
	if err == nil && !done {
		o.env.Log.Warn("the event of a change is left out: the S3 that it was forwarded to did not say that it was made, and forward is not in the settings any more",
			"bucket", name.bucket, "key", name.key, "removed", doubt == doubtRemoved)
	}
	return done, err
}

// completed tells whether the doubt is about a multipart upload that is noted as complete.
func (o *outbox) completed(doubt string) (done bool, err error) {
	err = o.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(tableUploads)).ForEach(func(_, doc []byte) error {
			var u partsUpload
			err := json.Unmarshal(doc, &u)
			done = done || u.Created != "" && u.Mark == doubt
			return err
		})
	})
	return done, err
}

// wait keeps an event for later.
func (o *outbox) wait(d dueEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[d.name] = append(o.waiting[d.name], d)
}

// run publishes what waits, until ctx ends: what is in doubt, for which another S3 has
// to be asked, or, which is not to wait for that, the rest.
func (o *outbox) run(ctx context.Context, inDoubt bool) {
	for reported := false; ; {
		wait, err := outboxPause, o.retry(ctx, inDoubt)
		if err != nil {
			wait = feedMax
		}
		if ctx.Err() == nil && (err != nil || reported) {
			o.report(inDoubt, err)
			reported = err != nil
		}
		if err := o.forget(); err != nil {
			o.env.Log.Error("cannot write down which events were published: they are published again after a restart", "err", err)
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// report shows what keeps events waiting.
func (o *outbox) report(inDoubt bool, err error) {
	o.mu.Lock()
	o.faults[inDoubt] = err
	all := errors.Join(o.faults[false], o.faults[true])
	o.mu.Unlock()
	o.env.report(all)
}

// retry publishes what waits, object by object, until the bus refuses. Objects that
// somebody works on are left to them.
func (o *outbox) retry(ctx context.Context, inDoubt bool) error {
	o.mu.Lock()
	names := make([]objectName, 0, len(o.waiting))
	for name, due := range o.waiting {
		if slices.ContainsFunc(due, func(d dueEvent) bool { return d.doubt != "" }) == inDoubt {
			names = append(names, name)
		}
	}
	o.mu.Unlock()
	for _, name := range names {
		err := o.flushFree(ctx, name)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && inDoubt:
			return fmt.Errorf("events of uploads wait until it is known what became of those: %w", err)
		case err != nil:
			return fmt.Errorf("events of uploads wait for the bus: %w", err)
		}
	}
	return nil
}

func (o *outbox) flushFree(ctx context.Context, name objectName) error {
	unlock, ok := o.lockFree(name)
	if !ok {
		return nil
	}
	defer unlock()
	return o.flushIn(ctx, name)
}

// forget takes what is settled out of the database.
func (o *outbox) forget() error {
	o.mu.Lock()
	none := len(o.settled) == 0
	o.mu.Unlock()
	if none {
		return nil
	}
	return o.update(func(*bbolt.Tx) error { return nil })
}

// update is a transaction that also takes out what is settled: while uploads come,
// that costs no transaction of its own.
func (o *outbox) update(do func(tx *bbolt.Tx) error) error {
	o.mu.Lock()
	settled := o.settled
	o.settled = nil
	o.mu.Unlock()
	err := o.db.Batch(func(tx *bbolt.Tx) error {
		table := tx.Bucket([]byte(tableDue))
		for _, id := range settled {
			if err := table.Delete(id); err != nil {
				return err
			}
		}
		return do(tx)
	})
	if err != nil {
		o.mu.Lock()
		o.settled = append(o.settled, settled...)
		o.mu.Unlock()
	}
	return err
}
