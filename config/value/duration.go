package value

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written "250ms", "1m30s", "72h" or "7d". It is
// never negative.
type Duration time.Duration

const day = 24 * time.Hour

// ParseDuration reads a duration: Go's syntax, and days before the rest. A number
// without a unit is an error, except 0.
func ParseDuration(text string) (Duration, error) {
	if text == "" {
		return 0, errors.New(`is empty: write a duration such as "30s"`)
	}
	if text == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("%q has no unit: write %q, or another unit of ms, s, m, h, d", text, text+"s")
	}
	d, err := parseDays(text)
	if err != nil {
		return 0, err
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative: write a duration of 0 or more", text)
	}
	return Duration(d), nil
}

func parseDays(text string) (time.Duration, error) {
	bad := fmt.Errorf(`%q is not a duration: write one such as "250ms", "30s", "1h30m" or "7d"`, text)
	days, rest, found := strings.Cut(text, "d")
	if !found {
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, bad
		}
		return d, nil
	}
	n, err := strconv.ParseUint(days, 10, 63)
	if err != nil {
		return 0, bad
	}
	if n > math.MaxInt64/uint64(day) {
		return 0, fmt.Errorf("%q is too long: write at most 292 years, 106751d", text)
	}
	d := time.Duration(n) * day
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || more > math.MaxInt64-d || strings.HasPrefix(rest, "+") {
		return 0, bad
	}
	return d + more, nil
}

// String is the short form that ParseDuration reads: "1m30s", "7d".
func (d Duration) String() string {
	days, rest := time.Duration(d)/day, time.Duration(d)%day
	if d < 0 || days == 0 {
		return short(time.Duration(d))
	}
	if rest == 0 {
		return fmt.Sprintf("%dd", days)
	}
	return fmt.Sprintf("%dd%s", days, short(rest))
}

// short drops the zero units that time.Duration prints at the end.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := ParseDuration(string(text))
	if err == nil {
		*d = v
	}
	return err
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }
