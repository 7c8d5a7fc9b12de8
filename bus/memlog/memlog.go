package memlog

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bus"
)

// Options of a Log. The zero value is usable.
type Options struct {
	// Limit is how many bytes the streams may hold, 0 for any number. As on disk,
	// EVENTS stops at four fifths of it, so that what was accepted can still be
	// spilled, retried and given up when no more is accepted.
	Limit int64
	// MaxPack is the size of the largest pack, 8 MiB if 0: the bytes of its
	// records and 8 for each of them.
	MaxPack int
	// Hook, if any, sees and fails operations.
	Hook Hook
	// Clock stamps the packs; nil is time.Now.
	Clock func() time.Time
}

const (
	defaultMaxPack = 8 << 20
	recordOverhead = 8   // as in a pack on disk
	packOverhead   = 64  // what a pack costs besides its records, about as on disk
	maxKey         = 255 // bytes
)

// Log is a bus.Log in memory.
type Log struct {
	opts    Options
	running sync.WaitGroup

	mu      sync.Mutex
	streams map[string]*stream
	state   map[string][]byte
	stored  int64
	closed  bool
	crashed bool
	done    chan struct{} // closed when no more packs will come
}

var _ bus.Log = (*Log)(nil)

// New gives an empty log.
func New(opts Options) *Log {
	if opts.MaxPack <= 0 {
		opts.MaxPack = defaultMaxPack
	}
	if opts.Clock == nil {
		opts.Clock = time.Now
	}
	l := &Log{opts: opts, streams: map[string]*stream{}, state: map[string][]byte{}, done: make(chan struct{})}
	for _, name := range bus.StreamNames() {
		l.streams[name] = &stream{log: l, name: name, id: rand.Text(), first: 1, next: 1, waiting: map[string]chan struct{}{}}
	}
	return l
}

// Restart gives a log over everything that was durable in l, with the same
// options, as a process finds it that starts after this one died. If l still runs
// it crashes first.
func (l *Log) Restart() *Log {
	l.crash()
	l.mu.Lock()
	defer l.mu.Unlock()
	fresh := &Log{opts: l.opts, streams: map[string]*stream{}, state: l.state, stored: l.stored, done: make(chan struct{})}
	for name, s := range l.streams {
		fresh.streams[name] = &stream{
			log: fresh, name: name, id: s.id,
			first: s.first, next: s.next, bytes: s.bytes, held: s.held,
			packs: slices.Clone(s.packs), waiting: map[string]chan struct{}{},
		}
	}
	return fresh
}

func (l *Log) crash() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && !l.crashed {
		close(l.done)
	}
	l.crashed = true
}

// Close implements bus.Log.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.crashed {
		l.mu.Unlock()
		return errCrashed()
	}
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	l.mu.Unlock()
	l.running.Wait()
	return nil
}

// Stream implements bus.Log.
func (l *Log) Stream(name string) bus.Stream {
	s, ok := l.streams[name]
	if !ok {
		panic(fmt.Sprintf("memlog: no stream is named %q", name))
	}
	return s
}

// Usage implements bus.Log.
func (l *Log) Usage() bus.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bus.Usage{Stored: l.stored, Limit: l.opts.Limit, Free: -1}
}

// share is the part of the limit, in twentieths, that all streams together may
// have taken for one of them to take more: each has room left when the one before
// it has none.
func share(stream string) int64 {
	switch stream {
	case bus.Events:
		return 16
	case bus.Backlog:
		return 18
	case bus.Retries:
		return 19
	default:
		return 20
	}
}

// PutState implements bus.Log.
func (l *Log) PutState(ctx context.Context, key string, value []byte) error {
	if err := checkStateKey(key); err != nil {
		return err
	}
	if len(value)+recordOverhead > l.opts.MaxPack {
		return fmt.Errorf("memlog: state %s: %w", key, bus.ErrTooLarge)
	}
	return l.do(ctx, Op{Name: OpPutState, Key: key, N: 1}, func() error {
		if value == nil {
			delete(l.state, key)
		} else {
			l.state[key] = bytes.Clone(value)
		}
		return nil
	})
}

// State implements bus.Log.
func (l *Log) State(ctx context.Context, key string) (value []byte, err error) {
	if err := checkStateKey(key); err != nil {
		return nil, err
	}
	err = l.do(ctx, Op{Name: OpState, Key: key}, func() error {
		v, ok := l.state[key]
		if !ok {
			return fmt.Errorf("memlog: state %s: %w", key, bus.ErrNotFound)
		}
		value = bytes.Clone(v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

// StateKeys implements bus.Log.
func (l *Log) StateKeys(ctx context.Context, prefix string) (keys []string, err error) {
	err = l.do(ctx, Op{Name: OpStateKeys, Key: prefix}, func() error {
		for key := range l.state {
			if strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// checkStateKey holds a key to what bus.Log promises to take.
func checkStateKey(key string) error {
	if len(key) > maxKey {
		return fmt.Errorf("memlog: a state key of %d bytes: %w", len(key), bus.ErrTooLarge)
	}
	if !goodStateKey(key) {
		return fmt.Errorf("memlog: %q cannot be a state key: use letters, digits, - and _ with dots between", key)
	}
	return nil
}

// goodStateKey tells whether a key is made of parts of letters, digits, - and _,
// with a dot between two.
func goodStateKey(key string) bool {
	for part := range strings.SplitSeq(key, ".") {
		if part == "" || strings.Trim(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
