//go:build race

package rules

// The race detector slows everything down and drops pooled scratches.
const (
	slowdown = 60
	racing   = true
)
