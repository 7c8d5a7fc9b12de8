package jetstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
)

// table is the state table. It is kept twice, in two streams that each keep the last
// message of each subject: the same pack of one record, the value. So whatever one
// damaged file takes is in the other, and the times of the packs say which is newer.
// A pack of no records says that the key was removed: JetStream does not note on
// disk that it dropped a replaced message, so were the last one just removed, a crash
// could bring back one of those before. statefix.go brings the copies in line.
type table struct {
	log    *Log
	copies [2]*stream

	// writing is held for reading while a write is on its way: who holds it for
	// writing sees both copies as one.
	writing sync.RWMutex
	order   sync.Mutex // held while a pack gets its time and goes out to both
	time    time.Time  // of the newest pack
}

func newTable(l *Log) *table {
	t := &table{log: l}
	for i, name := range []string{stateStream, stateCopy} {
		t.copies[i] = &stream{log: l, name: name, tail: newTail(0)}
	}
	return t
}

// isState tells whether a stream is one of the copies of the state table.
func isState(stream string) bool { return stream == stateStream || stream == stateCopy }

// PutState implements bus.Log.
func (l *Log) PutState(ctx context.Context, key string, value []byte) error {
	if err := checkStateKey(key); err != nil {
		return err
	}
	var records [][]byte
	if value != nil {
		records = [][]byte{value}
	}
	size := packSize(records)
	if size-packHead > l.opts.MaxPack {
		return fmt.Errorf("jetstream: state %s: %w", key, bus.ErrTooLarge)
	}
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.running.Done()
	e, err := l.state.copies[0].room(len(l.state.copies) * size)
	if err != nil {
		return err
	}
	return l.state.put(ctx, e, key, encodePack(records))
}

// put writes a pack to both copies at once, and waits for both.
func (t *table) put(ctx context.Context, e *engine, key string, pack []byte) error {
	t.writing.RLock()
	defer t.writing.RUnlock()
	t.order.Lock()
	now := t.log.opts.Clock()
	if !now.After(t.time) {
		now = t.time.Add(1) // no two packs are of one time, whatever the clock says
	}
	t.time = now
	sealPack(pack, now)
	var sent []*written
	for _, s := range t.copies {
		w, err := s.write(e, key, pack)
		if err != nil {
			t.order.Unlock()
			return err
		}
		sent = append(sent, w)
	}
	t.order.Unlock()
	var failed error
	for _, w := range sent {
		if err := w.wait(ctx, e); failed == nil {
			failed = err
		}
	}
	return failed
}

// written is a pack on its way to one copy.
type written struct {
	stream *stream
	call   *call
	ack    acknowledged
}

func (s *stream) write(e *engine, key string, pack []byte) (*written, error) {
	w := &written{stream: s}
	call, _, err := e.write[s.name].send(s.name+"."+key, pack, func(m *nats.Msg) bool {
		w.ack.seq, w.ack.err = parseAck(m)
		return true
	})
	if err != nil {
		return nil, s.err(err)
	}
	w.call = call
	return w, nil
}

func (w *written) wait(ctx context.Context, e *engine) error {
	_, err := w.stream.acknowledgement(ctx, e, w.call, &w.ack)
	return err
}

