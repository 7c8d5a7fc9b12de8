package dispatch

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"
)

// contents is the list of the packs of BACKLOG or RETRIES that hold a delivery which
// is not settled, with how old their events are and whose they are. It is saved
// together with the ledgers, and a pack is removed only once it is saved that it is
// settled: so a pack that is listed and is not in the store was lost, and the list
// tells which events to offer again (lost.go).
//
// It is exact as to which packs there are. What it knows of them it keeps by span,
// each of one pack as long as there are few, of neighbours when there are many: so a
// million packs take no more than some kilobytes.
type contents struct {
	mu    sync.Mutex
	last  uint64 // the highest number that was listed
	spans []*span
	lost  []Loss // not in a job yet
}

// span is what is known of some packs that follow one another in the list.
type span struct {
	packs  []run // in order; never empty
	count  int   // of them
	inside int   // deliveries in them
	since  int64 // when the oldest of their events was stored, in Unix nanoseconds
	until  int64 // the newest
	sinks  []string
}

// run is packs whose numbers follow one another.
type run struct{ first, last uint64 }

// maxSpans is how many spans there may be: then each two become one.
const maxSpans = 256

func (s *span) first() uint64 { return s.packs[0].first }
func (s *span) last() uint64  { return s.packs[len(s.packs)-1].last }

// add lists a pack of a sink. Numbers come in order; one that came before is known.
func (c *contents) add(seq uint64, sink string, events []time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq <= c.last {
		return
	}
	c.last = seq
	if len(events) == 0 {
		return
	}
	s := &span{packs: []run{{seq, seq}}, count: 1, inside: len(events), sinks: []string{sink}}
	s.since, s.until = events[0].UnixNano(), events[0].UnixNano()
	for _, at := range events[1:] {
		s.since, s.until = min(s.since, at.UnixNano()), max(s.until, at.UnixNano())
	}
	c.spans = append(c.spans, s)
	if len(c.spans) > maxSpans {
		var half []*span
		for pair := range slices.Chunk(c.spans, 2) {
			half = append(half, merged(pair))
		}
		c.spans = half
	}
}

// merged makes one span of neighbours.
func merged(spans []*span) *span {
	s := spans[0]
	for _, next := range spans[1:] {
		if n := len(s.packs); s.packs[n-1].last+1 == next.first() {
			s.packs[n-1].last = next.packs[0].last
			next.packs = next.packs[1:]
		}
		s.packs = append(s.packs, next.packs...)
		s.count += next.count
		s.inside += next.inside
		s.since, s.until = min(s.since, next.since), max(s.until, next.until)
		for _, sink := range next.sinks {
			if i, ok := slices.BinarySearch(s.sinks, sink); !ok {
				s.sinks = slices.Insert(s.sinks, i, sink)
			}
		}
	}
	return s
}

// find gives the place of a listed pack: its span and its run there.
func (c *contents) find(seq uint64) (i, j int, ok bool) {
	i = sort.Search(len(c.spans), func(i int) bool { return c.spans[i].last() >= seq })
	if i == len(c.spans) {
		return 0, 0, false
	}
	packs := c.spans[i].packs
	j = sort.Search(len(packs), func(j int) bool { return packs[j].last >= seq })
	return i, j, packs[j].first <= seq
}

// drop takes packs off the list: they are settled.
func (c *contents) drop(seqs ...uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, seq := range seqs {
		if i, j, ok := c.find(seq); ok {
			c.remove(seq, i, j)
		}
	}
}

func (c *contents) remove(seq uint64, i, j int) {
	s := c.spans[i]
	r := s.packs[j]
	var rest []run
	if r.first < seq {
		rest = append(rest, run{r.first, seq - 1})
	}
	if seq < r.last {
		rest = append(rest, run{seq + 1, r.last})
	}
	s.packs = slices.Replace(s.packs, j, j+1, rest...)
	s.inside -= s.inside / s.count // which is exact for the last one
	if s.count--; s.count == 0 {
		c.spans = slices.Delete(c.spans, i, i+1)
	}
}

