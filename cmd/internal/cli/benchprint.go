package cli

import (
	"fmt"
	"strings"

	"sluice/cmd/internal/bench"
)

// column is a column of the table of measures.
type column struct {
	head string
	cell func(*bench.Measure) string
}

// number prints n, and nothing for what was not measured.
func number(n float64, format string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, n)
}

func benchColumns() []column {
	latency := func(l bench.Latency) string {
		if l.Count == 0 {
			return ""
		}
		return fmt.Sprintf("%.2f / %.2f", l.P50, l.P99)
	}
	bytes := func(n int64) string {
		if n == 0 {
			return ""
		}
		return size(n)
	}
	return []column{
		{"LOAD", func(m *bench.Measure) string { return m.Load }},
		{"SYSTEM", func(m *bench.Measure) string { return m.System }},
		{"EVENTS/S", func(m *bench.Measure) string { return number(m.EventsPerSecond, "%.0f") }},
		{"DELIVERIES/S", func(m *bench.Measure) string { return number(m.DeliveriesPerSecond, "%.0f") }},
		{"ACK P50/P99 MS", func(m *bench.Measure) string { return latency(m.Ack) }},
		{"SINK P50/P99 MS", func(m *bench.Measure) string { return latency(m.Delivery) }},
		{"CPU S/1000", func(m *bench.Measure) string { return number(m.CPUPerThousand, "%.3f") }},
		{"BENCH CPU", func(m *bench.Measure) string { return number(m.BenchPerThousand, "%.3f") }},
		{"WRITES/EVENT", func(m *bench.Measure) string { return number(m.WritesPerEvent, "%.3f") }},
		{"PACKS/EVENT", func(m *bench.Measure) string { return number(m.AllWritesPerEvent, "%.3f") }},
		{"SAVES/EVENT", func(m *bench.Measure) string { return number(m.SavesPerEvent, "%.3f") }},
		{"EVENTS/PACK", func(m *bench.Measure) string { return number(m.RecordsPerPack, "%.1f") }},
		{"DEPTH", func(m *bench.Measure) string { return number(m.Depth, "%.0f") }},
		{"SPILLED/1000", func(m *bench.Measure) string { return number(m.SpilledPerThousand, "%.1f") }},
		{"IDLE", func(m *bench.Measure) string { return bytes(m.IdleBytes) }},
		{"IDLE OWN", func(m *bench.Measure) string { return bytes(m.IdleOwnBytes) }},
		{"PEAK", func(m *bench.Measure) string { return bytes(m.PeakBytes) }},
		{"READY S", func(m *bench.Measure) string { return number(m.ReadySeconds, "%.3f") }},
		{"ACCEPTED", func(m *bench.Measure) string { return number(float64(m.Accepted), "%.0f") }},
		{"REFUSED", func(m *bench.Measure) string { return number(float64(m.Refused), "%.0f") }},
		{"LOST", func(m *bench.Measure) string { return counted(m, m.Lost) }},
		{"DUPLICATES", func(m *bench.Measure) string { return counted(m, m.Duplicates) }},
	}
}

// counted prints a count of a measure whose events were all accounted for.
func counted(m *bench.Measure, n int64) string {
	if m.Accepted == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// printBench prints what one scenario came to: medians of the rounds. Columns
// without anything in them are left out.
func (e *env) printBench(r *bench.Report) error {
	s := r.Settings
	e.printf("%s  %s\n", e.paint(e.stdout).bold(r.Scenario), e.paint(e.stdout).dim(fmt.Sprintf(
		"%s of %v on %s, %s, %s, %s events, fsync before each 202",
		plural(s.Rounds, "round"), s.Duration, plural(r.Host.CPUs, "CPU"), r.Host.OS, r.Host.Go, size(int64(s.Size)))))
	measures := r.Summary()
	var heads []string
	rows := make([][]any, len(measures))
	for _, c := range benchColumns() {
		used := false
		cells := make([]string, len(measures))
		for i := range measures {
			cells[i] = c.cell(&measures[i])
			used = used || cells[i] != ""
		}
		if !used {
			continue
		}
		heads = append(heads, c.head)
		for i := range rows {
			rows[i] = append(rows[i], cells[i])
		}
	}
	t := newTable(heads...)
	for _, row := range rows {
		t.add(row...)
	}
	if err := t.print(e.stdout); err != nil {
		return err
	}
	for _, m := range measures {
		if m.Fault != "" {
			e.printf("%s %s: %s\n", m.Load, m.System, m.Fault)
		}
	}
	for _, note := range r.Notes {
		e.printf("%s\n", note)
	}
	return e.printComparisons(r)
}

func (e *env) printComparisons(r *bench.Report) error {
	if len(r.Comparisons) == 0 {
		e.printf("\n")
		return nil
	}
	e.printf("\n")
	t := newTable("LOAD", "WHAT", "COMPARED", "MEDIAN", "ROUNDS")
	for _, c := range r.Comparisons {
		format, compared := "%.2f", c.Of+" / "+c.To
		if c.Kind == bench.Difference {
			format, compared = "%+.2f ms", c.Of+" - "+c.To
		}
		rounds := make([]string, len(c.Rounds))
		for i, n := range c.Rounds {
			rounds[i] = fmt.Sprintf(strings.TrimSuffix(format, " ms"), n)
		}
		t.add(c.Load, c.What, compared, fmt.Sprintf(format, c.Median), strings.Join(rounds, " "))
	}
	if err := t.print(e.stdout); err != nil {
		return err
	}
	e.printf("\n")
	return nil
}
