package sources

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CronError is what is wrong with the expression of a schedule.
type CronError struct {
	Offset int    // where, in bytes from the beginning of the expression
	Field  string // such as hours; "" when it is about the whole
	Msg    string
}

func (e *CronError) Error() string {
	if e.Field == "" {
		return e.Msg
	}
	return fmt.Sprintf("%s (character %d): %s", e.Field, e.Offset+1, e.Msg)
}

// maxExpression is the longest expression that is read.
const maxExpression = 512

// word is a part of an expression with its place.
type word struct {
	text string
	at   int
}

// words are the parts of a text that stands at an offset.
func words(text string, at int) (all []word) {
	start := -1
	for i, r := range text {
		switch space := unicode.IsSpace(r); {
		case space && start >= 0:
			all, start = append(all, word{text[start:i], at + start}), -1
		case !space && start < 0:
			start = i
		}
	}
	if start >= 0 {
		all = append(all, word{text[start:], at + start})
	}
	return all
}

// cronParser reads the fields of one expression.
type cronParser struct {
	expr  cronExpr
	aws   bool
	field cronField
}

// parseCron reads the six fields of AWS, or else five fields, that stand at an
// offset.
func parseCron(text string, at int, aws bool) (*cronExpr, error) {
	p := cronParser{aws: aws}
	fields, parts := cronFields(aws), words(text, at)
	if err := countFields(parts, at, aws); err != nil {
		return nil, err
	}
	for i, part := range parts {
		p.field = fields[i]
		if err := p.read(i, part); err != nil {
			return nil, err
		}
	}
	dom, dow := parts[2], parts[4]
	switch {
	case !aws:
		// As in cron(8): a field that begins with a star restricts nothing by itself.
		p.expr.either = dom.text[0] != '*' && dow.text[0] != '*'
	case dom.text == "?" && dow.text == "?":
		return nil, &CronError{dow.at, p.field.name, "? stands for the day of the month and for the day of the week: write * for one of them"}
	case dom.text != "?" && dow.text != "?":
		return nil, &CronError{dow.at, fields[4].name,
			"the day of the month or the day of the week has to be ?, as in cron(0 2 * * ? *) for every day or cron(0 2 ? * MON-FRI *) for working days"}
	}
	return &p.expr, nil
}

func countFields(parts []word, at int, aws bool) error {
	fail := func(format string, args ...any) error {
		return &CronError{Offset: at, Msg: fmt.Sprintf(format, args...)}
	}
	switch n := len(parts); {
	case aws && n == 5:
		return fail("cron(...) has six fields, this has 5: add the year, as in cron(0 2 * * ? *), or leave cron( ) out for plain five-field cron")
	case aws && n != 6:
		return fail("cron(...) has six fields (minutes hours day-of-month month day-of-week year), this has %d: write one such as cron(0 2 * * ? *)", n)
	case !aws && n == 6:
		return fail("plain cron has five fields, this has 6: write cron(...) around the six fields of AWS, as in cron(0 2 * * ? *)")
	case !aws && n != 5:
		return fail("is no schedule: write cron(0 2 * * ? *), five fields such as 0 2 * * *, rate(5 minutes) or at(2026-12-31T23:59:00)")
	}
	return nil
}

// read reads one field, a list.
func (p *cronParser) read(i int, part word) error {
	if part.text == "?" && p.aws && (i == 2 || i == 4) {
		*p.plain(i) = ^uint64(0)
		return nil
	}
	at := part.at
	for item := range strings.SplitSeq(part.text, ",") {
		if err := p.item(i, word{item, at}); err != nil {
			return err
		}
		at += len(item) + 1
	}
	return nil
}

// plain is where the plain values of a field go; years have a place of their own.
func (p *cronParser) plain(i int) *uint64 {
	e := &p.expr
	return []*uint64{&e.minutes, &e.hours, &e.dom, &e.months, &e.dow}[i]
}

// fail is an error about an item of the field.
func (p *cronParser) fail(at int, format string, args ...any) error {
	return &CronError{at, p.field.name, fmt.Sprintf(format, args...)}
}

func (p *cronParser) item(i int, w word) error {
	switch upper := strings.ToUpper(w.text); {
	case i == 2 && strings.ContainsAny(upper, "LW"):
		return p.specialDay(word{upper, w.at})
	case i == 4 && (strings.Contains(upper, "#") || strings.HasSuffix(upper, "L")):
		return p.specialWeekday(word{upper, w.at})
	case strings.Contains(w.text, "?"):
		return p.fail(w.at, "? cannot stand here: write * for any")
	}
	low, high, step, err := p.span(w)
	if err != nil {
		return err
	}
	size := p.field.max - p.field.min + 1
	if low > high {
		high += size
	}
	for n := low; n <= high; n += step {
		v := p.field.min + (n-p.field.min)%size
		switch {
		case i == 5:
			if p.expr.years == nil {
				p.expr.years = make([]bool, cronLastYear-cronFirstYear+1)
			}
			p.expr.years[v-cronFirstYear] = true
		case i == 4 && p.aws:
			p.expr.dow |= 1 << (v - 1)
		case i == 4:
			p.expr.dow |= 1 << (v % 7)
		default:
			*p.plain(i) |= 1 << v
		}
	}
	return nil
}

