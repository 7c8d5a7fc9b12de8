package sources

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"sluice/bus"
)

// objectName is the place of an object.
type objectName struct{ bucket, key string }

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

	seed    maphash.Seed
	stripes [512]sync.Mutex

	mu      sync.Mutex
	waiting map[objectName][]dueEvent // that the bus did not take
	settled [][]byte                  // keys in the database of what it took
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
)

// newOutbox takes up what an earlier process still owed.
func newOutbox(db *bbolt.DB, pub bus.Publisher, env *Env) (*outbox, error) {
	o := &outbox{db: db, pub: pub, env: env, seed: maphash.MakeSeed(), waiting: make(map[objectName][]dueEvent)}
	o.happened = o.noted
	err := db.View(func(tx *bbolt.Tx) error {
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

// lock keeps others away from the objects until unlock.
func (o *outbox) lock(names ...objectName) (unlock func()) {
	var stripes []int
	for _, name := range names {
		n := maphash.Comparable(o.seed, name) % uint64(len(o.stripes))
		stripes = append(stripes, int(n)) //nolint:gosec // it is below the number of stripes
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	for _, i := range stripes {
		o.stripes[i].Lock()
	}
	return func() {
		for _, i := range stripes {
			o.stripes[i].Unlock()
		}
	}
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
	return dueEvent{name: name, id: id, event: e, doubt: doubt}, table.Put(id, doc)
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
	var due []dueEvent
	o.mu.Lock()
	for _, name := range names {
		due = append(due, o.waiting[name]...)
		delete(o.waiting, name)
	}
	o.mu.Unlock()
	due, err := o.clear(due)
	return errors.Join(err, o.publish(due))
}

// clear leaves out what turns out not to have happened. What cannot be told waits on,
// and what comes after it.
func (o *outbox) clear(due []dueEvent) (sure []dueEvent, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), s3PublishTimeout)
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
func (o *outbox) noted(_ context.Context, name objectName, doubt string) (done bool, err error) {
	err = o.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(tableUploads)).ForEach(func(_, doc []byte) error {
			var u partsUpload
			err := json.Unmarshal(doc, &u)
			done = done || u.Created != "" && u.Mark == doubt
			return err
		})
	})
	if err == nil && !done {
		o.env.Log.Warn("the event of a change is left out: the S3 that it was forwarded to did not say that it was made, and forward is not in the settings any more",
			"bucket", name.bucket, "key", name.key, "removed", doubt == doubtRemoved)
	}
	return done, err
}

// wait keeps an event for later.
func (o *outbox) wait(d dueEvent) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting[d.name] = append(o.waiting[d.name], d)
}

// run publishes what waits and forgets what is settled, until ctx ends.
func (o *outbox) run(ctx context.Context) {
	for reported := false; ; {
		wait, err := outboxPause, o.retry(ctx)
		if err != nil {
			wait = feedMax
		}
		if err != nil || reported {
			o.env.report(err)
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

// retry publishes what waits, object by object, until the bus refuses.
func (o *outbox) retry(ctx context.Context) error {
	o.mu.Lock()
	names := make([]objectName, 0, len(o.waiting))
	for name := range o.waiting {
		names = append(names, name)
	}
	o.mu.Unlock()
	for _, name := range names {
		select {
		case <-ctx.Done():
			return nil
		default:
		}
		if err := o.flushAlone(name); err != nil {
			return fmt.Errorf("events of uploads wait for the bus: %w", err)
		}
	}
	return nil
}

func (o *outbox) flushAlone(name objectName) error {
	defer o.lock(name)()
	return o.flush(name)
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
