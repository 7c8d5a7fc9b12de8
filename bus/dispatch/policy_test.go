package dispatch

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/config/value"
	"sluice/sinks"
)

func policyOf(change func(*Options)) Policy {
	o := DefaultOptions()
	o.Retry.Jitter = "none"
	if change != nil {
		change(&o)
	}
	return NewPolicy(o, func() float64 { panic("no jitter was asked for") })
}

func TestVerdictTable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		statuses []int
		want     Verdict
	}{
		{[]int{301, 302, 307, 308, 400, 405, 406, 413, 415, 422, 418, 501, 505}, Rejected},
		{[]int{401, 403, 404, 408, 409, 425, 429, 500, 502, 503, 504, 507, 520}, Again},
		{[]int{410}, Gone},
	} {
		for _, status := range c.statuses {
			if _, got := policyOf(nil).Next(1, nil, 0, 0, sinks.Answered(status, nil)); got != c.want {
				t.Errorf("%d: %v, want %v", status, got, c.want)
			}
		}
	}
	for _, err := range []error{errors.New("reset"), context.DeadlineExceeded, fmt.Errorf("dial: %w", errors.New("refused"))} {
		if _, got := policyOf(nil).Next(1, nil, 0, 0, err); got != Again {
			t.Errorf("%v: %v, want %v", err, got, Again)
		}
	}
	if _, got := policyOf(nil).Next(1, nil, 0, 0, fmt.Errorf("wrapped: %w", sinks.Permanent(errors.New("no")))); got != Rejected {
		t.Errorf("a wrapped permanent error: %v", got)
	}
	if _, got := policyOf(nil).Next(1, nil, 0, 0, nil); got != Delivered {
		t.Errorf("no error: %v", got)
	}
}

func TestVerdictsCanBeOverridden(t *testing.T) {
	t.Parallel()
	p := policyOf(func(o *Options) {
		o.Verdicts = map[int]string{500: "permanent", 400: "retry", 409: "delivered", 410: "retry"}
	})
	for status, want := range map[int]Verdict{500: Rejected, 400: Again, 409: Delivered, 410: Again, 502: Again} {
		if _, got := p.Next(1, nil, 0, 0, sinks.Answered(status, nil)); got != want {
			t.Errorf("%d: %v, want %v", status, got, want)
		}
	}
}

// delays lists what Next answers attempt after attempt, until it gives up.
func delays(p Policy, err error) (all []time.Duration, end Verdict) {
	var age time.Duration
	var past []Attempt
	var answer *sinks.Error
	errors.As(err, &answer)
	for n := 1; n < 1000; n++ {
		after, v := p.Next(n, past, age, age, err)
		if v != Again {
			return all, v
		}
		all = append(all, after)
		if answer != nil {
			past = append(past, Attempt{Status: answer.Status})
		}
		age += after
	}
	return all, Again
}

