package jetstream

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"sluice/bus"
)

// head is how far a stream went and how many packs it held. With that we notice when
// nats-server gives up a part of a damaged block as it recovers, which it does not say.
type head struct {
	Last  uint64 `json:"last"`
	Packs uint64 `json:"packs"`
}

// checkHeads reports the streams that end before they did and, when the log was
// closed in order, those that hold less.
func (l *Log) checkHeads(ctx context.Context, e *engine) error {
	m, err := readManifest(l.opts.Dir)
	if err != nil {
		return err
	}
	for name, was := range m.Heads {
		s, ok := l.streams[name]
		if !ok || m.Streams[name] != s.id {
			continue
		}
		state, err := s.state(ctx, e)
		if err != nil {
			return err
		}
		if f, ok := s.shorter(was, head{state.LastSeq, state.Msgs}, m.Closed); ok {
			l.opts.Log.Error("a stream has lost packs", "stream", name, "err", f.Detail)
			l.found(f)
		}
	}
	if !m.Closed || l.opts.Inspect {
		return nil
	}
	m.Closed = false
	if err := m.write(l.opts.Dir); !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil // on a full volume nothing changes much
}

// shorter compares what a stream was with what it is.
func (s *stream) shorter(was, is head, closed bool) (bus.Fault, bool) {
	switch {
	case is.Last < was.Last:
		return bus.Fault{
			Stream: s.name, First: is.Last + 1, Last: was.Last, Index: -1, Kind: bus.FaultCut,
			Detail: fmt.Sprintf("the stream went up to %d and ends at %d: a block was damaged or cut off", was.Last, is.Last),
		}, true
	case closed && is.Packs < was.Packs && s.name != bus.Events: // there the gaps are known one by one
		return bus.Fault{
			Stream: s.name, Index: -1, Kind: bus.FaultMissing,
			Detail: fmt.Sprintf("it held %d packs when it was closed and holds %d: a block was damaged or cut off", was.Packs, is.Packs),
		}, true
	}
	return bus.Fault{}, false
}

// saveHeads notes what the streams hold.
func (l *Log) saveHeads(e *engine) error {
	if l.opts.Inspect {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	m, err := readManifest(l.opts.Dir)
	if err != nil {
		return err
	}
	m.Heads, m.Closed = map[string]head{}, true
	for name, s := range l.streams {
		state, err := s.state(ctx, e)
		if err != nil {
			return err
		}
		m.Heads[name] = head{state.LastSeq, state.Msgs}
	}
	return m.write(l.opts.Dir)
}
