package dispatch

import (
	"fmt"
	"time"

	"sluice/config/value"
)

// Options are the delivery policy of one sink: what stands beside the kind in
// the config. Start from DefaultOptions.
type Options struct {
	Timeout      value.Duration `yaml:"timeout" doc:"How long one attempt may take, at most 15m; it may be up to a 32nd longer."`
	Concurrency  Concurrency    `yaml:"concurrency" doc:"How many attempts may run at the same time: a number, or auto to find out. Fewer run while the sink answers 429, and after an outage."`
	Rate         value.Rate     `yaml:"rate" doc:"How many attempts may start in a time, such as 100/s; unlimited when left out."`
	Retry        Retry          `yaml:"retry" doc:"When a failed delivery is tried again, and when it is given up."`
	OrderBy      string         `yaml:"order_by" doc:"Keeps the order of events with the same key: an attribute such as subject, or data. and a gjson path."`
	OnPoison     string         `yaml:"on_poison" enum:"block,dead_letter" doc:"What happens to an event of an ordered sink that is given up: dead_letter lets those behind it go on, block tries it for ever."`
	Batch        Batch          `yaml:"batch" doc:"Sends several events in one request, for kinds of sink that can. The far side has to know batches: some frameworks answer 2xx to what they do not understand. Events in its answer are not published."`
	SpillAfter   value.Duration `yaml:"spill_after" doc:"How long a delivery may wait or run before it gets a durable record of its own."`
	StartupGrace value.Duration `yaml:"startup_grace" doc:"How long after the first attempt a 404 still means that the function is starting."`
	Breaker      Breaker        `yaml:"breaker" doc:"When a failing sink is left alone, and how it is probed. A batch of which the far side took some events is no failure."`
	Replies      string         `yaml:"replies" enum:"publish,ignore" doc:"What becomes of events in the answer to a delivery: publish puts them onto the bus before the delivery counts as made. Those in the answer to a batch are left out."`
	OnSuccess    string         `yaml:"on_success" doc:"A sink that gets a report of each delivery that was made, with what was answered."`
	OnFailure    string         `yaml:"on_failure" doc:"A sink that gets a report of each delivery that becomes a dead letter."`
	Lease        value.Duration `yaml:"lease" doc:"The most time that the sink may take for a job that outlasts an attempt: it answers 202 with Sluice-Lease, and says later how that ended. Off when left out."`
	Verdicts     map[int]string `yaml:"verdicts" enum:"retry,permanent,delivered" doc:"What a status means here: retry, permanent or delivered. Overrides the default table."`
}

// Retry says when a failed delivery is tried again. A preset fills in what is
// not given; a schedule replaces the exponential delays.
type Retry struct {
	Preset      string           `yaml:"preset" enum:"default,eventbridge,fast,standard-webhooks,none" doc:"default, eventbridge, fast, standard-webhooks or none."`
	MaxAttempts int              `yaml:"max_attempts" doc:"How many attempts there are in all; 0 for as many as fit in max_age."`
	MaxAge      value.Duration   `yaml:"max_age" doc:"How long after it was accepted an event is still tried."`
	Initial     value.Duration   `yaml:"initial" doc:"The delay before the second attempt."`
	Max         value.Duration   `yaml:"max" doc:"The longest delay between two attempts."`
	Multiplier  float64          `yaml:"multiplier" doc:"How much longer each delay is than the one before."`
	Jitter      string           `yaml:"jitter" enum:"full,equal,none" doc:"full (anything up to the delay), equal (at least half of it) or none."`
	Budget      int              `yaml:"budget" doc:"How many retries there may be for each hundred first attempts; ten a second are always allowed. 20 when left out."`
	Schedule    []value.Duration `yaml:"schedule" doc:"The delays one by one; after the last the delivery is given up."`
}

// Breaker says when a sink that keeps failing is left alone. While it is open,
// deliveries wait in the backlog and one of them at a time is sent as a probe.
type Breaker struct {
	Failures   int            `yaml:"failures" doc:"So many failures in a row open the breaker; 0 never does."`
	ProbeAfter value.Duration `yaml:"probe_after" doc:"How long an open breaker waits before its first probe."`
	ProbeMax   value.Duration `yaml:"probe_max" doc:"The longest wait between two probes."`
}

// What OnPoison can be.
const (
	PoisonDies   = "dead_letter"
	PoisonBlocks = "block"
)

// budget is the retries for each hundred first attempts.
func (r Retry) budget() int {
	if r.Budget == 0 {
		return 20
	}
	return r.Budget
}

// maxBatch is the most events in one request.
const maxBatch = 10000

// maxLease is the longest lease there is.
const maxLease = 7 * 24 * time.Hour

// MaxTimeout is the longest attempt there is.
const MaxTimeout = 15 * time.Minute

