package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// operatorNames is every operator a pattern may use.
const operatorNames = "anything-but, cidr, equals-ignore-case, exists, numeric, prefix, suffix, wildcard"

func isOperator(name string) bool {
	switch name {
	case "anything-but", "cidr", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard":
		return true
	}
	return false
}

// condition reads one element of a field's array.
func (p *parser) condition() (condition, error) {
	if p.conds++; p.conds > maxConditions {
		return condition{}, p.fail("more than %d values in one pattern: split it into several rules", maxConditions)
	}
	first := p.peek()
	start := p.pos
	c, err := p.value(first)
	if err != nil {
		return c, err
	}
	c.src = p.src[start:p.pos]
	return c, nil
}

func (p *parser) value(first byte) (condition, error) {
	switch {
	case first == '"':
		text, err := p.readString("")
		return textCondition(text), err
	case first == '-' || first >= '0' && first <= '9':
		text, err := p.readNumber()
		if err != nil {
			return condition{}, err
		}
		key, ok := numberKey(text)
		return condition{op: opNumber, text: text, lo: key, hi: key, comparable: ok}, nil
	case first == '{':
		return p.operator()
	case first == '[':
		return condition{}, p.fail("an array inside the array of values: list the values side by side")
	case p.readWord("true"):
		return condition{op: opTrue}, nil
	case p.readWord("false"):
		return condition{op: opFalse}, nil
	case p.readWord("null"):
		return condition{op: opNull}, nil
	}
	return condition{}, p.fail("expected a value or an operator, found %s", p.describe())
}

// textCondition is equality with a string. One that is an IP address equals
// every spelling of that address, as in the reference.
func textCondition(text string) condition {
	c := condition{op: opText, text: text}
	if a, ok := parseAddress(text); ok {
		c.block = newBlock(a, 32)
		if a.v6 {
			c.block = newBlock(a, 128)
		}
	}
	return c
}

// operator reads {"name": operand}.
func (p *parser) operator() (condition, error) {
	p.pos++
	p.peek()
	at := p.pos
	if p.peek() == '}' {
		return condition{}, p.fail("an empty operator: write a value, or one of %s", operatorNames)
	}
	name, err := p.readString("as an operator name")
	if err != nil {
		return condition{}, err
	}
	if !isOperator(name) {
		return condition{}, p.failAt(at, "there is no operator %q%s", name, suggestOperator(name))
	}
	if err := p.expect(':', "after an operator"); err != nil {
		return condition{}, err
	}
	c, err := p.operand(name)
	if err != nil {
		return condition{}, err
	}
	return c, p.closeOperator(name)
}

func (p *parser) closeOperator(name string) error {
	if p.peek() == ',' {
		return p.fail("only one operator in { }: after %q close it and put the next operator beside it (either may hold)", name)
	}
	return p.expect('}', "after the operand of "+name)
}

func (p *parser) operand(name string) (condition, error) {
	switch name {
	case "prefix":
		return p.foldable(name, opPrefix, opPrefixFold)
	case "suffix":
		return p.foldable(name, opSuffix, opSuffixFold)
	case "equals-ignore-case":
		return p.textOperand(name, opFold)
	case "wildcard":
		return p.textOperand(name, opGlob)
	case "cidr":
		return p.cidr()
	case "numeric":
		return p.numeric()
	case "exists":
		switch {
		case p.readWord("true"):
			return condition{op: opExists}, nil
		case p.readWord("false"):
			return condition{op: opAbsent}, nil
		}
		return condition{}, p.fail("exists takes true or false, found %s", p.describe())
	default:
		return p.anythingBut()
	}
}

// foldable reads the operand of prefix or suffix: a string, or
// {"equals-ignore-case": string}.
func (p *parser) foldable(name string, plain, folded op) (condition, error) {
	if p.peek() != '{' {
		return p.textOperand(name, plain)
	}
	p.pos++
	p.peek()
	at := p.pos
	inner, err := p.readString("as an operator name")
	if err != nil {
		return condition{}, err
	}
	if inner != "equals-ignore-case" {
		return condition{}, p.failAt(at, `inside %s only "equals-ignore-case" is allowed, found %q`, name, inner)
	}
	if err := p.expect(':', "after an operator"); err != nil {
		return condition{}, err
	}
	c, err := p.textOperand(inner, folded)
	if err != nil {
		return condition{}, err
	}
	return c, p.closeOperator(inner)
}

// textOperand reads a string operand of op o.
func (p *parser) textOperand(name string, o op) (condition, error) {
	p.peek()
	at := p.pos
	text, err := p.readString("as the operand of " + name)
	if err != nil {
		return condition{}, err
	}
	c := condition{op: o, text: text}
	if o == opGlob {
		if p.globs++; p.globs > maxGlobs {
			return c, p.failAt(at, "more than %d wildcards in one pattern: split it into several rules", maxGlobs)
		}
		if c.glob, err = parseGlob(text); err != nil {
			return c, p.failAt(at, "wildcard %s: %v", strconv.Quote(text), err)
		}
	}
	return c, nil
}

