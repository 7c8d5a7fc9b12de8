package memlog

import (
	"context"
	"fmt"
	"time"

	"sluice/bus"
)

// stream implements bus.Stream. Everything but the first line is guarded by the
// lock of the log.
type stream struct {
	log      *Log
	name, id string

	first   uint64      // number of packs[0]
	next    uint64      // number of the next pack
	packs   []*bus.Pack // nil where one was removed; packs[0] never is
	held    uint64      // how many are not nil
	bytes   int64
	waiting map[string]chan struct{} // by key, "" for any; closed at the next pack
}

// ID implements bus.Stream.
func (s *stream) ID() string { return s.id }

// Append implements bus.Stream.
func (s *stream) Append(ctx context.Context, key string, records [][]byte) (seq uint64, err error) {
	if len(key) > maxKey {
		return 0, fmt.Errorf("memlog: a key of %d bytes: %w", len(key), bus.ErrTooLarge)
	}
	size := recordOverhead * len(records)
	for _, r := range records {
		size += len(r)
	}
	if size > s.log.opts.MaxPack {
		return 0, fmt.Errorf("memlog: a pack of %d bytes: %w", size, bus.ErrTooLarge)
	}
	err = s.log.do(ctx, Op{Name: OpAppend, Stream: s.name, Key: key, N: len(records)}, func() error {
		cost := int64(size + len(key) + packOverhead)
		if limit := s.log.opts.Limit; limit > 0 && s.log.stored+cost > limit*share(s.name)/20 {
			return fmt.Errorf("memlog: %s: %w", s.name, bus.ErrFull)
		}
		seq = s.next
		s.push(&bus.Pack{Seq: seq, Key: key, Time: s.log.opts.Clock(), Records: clone(records, size)}, cost)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// clone copies the records into one piece of memory. A nil record becomes an
// empty one: nil means damaged.
func clone(records [][]byte, size int) [][]byte {
	buf := make([]byte, 0, size)
	out := make([][]byte, len(records))
	for i, r := range records {
		start := len(buf)
		buf = append(buf, r...)
		out[i] = buf[start:len(buf):len(buf)]
	}
	return out
}

func (s *stream) push(p *bus.Pack, cost int64) {
	s.packs = append(s.packs, p)
	s.next++
	s.held++
	s.grow(cost)
	for _, key := range []string{"", p.Key} {
		if c, ok := s.waiting[key]; ok {
			close(c)
			delete(s.waiting, key)
		}
	}
}

func (s *stream) grow(n int64) {
	s.bytes += n
	s.log.stored += n
}

func cost(p *bus.Pack) int64 {
	n := len(p.Key) + packOverhead
	for _, r := range p.Records {
		n += len(r) + recordOverhead
	}
	return int64(n)
}

// drop removes the pack with that number, if it is there.
func (s *stream) drop(seq uint64) {
	p := s.at(seq)
	if p == nil {
		return
	}
	s.grow(-cost(p))
	s.held--
	s.packs[seq-s.first] = nil
	for len(s.packs) > 0 && s.packs[0] == nil {
		s.packs = s.packs[1:]
		s.first++
	}
}

func (s *stream) at(seq uint64) *bus.Pack {
	if seq < s.first || seq >= s.next {
		return nil
	}
	return s.packs[seq-s.first]
}

// Get implements bus.Stream.
func (s *stream) Get(ctx context.Context, seq uint64) (p bus.Pack, err error) {
	err = s.log.do(ctx, Op{Name: OpGet, Stream: s.name}, func() error {
		found := s.at(seq)
		if found == nil {
			return fmt.Errorf("memlog: %s %d: %w", s.name, seq, bus.ErrNotFound)
		}
		p = *found
		return nil
	})
	if err != nil {
		return bus.Pack{}, err
	}
	return p, nil
}

// Remove implements bus.Stream.
func (s *stream) Remove(ctx context.Context, seqs ...uint64) error {
	return s.log.do(ctx, Op{Name: OpRemove, Stream: s.name, N: len(seqs)}, func() error {
		for _, seq := range seqs {
			s.drop(seq)
		}
		return nil
	})
}

// Trim implements bus.Stream.
func (s *stream) Trim(ctx context.Context, key string, below uint64) error {
	return s.log.do(ctx, Op{Name: OpTrim, Stream: s.name, Key: key}, func() error {
		for seq := s.first; seq < min(below, s.next); seq++ {
			if p := s.at(seq); p != nil && (key == "" || p.Key == key) {
				s.drop(seq)
			}
		}
		return nil
	})
}

// Since implements bus.Stream.
func (s *stream) Since(ctx context.Context, t time.Time) (seq uint64, err error) {
	err = s.log.do(ctx, Op{Name: OpSince, Stream: s.name}, func() error {
		seq = s.next
		for _, p := range s.packs {
			if p != nil && !p.Time.Before(t) {
				seq = p.Seq
				break
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
	err = s.log.do(ctx, Op{Name: OpGone, Stream: s.name, N: len(seqs)}, func() error {
		for _, seq := range seqs {
			if s.at(seq) == nil {
				gone = append(gone, seq)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, nil
}

// Info implements bus.Stream.
func (s *stream) Info(ctx context.Context) (info bus.StreamInfo, err error) {
	err = s.log.do(ctx, Op{Name: OpInfo, Stream: s.name}, func() error {
		if s.next == 1 {
			return nil
		}
		info = bus.StreamInfo{First: s.first, Last: s.next - 1, Packs: s.held, Bytes: uint64(s.bytes)}
		if s.held > 0 {
			info.FirstTime = s.packs[0].Time
		}
		return nil
	})
	if err != nil {
		return bus.StreamInfo{}, err
	}
	return info, nil
}

// Keys implements bus.Stream.
func (s *stream) Keys(ctx context.Context) (keys map[string]int, err error) {
	err = s.log.do(ctx, Op{Name: OpKeys, Stream: s.name}, func() error {
		keys = map[string]int{}
		for _, p := range s.packs {
			if p != nil {
				keys[p.Key]++
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// Read implements bus.Stream.
func (s *stream) Read(ctx context.Context, key string, from uint64) (bus.Reader, error) {
	err := s.log.do(ctx, Op{Name: OpRead, Stream: s.name, Key: key}, func() error { return nil })
	if err != nil {
		return nil, err
	}
	return &reader{stream: s, key: key, next: from, closed: make(chan struct{})}, nil
}
