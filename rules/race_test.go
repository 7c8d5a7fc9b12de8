//go:build race

package rules

// The race detector slows everything down and drops pooled scratches.
const (
	rounds   = 1 // of the worst cases
	slowdown = 60
	racing   = true
)
