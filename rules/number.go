package rules

import (
	"math"
	"strconv"
)

// maxDigits is the most significant decimal digits a number can have and
// still be the shortest form of a double.
const maxDigits = 17

// pow10 holds the powers of ten that a double represents exactly.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// numberKey maps a JSON number to a key that orders as the number does, so
// 5, 5.0 and 0.5e1 share one key and ranges are integer comparisons. It
// reports false for numbers that are not exactly the shortest form of a
// double (9007199254740993, 1e400): those equal only their own text.
func numberKey[T string | []byte](text T) (key uint64, ok bool) {
	d, ok := readDecimal(text)
	if !ok {
		return 0, false
	}
	if d.n == 0 {
		return orderedKey(0), true
	}
	e := d.point - d.n
	if d.beyond() {
		return 0, false
	}
	var f float64
	// Up to 15 digits always survive the way through a double, and with a
	// small exponent one multiplication of exact values rounds correctly.
	if d.n <= 15 && e >= -22 && e <= 22 {
		f = float64(d.mantissa())
		if e < 0 {
			f /= pow10[-e]
		} else {
			f *= pow10[e]
		}
	} else if f, ok = d.shortest(e); !ok {
		return 0, false
	}
	if d.neg {
		f = -f
	}
	return orderedKey(f), true
}

// orderedKey maps a double to an integer with the same order.
func orderedKey(f float64) uint64 {
	b := math.Float64bits(f)
	if b>>63 != 0 {
		return ^b
	}
	return b | 1<<63
}

// keyValue is the inverse of orderedKey.
func keyValue(k uint64) float64 {
	if k>>63 != 0 {
		return math.Float64frombits(k &^ (1 << 63))
	}
	return math.Float64frombits(^k)
}

// decimal is a number as 0.d1d2…dn × 10^point, without leading or trailing
// zeros in its digits.
type decimal struct {
	digits [maxDigits]byte
	n      int
	point  int
	neg    bool
}

// readDecimal takes a valid JSON number apart. It reports false when there
// are more significant digits than a shortest double can have.
func readDecimal[T string | []byte](text T) (d decimal, ok bool) {
	i, zeros := 0, 0 // zeros: not yet known to be trailing
	if len(text) > 0 && text[0] == '-' {
		d.neg = true
		i++
	}
	seenPoint := false
	for ; i < len(text); i++ {
		switch c := text[i]; c {
		case '.':
			seenPoint = true
			continue
		case 'e', 'E':
			d.point += readExponent(text[i+1:])
			return d, true
		case '0':
			if d.n > 0 {
				zeros++
			}
		default:
			if d.n+zeros >= maxDigits {
				return d, false
			}
			for ; zeros > 0; zeros-- {
				d.digits[d.n] = '0'
				d.n++
			}
			d.digits[d.n] = c
			d.n++
		}
		started := d.n > 0
		if started && !seenPoint {
			d.point++
		} else if !started && seenPoint {
			d.point--
		}
	}
	return d, true
}

// readExponent reads a JSON exponent, held far beyond anything a double has.
func readExponent[T string | []byte](text T) int {
	e, neg := 0, false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '-':
			neg = true
		case c != '+' && e < 1e8:
			e = e*10 + int(c-'0')
		}
	}
	if neg {
		return -e
	}
	return e
}

// beyond reports whether the number is outside the range of doubles. It is
// asked first because strconv allocates an error for such numbers.
func (d *decimal) beyond() bool {
	const largest = "17976931348623157" // × 10^292, has 309 digits
	return d.point > 309 || d.point < -323 || d.point == 309 && string(d.digits[:d.n]) > largest
}

func (d *decimal) mantissa() uint64 {
	var m uint64
	for _, c := range d.digits[:d.n] {
		m = m*10 + uint64(c-'0')
	}
	return m
}

// shortest gives the double nearest to the digits × 10^e and whether that
// double, written as shortly as possible, is this very number.
func (d *decimal) shortest(e int) (float64, bool) {
	var buf [40]byte
	b := append(buf[:0], d.digits[:d.n]...)
	b = append(b, 'e')
	b = strconv.AppendInt(b, int64(e), 10)
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || f == 0 || math.IsInf(f, 0) {
		return 0, false
	}
	back, ok := readDecimal(strconv.AppendFloat(buf[:0], f, 'e', -1, 64))
	same := ok && back.n == d.n && back.point == d.point &&
		string(back.digits[:back.n]) == string(d.digits[:d.n])
	return f, same
}
