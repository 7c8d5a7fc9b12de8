package config

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entriesOf is what a file says, a line for each value, without how it says it.
// Tests are left out: they change nothing.
func entriesOf(root *yaml.Node) []string {
	var lines []string
	for _, p := range pairs(root) {
		if p.key.Value != "tests" {
			lines = appendEntries(lines, strconv.Quote(p.key.Value), p.val)
		}
	}
	return lines
}

func appendEntries(lines []string, path string, n *yaml.Node) []string {
	n = resolve(n)
	switch {
	case n.Kind == yaml.MappingNode && len(n.Content) > 0:
		for _, p := range pairs(n) {
			lines = appendEntries(lines, path+strconv.Quote(p.key.Value), p.val)
		}
	case n.Kind == yaml.SequenceNode && len(n.Content) > 0:
		for i, item := range n.Content {
			lines = appendEntries(lines, path+strconv.Itoa(i), item)
		}
	case n.Kind == yaml.ScalarNode && n.ShortTag() != nullTag:
		lines = append(lines, path+" "+n.ShortTag()+" "+strconv.Quote(n.Value))
	default:
		lines = append(lines, path+" empty")
	}
	return lines
}

// EntryVersion names what the config says of one source, sink or rule, in the manner
// of Version; "" for one that it does not have. section is sources, sinks or rules.
func (c *Config) EntryVersion(section, name string) string {
	prefix := strconv.Quote(section) + strconv.Quote(name)
	from, _ := slices.BinarySearch(c.entries, prefix)
	to := from
	for to < len(c.entries) && strings.HasPrefix(c.entries[to], prefix) {
		to++
	}
	if from == to {
		return ""
	}
	return version(slices.Clone(c.entries[from:to]))
}

// version sums up lines, which it sorts.
func version(lines []string) string {
	slices.Sort(lines)
	sum := sha256.New()
	for _, line := range lines {
		_, _ = io.WriteString(sum, line+"\n") // a hash always takes it
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}
