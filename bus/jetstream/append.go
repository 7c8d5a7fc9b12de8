package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"sluice/bus"
)

// Append implements bus.Stream.
func (s *stream) Append(ctx context.Context, key string, records [][]byte) (uint64, error) {
	size := packSize(records)
	if size-packHead > s.log.opts.MaxPack {
		return 0, fmt.Errorf("jetstream: a pack of %d bytes: %w", size, bus.ErrTooLarge)
	}
	token, err := keyToken(key)
	if err != nil {
		return 0, err
	}
	if err := s.log.enter(ctx); err != nil {
		return 0, err
	}
	defer s.log.running.Done()
	e, err := s.room(size)
	if err != nil {
		return 0, err
	}
	return s.publish(ctx, e, key, token, encodePack(records))
}

// room gives the engine, if there is one and the pack may go there.
func (s *stream) room(size int) (*engine, error) {
	if err := s.log.space.take(s.name, size); err != nil {
		return nil, err
	}
	e := s.log.current()
	if e == nil {
		return nil, fmt.Errorf("jetstream: the store is being started again: %w", bus.ErrUnavailable)
	}
	if isState(s.name) {
		return e, nil
	}
	if limit := s.log.opts.MaxBytes / 20 * share(s.name); e.stored()+int64(size) > limit {
		return nil, fmt.Errorf("jetstream: %s may grow the store to %d MiB, which it has: %w", s.name, limit>>20, bus.ErrFull)
	}
	return e, nil
}

// acknowledged is what an append came back with.
type acknowledged struct {
	seq uint64
	err error
}

// publish sends a pack and waits for its acknowledgement. One that comes too late
// for its caller still reaches the readers.
func (s *stream) publish(ctx context.Context, e *engine, key, token string, pack []byte) (uint64, error) {
	var ack acknowledged
	call, err := s.send(e, token, pack, func(m *nats.Msg) bool {
		ack.seq, ack.err = parseAck(m)
		if ack.err == nil {
			records, at, _ := decodePack(pack, false)
			s.tail.add(bus.Pack{Seq: ack.seq, Key: key, Time: at, Records: records}, len(pack))
		}
		return true
	})
	if err != nil {
		return 0, s.err(err)
	}
	return s.acknowledgement(ctx, e, call, &ack)
}

// acknowledgement waits for that of a pack on its way; ack is set by then.
func (s *stream) acknowledgement(ctx context.Context, e *engine, call *call, ack *acknowledged) (uint64, error) {
	timeout := time.NewTimer(callTimeout)
	defer timeout.Stop()
	select {
	case <-call.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.ctx.Done():
		return 0, s.err(context.Cause(e.ctx))
	case <-timeout.C:
		// The server gives no reply once it failed to write, nor when it hangs.
		err := fmt.Errorf("an append to %s got no answer within %v", s.name, callTimeout)
		e.fail(err)
		return 0, s.err(err)
	}
	if !call.ok {
		return 0, s.err(errDown)
	}
	if ack.err != nil {
		return 0, fmt.Errorf("jetstream: appending to %s: %w", s.name, ack.err)
	}
	return ack.seq, nil
}

// send stamps a pack and sends it off, in the order of the stamps.
func (s *stream) send(e *engine, token string, pack []byte, take func(*nats.Msg) bool) (*call, error) {
	s.order.Lock()
	defer s.order.Unlock()
	now := s.log.opts.Clock()
	if now.Before(s.time) {
		now = s.time
	}
	s.time = now
	sealPack(pack, now)
	call, _, err := e.write[s.name].send(s.name+"."+token, pack, take)
	return call, err
}

// The codes that an acknowledgement can carry instead of a number.
const (
	codeInsufficientResources = 10023
	codeStorageExceeded       = 10047
	codeTooLarge              = 10054
	codeStoreFailed           = 10077
)

func parseAck(m *nats.Msg) (uint64, error) {
	if status := m.Header.Get("Status"); status != "" {
		return 0, fmt.Errorf("%w: status %s", bus.ErrUnavailable, status)
	}
	var ack struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("%w: %w", bus.ErrUnavailable, err)
	}
	if ack.Error == nil {
		if ack.Seq == 0 {
			return 0, fmt.Errorf("%w: an acknowledgement without a number", bus.ErrUnavailable)
		}
		return ack.Seq, nil
	}
	reason := errors.New(ack.Error.Description)
	switch ack.Error.Code {
	case codeTooLarge:
		return 0, fmt.Errorf("%w: %w", bus.ErrTooLarge, reason)
	case codeInsufficientResources, codeStorageExceeded:
		return 0, fmt.Errorf("%w: %w", bus.ErrFull, reason)
	case codeStoreFailed:
		if strings.Contains(ack.Error.Description, "maximum") && strings.Contains(ack.Error.Description, "exceeded") {
			return 0, fmt.Errorf("%w: %w", bus.ErrFull, reason)
		}
	}
	return 0, fmt.Errorf("%w: %w", bus.ErrUnavailable, reason)
}
