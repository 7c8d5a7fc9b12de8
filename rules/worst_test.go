package rules

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// worst is one input made to be slow.
type worst struct {
	name     string
	patterns []string
	doc      string
	hits     int  // how many rules match
	gives    bool // ErrTooComplex is an accepted answer
}

func repeat(n int, format string) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf(format, i)
	}
	return list
}

// reversedTokens holds every token of the wildcards, each before the ones that
// would have to come first.
func reversedTokens(n int) string {
	var b strings.Builder
	for i := n; i > 0; i-- {
		fmt.Fprintf(&b, "t%d.", i)
	}
	return b.String()
}

// manyGlobs is different wildcards with the same literals.
func manyGlobs(n int) []string {
	list := make([]string, n)
	for i := range list {
		letters := strings.NewReplacer("0", "a*", "1", "b*").Replace(fmt.Sprintf("%010b", i))
		list[i] = fmt.Sprintf(`{"f":[{"wildcard":"*%sab*"}]}`, letters)
	}
	return list
}

const mebibyte = 1 << 20

func worstCases() []worst {
	megabyte := strings.Repeat("a", mebibyte)
	object := func(n int, one string) string { return strings.Repeat(one+",", n-1) + one }
	numbers := strings.Join(repeat(150_000, "%d"), ",")
	orTen := strings.Join(repeat(10, `{"k%d":["v"]}`), ",")
	tenOrs := fmt.Sprintf(`{"$or":[%s]`, orTen)
	for range 9 {
		tenOrs = fmt.Sprintf(`{"x":{"$or":[%s]}, "data":%s}`, orTen, tenOrs+"}")
		tenOrs = strings.TrimSuffix(tenOrs, "}")
	}
	tenOrs += "}"
	return []worst{
		{"wildcards on one field", repeat(1000, `{"f":[{"wildcard":"*a*a*a*b%d*"}]}`), `{"f":"` + megabyte + `"}`, 0, false},
		{"wildcards all present, wrong order", repeat(1000, `{"f":[{"wildcard":"*t%d.*t1000.*"}]}`), `{"f":"` + reversedTokens(1000) + megabyte[:mebibyte-10_000] + `"}`, 0, false},
		{"wildcards that all match", repeat(1000, `{"f":[{"wildcard":"*a*a%d*a*"},{"wildcard":"*a*aa*a*a"}]}`), `{"f":"` + megabyte + `"}`, 1000, false},
		{"wildcards checked, not entered", repeat(1000, `{"t":["x"],"f":[{"wildcard":"*t%d.*t1000.*"}]}`), `{"t":"x","f":"` + reversedTokens(1000) + megabyte[:mebibyte-10_000] + `"}`, 0, false},
		{"wildcards on an array", repeat(1000, `{"f":[{"wildcard":"abc*d%d*"}]}`), `{"f":["` + strings.Join(repeat(70_000, `abcd%dd`), `","`) + `"]}`, 1000, false},
		{"wildcards of the same letters", manyGlobs(1000), `{"f":["` + strings.Join(repeat(70_000, `abcab%d`), `","`) + `"]}`, 0, true},
		{"nested literals in wildcards", repeat(200, `{"f":[{"wildcard":"*`+strings.Repeat("a", 20)+`*b%d"}]}`), `{"f":"` + megabyte + `"}`, 0, false},
		{"wildcards in anything-but", repeat(1000, `{"f":[{"anything-but":{"wildcard":"*a*a*a*b%d*"}}]}`), `{"f":"` + megabyte + `"}`, 1000, true},
		{"ranges on one field", repeat(1000, `{"f":[{"numeric":[">=",%d,"<=",1000000]}]}`), `{"f":[` + numbers + `]}`, 1000, false},
		{"ranges checked, not entered", repeat(1000, `{"t":["x"],"f":[{"numeric":[">",1e9,"<",1%[1]de9]}]}`), `{"t":"x","f":[` + numbers + `]}`, 0, true},
		{"anything-but rules", repeat(10_000, `{"f":[{"anything-but":["x%d"]}]}`), `{"f":"y"}`, 10_000, false},
		{"anything-but rules on an array", repeat(10_000, `{"f":[{"anything-but":{"prefix":"1%d"}}]}`), `{"f":[` + `"` + strings.Join(repeat(100_000, "1%d"), `","`) + `"]}`, 10_000, true},
		{"deep nesting", repeat(100, `{"a":{"a":{"a":["%d"]}}}`), strings.Repeat(`{"a":[`, 4999) + strings.Repeat(`]}`, 4999), 0, false},
		{"deep nesting skipped", repeat(100, `{"b":["%d"]}`), `{"a":` + strings.Repeat(`[`, 9990) + strings.Repeat(`]`, 9990) + `}`, 0, false},
		{"1 MiB of members", repeat(100, `{"k%d":["v"]}`), `{` + strings.Join(repeat(55_000, `"k%[1]d":"%[1]d"`), ",") + `}`, 0, false},
		{"1 MiB of digits", repeat(100, `{"a":[1%d]}`), `{"a":[` + object(500_000, "1") + `]}`, 0, false},
		{"1 MiB of two values", repeat(100, `{"a":[{"numeric":[">",1%d]}]}`), `{"a":[` + object(250_000, "1,2") + `]}`, 0, false},
		{"ten $or of ten", []string{tenOrs}, strings.Repeat(`{"x":{"k9":"v"},"data":`, 9) + `{"k9":"v"}` + strings.Repeat("}", 9), 1, false},
		{"array-consistent rules", repeat(100, `{"a":{"b":[{"numeric":[">=",%d]}],"c":[{"numeric":["<",0]}],"d":["x"]}}`), `{"a":[` + object(500, `{"b":1,"c":-1,"d":"y"},{"b":2000,"c":1,"d":"x"}`) + `]}`, 0, false},
		{"many array-consistent rules", repeat(2000, `{"a":{"b":[{"numeric":[">=",-%d]}],"c":[1]}}`), `{"a":[` + object(5000, `{"b":1,"c":0},{"c":1}`) + `]}`, 0, true},
		{"array-consistent $or", []string{`{"a":{"$or":[{"b":[1]},{"c":[1]}]},"x":{"$or":[{"b":[1]},{"c":[1]}]},"y":{"$or":[{"b":[1]},{"c":[1]}],"d":[{"exists":true}],"e":[{"exists":true}]}}`},
			`{"a":[` + object(200, `{"b":1},{"c":1}`) + `],"x":[` + object(200, `{"b":1},{"c":1}`) + `],"y":[` + object(200, `{"b":1,"d":1},{"c":1,"e":1}`) + `]}`, 0, false},
		{"duplicate arrays", []string{`{"a":{"b":[1],"c":[1],"d":[1],"e":[1],"f":[1]}}`}, `{` + object(300, `"a":[{"b":1},{"c":1},{"d":1},{"e":1},{"x":1}]`) + `}`, 0, true},
		{"one long key", repeat(10, `{"k%d":["v"]}`), `{"` + megabyte + `":"v"}`, 0, false},
		{"escapes only", repeat(10, `{"k%d":["v"]}`), `{"k1":"` + strings.Repeat(`\u0041`, mebibyte/6) + `"}`, 0, false},
		{"prefixes of prefixes", repeat(1000, `{"f":[{"prefix":"`+strings.Repeat("a", 50)+`%d"},{"suffix":"%[1]d`+strings.Repeat("a", 100)+`"}]}`), `{"f":["` + object(10_000, strings.Repeat("a", 100)+`","`+strings.Repeat("a", 90)) + `"]}`, 0, false},
		{"ignore case", repeat(1000, `{"f":[{"equals-ignore-case":"`+strings.Repeat("ß", 50)+`%d"}]}`), `{"f":"` + strings.Repeat("ß", mebibyte/2) + `"}`, 0, false},
		{"addresses", repeat(1000, `{"f":[{"cidr":"10.0.0.0/8"},{"cidr":"10.%d.0.0/31"}]}`)[:250], `{"f":[` + object(70_000, `"10.1.2.3"`) + `]}`, 250, false},
	}
}