// span reads *, n, n-m and any of them with a step.
func (p *cronParser) span(w word) (low, high, step int, err error) {
	base, every, stepped := strings.Cut(w.text, "/")
	from, to, ranged := strings.Cut(base, "-")
	low, high, step = p.field.min, p.field.max, 1
	if base != "*" {
		if low, err = p.value(word{from, w.at}); err != nil {
			return 0, 0, 0, err
		}
		switch {
		case ranged:
			high, err = p.value(word{to, w.at + len(from) + 1})
		case !stepped:
			high = low
		}
	}
	if err == nil && low > high {
		high, err = p.backwards(word{base, w.at}, high, stepped)
	}
	if err == nil && stepped {
		step, err = p.step(word{every, w.at + len(base) + 1})
	}
	return low, high, step, err
}

// backwards is the end of a range that is smaller than its beginning: AWS goes
// on over the end of the field, 22-2 are hours of a night.
func (p *cronParser) backwards(w word, high int, stepped bool) (int, error) {
	switch {
	case p.aws && p.field.max < cronFirstYear && !stepped:
		return high, nil
	case p.aws && p.field.max < cronFirstYear:
		return 0, p.fail(w.at, "%s goes over the end of the field, which cannot have a step: write two ranges with a comma", quoted(w.text))
	case high == 0 && p.field.max == 7: // FRI-SUN: Sunday is the end of the week too
		return 7, nil
	}
	return 0, p.fail(w.at, "%s runs backwards: write the smaller value first, or two ranges with a comma", quoted(w.text))
}

func (p *cronParser) step(w word) (int, error) {
	size := p.field.max - p.field.min + 1
	n, ok := (&cronField{}).number(w.text)
	switch {
	case !ok || n == 0:
		return 0, p.fail(w.at, "the step %s is not a number from 1 on: write one such as */5", quoted(w.text))
	case n >= size && size == 60:
		return 0, p.fail(w.at, "the step %d is beyond the hour, which has 60 minutes: rate(%d minutes) counts through", n, n)
	case n >= size:
		return 0, p.fail(w.at, "the step %d is larger than the field, which goes from %d to %d", n, p.field.min, p.field.max)
	}
	return n, nil
}

// value reads one value of the field.
func (p *cronParser) value(w word) (int, error) {
	n, ok := p.field.number(w.text)
	if !ok || n < p.field.min || n > p.field.max {
		hint := ""
		if p.field.name == "day of the week" && w.text == "0" {
			hint = ", Sunday is 1"
		}
		return 0, p.fail(w.at, "%s is not from %d to %d%s: write %s", quoted(w.text), p.field.min, p.field.max, hint, p.field.example)
	}
	return n, nil
}

// specialDay reads L, L-n, LW and nW.
func (p *cronParser) specialDay(w word) error {
	if !p.aws {
		return p.fail(w.at, "L and W are not part of five-field cron: write the six fields of AWS, as in cron(0 2 L * ? *)")
	}
	if w.text == "LW" {
		p.expr.lastWeekday = true
		return nil
	}
	if before, ok := strings.CutPrefix(w.text, "L"); ok {
		n := 0
		if text, minus := strings.CutPrefix(before, "-"); minus {
			if n, ok = (&cronField{}).number(text); !ok || n < 1 || n > 30 {
				return p.fail(w.at, "%s is not L-1 to L-30, days before the last of the month", quoted(w.text))
			}
		} else if before != "" {
			return p.fail(w.at, "%s is not understood: write %s", quoted(w.text), p.field.example)
		}
		p.expr.lastDays |= 1 << n
		return nil
	}
	n, ok := p.field.number(strings.TrimSuffix(w.text, "W"))
	if !ok || n < 1 || n > 31 || !strings.HasSuffix(w.text, "W") {
		return p.fail(w.at, "%s is not understood: write 1W to 31W for the working day next to a day, LW for the last one, or L for the last day", quoted(w.text))
	}
	p.expr.nearest |= 1 << n
	return nil
}

// specialWeekday reads L, dL and d#n.
func (p *cronParser) specialWeekday(w word) error {
	if !p.aws {
		return p.fail(w.at, "L and # are not part of five-field cron: write the six fields of AWS, as in cron(0 2 ? * 2#1 *)")
	}
	if w.text == "L" { // the last day of the week
		p.expr.dow |= 1 << 6
		return nil
	}
	if day, nth, ok := strings.Cut(w.text, "#"); ok {
		d, err := p.value(word{day, w.at})
		if err != nil {
			return err
		}
		n, ok := (&cronField{}).number(nth)
		if !ok || n < 1 || n > 5 {
			return p.fail(w.at+len(day)+1, "%s is not from 1 to 5: 2#1 is the first Monday of the month", quoted(nth))
		}
		p.expr.nth |= 1 << (n*7 + d - 1)
		return nil
	}
	d, err := p.value(word{strings.TrimSuffix(w.text, "L"), w.at})
	if err != nil {
		return err
	}
	p.expr.lastDow |= 1 << (d - 1)
	return nil
}

// quoted is a text in quotes, cut when it is long.
func quoted(s string) string {
	const most = 24
	if len(s) > most {
		n := most
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return fmt.Sprintf("%q", s)
}
