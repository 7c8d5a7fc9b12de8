package rules

import "math"

// numeric reads the operand of numeric: ["=", 5], [">", 1], [">=", 1, "<", 5].
func (p *parser) numeric() (condition, error) {
	if p.peek() != '[' {
		return condition{}, p.fail(`numeric takes an array like [">", 0, "<=", 5], found %s`, p.describe())
	}
	p.pos++
	c := condition{op: opRange, hi: math.MaxUint64}
	at := p.pos
	sign, key, err := p.bound()
	if err != nil {
		return c, err
	}
	switch sign {
	case "=":
		c.lo, c.hi = key, key
	case "<", "<=":
		c.hi = upperBound(sign, key)
	default:
		c.lo = lowerBound(sign, key)
	}
	more, err := p.more(']', "in numeric")
	if err != nil || !more {
		return c, err
	}
	if sign != ">" && sign != ">=" {
		return c, p.fail("only a lower bound can be followed by another: write the lower one first, for example [\">\", 0, \"<\", 5]")
	}
	p.peek()
	upperAt := p.pos
	upper, top, err := p.bound()
	if err != nil {
		return c, err
	}
	if upper != "<" && upper != "<=" {
		return c, p.failAt(upperAt, `after a lower bound comes "<" or "<=", found %q`, upper)
	}
	if key >= top {
		return c, p.failAt(at, `the lower bound is not below the upper bound; for one value use ["=", value]`)
	}
	c.hi = upperBound(upper, top)
	if more, err = p.more(']', "in numeric"); err == nil && more {
		return c, p.fail("numeric takes at most a lower and an upper bound")
	}
	return c, err
}

// bound reads a comparison sign and its number.
func (p *parser) bound() (string, uint64, error) {
	p.peek()
	at := p.pos
	sign, err := p.readString("as a comparison")
	if err != nil {
		return "", 0, err
	}
	switch sign {
	case "=", "<", "<=", ">", ">=":
	default:
		return "", 0, p.failAt(at, "numeric knows =, <, <=, > and >=, found %q", sign)
	}
	if err := p.expect(',', "after a comparison"); err != nil {
		return "", 0, err
	}
	if c := p.peek(); c != '-' && (c < '0' || c > '9') {
		return "", 0, p.fail("%q needs a number, found %s", sign, p.describe())
	}
	_, key, err := p.comparableNumber("numeric")
	return sign, key, err
}

func lowerBound(sign string, key uint64) uint64 {
	if sign == ">" {
		return key + 1
	}
	return key
}

func upperBound(sign string, key uint64) uint64 {
	if sign == "<" {
		return key - 1
	}
	return key
}
