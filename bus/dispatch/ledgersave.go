package dispatch

import (
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// savedLedger is the snapshot of one ledger. Stream is the stream's ID when it
// was taken: a snapshot of a stream that was made anew says nothing.
type savedLedger struct {
	Stream   string `json:"stream"`
	Snapshot []byte `json:"snapshot"`
	Depth    int    `json:"depth,omitempty"` // of a backlog: the deliveries not read
	Head     uint64 `json:"head,omitempty"`  // the last pack of the stream
	// Answered is the last pack of the stream that the snapshots know everything about:
	// what its records took over from is settled in them.
	Answered uint64 `json:"answered,omitempty"`
	// Partly are deliveries that have ended of records that are not settled.
	Partly []savedBranch `json:"partly,omitempty"`
	// Contents lists the packs of a stream with deliveries that are not settled.
	Contents *savedContents `json:"contents,omitempty"`
}

// savedBranch are the records of which the delivery to one sink by one rule has ended.
type savedBranch struct {
	Rule  string `json:"rule"`
	Sink  string `json:"sink"`
	Marks []byte `json:"marks"`
}

// A snapshot is the floor as a uvarint, and marks. Marks are, in uvarints, the number
// of packs and for each of them its number, the length of its bits in bytes, and
// these.

// save puts the state of the ledger into s.
func (l *ledger) save(s *savedLedger) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = false
	all := maps.Clone(l.marks)
	for seq, p := range l.pages {
		if p.open < len(p.left) {
			all[seq] = p.marks
		}
	}
	floor := uint64(0)
	if l.ordered {
		floor = l.lowest()
	}
	s.Snapshot = all.append(binary.AppendUvarint(nil, floor))
	for b, m := range l.partly {
		if l.tidy(m); len(m) == 0 {
			delete(l.partly, b)
			continue
		}
		s.Partly = append(s.Partly, savedBranch{b.rule, b.sink, m.append(nil)})
	}
	slices.SortFunc(s.Partly, func(a, b savedBranch) int {
		return cmp.Or(cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Rule, b.Rule))
	})
}

// tidy drops what was partly settled and is whole by now. The caller holds the lock.
func (l *ledger) tidy(m marks) {
	floor := l.lowest()
	maps.DeleteFunc(m, func(seq uint64, _ []byte) bool {
		p := l.pages[seq]
		return seq < floor || p != nil && p.open == 0
	})
}

// restore begins from what was saved.
func (l *ledger) restore(s *savedLedger) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	floor, n := binary.Uvarint(s.Snapshot)
	if n <= 0 {
		return errSnapshot
	}
	l.next = max(floor, 1)
	if err := l.marks.read(s.Snapshot[n:]); err != nil {
		return err
	}
	for _, b := range s.Partly {
		m := marks{}
		if err := m.read(b.Marks); err != nil {
			return err
		}
		l.partly[branch{b.Rule, b.Sink}] = m
	}
	return nil
}

var errSnapshot = errors.New("the saved state is unreadable")

func (m marks) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(m)))
	for _, seq := range slices.Sorted(maps.Keys(m)) {
		dst = binary.AppendUvarint(dst, seq)
		dst = binary.AppendUvarint(dst, uint64(len(m[seq])))
		dst = append(dst, m[seq]...)
	}
	return dst
}

func (m marks) read(src []byte) (err error) {
	uvarint := func() uint64 {
		n, size := binary.Uvarint(src)
		if size <= 0 {
			err = errSnapshot
			return 0
		}
		src = src[size:]
		return n
	}
	for range uvarint() {
		seq, size := uvarint(), uvarint()
		if err != nil || size > uint64(len(src)) {
			return errSnapshot
		}
		m[seq] = slices.Clone(src[:size])
		src = src[size:]
	}
	return err
}
