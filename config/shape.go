package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	maxNesting  = 64      // levels, aliases followed
	maxAliased  = 100_000 // values that aliases add
	mergeTag    = "!!merge"
	nullTag     = "!!null"
	stringTag   = "!!str"
	boolTag     = "!!bool"
	intTag      = "!!int"
	floatTag    = "!!float"
	timeTag     = "!!timestamp"
	mapTag      = "!!map"
	sequenceTag = "!!seq"
)

// shape checks what every part of a document has to keep to, whatever it means:
// after it the tree can be walked without fear of cycles, of alias bombs and of
// keys that are no text.
type shape struct {
	file    string
	report  *report
	done    map[*yaml.Node]extent // anchored nodes that were measured
	open    map[*yaml.Node]bool   // anchored nodes that are being measured
	aliased int
	fatal   bool
}

// extent is how large a node is with its aliases followed.
type extent struct {
	nodes, levels int
}

// checkShape reports false when the tree must not be walked.
func checkShape(file string, root *yaml.Node, r *report) bool {
	s := shape{file: file, report: r, done: map[*yaml.Node]extent{}, open: map[*yaml.Node]bool{}}
	s.measure(root, "", 1)
	return !s.fatal
}

func (s *shape) stop(n *yaml.Node, path, format string, args ...any) extent {
	if !s.fatal {
		s.report.errorf(Pos{s.file, n.Line, n.Column}, path, format, args...)
	}
	s.fatal = true
	return extent{}
}

func (s *shape) measure(n *yaml.Node, path string, level int) extent {
	switch {
	case s.fatal:
		return extent{}
	case level > maxNesting:
		return s.stop(n, "", "is nested too deeply: %d levels are the most", maxNesting)
	case n.Kind == yaml.AliasNode:
		return s.alias(n, path, level)
	}
	if n.Anchor != "" {
		s.open[n] = true
		defer delete(s.open, n)
	}
	s.tag(n, path)
	size := extent{nodes: 1}
	grow := func(e extent) {
		size.nodes += e.nodes
		size.levels = max(size.levels, e.levels)
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for i, item := range n.Content {
			grow(s.measure(item, index(path, i), level+1))
		}
	case yaml.MappingNode:
		s.keys(n, path)
		for i := 0; i+1 < len(n.Content); i += 2 {
			placeNull(n.Content[i], n.Content[i+1])
			grow(s.measure(n.Content[i+1], join(path, n.Content[i].Value), level+1))
		}
	}
	size.levels++
	if n.Anchor != "" {
		s.done[n] = size
	}
	return size
}

// alias measures what an alias adds.
func (s *shape) alias(n *yaml.Node, path string, level int) extent {
	size, ok := s.done[n.Alias]
	switch {
	case s.open[n.Alias], !ok:
		return s.stop(n, path, "the alias *%s is part of what it stands for", n.Value)
	case level+size.levels-1 > maxNesting:
		return s.stop(n, path, "is nested too deeply: %d levels are the most", maxNesting)
	}
	if s.aliased += size.nodes; s.aliased > maxAliased {
		return s.stop(n, path, "the aliases stand for more than %d values: write fewer", maxAliased)
	}
	return size
}

// keys reports keys that are no text, keys that stand twice and merge keys.
func (s *shape) keys(n *yaml.Node, path string) {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		at := Pos{s.file, k.Line, k.Column}
		switch {
		case k.ShortTag() == mergeTag:
			s.report.errorf(at, join(path, k.Value), "merge keys are not supported: give the value of one key an anchor and write key: *anchor")
		case k.Kind != yaml.ScalarNode:
			s.report.errorf(at, path, "a key must be a text, this is %s", describe(k))
		case k.Value == "" && k.ShortTag() == nullTag:
			s.report.errorf(at, path, "a key is missing before the colon")
		case first[k.Value] != nil:
			s.report.errorf(at, join(path, k.Value), "stands twice, first in line %d", first[k.Value].Line)
		default:
			first[k.Value] = k
		}
	}
}

// tag reports tags that YAML itself does not have.
func (s *shape) tag(n *yaml.Node, path string) {
	switch n.ShortTag() {
	case nullTag, stringTag, boolTag, intTag, floatTag, timeTag, mapTag, sequenceTag:
	default:
		s.report.errorf(Pos{s.file, n.Line, n.Column}, path, "the tag %s is not supported: leave it out", n.ShortTag())
	}
}

// placeNull gives a value that is not there the place of its key: the parser puts
// it at the next thing it finds.
func placeNull(key, val *yaml.Node) {
	if val.Kind == yaml.ScalarNode && val.Value == "" && val.ShortTag() == nullTag {
		val.Line, val.Column = key.Line, key.Column
	}
}

// pair is one key of a mapping with its value.
type pair struct {
	key, val *yaml.Node
}

// pairs are the keys of a mapping in the order they stand, without those that
// checkShape has reported.
func pairs(n *yaml.Node) []pair {
	ps := make([]pair, 0, len(n.Content)/2)
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == mergeTag || seen[k.Value] {
			continue
		}
		seen[k.Value] = true
		ps = append(ps, pair{k, resolve(n.Content[i+1])})
	}
	return ps
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// describe says what a node is, in the words of the messages.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case intTag, floatTag:
		return "a number"
	case boolTag:
		return "a boolean"
	case nullTag:
		return "nothing"
	case timeTag:
		return "a date"
	}
	return "a text"
}

// join is the path of a key.
func join(path, key string) string {
	if key == "" || len(key) > 128 || strings.ContainsAny(key, " \t\r\n\"[]:") || !isPrintable(key) {
		if len(key) > 128 {
			key = key[:64] + "…"
		}
		return fmt.Sprintf("%s[%s]", path, strconv.Quote(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func isPrintable(s string) bool {
	for _, c := range s {
		if !strconv.IsPrint(c) {
			return false
		}
	}
	return true
}

// index is the path of an item of a list.
func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
