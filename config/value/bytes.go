package value

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Bytes is a size, written "10GiB", "1MiB", "500KB" or as a plain number of bytes.
type Bytes int64

// unit is one unit of Bytes.
type unit struct {
	name string
	size int64
}

// units are the units of Bytes, in the order that String prefers them.
func units() []unit {
	return []unit{
		{"TiB", 1 << 40},
		{"GiB", 1 << 30},
		{"MiB", 1 << 20},
		{"KiB", 1 << 10},
		{"TB", 1e12},
		{"GB", 1e9},
		{"MB", 1e6},
		{"KB", 1e3},
		{"B", 1},
	}
}

// ParseBytes reads a size. It must be a whole number of bytes: "1.5KiB" is one.
func ParseBytes(text string) (Bytes, error) {
	at := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	number, suffix := text, "B"
	if at >= 0 {
		number, suffix = text[:at], strings.TrimSpace(text[at:])
	}
	if number == "" || len(number) > 32 {
		return 0, fmt.Errorf(`%q is not a size: write one such as "500KB", "1MiB" or "10GiB"`, text)
	}
	size, err := unitSize(number, suffix)
	if err != nil {
		return 0, err
	}
	n, ok := new(big.Rat).SetString(number)
	if !ok {
		return 0, fmt.Errorf(`%q is not a number: write a size such as "500KB", "1MiB" or "10GiB"`, number)
	}
	n.Mul(n, new(big.Rat).SetInt64(size))
	switch {
	case !n.IsInt():
		return 0, fmt.Errorf("%q is not a whole number of bytes", text)
	case !n.Num().IsInt64():
		return 0, fmt.Errorf("%q is too large: write at most %d bytes", text, int64(math.MaxInt64))
	}
	return Bytes(n.Num().Int64()), nil
}

func unitSize(number, suffix string) (int64, error) {
	for _, u := range units() {
		if u.name == suffix {
			return u.size, nil
		}
	}
	for _, u := range units() {
		if strings.EqualFold(u.name, suffix) {
			return 0, fmt.Errorf("%q is not a unit: write %q", suffix, number+u.name)
		}
	}
	for _, u := range units() {
		if len(u.name) == 3 && (strings.EqualFold(u.name[:1], suffix) || strings.EqualFold(u.name[:2], suffix)) {
			return 0, fmt.Errorf("%q is not a unit: write %q (1024s) or %q (1000s)", suffix, number+u.name, number+u.name[:1]+"B")
		}
	}
	return 0, fmt.Errorf("%q is not a unit: write B, KB, MB, GB, TB, KiB, MiB, GiB or TiB", suffix)
}

// String is the shortest exact form: "10GiB", "500KB", "1234B".
func (b Bytes) String() string {
	for _, u := range units() {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return "0"
}

// UnmarshalText reads what ParseBytes reads.
func (b *Bytes) UnmarshalText(text []byte) error {
	v, err := ParseBytes(string(text))
	if err == nil {
		*b = v
	}
	return err
}

// MarshalText is String.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }
