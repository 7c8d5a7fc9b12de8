package rules

import (
	"bytes"
	"slices"
)

// automaton finds all of many literals in one pass over a text
// (Aho-Corasick). States lie in breadth-first order, so the kids of a state
// are side by side; state 0 is the root.
type automaton struct {
	states []acState
	labels []byte // by state: the byte that leads to it
	root   [256]uint32
}

type acState struct {
	kids span
	fail uint32 // the longest proper suffix of this state that is a state
	hit  uint32 // literal that ends here, plus one
	next uint32 // nearest state along the fails where a literal ends, 0 if none
}

// newAutomaton builds the automaton for distinct, sorted, non-empty literals.
func newAutomaton(literals []string) *automaton {
	m := &automaton{states: make([]acState, 1), labels: make([]byte, 1)}
	type job struct{ lo, hi, depth int } // literals[lo:hi] share depth bytes
	jobs := []job{{0, len(literals), 0}}
	parents := []uint32{0}
	for at := 0; at < len(jobs); at++ {
		j := jobs[at]
		lo := j.lo
		var st acState
		if at > 0 && len(literals[lo]) == j.depth {
			st.hit = uint32(lo) + 1
			lo++
		}
		st.kids.off = uint32(len(jobs))
		for lo < j.hi {
			c, end := literals[lo][j.depth], lo+1
			for end < j.hi && literals[end][j.depth] == c {
				end++
			}
			jobs = append(jobs, job{lo, end, j.depth + 1})
			parents = append(parents, uint32(at))
			m.labels = append(m.labels, c)
			lo = end
		}
		st.kids.end = uint32(len(jobs))
		m.states = append(m.states[:at], st)
	}
	m.states = slices.Clip(m.states)
	for s := m.states[0].kids.off; s < m.states[0].kids.end; s++ {
		m.root[m.labels[s]] = s
	}
	for s := int(m.states[0].kids.end); s < len(m.states); s++ {
		st := &m.states[s]
		st.fail = m.step(m.states[parents[s]].fail, m.labels[s])
		if st.next = st.fail; m.states[st.fail].hit == 0 {
			st.next = m.states[st.fail].next
		}
	}
	return m
}

// step gives the state after byte c.
func (m *automaton) step(s uint32, c byte) uint32 {
	for s != 0 {
		st := &m.states[s]
		switch st.kids.end - st.kids.off {
		case 0:
		case 1:
			if m.labels[st.kids.off] == c {
				return st.kids.off
			}
		default:
			if i := bytes.IndexByte(m.labels[st.kids.off:st.kids.end], c); i >= 0 {
				return st.kids.off + uint32(i)
			}
		}
		s = st.fail
	}
	return m.root[c]
}
