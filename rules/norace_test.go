//go:build !race

package rules

const (
	slowdown = 4
	racing   = false
)
