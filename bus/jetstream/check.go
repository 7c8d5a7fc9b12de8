package jetstream

import (
	"context"
	"fmt"
	"slices"

	"sluice/bus"
)

// found keeps a fault that was seen while the log was opened, for Check.
func (l *Log) found(f bus.Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.faults, f) {
		l.faults = append(l.faults, f)
	}
}

// Check implements bus.Checker. It reads every pack of every stream, and the state
// table.
func (l *Log) Check(ctx context.Context, visit func(bus.Fault) error) error {
	l.mu.Lock()
	opened := slices.Clone(l.faults)
	l.mu.Unlock()
	for _, f := range opened {
		if err := visit(f); err != nil {
			return err
		}
	}
	for _, name := range bus.StreamNames() {
		if err := l.streams[name].check(ctx, visit); err != nil {
			return err
		}
	}
	faults, err := l.state.check(ctx)
	if err != nil {
		return err
	}
	for _, f := range faults {
		if slices.Contains(opened, f) {
			continue
		}
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// check looks over one stream, as far as it goes now.
func (s *stream) check(ctx context.Context, visit func(bus.Fault) error) error {
	var gaps []bus.Fault
	err := s.log.with(ctx, func(ctx context.Context, e *engine) (err error) {
		if err = s.sync(ctx, e); err == nil {
			gaps, err = s.gaps(ctx, e)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range gaps {
		if err := visit(f); err != nil {
			return err
		}
	}
	for from, end := s.tail.start(), s.tail.end(); from <= end; {
		var packs []bus.Pack
		err := s.log.with(ctx, func(ctx context.Context, e *engine) (err error) {
			packs, from, err = s.fetchFrom(ctx, e, "", from)
			return err
		})
		if err != nil {
			return err
		}
		for _, p := range packs {
			if err := s.checkPack(p, visit); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPack visits the records of a pack that are lost. A pack of which nothing is
// left has no time.
func (s *stream) checkPack(p bus.Pack, visit func(bus.Fault) error) error {
	if s.tail.isGone(p.Seq) {
		return nil // removed meanwhile
	}
	if p.Time.IsZero() {
		return visit(bus.Fault{
			Stream: s.name, First: p.Seq, Last: p.Seq, Index: -1, Kind: bus.FaultDamaged,
			Detail: "the pack cannot be read", Repairable: true,
		})
	}
	for i, record := range p.Records {
		if record != nil {
			continue
		}
		err := visit(bus.Fault{
			Stream: s.name, First: p.Seq, Last: p.Seq, Index: i, Kind: bus.FaultDamaged,
			Detail: fmt.Sprintf("record %d of %d fails its checksum; the others are whole, and it goes with them", i, len(p.Records)),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// gaps are the packs between the first and the last of EVENTS that the server takes
// for removed. We remove from there the oldest alone, so they were lost: the server
// gave them up when it built its index again over a damaged block. In the other
// streams packs go one by one, and what was lost so cannot be told from that.
func (s *stream) gaps(ctx context.Context, e *engine) ([]bus.Fault, error) {
	if s.name != bus.Events {
		return nil, nil
	}
	deleted, err := s.deleted(ctx, e)
	if err != nil {
		return nil, err
	}
	var faults []bus.Fault
	for _, seq := range deleted {
		if s.isQuarantined(seq) || seq < s.tail.start() {
			continue
		}
		if n := len(faults); n > 0 && faults[n-1].Last == seq-1 {
			faults[n-1].Last = seq
			continue
		}
		faults = append(faults, bus.Fault{
			Stream: s.name, First: seq, Last: seq, Index: -1, Kind: bus.FaultMissing,
			Detail: "the packs are not there, and were never removed: a block was damaged", Repairable: true,
		})
	}
	return faults, nil
}