func (p *parser) cidr() (condition, error) {
	p.peek()
	at := p.pos
	text, err := p.readString("as the operand of cidr")
	if err != nil {
		return condition{}, err
	}
	addr, length, slash := strings.Cut(text, "/")
	if !slash {
		return condition{}, p.failAt(at, "cidr %q has no prefix length: write for example \"10.0.0.0/8\"", text)
	}
	a, ok := parseAddress(addr)
	if !ok {
		return condition{}, p.failAt(at, "cidr %q does not begin with an IP address", text)
	}
	limit := 32
	if a.v6 {
		limit = 128
	}
	bits, err := strconv.ParseUint(length, 10, 8)
	if err != nil || int(bits) > limit {
		return condition{}, p.failAt(at, "cidr %q: the prefix length is a number from 0 to %d", text, limit)
	}
	return condition{op: opCIDR, text: text, block: newBlock(a, int(bits))}, nil
}

// anythingBut reads a value, a list, or an operator with a value or a list.
func (p *parser) anythingBut() (condition, error) {
	c := condition{op: opNot}
	if p.peek() != '{' {
		not, err := p.oneOrMore(opText, "anything-but")
		c.not = not
		return c, err
	}
	p.pos++
	p.peek()
	at := p.pos
	inner, err := p.readString("as an operator name")
	if err != nil {
		return c, err
	}
	o := excludable(inner)
	if o == opText {
		return c, p.failAt(at, "inside anything-but only prefix, suffix, equals-ignore-case and wildcard are allowed, found %q", inner)
	}
	if err := p.expect(':', "after an operator"); err != nil {
		return c, err
	}
	if c.not, err = p.oneOrMore(o, inner); err != nil {
		return c, err
	}
	return c, p.closeOperator(inner)
}

// excludable gives the operator that anything-but may hold under this name,
// opText if there is none.
func excludable(name string) op {
	switch name {
	case "prefix":
		return opPrefix
	case "suffix":
		return opSuffix
	case "equals-ignore-case":
		return opFold
	case "wildcard":
		return opGlob
	}
	return opText
}

// oneOrMore reads an operand of anything-but or a list of them.
func (p *parser) oneOrMore(o op, name string) ([]condition, error) {
	if p.peek() != '[' {
		c, err := p.excluded(o, name)
		return []condition{c}, err
	}
	p.pos++
	if p.peek() == ']' {
		return nil, p.fail("an empty list for anything-but: name what is not wanted, or use {\"exists\": true}")
	}
	var list []condition
	for more := true; more; {
		p.peek()
		at := p.pos
		c, err := p.excluded(o, name)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
		if c.op != list[0].op {
			return nil, p.failAt(at, "the list of anything-but mixes strings and numbers: use one kind, or two rules")
		}
		if p.conds++; p.conds > maxConditions {
			return nil, p.fail("more than %d values in one pattern: split it into several rules", maxConditions)
		}
		if more, err = p.more(']', "in the list of anything-but"); err != nil {
			return nil, err
		}
	}
	return slices.Clip(list), nil
}

// excluded reads one thing that anything-but excludes.
func (p *parser) excluded(o op, name string) (condition, error) {
	first := p.peek()
	at := p.pos
	if o == opText && (first == '-' || first >= '0' && first <= '9') {
		text, key, err := p.comparableNumber("anything-but")
		return condition{op: opNumber, text: text, lo: key, hi: key, comparable: true}, err
	}
	if first != '"' {
		kinds := "strings"
		if o == opText {
			kinds = "strings and numbers"
		}
		return condition{}, p.fail("anything-but takes only %s here, found %s", kinds, p.describe())
	}
	c, err := p.textOperand(name, o)
	if err == nil && c.text == "" && (o == opPrefix || o == opSuffix) {
		return c, p.failAt(at, "every string has the empty %s: this excludes them all", name)
	}
	return c, err
}

// comparableNumber reads a number that has a place in the order of doubles.
func (p *parser) comparableNumber(user string) (string, uint64, error) {
	p.peek()
	at := p.pos
	text, err := p.readNumber()
	if err != nil {
		return "", 0, err
	}
	key, ok := numberKey(text)
	if !ok {
		return "", 0, p.failAt(at, "%s cannot use %.40s: it has more digits than a double keeps, or is out of its range", user, text)
	}
	return text, key, nil
}

// suggestOperator is what to add to "there is no operator x".
func suggestOperator(name string) string {
	known := strings.ToLower(strings.NewReplacer("_", "-", " ", "-").Replace(name))
	switch known {
	case "equals", "equal", "eq", "exactly", "is", "=", "==":
		return `: write the value itself, ["value"]`
	case "in", "any", "any-of", "one-of", "oneof":
		return `: list the values side by side, ["a", "b"]`
	case "contains", "like", "substring", "glob":
		return `: use {"wildcard": "*text*"}`
	case "regex", "regexp", "matches", "pattern":
		return ": there are no regular expressions, use wildcard, prefix or suffix"
	case ">", ">=", "<", "<=", "gt", "gte", "lt", "lte", "range", "between":
		return `: use {"numeric": [">=", 1, "<", 10]}`
	case "not", "!=", "ne", "not-in", "none-of", "anythingbut":
		return `: did you mean "anything-but"?`
	case "equalsignorecase", "ignore-case", "iequals":
		return `: did you mean "equals-ignore-case"?`
	}
	best, distance := "", 4
	for n := range strings.SplitSeq(operatorNames, ", ") {
		if d := editDistance(known, n); d < distance || d == distance && n < best {
			best, distance = n, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return "; there are " + operatorNames
}

// editDistance is the number of single-character edits between two words.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
