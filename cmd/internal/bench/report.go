package bench

import (
	"cmp"
	"slices"
	"time"
)

// Report is what one scenario came to.
type Report struct {
	Scenario    string       `json:"scenario"`
	Started     time.Time    `json:"started"`
	Host        Host         `json:"host"`
	Settings    Settings     `json:"settings"`
	Measures    []Measure    `json:"measures"`
	Comparisons []Comparison `json:"comparisons,omitempty"`
	Notes       []string     `json:"notes,omitempty"`
}

// Host is the machine that everything ran on.
type Host struct {
	CPUs int    `json:"cpus"`
	OS   string `json:"os"`
	Go   string `json:"go"`
}

// Latency is in milliseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// Measure is one system under one load. What was not measured is zero.
type Measure struct {
	Load   string `json:"load"`   // for instance 1→10
	System string `json:"system"` // sluice, or what it is compared with
	Round  int    `json:"round,omitempty"`

	Seconds             float64 `json:"seconds"`
	Events              int64   `json:"events"`     // accepted in that time
	Deliveries          int64   `json:"deliveries"` // received in that time
	EventsPerSecond     float64 `json:"events_per_second"`
	DeliveriesPerSecond float64 `json:"deliveries_per_second,omitempty"`
	Ack                 Latency `json:"ack"`      // from sending to the 202
	Delivery            Latency `json:"delivery"` // from sending to the arrival at a sink
	CPUPerThousand      float64 `json:"cpu_seconds_per_thousand"`
	BenchPerThousand    float64 `json:"bench_cpu_seconds_per_thousand"` // of generator and sinks
	PeakBytes           int64   `json:"peak_bytes"`
	IdleBytes           int64   `json:"idle_bytes,omitempty"`     // before the load
	IdleOwnBytes        int64   `json:"idle_own_bytes,omitempty"` // of those: all but the pages of files, such as the program's code
	WritesPerEvent      float64 `json:"log_writes_per_event,omitempty"`
	AllWritesPerEvent   float64 `json:"store_writes_per_event,omitempty"` // of all streams
	SavesPerEvent       float64 `json:"state_writes_per_event,omitempty"` // of what is settled: at most 20/s, so one for each of few events
	RecordsPerPack      float64 `json:"records_per_log_write,omitempty"`
	Depth               float64 `json:"depth,omitempty"`                // of a queue: the median of messages that wait
	SpilledPerThousand  float64 `json:"spilled_per_thousand,omitempty"` // deliveries that went through the backlog
	ReadySeconds        float64 `json:"ready_seconds,omitempty"`        // from the start of the process
	Accepted            int64   `json:"accepted"`                       // from the first event to the last
	Refused             int64   `json:"refused"`
	Lost                int64   `json:"lost"`
	Duplicates          int64   `json:"duplicates"`
	Late                int64   `json:"late,omitempty"` // requests that an open loop could not even queue
	Fault               string  `json:"fault,omitempty"`
}

// Comparison sets two systems under the same load side by side, round by round.
type Comparison struct {
	Load   string    `json:"load"`
	What   string    `json:"what"`
	Of     string    `json:"of"`
	To     string    `json:"to"`
	Kind   string    `json:"kind"` // Ratio or Difference
	Rounds []float64 `json:"rounds"`
	Median float64   `json:"median"`
}

// The kinds of Comparison.
const (
	Ratio      = "ratio"      // Of divided by To
	Difference = "difference" // Of less To, in milliseconds
)

// side is one side of a comparison: the measures of a system under a load.
type side struct{ load, system string }

// metric is a figure that measures are compared by.
type metric struct {
	name string
	kind string
	of   func(*Measure) float64
}

func deliveryRate() metric {
	return metric{"deliveries/s", Ratio, func(m *Measure) float64 { return m.DeliveriesPerSecond }}
}

func eventRate() metric {
	return metric{"events/s", Ratio, func(m *Measure) float64 { return m.EventsPerSecond }}
}

func cpuCost() metric {
	return metric{"CPU of the server", Ratio, func(m *Measure) float64 { return m.CPUPerThousand }}
}

// cpuBound is the rate that the two would have if nothing but CPU time limited
// server, generator and sinks. Other work on the machine moves it less than it
// moves the rates.
func cpuBound() metric {
	return metric{"rate by CPU time", Ratio, func(m *Measure) float64 {
		if total := m.CPUPerThousand + m.BenchPerThousand; total > 0 {
			return 1000 / total
		}
		return 0
	}}
}

