package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
)

// stream implements bus.Stream.
type stream struct {
	log  *Log
	name string
	id   string // set by the first attach
	tail *tail

	order sync.Mutex // held while a pack gets its time and goes out
	time  time.Time  // of the pack that went out last

	quarantine sync.Mutex
	hidden     map[uint64]quarantined
}

// ID implements bus.Stream.
func (s *stream) ID() string { return s.id }

// attach learns what a fresh engine has of the stream.
func (s *stream) attach(ctx context.Context, e *engine, id string) error {
	if s.id != "" && s.id != id {
		return fmt.Errorf("stream %s was made anew while it was in use; the process must be restarted", s.name)
	}
	s.id = id
	return s.sync(ctx, e)
}

// sync tells the tail what the server has.
func (s *stream) sync(ctx context.Context, e *engine) error {
	state, err := s.state(ctx, e, jetstream.WithDeletedDetails(true))
	if err != nil {
		return err
	}
	s.tail.sync(state.FirstSeq, state.LastSeq, state.Deleted)
	return nil
}

func (s *stream) state(ctx context.Context, e *engine, opts ...jetstream.StreamInfoOpt) (jetstream.StreamState, error) {
	js, err := e.js.Stream(ctx, s.name)
	if err != nil {
		return jetstream.StreamState{}, s.err(err)
	}
	if len(opts) == 0 {
		return js.CachedInfo().State, nil
	}
	info, err := js.Info(ctx, opts...)
	if err != nil {
		return jetstream.StreamState{}, s.err(err)
	}
	return info.State, nil
}

// err tells a failure of the store from the end of the caller's context.
func (s *stream) err(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, bus.ErrUnavailable) {
		return err
	}
	return fmt.Errorf("jetstream: %s: %w: %w", s.name, bus.ErrUnavailable, err)
}

// Get implements bus.Stream.
func (s *stream) Get(ctx context.Context, seq uint64) (p bus.Pack, err error) {
	err = s.log.with(ctx, func(ctx context.Context, e *engine) error {
		p, err = s.get(ctx, e, seq)
		return err
	})
	if err != nil {
		return bus.Pack{}, err
	}
	return p, nil
}

func (s *stream) get(ctx context.Context, e *engine, seq uint64) (bus.Pack, error) {
	missing := fmt.Errorf("jetstream: %s %d: %w", s.name, seq, bus.ErrNotFound)
	if seq == 0 || seq > s.tail.end() || s.tail.isGone(seq) {
		return bus.Pack{}, missing
	}
	m, err := e.api.request(ctx, "$JS.API.DIRECT.GET."+s.name, fmt.Appendf(nil, `{"seq":%d}`, seq))
	if err != nil {
		return bus.Pack{}, s.err(err)
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return s.pack(m)
	case "404":
		damaged, err := s.isDamaged(ctx, e, seq)
		if err != nil {
			return bus.Pack{}, err
		}
		if damaged {
			return damagedPack(seq, ""), nil
		}
		return bus.Pack{}, missing
	default:
		return bus.Pack{}, s.err(fmt.Errorf("%s %s", status, m.Header.Get("Description")))
	}
}

