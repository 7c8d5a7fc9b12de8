package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/bus"
)

// inFlight is how old a write may be that a crash kept from one of the copies.
const inFlight = time.Second

// maxRemoved is how many removed keys a copy may remember before those are dropped.
const maxRemoved = 256

// recover brings the copies of the table in line, as a start of the engine finds them,
// and says what was damaged. known is what the directory held before this start.
func (t *table) recover(ctx context.Context, e *engine, known manifest) error {
	both, err := t.entries(ctx, e, "")
	if err != nil {
		return err
	}
	t.order.Lock()
	for _, c := range both {
		for _, n := range c {
			if n.pack.Time.After(t.time) {
				t.time = n.pack.Time
			}
		}
	}
	t.order.Unlock()
	for _, f := range t.faults(both, known) {
		t.log.opts.Log.Error("the table of state was damaged", "stream", f.Stream, "kind", f.Kind, "err", f.Detail)
		t.log.found(f)
	}
	for i, s := range t.copies {
		if t.log.opts.Inspect && known.Streams[s.name] != "" {
			continue // the next start is to find it as it is
		}
		if err := s.align(ctx, e, i, both); err != nil {
			return s.tolerate(err)
		}
	}
	return nil
}

// tolerate goes on without a repair that found no room: the other copy has it all, and
// the next start tries again.
func (s *stream) tolerate(err error) error {
	if errors.Is(err, bus.ErrFull) {
		s.log.opts.Log.Warn("cannot mend the table of state now", "stream", s.name, "err", err)
		return nil
	}
	return err
}

// align writes to one copy what the other has newer. Removed keys go when they have
// become many: what stays is written to the end first, and only then goes what is before
// that. A crash leaves one or the other, and of what it brings back the removed keys are
// the last to go.
func (s *stream) align(ctx context.Context, e *engine, i int, both map[string][2]entry) error {
	removed, anew := 0, false
	for _, c := range both {
		if n := c[i].orNewer(c[1-i]); c[i].there && n.whole() && n.value() == nil {
			removed++
		}
		anew = anew || c[i].unreadable
	}
	if anew {
		// nats-server goes on counting what it cannot read, and at the next write under
		// the same key looks for it without end, until it is told that all is gone.
		if err := s.cutOff(ctx, e, 0); err != nil {
			return err
		}
	}
	drop := removed > maxRemoved && removed > len(both)/2
	var first uint64
	for _, key := range slices.Sorted(maps.Keys(both)) {
		c := both[key]
		newest := c[i].orNewer(c[1-i])
		switch {
		case newest.damaged():
			newest.pack = lostEntry()
			if !anew {
				continue
			}
		case drop && newest.value() == nil, !drop && !anew && c[i].same(newest):
			continue
		}
		seq, err := s.rewrite(ctx, e, key, newest.pack)
		if err != nil {
			return err
		}
		first = cmp.Or(first, seq)
	}
	if !drop || anew {
		return nil
	}
	return s.cutOff(ctx, e, first)
}

// cutOff removes what is before a number; 0 is the end.
func (s *stream) cutOff(ctx context.Context, e *engine, first uint64) error {
	if first == 0 {
		state, err := s.state(ctx, e)
		if err != nil {
			return err
		}
		first = state.LastSeq + 1
	}
	if first <= 1 {
		return nil // to JetStream, that means everything
	}
	return s.purge(ctx, e, first, "")
}

// lostEntry stands for a value that no copy has whole: the key is known to have had one.
// No value takes two records.
func lostEntry() bus.Pack { return bus.Pack{Records: [][]byte{{}, {}}, Time: time.Unix(0, 0)} }

// same tells whether an entry says what the newest one does. A removed key is the
// same as none.
func (n entry) same(newest entry) bool {
	if !n.there {
		return newest.value() == nil
	}
	return n.whole() && n.pack.Time.Equal(newest.pack.Time)
}

// rewrite appends a pack as it is, with its time.
func (s *stream) rewrite(ctx context.Context, e *engine, key string, p bus.Pack) (uint64, error) {
	pack := encodePack(p.Records)
	sealPack(pack, p.Time)
	if err := s.log.space.take(s.name, len(pack)); err != nil {
		return 0, err
	}
	w, err := s.write(e, key, pack)
	if err != nil {
		return 0, err
	}
	return s.acknowledgement(ctx, e, w.call, &w.ack)
}

// check compares the copies as they are now.
func (t *table) check(ctx context.Context) (faults []bus.Fault, err error) {
	known, err := readManifest(t.log.opts.Dir)
	if err != nil {
		return nil, err
	}
	err = t.log.with(ctx, func(ctx context.Context, e *engine) error {
		both, err := t.entries(ctx, e, "")
		faults = t.faults(both, known)
		return err
	})
	return faults, err
}

// faults are the keys that a copy should have and has not, and those that none has. A
// copy that an earlier release did not write yet is no fault.
func (t *table) faults(both map[string][2]entry, known manifest) (faults []bus.Fault) {
	var last time.Time
	for _, c := range both {
		for _, n := range c {
			if n.pack.Time.After(last) {
				last = n.pack.Time
			}
		}
	}
	var worse [len(t.copies)][]string
	for _, key := range slices.Sorted(maps.Keys(both)) {
		c := both[key]
		newest := c[0].orNewer(c[1])
		if newest.damaged() {
			faults = append(faults, bus.Fault{
				Stream: stateStream, Index: -1, Kind: bus.FaultDamaged,
				Detail: fmt.Sprintf("what is kept under %s cannot be read from either of its two copies", key),
			})
			continue
		}
		for i, s := range t.copies {
			if known.Streams[s.name] != "" && !c[i].same(newest) && (known.Closed || !c[i].crashed(newest, last)) {
				worse[i] = append(worse[i], key)
			}
		}
	}
	for i, keys := range worse {
		if len(keys) == 0 {
			continue
		}
		faults = append(faults, bus.Fault{
			Stream: t.copies[i].name, Index: -1, Kind: bus.FaultMended,
			Detail: fmt.Sprintf("of the %d entries of the table of state %d were damaged, old or missing, and are taken from the other copy: %s",
				len(both), len(keys), someOf(keys)),
		})
	}
	return faults
}

// crashed tells whether a crash explains that an entry is not the newest: the write of
// that was among the last there were.
func (n entry) crashed(newest entry, last time.Time) bool {
	if n.damaged() || last.Sub(newest.pack.Time) > inFlight {
		return false
	}
	return !n.there || newest.pack.Time.Sub(n.pack.Time) <= inFlight
}

// someOf lists keys, not too many.
func someOf(keys []string) string {
	const some = 8
	if len(keys) <= some {
		return strings.Join(keys, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(keys[:some], ", "), len(keys)-some)
}
