package rules

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// The workload of the README's table: CloudEvents of 969 bytes with 35
// leaves, and an ordinary mix of rules (40 % exact type and source, 20 % exact
// data, 15 % prefix, 5 % suffix, 10 % numeric range, 5 % anything-but, 5 %
// wildcard). Values are drawn from pools that grow with the rules, so that an
// event matches three or four of them at every size.

// workload makes events and rules from the same pools.
type workload struct {
	*rand.Rand
	rules int
}

func newWorkload(rules int) workload {
	return workload{rand.New(rand.NewPCG(7, uint64(rules))), rules}
}

// pool is how many different values a field has, when share of the rules ask
// for one of them and an event should match about want of those.
func (w workload) pool(share, want float64) int {
	return max(2, int(float64(w.rules)*share/want))
}

func (w workload) typeAndSource() (string, string) {
	n := w.IntN(w.pool(0.40, 1.2))
	return fmt.Sprintf("com.example.shop.%s.v%d", eventTypes[n%len(eventTypes)], n/len(eventTypes)%7),
		fmt.Sprintf("/regions/%s/services/checkout-%05d", regions[n%3], n)
}

var (
	eventTypes = [...]string{"order.created", "order.paid", "order.shipped", "order.cancelled", "cart.updated", "user.signup", "user.deleted", "invoice.sent", "object.created", "object.removed", "stock.low"}
	regions    = [...]string{"eu-west-1", "us-east-1", "ap-south-1"}
	extensions = [...]string{".jpg", ".png", ".pdf", ".json", ".csv", ".parquet"}
)

func (w workload) customer() string { return fmt.Sprintf("cust-%08d", w.IntN(w.pool(0.20, 0.7))*37) }
func (w workload) folder() string {
	return fmt.Sprintf("tenants/%05d/", w.IntN(w.pool(0.15, 0.6)))
}
func (w workload) ending() string {
	return fmt.Sprintf("-%04d%s", w.IntN(w.pool(0.05, 0.3)), extensions[w.IntN(len(extensions))])
}
func (w workload) token() string { return fmt.Sprintf("tok%05dx", w.IntN(w.pool(0.05, 0.3))) }

// event is one CloudEvent of exactly 969 bytes.
func (w workload) event() []byte {
	typ, source := w.typeAndSource()
	src := fmt.Sprintf(`{"specversion":"1.0","id":"%016x","type":"%s","source":"%s","subject":"orders/%08d","time":"2026-03-0%dT12:%02d:07.123Z","datacontenttype":"application/json","traceparent":"00-%016x%016x-%016x-01","partitionkey":"p%03d","data":{"customer":{"id":"%s","tier":"gold","country":"DE","verified":true},"order":{"id":%d,"total":%d.%02d,"currency":"EUR","items":[{"sku":"sku-%06d","qty":%d,"price":%d.5},{"sku":"sku-%06d","qty":1,"price":%d}],"discount":null},"key":"%simages/2026/img%s","size":%d,"note":"left at %s door","tags":["new","priority","web"],"geo":{"lat":%d.%04d,"lon":-%d.%04d},"client":{"ip":"10.%d.%d.%d","agent":"Mozilla/5.0 (X11; Linux)","mobile":false},"attempt":%d}}`,
		w.Uint64(), typ, source, w.IntN(1e8), 1+w.IntN(9), w.IntN(60), w.Uint64(), w.Uint64(), w.Uint64(), w.IntN(1000),
		w.customer(), w.IntN(1e9), w.IntN(1000), w.IntN(100), w.IntN(1e6), w.IntN(9), w.IntN(100), w.IntN(1e6), w.IntN(100),
		w.folder(), w.ending(), w.IntN(1_000_000), w.token(), w.IntN(90), w.IntN(10000), w.IntN(90), w.IntN(10000),
		w.IntN(256), w.IntN(256), w.IntN(256), w.IntN(5))
	const want = 969
	if len(src) > want {
		panic(fmt.Sprint("event of ", len(src), " bytes"))
	}
	pad := strings.Repeat("x", want-len(src))
	return []byte(strings.Replace(src, " door", pad+" door", 1))
}