// Remove implements bus.Stream. JetStream fsyncs each removal, about 1 ms with Sync
// always, but trims at one go; so what is oldest is trimmed, and the rest is removed
// with the requests sent out in groups.
func (s *stream) Remove(ctx context.Context, seqs ...uint64) error {
	const group = 256
	below, rest := s.tail.oldest(seqs)
	if len(rest)+1 < len(seqs) {
		if err := s.Trim(ctx, "", below); err != nil {
			return err
		}
		seqs = rest
	}
	for part := range slices.Chunk(seqs, group) {
		err := s.log.with(ctx, func(ctx context.Context, e *engine) error {
			if err := s.remove(ctx, e, part); err != nil {
				return err
			}
			s.tail.removed(part)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) remove(ctx context.Context, e *engine, seqs []uint64) error {
	subject, end := "$JS.API.STREAM.MSG.DELETE."+s.name, s.tail.end()
	type answer struct {
		call *call
		fail error
	}
	answers := make([]*answer, 0, len(seqs))
	for _, seq := range seqs {
		if seq == 0 || seq > end {
			continue
		}
		a := &answer{}
		call, _, err := e.api.send(subject, fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq), func(m *nats.Msg) bool {
			a.fail = deleteError(m)
			return true
		})
		if err != nil {
			return s.err(err)
		}
		a.call = call
		answers = append(answers, a)
	}
	for _, a := range answers {
		select {
		case <-a.call.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !a.call.ok {
			return s.err(errDown)
		}
		if a.fail != nil {
			return s.err(a.fail)
		}
	}
	return nil
}

// Trim implements bus.Stream.
func (s *stream) Trim(ctx context.Context, key string, below uint64) error {
	return s.log.with(ctx, func(ctx context.Context, e *engine) error {
		// Beyond its end JetStream would skip numbers.
		below := min(below, s.tail.end()+1)
		if below <= s.tail.start() {
			return nil // to JetStream, below 0 or 1 means everything
		}
		var subject string
		if key != "" {
			var err error
			if subject, err = s.subject(key); err != nil {
				return err
			}
		}
		if err := s.purge(ctx, e, below, subject); err != nil {
			return err
		}
		s.tail.trimmed(key, below)
		return nil
	})
}

// purge removes what is below a number: all, or what has a subject.
func (s *stream) purge(ctx context.Context, e *engine, below uint64, subject string) error {
	request := fmt.Appendf(nil, `{"seq":%d}`, below)
	if subject != "" {
		request = fmt.Appendf(nil, `{"seq":%d,"filter":%q}`, below, subject)
	}
	m, err := e.api.request(ctx, "$JS.API.STREAM.PURGE."+s.name, request)
	if err == nil {
		err = apiError(m)
	}
	if err != nil {
		return s.err(err)
	}
	return nil
}

// Since implements bus.Stream. JetStream's own times are a little later than those
// of the packs, so its answer is where to begin to look.
func (s *stream) Since(ctx context.Context, t time.Time) (seq uint64, err error) {
	err = s.log.with(ctx, func(ctx context.Context, e *engine) error {
		seq = s.tail.end() + 1
		start := fmt.Sprintf(`"start_time":%q`, t.UTC().Format(time.RFC3339Nano))
		for start != "" {
			f, err := s.fetch(ctx, e, start, "")
			if err != nil {
				return err
			}
			start = ""
			for _, p := range f.packs {
				if !p.Time.Before(t) {
					seq = p.Seq
					return nil
				}
				start = fmt.Sprintf(`"seq":%d`, p.Seq+1)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// Gone implements bus.Stream.
func (s *stream) Gone(ctx context.Context, seqs ...uint64) (gone []uint64, err error) {
	err = s.log.with(ctx, func(ctx context.Context, e *engine) error {
		if err := s.sync(ctx, e); err != nil { // of a trim by key we learn no other way
			return err
		}
		gone = s.tail.pickGone(seqs)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// Info implements bus.Stream.
func (s *stream) Info(ctx context.Context) (info bus.StreamInfo, err error) {
	err = s.log.with(ctx, func(ctx context.Context, e *engine) error {
		state, err := s.state(ctx, e)
		if err != nil || state.LastSeq == 0 {
			return err
		}
		info = bus.StreamInfo{First: state.FirstSeq, Last: state.LastSeq, Packs: state.Msgs, Bytes: state.Bytes}
		if state.Msgs == 0 {
			return nil
		}
		info.FirstTime = state.FirstTime
		first, err := s.get(ctx, e, state.FirstSeq)
		if err == nil && !first.Time.IsZero() {
			info.FirstTime = first.Time // the time that its reader sees
		}
		if errors.Is(err, bus.ErrNotFound) {
			return nil // removed meanwhile
		}
		return err
	})
	if err != nil {
		return bus.StreamInfo{}, err
	}
	return info, nil
}

// Keys implements bus.Stream.
func (s *stream) Keys(ctx context.Context) (keys map[string]int, err error) {
	err = s.log.with(ctx, func(ctx context.Context, e *engine) error {
		state, err := s.state(ctx, e, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return err
		}
		keys = make(map[string]int, len(state.Subjects))
		for subject, n := range state.Subjects {
			keys[s.key(subject)] = int(n)
		}
		s.uncount(keys, state.FirstSeq)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

func (s *stream) subject(key string) (string, error) {
	token, err := keyToken(key)
	return s.name + "." + token, err
}

func (s *stream) key(subject string) string {
	return tokenKey(strings.TrimPrefix(subject, s.name+"."))
}

// apiError is what is wrong according to the answer of JetStream's API.
func apiError(m *nats.Msg) error {
	if status := m.Header.Get("Status"); status != "" {
		return fmt.Errorf("status %s", status) // nobody answers for the stream
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return answer.Error
	}
	return nil
}

// deleteError is apiError but for a pack that is not there, or is damaged: such a
// one JetStream trims but does not remove. We leave it out from now on; after a
// restart it is reported again, until it is trimmed.
func deleteError(m *nats.Msg) error {
	const notFound, noMessage, failed = 10043, 10037, 10057
	err := apiError(m)
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return err
	}
	switch {
	case api.ErrorCode == notFound, api.ErrorCode == noMessage:
		return nil
	case api.ErrorCode == failed && (strings.Contains(api.Description, "no message found") || strings.Contains(api.Description, "corrupt")):
		return nil
	}
	return err
}