// State implements bus.Log.
func (l *Log) State(ctx context.Context, key string) (value []byte, err error) {
	if err := checkStateKey(key); err != nil {
		return nil, err
	}
	err = l.with(ctx, func(ctx context.Context, e *engine) error {
		value, err = l.state.get(ctx, e, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// get reads a value from whichever copy has the newest that can be read.
func (t *table) get(ctx context.Context, e *engine, key string) ([]byte, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	var both [2]entry
	for i, s := range t.copies {
		var err error
		if both[i], err = s.entry(ctx, e, key); err != nil {
			return nil, err
		}
	}
	newest := both[0].orNewer(both[1])
	switch {
	case newest.damaged():
		return nil, fmt.Errorf("jetstream: state %s: both copies are %w", key, bus.ErrDamaged)
	case newest.value() == nil:
		return nil, fmt.Errorf("jetstream: state %s: %w", key, bus.ErrNotFound)
	}
	return newest.value(), nil
}

// entry is what one copy of the table has under a key.
type entry struct {
	there      bool // the server counts it
	unreadable bool // and that is all there is of it
	pack       bus.Pack
}

// damaged tells that there was a value and is none, here or, as was noted, anywhere.
func (n entry) damaged() bool { return n.unreadable || len(n.pack.Records) > 1 }

func (n entry) whole() bool { return n.there && !n.damaged() }

// value is nil when the key was removed or never was.
func (n entry) value() []byte {
	if len(n.pack.Records) == 0 {
		return nil
	}
	return n.pack.Records[0]
}

// orNewer picks the newer of two entries of one key; one that is whole before one that
// is not, and one that is damaged before none.
func (n entry) orNewer(other entry) entry {
	switch {
	case other.whole() && (!n.whole() || other.pack.Time.After(n.pack.Time)),
		other.damaged() && !n.there:
		return other
	}
	return n
}

// entry reads what the stream has under a key. To one whose checksum is wrong
// nats-server answers as if there were none, and counts it.
func (s *stream) entry(ctx context.Context, e *engine, key string) (entry, error) {
	m, err := e.api.request(ctx, "$JS.API.DIRECT.GET."+s.name+"."+s.name+"."+key, nil)
	if err != nil {
		return entry{}, s.err(err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		p, err := s.pack(m)
		return entryOf(p), err
	case "404":
		state, err := s.state(ctx, e, jetstream.WithSubjectFilter(s.name+"."+key))
		counted := len(state.Subjects) > 0
		return entry{there: counted, unreadable: counted}, err
	default:
		return entry{}, s.err(fmt.Errorf("%s %s", status, m.Header.Get("Description")))
	}
}

func entryOf(p bus.Pack) entry {
	if slices.ContainsFunc(p.Records, func(r []byte) bool { return r == nil }) {
		return entry{there: true, unreadable: true}
	}
	return entry{there: true, pack: p}
}

// StateKeys implements bus.Log.
func (l *Log) StateKeys(ctx context.Context, prefix string) (keys []string, err error) {
	err = l.with(ctx, func(ctx context.Context, e *engine) error {
		keys = nil
		both, err := l.state.entries(ctx, e, prefix)
		for key, c := range both {
			if newest := c[0].orNewer(c[1]); newest.damaged() || newest.value() != nil {
				keys = append(keys, key)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return keys, nil
}

// entries reads what both copies have under the keys that start with a prefix.
func (t *table) entries(ctx context.Context, e *engine, prefix string) (map[string][2]entry, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	both := map[string][2]entry{}
	for i, s := range t.copies {
		err := s.eachEntry(ctx, e, prefix, func(key string, n entry) {
			c := both[key]
			c[i] = n
			both[key] = c
		})
		if err != nil {
			return nil, err
		}
	}
	return both, nil
}

// eachEntry visits what one copy has: what reading it in order gives, and one by one
// what is counted besides.
func (s *stream) eachEntry(ctx context.Context, e *engine, prefix string, visit func(key string, n entry)) error {
	state, err := s.state(ctx, e, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return err
	}
	for from, more := uint64(1), true; more; {
		f, err := s.fetch(ctx, e, fmt.Sprintf(`"seq":%d`, from), "")
		if err != nil {
			return err
		}
		for _, p := range f.packs {
			if strings.HasPrefix(p.Key, prefix) {
				visit(p.Key, entryOf(p))
			}
			delete(state.Subjects, s.name+"."+p.Key)
			from = p.Seq + 1
		}
		more = f.full && f.more > 0
	}
	for subject := range state.Subjects {
		key := strings.TrimPrefix(subject, s.name+".")
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		n, err := s.entry(ctx, e, key)
		if err != nil {
			return err
		}
		visit(key, n)
	}
	return nil
}
