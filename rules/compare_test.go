//go:build unix

package rules

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// compareRounds is how many times each side is measured; the median counts.
const compareRounds = 7

// compareBuild is how many CPU-seconds event-ruler may take to add the rules,
// unless COMPARE_BUILD says another number.
const compareBuild = 600

// comparison is one column of the table, in events per CPU-second.
type comparison struct {
	rules                int
	ours, scan, theirs   float64 // theirs is 0 when it did not get to run
	built, theirBuilt    float64 // CPU-seconds to take in the rules
	matches, theirsMatch int
}

// TestCompareWithEventRuler prints the README's table: the workload of
// BenchmarkMatch on one core, the same events and rules on every side.
// testdata/ruler/compare.sh runs it.
func TestCompareWithEventRuler(t *testing.T) {
	if os.Getenv("SLUICE_COMPARE") == "" {
		t.Skip("testdata/ruler/compare.sh runs this; it takes minutes")
	}
	jars := fetchRuler(t)
	rows := [][]string{
		{"rules"}, {"---"}, {"Sluice, events per CPU-second"}, {"event-ruler, events per CPU-second"}, {"Sluice is faster by"},
		{"`gjson.ValidBytes`, events per CPU-second"}, {"Sluice as a share of that scan"}, {"matches per event"},
		{"Sluice, CPU-seconds to take in the rules"}, {"event-ruler, CPU-seconds to take in the rules"},
	}
	for _, size := range tableSizes {
		c := compare(t, jars, size.rules)
		theirs, faster, built := "-", "-", fmt.Sprintf("more than %.0f", c.theirBuilt)
		if c.theirs > 0 {
			theirs, faster, built = grouped(c.theirs), fmt.Sprintf("%.0f×", c.ours/c.theirs), fmt.Sprintf("%.2f", c.theirBuilt)
			if c.matches != c.theirsMatch {
				t.Errorf("%d rules: %d matches, event-ruler finds %d", c.rules, c.matches, c.theirsMatch)
			}
		}
		for i, cell := range []string{
			grouped(float64(c.rules)), "---:", grouped(c.ours), theirs, faster,
			grouped(c.scan), fmt.Sprintf("%.2f", c.ours/c.scan), fmt.Sprintf("%.1f", float64(c.matches)/compareEvents),
			fmt.Sprintf("%.2f", c.built), built,
		} {
			rows[i] = append(rows[i], cell)
		}
		t.Logf("%+v", c)
	}
	for _, row := range rows {
		fmt.Println("| " + strings.Join(row, " | ") + " |")
	}
}

const compareEvents = 512

func compare(t *testing.T, jars string, n int) comparison {
	w := newWorkload(n)
	patterns := w.patterns(n)
	events := make([][]byte, compareEvents)
	for i := range events {
		events[i] = w.event()
	}
	from := cpuTime()
	s := compile(t, parseRules(t, patterns))
	c := comparison{rules: n, built: (cpuTime() - from).Seconds()}
	hits := make([]int, 0, n)
	for _, e := range events {
		hits, _ = s.Match(e, hits[:0])
		c.matches += len(hits)
	}
	var ours, scan []float64
	for range compareRounds {
		scan = append(scan, eventsPerSecond(events, func(e []byte) { gjson.ValidBytes(e) }))
		ours = append(ours, eventsPerSecond(events, func(e []byte) { hits, _ = s.Match(e, hits[:0]) }))
	}
	c.ours, c.scan = median(ours), median(scan)
	c.benchRuler(t, jars, patterns, events)
	return c
}

// eventsPerSecond measures for at least a second of the CPU time of the process.
func eventsPerSecond(events [][]byte, do func([]byte)) float64 {
	from := cpuTime()
	for done := len(events); ; done += len(events) {
		for _, e := range events {
			do(e)
		}
		if took := cpuTime() - from; took >= time.Second {
			return float64(done) / took.Seconds()
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchRuler runs Bench.java.
func (c *comparison) benchRuler(t *testing.T, jars string, patterns, events [][]byte) {
	dir := t.TempDir()
	write := func(name string, lines [][]byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, append(bytes.Join(lines, []byte("\n")), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	limit := compareBuild
	if text := os.Getenv("COMPARE_BUILD"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	run := exec.CommandContext(t.Context(), "java", "-XX:+UseSerialGC", "-Xmx6g", "-cp", jars+"/*", "testdata/ruler/Bench.java",
		write("rules", patterns), write("events", events), strconv.Itoa(compareRounds), strconv.Itoa(limit))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	var numbers []float64
	for _, text := range strings.Fields(string(out)) {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	if numbers[0] < 0 {
		c.theirBuilt = float64(limit)
		t.Logf("event-ruler took in %.0f of %d rules in %d CPU-seconds", numbers[1], c.rules, limit)
		return
	}
	last := len(numbers) - 1
	c.theirBuilt, c.theirsMatch, c.theirs = numbers[0], int(numbers[last]), median(numbers[1:last])
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// grouped is a number of events with the digits that mean something: 1,230,000.
func grouped(f float64) string {
	n := int(f)
	for unit := 1; n/unit >= 1000; unit *= 10 {
		n = (n + unit*5) / (unit * 10) * unit * 10
	}
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