func deliveryP50() metric {
	return metric{"p50 to the sink", Difference, func(m *Measure) float64 { return m.Delivery.P50 }}
}

func deliveryP99() metric {
	return metric{"p99 to the sink", Difference, func(m *Measure) float64 { return m.Delivery.P99 }}
}

// compare adds comparisons of two sides, when both were measured.
func (r *Report) compare(of, to side, metrics ...metric) {
	a, b := r.rounds(of), r.rounds(to)
	for _, m := range metrics {
		c := Comparison{Load: of.load, What: m.name, Of: of.system, To: to.system, Kind: m.kind}
		if of.load != to.load {
			c.To += " " + to.load
		}
		for i := range min(len(a), len(b)) {
			x, y := m.of(&a[i]), m.of(&b[i])
			switch {
			case m.kind == Difference:
				c.Rounds = append(c.Rounds, x-y)
			case y > 0:
				c.Rounds = append(c.Rounds, x/y)
			}
		}
		if len(c.Rounds) > 0 {
			c.Median = median(c.Rounds)
			r.Comparisons = append(r.Comparisons, c)
		}
	}
}

func (r *Report) rounds(s side) (out []Measure) {
	for _, m := range r.Measures {
		if m.Load == s.load && m.System == s.system {
			out = append(out, m)
		}
	}
	return out
}

// Summary has one measure for each system and load: medians of the rounds, and
// sums of what must not happen.
func (r *Report) Summary() []Measure {
	var seen []side
	var out []Measure
	for _, m := range r.Measures {
		if s := (side{m.Load, m.System}); !slices.Contains(seen, s) {
			seen = append(seen, s)
			out = append(out, summarize(r.rounds(s)))
		}
	}
	return out
}

func summarize(rounds []Measure) Measure {
	sum := Measure{Load: rounds[0].Load, System: rounds[0].System}
	mid := func(of func(*Measure) *float64) {
		*of(&sum) = median(collect(rounds, func(m *Measure) float64 { return *of(m) }))
	}
	for _, of := range []func(*Measure) *float64{
		func(m *Measure) *float64 { return &m.Seconds },
		func(m *Measure) *float64 { return &m.EventsPerSecond },
		func(m *Measure) *float64 { return &m.DeliveriesPerSecond },
		func(m *Measure) *float64 { return &m.Ack.P50 },
		func(m *Measure) *float64 { return &m.Ack.P99 },
		func(m *Measure) *float64 { return &m.Ack.Max },
		func(m *Measure) *float64 { return &m.Delivery.P50 },
		func(m *Measure) *float64 { return &m.Delivery.P99 },
		func(m *Measure) *float64 { return &m.Delivery.Max },
		func(m *Measure) *float64 { return &m.CPUPerThousand },
		func(m *Measure) *float64 { return &m.BenchPerThousand },
		func(m *Measure) *float64 { return &m.WritesPerEvent },
		func(m *Measure) *float64 { return &m.AllWritesPerEvent },
		func(m *Measure) *float64 { return &m.SavesPerEvent },
		func(m *Measure) *float64 { return &m.RecordsPerPack },
		func(m *Measure) *float64 { return &m.Depth },
		func(m *Measure) *float64 { return &m.SpilledPerThousand },
		func(m *Measure) *float64 { return &m.ReadySeconds },
	} {
		mid(of)
	}
	for i := range rounds {
		m := &rounds[i]
		sum.Events += m.Events
		sum.Deliveries += m.Deliveries
		sum.Ack.Count += m.Ack.Count
		sum.Delivery.Count += m.Delivery.Count
		sum.Accepted += m.Accepted
		sum.Refused += m.Refused
		sum.Lost += m.Lost
		sum.Duplicates += m.Duplicates
		sum.Late += m.Late
		sum.PeakBytes = max(sum.PeakBytes, m.PeakBytes)
		sum.IdleBytes = max(sum.IdleBytes, m.IdleBytes)
		sum.IdleOwnBytes = max(sum.IdleOwnBytes, m.IdleOwnBytes)
		sum.Fault = cmp.Or(sum.Fault, m.Fault)
	}
	return sum
}

func collect(all []Measure, of func(*Measure) float64) []float64 {
	out := make([]float64, len(all))
	for i := range all {
		out[i] = of(&all[i])
	}
	return out
}

// median is the middle value, or the mean of the two in the middle; 0 for none.
func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Lost is how many deliveries did not arrive, in all measures.
func (r *Report) Lost() (lost int64) {
	for i := range r.Measures {
		lost += r.Measures[i].Lost
	}
	return lost
}
