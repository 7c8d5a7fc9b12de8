package dispatch

import "math/bits"

// sums are the events of one generation of dedup: open addressing in many small
// tables, each of which grows by a quarter when it is four fifths full. So an event
// takes 30 to 38 bytes at any number of them (a map takes up to 61), and none waits
// while a large table is copied.
type sums struct {
	tables [sumTables]sumTable
}

const sumTables = 256

type sumTable struct {
	entries []sumEntry
	used    int
}

// sumEntry is free while the first half of its sum is 0, which is that of no event.
type sumEntry struct {
	sum sum
	at  place
}

// put keeps where an event is; the place of one that is known already is replaced.
func (s *sums) put(of sum, at place) {
	t := &s.tables[of[1]%sumTables]
	if (t.used+1)*5 > len(t.entries)*4 {
		old := t.entries
		*t = sumTable{entries: make([]sumEntry, max(8, len(old)+len(old)/4))}
		for _, e := range old {
			if e.sum[0] != 0 {
				t.put(e)
			}
		}
	}
	t.put(sumEntry{of, at})
}

func (t *sumTable) put(e sumEntry) {
	slot := t.slot(e.sum)
	if slot.sum[0] == 0 {
		t.used++
	}
	*slot = e
}

// get is where an event is.
func (s *sums) get(of sum) (at place, ok bool) {
	t := &s.tables[of[1]%sumTables]
	if t.used == 0 {
		return 0, false
	}
	slot := t.slot(of)
	return slot.at, slot.sum[0] != 0
}

// slot is the entry of an event, or the free one that it gets.
func (t *sumTable) slot(of sum) *sumEntry {
	i, _ := bits.Mul64(of[0], uint64(len(t.entries)))
	for {
		e := &t.entries[i]
		if e.sum == of || e.sum[0] == 0 {
			return e
		}
		if i++; i == uint64(len(t.entries)) {
			i = 0
		}
	}
}
