package jetstream

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"sluice/bus"
)

// nats-server skips a message whose checksum is wrong as if it had been removed. We
// know what was removed, so what is missing besides was lost.

// isDamaged tells whether a pack that the server did not find is still counted.
func (s *stream) isDamaged(ctx context.Context, e *engine, seq uint64) (bool, error) {
	if s.tail.isGone(seq) {
		return false, nil
	}
	// A removal that runs now, or one by key, may have taken it.
	if err := s.sync(ctx, e); err != nil {
		return false, err
	}
	return !s.tail.isGone(seq), nil
}

// withDamaged adds the packs from a number up to another that are counted and not
// among those read.
func (s *stream) withDamaged(ctx context.Context, e *engine, packs []bus.Pack, from, to uint64) ([]bus.Pack, error) {
	if len(s.unread(packs, from, to)) == 0 {
		return packs, nil
	}
	if err := s.sync(ctx, e); err != nil {
		return nil, err
	}
	for _, seq := range s.unread(packs, from, to) {
		// It may have come in between: a pack whose acknowledgement was lost.
		p, err := s.get(ctx, e, seq)
		if errors.Is(err, bus.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p.Time.IsZero() {
			s.log.opts.Log.Error("a pack is lost: the store counts it and cannot read it", "stream", s.name, "seq", seq)
		}
		packs = append(packs, p)
	}
	return sorted(packs), nil
}

func (s *stream) unread(packs []bus.Pack, from, to uint64) []uint64 {
	var lost []uint64
	for _, p := range packs {
		lost = append(lost, s.tail.missing(from, p.Seq)...)
		from = p.Seq + 1
	}
	return append(lost, s.tail.missing(from, to)...)
}

// isShort tells whether the server counts more packs of a key than it gave, though
// it gave all it could. It is no more than a hint: among many packs, or with some
// removed meanwhile, the numbers do not tell.
func (s *stream) isShort(ctx context.Context, e *engine, f fetched, filter string, from uint64) (bool, error) {
	if !f.end {
		return f.more > 0 && !f.full, nil
	}
	if from > s.tail.start() {
		return false, nil
	}
	state, err := s.state(ctx, e, jetstream.WithSubjectFilter(filter))
	return len(state.Subjects) > 0, err
}

// withLost adds to packs of one key those that lost their key with all the rest.
func (s *stream) withLost(ctx context.Context, e *engine, packs []bus.Pack, from, to uint64) ([]bus.Pack, error) {
	for from < to {
		all, next, err := s.fetchFrom(ctx, e, "", from)
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if p.Seq < to && p.Time.IsZero() && p.Key == "" {
				packs = append(packs, p)
			}
		}
		from = next
	}
	return sorted(packs), nil
}

func sorted(packs []bus.Pack) []bus.Pack {
	slices.SortFunc(packs, func(a, b bus.Pack) int { return cmp.Compare(a.Seq, b.Seq) })
	return packs
}
