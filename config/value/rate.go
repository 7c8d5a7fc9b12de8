package value

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Rate is so many in a time, written "100/s", "6000/m", "10/h" or "1/10s". The zero
// value is no limit, written "unlimited".
type Rate struct {
	Count float64
	Per   time.Duration
}

const unlimited = "unlimited"

// ParseRate reads a rate.
func ParseRate(text string) (Rate, error) {
	if text == unlimited {
		return Rate{}, nil
	}
	number, per, found := strings.Cut(text, "/")
	count, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	switch {
	case err != nil || math.IsInf(count, 0) || math.IsNaN(count):
		return Rate{}, fmt.Errorf(`%q is not a rate: write one such as "100/s", "6000/m" or "10/h"`, text)
	case !found:
		return Rate{}, fmt.Errorf("%q has no time: write %q, or another of /s, /m, /h, /d", text, text+"/s")
	case count <= 0:
		return Rate{}, fmt.Errorf("%q lets nothing through: write a rate above 0, or %q", text, unlimited)
	}
	per = strings.TrimSpace(per)
	if per != "" && strings.Trim(per, "0123456789.") == per {
		per = "1" + per // "s" is "1s"
	}
	d, err := ParseDuration(per)
	if err != nil || d <= 0 {
		return Rate{}, fmt.Errorf("%q is not a rate: after the / write s, m, h, d or a duration such as 10s", text)
	}
	return Rate{Count: count, Per: time.Duration(d)}, nil
}

// Unlimited reports that there is no limit.
func (r Rate) Unlimited() bool { return r.Count == 0 || r.Per == 0 }

// PerSecond is how many that is in a second; 0 when there is no limit.
func (r Rate) PerSecond() float64 {
	if r.Unlimited() {
		return 0
	}
	return r.Count / r.Per.Seconds()
}

// String is the form that ParseRate reads.
func (r Rate) String() string {
	if r.Unlimited() {
		return unlimited
	}
	per := Duration(r.Per).String()
	if len(per) == 2 {
		per = strings.TrimPrefix(per, "1")
	}
	return strconv.FormatFloat(r.Count, 'f', -1, 64) + "/" + per
}

// UnmarshalText reads what ParseRate reads.
func (r *Rate) UnmarshalText(text []byte) error {
	v, err := ParseRate(string(text))
	if err == nil {
		*r = v
	}
	return err
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
