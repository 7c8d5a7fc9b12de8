package cli

import (
	"fmt"
	"strings"
	"time"

	"sluice/config/value"
)

// ago says how long before now t was, in one unit: "3m ago", or "never" for the
// zero time.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d < time.Second:
		return "just now"
	default:
		return span(d) + " ago"
	}
}

// span is a duration in the one unit that tells its size: "340ms", "12s", "3m",
// "5h", "2d".
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d <= 0:
		return "0s"
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// seconds is a duration of the API.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// size is a number of bytes to three digits: "1.2 GiB".
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), -1
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[unit])
}

// plural is "1 rule" or "3 rules".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// join is names in words; none says what to print for an empty list.
func join(names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	return strings.Join(names, ", ")
}

// when reads a point in time: RFC 3339, or how long before now. Empty text is the
// zero time.
func when(now time.Time, flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	d, err := value.ParseDuration(text)
	if err != nil {
		return time.Time{}, usagef("--%s %q is no time: write 2026-01-02T15:04:05Z, or 24h for a day back", flag, text)
	}
	return now.Add(-time.Duration(d)), nil
}

// stamp is a point in time to the millisecond.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
