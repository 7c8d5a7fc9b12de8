package rules

import (
	"errors"
	"slices"
)

// Errors of Match and MatchEvent.
var (
	// ErrInvalidJSON is returned for a document that is truncated, has
	// something behind its end, or is not JSON for another reason.
	ErrInvalidJSON = errors.New("rules: not a valid JSON document")
	// ErrTooComplex is returned when a match would hold up the caller for more
	// than about 50 ms. Only documents made for the purpose come to this:
	// thousands of array elements that each fulfil some conditions of many
	// rules, or very long texts against hundreds of nested exclusions.
	ErrTooComplex = errors.New("rules: the document takes too long to match")
)

// Match appends the indexes of the rules that doc matches to hits, ascending
// and each once. doc is any JSON document; one that is not an object has no
// fields. With an error, hits is returned as it came. doc is not kept or
// changed.
func (s *Set) Match(doc []byte, hits []int) ([]int, error) {
	if s.amended != nil {
		return s.amended.match(hits, func(s *Set, hits []int) ([]int, error) { return s.Match(doc, hits) })
	}
	c := s.get()
	defer s.put(c)
	if !c.scan(doc) {
		return hits, ErrInvalidJSON
	}
	return c.match(hits)
}

// MatchEvent is Match for the CloudEvent's JSON form, {attributes…, "data": …},
// which is never built.
func (s *Set) MatchEvent(e EventView, hits []int) ([]int, error) {
	if s.amended != nil {
		return s.amended.match(hits, func(s *Set, hits []int) ([]int, error) { return s.MatchEvent(e, hits) })
	}
	c := s.get()
	defer s.put(c)
	if !c.scanEvent(e) {
		return hits, ErrInvalidJSON
	}
	return c.match(hits)
}

// match finds the rules that the recorded leaves fulfil.
func (c *scratch) match(hits []int) ([]int, error) {
	n := len(hits)
	for i := range c.leaves {
		if c.probe(&c.leaves[i]); c.err != nil {
			return hits, c.err
		}
	}
	for _, a := range c.fired {
		hits = c.enter(a, hits)
	}
	for _, r := range c.set.always {
		if c.try(r) {
			hits = append(hits, int(r))
		}
	}
	if c.err != nil {
		return hits[:n], c.err
	}
	if found := hits[n:]; !slices.IsSorted(found) {
		slices.Sort(found)
	}
	return hits, nil
}

// mark notes that an atom holds, and queues it if it leads to rules.
func (c *scratch) mark(a uint32) {
	if c.marks[a] == c.gen {
		return
	}
	c.marks[a] = c.gen
	if p := c.set.post[a]; p.off != p.end {
		c.fired = append(c.fired, a)
	}
}

// enter tries the rules registered under an atom. They are sorted by what
// they need next, so a need that is not met is looked at once.
func (c *scratch) enter(a uint32, hits []int) []int {
	p := c.set.post[a]
	check, ok := uint32(noCheck), true
	for _, e := range c.set.entries[p.off:p.end] {
		if e.check != check {
			if c.err != nil {
				return hits
			}
			check = e.check
			ok = c.need(check)
		}
		if !ok {
			continue
		}
		r := e.rule &^ ruleDone
		if e.rule&ruleDone == 0 {
			if !c.try(r) {
				continue
			}
		} else if c.seen[r] == c.gen {
			continue
		}
		c.seen[r] = c.gen
		hits = append(hits, int(r))
	}
	return hits
}

// need reports whether the check of an entry is met.
func (c *scratch) need(check uint32) bool {
	switch {
	case check == noCheck:
		return true
	case check&lazyCheck == 0:
		return c.marks[check] == c.gen
	}
	return c.clause(check &^ lazyCheck)
}

// try verifies a rule, once per event: it reports true at most once.
func (c *scratch) try(r uint32) bool {
	if c.seen[r] == c.gen {
		return false
	}
	c.seen[r] = c.gen
	rule := &c.set.rules[r]
	g := &c.set.groups[rule.group]
	if rule.arrays && len(c.elems) > 1 && c.inArrays(g) > 1 {
		return c.group(g, true) && c.consistent(rule.group)
	}
	return c.group(g, false)
}

// group reports whether all clauses and alternatives of a group hold. With
// loose, exists:false counts as held: whether a path is absent depends on the
// array element, which is looked at later.
func (c *scratch) group(g *groupCode, loose bool) bool {
	refs := c.set.refs
	for _, cl := range refs[g.clauses.off:g.clauses.end] {
		if !(loose && c.set.clauses[cl].absent) && !c.clause(cl) {
			return false
		}
	}
	for at := g.ors.off; at < g.ors.end; at += 2 {
		if !c.anyGroup(refs[at], refs[at+1], loose) {
			return false
		}
	}
	return true
}

func (c *scratch) anyGroup(first, end uint32, loose bool) bool {
	for g := first; g < end; g++ {
		if c.group(&c.set.groups[g], loose) {
			return true
		}
	}
	return false
}