func TestDelays(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for _, c := range []struct {
		name   string
		change func(*Options)
		err    error
		want   string
		n      int
		end    Verdict
	}{
		{"default", nil, errors.New("x"), "[1s 2s 4s 8s 16s 32s 1m4s 2m8s 4m16s 8m32s 10m0s 10m0s]", 152, Expired},
		{"eventbridge", func(o *Options) { o.Retry.Preset = "eventbridge" }, errors.New("x"), "[1s 2s 4s 8s]", 152, Expired},
		{"fast", func(o *Options) { o.Retry.Preset = "fast" }, errors.New("x"), "[200ms 400ms 800ms 1.6s]", 4, AttemptsExhausted},
		{"none", func(o *Options) { o.Retry.Preset = "none" }, errors.New("x"), "[]", 0, AttemptsExhausted},
		{"standard-webhooks", func(o *Options) { o.Retry = Retry{Preset: "standard-webhooks"} }, errors.New("x"), "", 9, AttemptsExhausted},
		{"schedule", func(o *Options) { o.Retry.Schedule = []value.Duration{seconds(5), seconds(300)} }, errors.New("x"), "[5s 5m0s]", 2, AttemptsExhausted},
		{"401", nil, sinks.Answered(401, nil), "[10s 1m0s 5m0s]", 3, AttemptsExhausted},
		{"404 while it may be starting", nil, sinks.Answered(404, nil), "[1s 2s 4s 8s 16s 32s]", 6, Rejected},
		{"404 behind longer delays", func(o *Options) { o.Retry.Schedule = []value.Duration{seconds(59), seconds(300), seconds(1)} }, sinks.Answered(404, nil), "[59s 5m0s]", 2, Rejected},
		{"429 with Retry-After", nil, sinks.RetryAfter(sinks.Answered(429, nil), 90*s), "[1m30s 1m30s]", -1, Expired},
		{"a Retry-After of a year", nil, sinks.RetryAfter(sinks.Answered(503, nil), 365*24*time.Hour), "[1h0m0s]", 24, Expired},
		{"a wait by name", nil, sinks.NotBefore(sinks.Answered(503, nil), 3*time.Hour), "[3h0m0s]", 8, Expired},
		{"a wait by name, of a year", nil, sinks.NotBefore(sinks.Answered(503, nil), 365*24*time.Hour), "[12h0m0s]", 2, Expired},
		{"a short wait by name beside Retry-After", nil, sinks.NotBefore(sinks.RetryAfter(sinks.Answered(429, nil), 90*s), 2*s), "[1m30s]", -1, Expired},
		{"a long wait by name beside Retry-After", nil, sinks.RetryAfter(sinks.NotBefore(sinks.Answered(429, nil), 3*time.Hour), 2*time.Hour), "[3h0m0s]", 8, Expired},
		{"a wait by name within the delay", func(o *Options) { o.Retry.Initial = seconds(60) }, sinks.NotBefore(errors.New("x"), 2*s), "[1m0s 2m0s]", -1, Expired},
	} {
		p := policyOf(c.change)
		if c.name == "standard-webhooks" {
			p.Jitter = nil
			c.want = "[5s 5m0s 30m0s 2h0m0s 5h0m0s 10h0m0s 14h0m0s 20h0m0s 24h0m0s]"
		}
		all, end := delays(p, c.err)
		got := fmt.Sprint(all)
		if len(got) < len(c.want) || got[:len(c.want)-1] != c.want[:len(c.want)-1] {
			t.Errorf("%s: delays %s, want %s", c.name, got, c.want)
		}
		if end != c.end || c.n >= 0 && len(all) != c.n {
			t.Errorf("%s: %d delays and %v, want %d and %v", c.name, len(all), end, c.n, c.end)
		}
	}
}

// A function that answers 404 while it starts loses nothing, however the delays
// come out: the grace is of time, and not of attempts.
func TestStartupGraceGoesByTime(t *testing.T) {
	t.Parallel()
	const took = 50 * time.Millisecond
	for _, random := range []float64{0, 0.5, 0.999} {
		o := DefaultOptions()
		p := NewPolicy(o, func() float64 { return random })
		var now time.Duration // since the end of the first attempt
		var past []Attempt
		for n := 1; ; n++ {
			after, v := p.Next(n, past, now, now, sinks.Answered(404, nil))
			if (v == Again) != (now < time.Minute) {
				t.Errorf("random %v: attempt %d, %s after the first: %v", random, n, now, v)
			}
			if v != Again || now >= time.Minute {
				break
			}
			past = append(past, Attempt{Status: 404})
			now += after + took
		}
	}
}