// rule is one rule of the mix.
func (w workload) rule(i int) string {
	switch n := i % 20; {
	case n < 8:
		typ, source := w.typeAndSource()
		return fmt.Sprintf(`{"type":["%s"],"source":["%s"]}`, typ, source)
	case n < 12:
		return fmt.Sprintf(`{"data":{"customer":{"id":["%s"]}}}`, w.customer())
	case n < 15:
		return fmt.Sprintf(`{"data":{"key":[{"prefix":"%s"}]}}`, w.folder())
	case n < 16:
		return fmt.Sprintf(`{"data":{"key":[{"suffix":"%s"}]}}`, w.ending())
	case n < 18:
		width := max(1, 500_000/max(1, w.rules/10))
		lo := w.IntN(1_000_000)
		return fmt.Sprintf(`{"data":{"size":[{"numeric":[">=",%d,"<",%d]}]}}`, lo, lo+width)
	case n < 19:
		_, source := w.typeAndSource()
		return fmt.Sprintf(`{"source":["%s"],"data":{"customer":{"tier":[{"anything-but":["silver","bronze"]}]}}}`, source)
	default:
		return fmt.Sprintf(`{"data":{"note":[{"wildcard":"*%s*"}]}}`, w.token())
	}
}

func (w workload) patterns(n int) [][]byte {
	list := make([][]byte, n)
	for i := range list {
		list[i] = []byte(w.rule(i))
	}
	return list
}

func parseRules(tb testing.TB, patterns [][]byte) []Rule {
	tb.Helper()
	rs := make([]Rule, len(patterns))
	for i, src := range patterns {
		p, err := ParsePattern(src)
		if err != nil {
			tb.Fatal(err)
		}
		rs[i] = Rule{Name: fmt.Sprint("r", i), Pattern: p}
	}
	return rs
}

// tableSizes is the rules of the README's table, with the share of gjson's
// validity scan that each must reach.
var tableSizes = [...]struct {
	rules int
	goal  float64
}{{1, 0.80}, {100, 0.40}, {1_000, 0.35}, {10_000, 0.30}, {100_000, 0.20}}

// BenchmarkMatch reports events per second as a share of gjson.ValidBytes
// over the same events in the same run.
func BenchmarkMatch(b *testing.B) {
	for _, size := range tableSizes {
		b.Run(fmt.Sprint("rules=", size.rules), func(b *testing.B) {
			w := newWorkload(size.rules)
			s := compile(b, parseRules(b, w.patterns(size.rules)))
			events := make([][]byte, 512)
			for i := range events {
				events[i] = w.event()
			}
			report(b, events, s)
			b.ReportMetric(size.goal, "goal")
		})
	}
}

// BenchmarkMatchEvent is one event of the mix seen through an EventView.
func BenchmarkMatchEvent(b *testing.B) {
	w := newWorkload(10_000)
	s := compile(b, parseRules(b, w.patterns(10_000)))
	e := fakeEvent{isJSON: true}
	gjson.ParseBytes(w.event()).ForEach(func(k, v gjson.Result) bool {
		if k.Str == "data" {
			e.data = v.Raw
		} else {
			e.attributes = append(e.attributes, [3]string{k.Str, v.String()})
		}
		return true
	})
	var view EventView = &rawEvent{e, []byte(e.data)}
	hits := make([]int, 0, 64)
	b.ReportAllocs()
	const rounds = 200
	best := time.Hour
	for b.Loop() {
		from := time.Now()
		for range rounds {
			hits, _ = s.MatchEvent(view, hits[:0])
		}
		best = min(best, time.Since(from))
	}
	b.ReportMetric(float64(best.Nanoseconds())/rounds, "ns/event")
	b.ReportMetric(0, "ns/op")
}

// rawEvent is a fakeEvent whose data needs no conversion.
type rawEvent struct {
	fakeEvent
	raw []byte
}

func (e *rawEvent) Data() []byte { return e.raw }

