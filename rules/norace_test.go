//go:build !race

package rules

const (
	rounds   = 5 // of the worst cases
	slowdown = 4
	racing   = false
)