// DefaultOptions are the options of a sink that says nothing about them.
func DefaultOptions() Options {
	return Options{
		Timeout:      value.Duration(30 * time.Second),
		OnPoison:     PoisonDies,
		Replies:      RepliesPublished,
		Concurrency:  32,
		SpillAfter:   value.Duration(time.Second),
		StartupGrace: value.Duration(time.Minute),
		Retry:        Retry{Preset: "default"},
		Breaker:      Breaker{Failures: 10, ProbeAfter: value.Duration(time.Second), ProbeMax: value.Duration(time.Minute)},
	}
}

// Validate finds what is wrong with the options as a whole.
func (o Options) Validate() value.Faults {
	var faults value.Faults
	if t := time.Duration(o.Timeout); t <= 0 || t > MaxTimeout {
		faults.Add("timeout", "must be more than 0 and at most %s, is %s", value.Duration(MaxTimeout), o.Timeout)
	}
	if o.Concurrency < 0 || o.Concurrency > maxConcurrency {
		faults.Add("concurrency", "must be auto or from 1 to %d, is %d", maxConcurrency, o.Concurrency)
	}
	if o.OnPoison != PoisonDies && o.OnPoison != PoisonBlocks {
		faults.Add("on_poison", "%q is not block or dead_letter", o.OnPoison)
	}
	if o.OnPoison == PoisonBlocks && o.OrderBy == "" {
		faults.Add("on_poison", "block needs order_by: without an order nothing waits behind an event")
	}
	if o.Lease < 0 || time.Duration(o.Lease) > maxLease {
		faults.Add("lease", "must be from 0 to %s, is %s", value.Duration(maxLease), o.Lease)
	}
	if o.Batch.on() && o.Lease > 0 {
		faults.Add("lease", "does not go with batch: a lease is of one event")
	}
	if o.Replies != RepliesPublished && o.Replies != RepliesIgnored {
		faults.Add("replies", "%q is not publish or ignore", o.Replies)
	}
	if o.Batch.on() && o.OnSuccess != "" {
		faults.Add("on_success", "does not go with batch: the answer to a batch is not that to one event")
	}
	if time.Duration(o.SpillAfter) < 10*time.Millisecond {
		faults.Add("spill_after", "must be at least 10ms, is %s", o.SpillAfter)
	}
	if o.Batch.Max < 0 || o.Batch.Max > maxBatch {
		faults.Add("batch.max", "must be from 1 to %d, is %d", maxBatch, o.Batch.Max)
	}
	if o.Batch.Max == 0 && (o.Batch.Bytes > 0 || o.Batch.Wait > 0) {
		faults.Add("batch.max", "is missing: without it there are no batches, and bytes and wait say nothing: write max, the most events in one request")
	}
	if o.Batch.Bytes < 0 || o.Batch.Wait < 0 || time.Duration(o.Batch.Wait) > time.Minute {
		faults.Add("batch.wait", "must be from 0 to 1m, and bytes not negative")
	}
	if o.StartupGrace < 0 {
		faults.Add("startup_grace", "must not be negative")
	}
	if o.Breaker.Failures < 0 {
		faults.Add("breaker.failures", "must not be negative")
	}
	if o.Breaker.Failures > 0 && o.Breaker.ProbeAfter <= 0 {
		faults.Add("breaker.probe_after", "must be more than 0")
	}
	if o.Breaker.ProbeMax < o.Breaker.ProbeAfter {
		faults.Add("breaker.probe_max", "must not be below probe_after (%s)", o.Breaker.ProbeAfter)
	}
	for status, verdict := range o.Verdicts {
		if status < 100 || status > 599 {
			faults.Add(fmt.Sprintf("verdicts.%d", status), "%d is not an HTTP status", status)
		}
		if _, ok := verdictNames[verdict]; !ok {
			faults.Add(fmt.Sprintf("verdicts.%d", status), "%q is not retry, permanent or delivered", verdict)
		}
	}
	return append(faults, o.Retry.validate().Under("retry")...)
}

func (r Retry) validate() value.Faults {
	var faults value.Faults
	if _, ok := presets[r.Preset]; !ok {
		faults.Add("preset", "%q is none of %s", r.Preset, presetNames())
	}
	if r.MaxAttempts < 0 {
		faults.Add("max_attempts", "must not be negative")
	}
	if r.Budget < 0 {
		faults.Add("budget", "must not be negative")
	}
	if r.Multiplier != 0 && r.Multiplier < 1 {
		faults.Add("multiplier", "must be at least 1")
	}
	if r.Initial < 0 || r.Max < 0 || r.MaxAge < 0 {
		faults.Add("initial", "delays and ages must not be negative")
	}
	if r.Initial > 0 && r.Max > 0 && r.Max < r.Initial {
		faults.Add("max", "must not be below initial (%s)", r.Initial)
	}
	switch r.Jitter {
	case "", "full", "equal", "none":
	default:
		faults.Add("jitter", "%q is not full, equal or none", r.Jitter)
	}
	for _, d := range r.Schedule {
		if d < 0 {
			faults.Add("schedule", "a delay must not be negative")
		}
	}
	return faults
}
