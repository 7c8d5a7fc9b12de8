//go:build race

package rules

// The race detector slows everything down and drops pooled scratches.
const (
	slowdown = 20
	racing   = true
)