// numbers visits the numbers of the listed packs in order, some at a time.
func (c *contents) numbers(visit func([]uint64) error) error {
	const some = 1 << 16
	c.mu.Lock()
	var runs []run
	for _, s := range c.spans {
		runs = append(runs, s.packs...)
	}
	c.mu.Unlock()
	seqs := make([]uint64, 0, some)
	for _, r := range runs {
		for seq := r.first; seq <= r.last; seq++ {
			if seqs = append(seqs, seq); len(seqs) < some {
				continue
			}
			if err := visit(seqs); err != nil {
				return err
			}
			seqs = seqs[:0]
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	return visit(seqs)
}

// lose takes packs off the list that are not in the store, and notes what was lost.
func (c *contents) lose(stream string, gone []uint64) (lost []Loss) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var of *span
	for _, seq := range gone {
		i, j, ok := c.find(seq)
		if !ok {
			continue // settled meanwhile
		}
		s := c.spans[i]
		if s != of {
			of, lost = s, append(lost, s.loss(stream))
		}
		l := &lost[len(lost)-1]
		before := s.inside
		c.remove(seq, i, j)
		l.Packs++
		l.Deliveries += before - s.inside
	}
	c.lost = append(c.lost, lost...)
	return lost
}

// spoil notes that n records of a pack cannot be read, in which the others are there.
func (c *contents) spoil(stream string, seq uint64, n int, others []deliveryKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, _, ok := c.find(seq)
	if !ok {
		return // it was written by an earlier release
	}
	l := c.spans[i].loss(stream)
	l.Deliveries, l.there = n, others
	c.lost = append(c.lost, l)
}

func (s *span) loss(stream string) Loss {
	return Loss{
		Stream: stream, First: s.first(), Last: s.last(),
		Since: time.Unix(0, s.since), Until: time.Unix(0, s.until), Sinks: slices.Clone(s.sinks),
	}
}

// takeLost gives what was lost and is in no job yet.
func (c *contents) takeLost() []Loss {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := c.lost
	c.lost = nil
	return lost
}

// keepLost takes back what takeLost gave.
func (c *contents) keepLost(lost []Loss) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, lost...)
}

// savedContents is a list as it is saved.
type savedContents struct {
	Last  uint64      `json:"last"`
	Spans []savedSpan `json:"spans,omitempty"`
}

type savedSpan struct {
	Packs  []byte   `json:"packs"` // in uvarints: the gap before each run, and its length
	Inside int      `json:"inside"`
	Since  int64    `json:"since"`
	Until  int64    `json:"until"`
	Sinks  []string `json:"sinks"`
}

// maxSaved is how many bytes of numbers are saved: so however the packs lie, saving
// the ledgers does not fail. What is beyond it is not looked for.
const maxSaved = 1 << 20

func (c *contents) save() *savedContents {
	c.mu.Lock()
	defer c.mu.Unlock()
	saved := &savedContents{Last: c.last}
	size := 0
	for _, s := range c.spans {
		one := savedSpan{Inside: s.inside, Since: s.since, Until: s.until, Sinks: slices.Clone(s.sinks)}
		next := uint64(0)
		for _, r := range s.packs {
			one.Packs = binary.AppendUvarint(one.Packs, r.first-next)
			one.Packs = binary.AppendUvarint(one.Packs, r.last-r.first)
			next = r.last + 1
		}
		if size += len(one.Packs); size > maxSaved {
			break
		}
		saved.Spans = append(saved.Spans, one)
	}
	return saved
}

// restoreContents begins from what was saved; nil is an empty list.
func restoreContents(saved *savedContents) (*contents, error) {
	c := &contents{}
	if saved == nil {
		return c, nil
	}
	c.last = saved.Last
	for _, one := range saved.Spans {
		s := &span{inside: one.Inside, since: one.Since, until: one.Until, sinks: one.Sinks}
		next := uint64(0)
		for rest := one.Packs; len(rest) > 0; {
			gap, n := binary.Uvarint(rest)
			more, m := binary.Uvarint(rest[max(n, 0):])
			if n <= 0 || m <= 0 {
				return nil, fmt.Errorf("%w: the list of packs", errSnapshot)
			}
			r := run{next + gap, next + gap + more}
			s.packs, s.count = append(s.packs, r), s.count+int(more)+1
			next, rest = r.last+1, rest[n+m:]
		}
		if s.count > 0 {
			c.spans = append(c.spans, s)
		}
	}
	return c, nil
}