// mostTime is what no match may take. The test allows a multiple of it, so that
// a busy machine does not fail it; BenchmarkWorst reports the real times.
const mostTime = 50 * time.Millisecond

func TestWorstCases(t *testing.T) { // not parallel: it measures
	for _, w := range worstCases() {
		s := compile(t, parseStrings(t, w.patterns))
		best := time.Hour
		var hits []int
		var err error
		for range rounds {
			from := time.Now()
			hits, err = s.Match([]byte(w.doc), hits[:0])
			best = min(best, time.Since(from))
		}
		if err != nil && !(w.gives && errors.Is(err, ErrTooComplex)) {
			t.Errorf("%s: %v", w.name, err)
		} else if err == nil && len(hits) != w.hits {
			t.Errorf("%s: %d rules match, want %d", w.name, len(hits), w.hits)
		}
		if best > mostTime*slowdown {
			t.Errorf("%s: %v, want at most %v", w.name, best, mostTime)
		}
		t.Logf("%-40s %8.2f ms  %v", w.name, best.Seconds()*1000, err)
	}
}

func parseStrings(tb testing.TB, patterns []string) []Rule {
	tb.Helper()
	list := make([][]byte, len(patterns))
	for i, p := range patterns {
		list[i] = []byte(p)
	}
	return parseRules(tb, list)
}

func BenchmarkWorst(b *testing.B) {
	for _, w := range worstCases() {
		b.Run(strings.ReplaceAll(w.name, " ", "_"), func(b *testing.B) {
			s := compile(b, parseStrings(b, w.patterns))
			doc := []byte(w.doc)
			var hits []int
			for b.Loop() {
				hits, _ = s.Match(doc, hits[:0])
			}
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/event")
		})
	}
}
