package jetstream

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/bus"
)

// The state table is a stream that keeps the last message of each subject: a pack
// of one record, the value. A pack of none says that the key was removed; it stays,
// about 100 bytes, because JetStream does not note on disk that it dropped a replaced
// message: were the last one removed, a crash could bring back one of those before.

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
	e, err := l.state.room(size)
	if err != nil {
		return err
	}
	_, err = l.state.publish(ctx, e, key, key, encodePack(records))
	return err
}

// State implements bus.Log.
func (l *Log) State(ctx context.Context, key string) (value []byte, err error) {
	if err := checkStateKey(key); err != nil {
		return nil, err
	}
	err = l.with(ctx, func(ctx context.Context, e *engine) error {
		value, err = l.readState(ctx, e, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return value, nil
}

func (l *Log) readState(ctx context.Context, e *engine, key string) ([]byte, error) {
	m, err := e.api.request(ctx, "$JS.API.DIRECT.GET."+stateStream+"."+stateStream+"."+key, nil)
	if err != nil {
		return nil, l.state.err(err)
	}
	if m.Header.Get("Status") == "404" {
		return nil, fmt.Errorf("jetstream: state %s: %w", key, bus.ErrNotFound)
	}
	p, err := l.state.pack(m)
	if err != nil {
		return nil, err
	}
	if len(p.Records) == 0 {
		return nil, fmt.Errorf("jetstream: state %s: %w", key, bus.ErrNotFound)
	}
	if p.Records[0] == nil {
		return nil, fmt.Errorf("jetstream: state %s is damaged on disk", key)
	}
	return p.Records[0], nil
}

// StateKeys implements bus.Log.
func (l *Log) StateKeys(ctx context.Context, prefix string) (keys []string, err error) {
	err = l.with(ctx, func(ctx context.Context, e *engine) error {
		keys = nil
		return l.eachState(ctx, e, func(key string, p bus.Pack) error {
			if len(p.Records) > 0 && strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(keys)
	return keys, nil
}

// eachState reads the whole table.
func (l *Log) eachState(ctx context.Context, e *engine, visit func(key string, p bus.Pack) error) error {
	for from := uint64(1); ; {
		f, err := l.state.fetch(ctx, e, fmt.Sprintf(`"seq":%d`, from), "")
		if err != nil {
			return err
		}
		for _, p := range f.packs {
			if err := visit(p.Key, p); err != nil {
				return err
			}
			from = p.Seq + 1
		}
		if f.end || f.more == 0 {
			return nil
		}
	}
}
