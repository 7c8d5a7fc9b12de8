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

// comparison is one column of the table, in events per CPU-second.
type comparison struct {
	rules               int
	ours, scan, theirs  float64
	matches, theirMatch int
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
	}
	for _, size := range tableSizes {
		c := compare(t, jars, size.rules)
		if c.matches != c.theirMatch {
			t.Errorf("%d rules: %d matches, event-ruler finds %d", c.rules, c.matches, c.theirMatch)
		}
		for i, cell := range []string{
			grouped(float64(c.rules)), "---:", grouped(c.ours), grouped(c.theirs), fmt.Sprintf("%.0f×", c.ours/c.theirs),
			grouped(c.scan), fmt.Sprintf("%.2f", c.ours/c.scan), fmt.Sprintf("%.1f", float64(c.matches)/compareEvents),
		} {
			rows[i] = append(rows[i], cell)
		}
		t.Logf("%d rules: ours %.0f, event-ruler %.0f, scan %.0f events/s", c.rules, c.ours, c.theirs, c.scan)
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
	s := compile(t, parseRules(t, patterns))
	c := comparison{rules: n}
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
	theirs, matches := benchRuler(t, jars, patterns, events)
	c.theirs, c.theirMatch = median(theirs), matches
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

// benchRuler runs Bench.java, which compiles event-ruler's code before it counts.
func benchRuler(t *testing.T, jars string, patterns, events [][]byte) (rounds []float64, matches int) {
	dir := t.TempDir()
	var files []string
	for name, lines := range map[string][][]byte{"1-rules": patterns, "2-events": events} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, append(bytes.Join(lines, []byte("\n")), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	slices.Sort(files)
	run := exec.CommandContext(t.Context(), "java", "-XX:+UseSerialGC", "-Xmx6g", "-cp", jars+"/*",
		"testdata/ruler/Bench.java", files[0], files[1], strconv.Itoa(compareRounds))
	run.Stderr = os.Stderr
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(out))
	for _, line := range lines[:len(lines)-1] {
		rate, err := strconv.ParseFloat(line, 64)
		if err != nil {
			t.Fatal(err)
		}
		rounds = append(rounds, rate)
	}
	if matches, err = strconv.Atoi(lines[len(lines)-1]); err != nil {
		t.Fatal(err)
	}
	return rounds, matches
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
