package rules

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generator makes random patterns and events over so few names and values
// that they often match, or nearly.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator {
	return generator{rand.New(rand.NewPCG(seed, 1))}
}

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g generator) name() string {
	return g.pick(`a`, `b`, `c`, `a`, `b`, `c`, `\u0061`, `a.b`, `b.c`, `d-e`, `longer_name`, ``, `ключ`)
}

func (g generator) text() string {
	return g.pick(`x`, `y`, `xy`, `xyx`, `yxy`, ``, `X`, `Y`, `xY`, `\u0078`, `straße`, `STRASSE`, `ı`, `I`, `K`, `k`, `ß`, `SS`, `ss`,
		`10.0.0.1`, `10.0.0.200`, `10.1.2.3`, `::1`, `0:0::1`, `fe80::1`, `::ffff:10.0.0.1`, `x*y`, `x\\y`, `\ud83d\ude00`, `\ud800`, `5`, `xyxyxyxyxyxyxyxy`)
}

func (g generator) number() string {
	return g.pick(`0`, `-0`, `1`, `1.0`, `10e-1`, `5`, `5.0`, `5e0`, `0.5e1`, `-5`, `3.25`, `100`, `1e2`, `9007199254740993`, `9007199254740992`,
		`1e400`, `0.1`, `0.30000000000000004`, `1234567890123456789`, `1e-400`, `2`, `3`, `4`)
}

func (g generator) sound() string {
	return g.pick(`0`, `1`, `2`, `5.0`, `-5`, `3.25`, `100`, `0.1`, `4e0`)
}

func (g generator) quote(s string) string { return `"` + s + `"` }

func (g generator) list(n int, one func() string) string {
	var parts []string
	for range 1 + g.IntN(n) {
		parts = append(parts, one())
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func (g generator) globText() string {
	return g.pick(`*`, `x*`, `*x`, `x*y`, `*x*`, `x*y*x`, `*y*x*`, `x\\*y`, `x\\\\y`, `xy`, ``, `xy*yx`, `*xyx*y`)
}

func (g generator) condition() string {
	text := func() string { return g.quote(g.text()) }
	switch g.IntN(24) {
	case 0, 1, 2, 3, 4, 5:
		return text()
	case 6, 7:
		return g.number()
	case 8:
		return g.pick("true", "false", "null")
	case 9:
		return `{"prefix":` + text() + `}`
	case 10:
		return `{"suffix":` + text() + `}`
	case 11:
		return `{"equals-ignore-case":` + text() + `}`
	case 12:
		return `{"prefix":{"equals-ignore-case":` + text() + `}}`
	case 13:
		return `{"suffix":{"equals-ignore-case":` + text() + `}}`
	case 14, 15:
		return `{"wildcard":` + g.quote(g.globText()) + `}`
	case 16:
		return `{"numeric":["` + g.pick("=", "<", "<=", ">", ">=") + `",` + g.sound() + `]}`
	case 17:
		return `{"numeric":["` + g.pick(">", ">=") + `",` + g.pick("0", "1", "-5") + `,"` + g.pick("<", "<=") + `",` + g.pick("2", "5", "1e2") + `]}`
	case 18:
		return `{"cidr":"` + g.pick("10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "::/0", "fe80::/10", "0.0.0.0/0", "::1/128", "10.0.0.128/25") + `"}`
	case 19, 20:
		return `{"exists":` + g.pick("true", "false") + `}`
	default:
		return `{"anything-but":` + g.excluded() + `}`
	}
}

func (g generator) excluded() string {
	text := func() string { return g.quote(g.text()) }
	full := func() string { return g.quote(g.pick(`x`, `y`, `xy`, `yx`)) }
	glob := func() string { return g.quote(g.globText()) }
	switch g.IntN(7) {
	case 0:
		return text()
	case 1:
		return g.sound()
	case 2:
		return g.list(4, text)
	case 3:
		return g.list(3, g.sound)
	case 4:
		return `{"` + g.pick("prefix", "suffix") + `":` + g.list(2, full) + `}`
	case 5:
		return `{"equals-ignore-case":` + text() + `}`
	default:
		return `{"wildcard":` + g.list(2, glob) + `}`
	}
}

// pattern gives a pattern that may have duplicate paths, which ParsePattern
// refuses; callers skip those.
func (g generator) pattern() string { return g.object(3, true) }

func (g generator) object(depth int, or bool) string {
	var parts []string
	used := map[string]bool{}
	for range 1 + g.IntN(3) {
		if or && depth > 0 && g.IntN(6) == 0 && !used["$or"] {
			used["$or"] = true
			branches := []string{g.object(depth-1, true), g.object(depth-1, true)}
			if g.IntN(3) == 0 {
				branches = append(branches, g.object(depth-1, true))
			}
			parts = append(parts, `"$or":[`+strings.Join(branches, ",")+`]`)
			continue
		}
		name := g.name()
		if name == `\u0061` {
			name = "a"
		}
		if used[name] {
			continue
		}
		used[name] = true
		if depth > 0 && g.IntN(2) == 0 {
			parts = append(parts, fmt.Sprintf(`"%s":%s`, name, g.object(depth-1, or)))
		} else {
			parts = append(parts, fmt.Sprintf(`"%s":%s`, name, g.list(3, g.condition)))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (g generator) event() string { return g.eventObject(4) }

func (g generator) eventObject(depth int) string {
	var parts []string
	for range g.IntN(5) {
		parts = append(parts, fmt.Sprintf(`"%s":%s%s`, g.name(), g.pick("", " ", "\n\t"), g.eventValue(depth-1)))
	}
	return g.pick("", " ") + "{" + strings.Join(parts, g.pick(",", " , ")) + "}"
}

func (g generator) eventValue(depth int) string {
	switch n := g.IntN(12); {
	case depth > 0 && n < 3:
		return g.eventObject(depth)
	case depth > 0 && n < 6:
		if g.IntN(8) == 0 {
			return "[]"
		}
		return g.list(4, func() string { return g.eventValue(depth - 1) })
	case n < 9:
		return g.quote(g.text())
	case n < 11:
		return g.number()
	}
	return g.pick("true", "false", "null")
}