// A wrong secret has its three more attempts whenever it turns up, and takes none from
// other failures.
func TestAuthFailuresAreCountedByThemselves(t *testing.T) {
	t.Parallel()
	scheduled := func(o *Options) { o.Retry.Schedule = []value.Duration{seconds(1), seconds(2), seconds(3)} }
	for _, c := range []struct {
		name     string
		change   func(*Options)
		statuses []int
		want     string
	}{
		{"late", nil, []int{503, 0, 503, 502, 401, 403, 401, 401}, "[1s 2s 4s 8s 10s 1m0s 5m0s attempts_exhausted]"},
		{"twice", nil, []int{401, 401, 401, 503, 401, 401, 401, 401}, "[10s 1m0s 5m0s 1s 10s 1m0s 5m0s attempts_exhausted]"},
		{"with a schedule", scheduled, []int{503, 503, 503, 401, 503}, "[1s 2s 3s 10s attempts_exhausted]"},
		{"before a schedule", scheduled, []int{401, 401, 401, 503, 503, 503, 503}, "[10s 1m0s 5m0s 1s 2s 3s attempts_exhausted]"},
		{"with max_attempts", func(o *Options) { o.Retry.MaxAttempts = 3 }, []int{503, 401, 401}, "[1s 10s attempts_exhausted]"},
	} {
		p, past, got := policyOf(c.change), []Attempt(nil), []any{}
		for i, status := range c.statuses {
			after, v := p.Next(i+1, past, 0, 0, sinks.Answered(status, nil))
			if past = append(past, Attempt{Status: status}); v == Again {
				got = append(got, after)
			} else {
				got = append(got, v)
			}
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}

func TestJitterStaysInItsBounds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   string
		random float64
		want   time.Duration
	}{
		{"full", 0, 0}, {"full", 0.5, time.Second / 2}, {"equal", 0, time.Second / 2}, {"equal", 0.999999999999, time.Second - 1},
	} {
		o := DefaultOptions()
		o.Retry.Jitter = c.kind
		p := NewPolicy(o, func() float64 { return c.random })
		if got, _ := p.Next(1, nil, 0, 0, errors.New("x")); got != c.want {
			t.Errorf("%s jitter of %v: %v, want %v", c.kind, c.random, got, c.want)
		}
	}
}

// The few attempts of the slow class come no sooner than they are announced, and
// not all of them in the same moment.
func TestJitterOfAuthFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   string
		random float64
		want   string
	}{
		{"full", 0, "[10s 1m0s 5m0s]"}, {"full", 0.5, "[10.5s 1m3s 5m15s]"}, {"full", 1, "[11s 1m6s 5m30s]"},
		{"equal", 0, "[10.5s 1m3s 5m15s]"}, {"none", 0, "[10s 1m0s 5m0s]"},
	} {
		o := DefaultOptions()
		o.Retry.Jitter = c.kind
		p := NewPolicy(o, func() float64 { return c.random })
		for _, status := range []int{401, 403} {
			all, end := delays(p, sinks.Answered(status, nil))
			if fmt.Sprint(all) != c.want || end != AttemptsExhausted {
				t.Errorf("%d with %s jitter of %v: %v and %v, want %s", status, c.kind, c.random, all, end, c.want)
			}
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	if faults := DefaultOptions().Validate(); len(faults) > 0 {
		t.Fatalf("the defaults are wrong: %v", faults)
	}
	o := Options{Retry: Retry{Preset: "slow", MaxAttempts: -1, Multiplier: 0.5, Initial: -1, Jitter: "some"}, Verdicts: map[int]string{42: "maybe"}}
	o.Breaker = Breaker{Failures: 3, ProbeAfter: 0, ProbeMax: -1}
	keys := map[string]bool{}
	for _, f := range o.Validate() {
		keys[f.Key] = true
	}
	for _, key := range []string{"timeout", "on_poison", "spill_after", "breaker.probe_after", "breaker.probe_max", "verdicts.42",
		"retry.preset", "retry.max_attempts", "retry.multiplier", "retry.initial", "retry.jitter"} {
		if !keys[key] {
			t.Errorf("no fault at %s", key)
		}
	}
}

// A batch that says how large it gets, but not that there is one, would be silently off.
func TestBatchNeedsMax(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		batch Batch
		want  int
	}{
		"none":          {Batch{}, 0},
		"max":           {Batch{Max: 10, Bytes: 1000, Wait: seconds(1)}, 0},
		"off":           {Batch{Max: 1, Wait: seconds(1)}, 0},
		"only bytes":    {Batch{Bytes: 1000}, 1},
		"only wait":     {Batch{Wait: seconds(1)}, 1},
		"wait too long": {Batch{Max: 10, Wait: seconds(61)}, 1},
	} {
		o := DefaultOptions()
		o.Batch = c.batch
		if faults := o.Validate(); len(faults) != c.want {
			t.Errorf("%s: %v", name, faults)
		}
	}
}