// sharedRule is a rule of a mix that is harder on the choice of entries: every
// rule names one of a few types, most together with something broad.
func (w workload) sharedRule(i int) string {
	typ := fmt.Sprintf("com.example.shop.%s.v%d", eventTypes[w.IntN(len(eventTypes))], w.IntN(7))
	switch n := i % 20; {
	case n < 8:
		_, source := w.typeAndSource()
		return fmt.Sprintf(`{"type":["%s"],"source":["%s"]}`, typ, source)
	case n < 12:
		return fmt.Sprintf(`{"type":["%s"],"data":{"customer":{"id":["%s"],"verified":[true]}}}`, typ, w.customer())
	case n < 15:
		return fmt.Sprintf(`{"type":["%s"],"data":{"key":[{"prefix":"%s"}],"geo.lat":[{"numeric":[">",%d]}]}}`, typ, w.folder(), w.IntN(80))
	case n < 16:
		return fmt.Sprintf(`{"type":["%s"],"data":{"key":[{"suffix":"%s"}]}}`, typ, w.ending())
	case n < 18:
		lo := w.IntN(1_000_000)
		return fmt.Sprintf(`{"type":["%s"],"data":{"size":[{"numeric":[">=",%d,"<",%d]}]}}`, typ, lo, lo+max(1, 30_000_000/max(1, w.rules/10)))
	case n < 19:
		return fmt.Sprintf(`{"type":["%s"],"data":{"customer":{"id":[{"anything-but":["%s"]}],"country":["X%d"]}}}`, typ, w.customer(), w.IntN(300))
	default:
		return fmt.Sprintf(`{"type":["%s"],"data":{"note":[{"wildcard":"*%s*"}]}}`, typ, w.token())
	}
}

// BenchmarkMatchShared is BenchmarkMatch with rules that share their types.
func BenchmarkMatchShared(b *testing.B) {
	for _, size := range tableSizes[1:] {
		b.Run(fmt.Sprint("rules=", size.rules), func(b *testing.B) {
			w := newWorkload(size.rules)
			patterns := make([][]byte, size.rules)
			for i := range patterns {
				patterns[i] = []byte(w.sharedRule(i))
			}
			s := compile(b, parseRules(b, patterns))
			events := make([][]byte, 512)
			for i := range events {
				events[i] = w.event()
			}
			report(b, events, s)
		})
	}
}

// report runs the benchmark, one operation being all events once, and reports
// its share of the validity scan: the best time of each, which is what is left
// when nothing else was running.
func report(b *testing.B, events [][]byte, s *Set) {
	b.Helper()
	b.ReportAllocs()
	hits := make([]int, 0, len(s.rules))
	matched, done := 0, 0
	matching, valid := time.Hour, time.Hour
	for b.Loop() {
		from := time.Now()
		for _, e := range events {
			if !gjson.ValidBytes(e) {
				b.Fatal("invalid event")
			}
		}
		half := time.Now()
		for _, e := range events {
			hits, _ = s.Match(e, hits[:0])
			matched += len(hits)
		}
		valid = min(valid, half.Sub(from))
		matching = min(matching, time.Since(half))
		done += len(events)
	}
	b.ReportMetric(float64(matching.Nanoseconds())/float64(len(events)), "ns/event")
	b.ReportMetric(float64(matched)/float64(done), "matches/event")
	b.ReportMetric(valid.Seconds()/matching.Seconds(), "share")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAmend adds a rule to a hundred thousand and removes another.
func BenchmarkAmend(b *testing.B) {
	w := newWorkload(100_000)
	s := compile(b, parseRules(b, w.patterns(100_000)))
	add := parseRules(b, w.patterns(1))
	for b.Loop() {
		if _, err := s.Amend([]int{17}, add); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCompile parses and compiles a hundred thousand rules.
func BenchmarkCompile(b *testing.B) {
	w := newWorkload(100_000)
	patterns := w.patterns(100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var s *Set
	for b.Loop() {
		s = compile(b, parseRules(b, patterns))
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/1e6, "MB-allocated/op")
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
	runtime.KeepAlive(s)
}
