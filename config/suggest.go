package config

import (
	"fmt"
	"strings"
)

// didYouMean is `, did you mean "x"?` when one of known is near to got, and ""
// otherwise.
func didYouMean(got string, known []string) string {
	if name := nearest(got, known); name != "" {
		return fmt.Sprintf(", did you mean %q?", name)
	}
	return ""
}

// maxSuggested is the longest name that is compared: distance takes the product
// of the lengths.
const maxSuggested = 64

// nearest is the one of known that got was most likely meant to be, or "".
func nearest(got string, known []string) string {
	if len(got) > maxSuggested {
		return ""
	}
	best, least := "", 1+max(1, min(3, len(got)/3))
	for _, name := range known {
		if name == got || abs(len(got)-len(name)) > least+3 {
			continue // the comparison takes its time
		}
		if d := distance(plain(got), plain(name)); d < least && d < len(name) {
			best, least = name, d
		}
	}
	return best
}

func abs(n int) int { return max(n, -n) }

// plain drops what people vary without thinking: case, hyphens, underscores.
func plain(name string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(name))
}

// distance is how many letters differ between a and b, two swapped letters
// counting once (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
